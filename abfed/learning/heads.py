"""What a network's outputs stand for: the outcomes of a plan's model, and effects of arms.

1. A quantity is the logit of a yes-or-no outcome, or one of the two parts of revenue: the logit of
   buying, and the size of what is bought as a share of its public bound.
2. Where arms share one output (learner "s", and "t" without hidden layers) they are told apart by
   the columns that come in. Else each arm has an output of its own for each quantity, and a send
   trains only those of the arm that it got.
3. The X-learner (Künzel et al. 2019) adds two outputs for each treated arm: what the arm does to
   the chance of the outcome, once learnt from those who got it (their outcome less what the
   control's output says of them), once from the control (what the arm's output says, less their
   outcome). Both are learnt in the same steps, so they cost nothing more; what they are compared
   with is what the network says at that step. The two are averaged by the planned share of the arm.
4. All of that is known from the plan. Neither torch nor data is needed for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from abfed.protocol.plan import Plan

Floats = npt.NDArray[np.float64]

EFFECT_STEP = 0.125
"""An effect is this times its output, so that it learns as fast, and takes as little noise, as a
logit near which the sigmoid is as steep: steps of .125 around a chance of 15 %."""

SIZE_STEP = 0.25
"""The size of what is bought, as a share of its bound, is this times its output."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The outputs of a plan's network.

    Attributes:
        outcomes: yes-or-no outcomes; the first decides, and arms are recommended by it.
        arms: how many there are.
        control: place of the control.
        by_arm: whether each arm has outputs of its own.
        shares: of the arms, as planned, where effects have outputs of their own; else empty.
        bound: the largest revenue of a send, where revenue is learnt; else 0.
    """

    outcomes: tuple[str, ...] = ("outcome",)
    arms: int = 2
    control: int = 0
    by_arm: bool = False
    shares: tuple[float, ...] = ()
    bound: float = 0.0

    @classmethod
    def of(cls, plan: Plan) -> Heads:
        """The outputs that a plan declares; one where it has no model."""
        if (model := plan.model) is None:
            return cls()
        return cls(
            (model.outcome, *model.also),
            len(plan.arms),
            plan.arms.index(plan.control),
            model.learner == "x" or (model.learner == "t" and bool(model.hidden)),
            tuple(arm.share for arm in plan.arms) if model.learner == "x" else (),
            model.revenue.high if model.revenue is not None else 0.0,
        )

    @property
    def quantities(self) -> int:
        """Outcomes, and two for revenue."""
        return len(self.outcomes) + (2 if self.bound else 0)

    @property
    def outputs(self) -> int:
        """How many numbers the network gives a line."""
        effects = 2 * (self.arms - 1) if self.shares else 0
        return self.quantities * (self.arms if self.by_arm else 1) + effects

    @property
    def labels(self) -> int:
        """Columns of the labels: outcomes, revenue's share of its bound, the arm where needed."""
        return len(self.outcomes) + bool(self.bound) + self.by_arm

    @property
    def further(self) -> int:
        """Logits beside that of the first outcome: each is evaluated by a histogram of its own."""
        return len(self.outcomes) - 1 + bool(self.bound)

    @property
    def tables(self) -> int:
        """Tables of the evaluation that a recipient stands in beside those of the first outcome."""
        return self.further + bool(self.bound)

    @property
    def treated(self) -> tuple[int, ...]:
        """Places of all arms but the control."""
        return tuple(arm for arm in range(self.arms) if arm != self.control)

    def place(self, quantity: int, arm: int) -> int:
        """Which output says a quantity of somebody who gets an arm."""
        return quantity * self.arms + arm if self.by_arm else quantity

    def effect(self, treated: int, *, from_control: bool) -> int:
        """Which output says the effect of a treated arm (its place among those)."""
        first = self.quantities * self.arms
        return first + (self.arms - 1 if from_control else 0) + treated

    def own(self, scores: Floats, labels: npt.NDArray[np.float32], quantity: int = 0) -> Floats:
        """A quantity's output under the arm that each send got, `(rows,)`. Rows: sensitive."""
        if not self.by_arm:
            return scores[:, quantity]
        places = quantity * self.arms + labels[:, -1].astype(np.int64)
        return np.asarray(np.take_along_axis(scores, places[:, None], axis=1)[:, 0])

    def effects(self, scores: Floats) -> Floats:
        """What each treated arm adds to the chance of the outcome, `(rows, arms - 1)`.

        People of an arm tell more of it the fewer they are not: the effect learnt from the control
        weighs by the arm's share, the one learnt from the arm by the control's.
        """
        found = np.empty((len(scores), self.arms - 1))
        for place, arm in enumerate(self.treated):
            share = self.shares[arm] / (self.shares[arm] + self.shares[self.control])
            control = scores[:, self.effect(place, from_control=True)]
            treated = scores[:, self.effect(place, from_control=False)]
            found[:, place] = EFFECT_STEP * (share * control + (1 - share) * treated)
        return found


ONE_OUTPUT = Heads()
"""Those of a network that tells one outcome, with or without a plan."""


def column(labels: npt.NDArray[np.float32], number: int = 0) -> npt.NDArray[np.float32]:
    """One column of labels, which have no second dimension where there is one only."""
    return labels if labels.ndim == 1 else labels[:, number]
