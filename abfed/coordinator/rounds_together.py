"""Rounds of training whose noise is added once: one step down all brands' gradient (DP-FedSGD).

1. Each silo sums the clipped gradients of one Poisson batch in whole numbers, adds its share of the
   noise, and masks the sum (`silo.together`). Nobody sees one silo's gradient.
2. The opened sum is divided by the batch that is expected of those who answered: the plan's rate
   times their noised counts, which came before the totals. So every recipient counts the same.
3. The step goes down that gradient by the plan's learning rate, and the server's rule makes of it
   what it makes of any update. The same releases give the same model, bit for bit: a run that is
   gone on with makes it again from them, and keeps no checkpoint.
"""

from __future__ import annotations

import math

import numpy as np

from abfed.coordinator.aggregation import Aggregation, Parameters
from abfed.coordinator.together import Steps, open_sums
from abfed.coordinator.vault import model_digest
from abfed.learning.shapes import UNIT_BITS, initial_arrays, parameter_shapes
from abfed.protocol.errors import IntegrityError
from abfed.protocol.plan import Plan

COUNT_UNITS = 1 << 16
"""Units of one recipient in released counts (`abfed.stats.encoding.SCALE`)."""


class RoundsTogether:
    """The rounds of a plan, from its first model on.

    Args:
        plan: with a model and noise once.

    Attributes:
        model: after the rounds so far.
        numbers: of all rounds, as steps are named.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._aggregation = Aggregation(plan.schedule)
        self.model: Parameters = dict(initial_arrays(plan))
        self.numbers = tuple(f"{number:04d}" for number in range(1, plan.schedule.rounds + 1))

    def step(self, steps: Steps, number: str, *, expected: str = "") -> str:
        """Take one round's step.

        Args:
            steps: verified releases of its five steps, and of the counts.
            number: of the round.
            expected: digest of the model that came of it before, if it did.

        Returns:
            The digest of the model that comes of it.

        Raises:
            IntegrityError: the sum doesn't open, or it isn't the model that came of it before.
        """
        opened = open_sums(self._plan, steps, number)
        people = sum(max(0, int(opened.counts[silo].sum())) for silo in opened.answered)
        settings = self._plan.schedule
        trained = people / COUNT_UNITS * (1.0 - settings.holdout)
        batch = max(1.0, settings.sampling_rate * trained)
        unit = settings.clip * 2.0**-UNIT_BITS
        whole = opened.sums.astype(np.float64) * (-settings.learning_rate * unit / batch)
        self.model = self._aggregation.moved(self.model, _named(self._plan, whole), int(number))
        made = model_digest(self.model)
        if expected and made != expected:
            where = f"{self._plan.name}, train-{number}"
            raise IntegrityError("its releases don't give the journal's model", where=where)
        return made


def _named(plan: Plan, vector: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Parameters:
    """A vector over all parameters, by their names."""
    shapes = parameter_shapes(plan)
    sizes = [math.prod(shape.shape) for shape in shapes.values()]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(shape.shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
