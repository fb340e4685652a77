"""How good a run's final model is, beside what needs no model: from its releases only.

Each figure comes with an interval that holds chance and noise, with what of it is which, and is
missing where noise drowns it. Baselines stand in the same tables as the model: the majority
(everybody is given the mean chance), the single column that the model itself leans on most, and a
random order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from abfed.lab.views.frames import in_parts, marked
from abfed.learning.amounts import AMOUNT_MIDDLES, amounts
from abfed.learning.calibration import calibration, recalibration, reliability
from abfed.learning.evaluation import (
    AMOUNT_NODES,
    Estimate,
    ScoreHistogram,
    area_under_counts,
    area_under_curve,
    log_loss,
    majority_loss,
    pool,
    table_noise,
)
from abfed.learning.heads import Heads
from abfed.learning.shapes import FURTHER, HISTOGRAM, POLICY, REVENUE, SINGLE, UPLIFT, UPLIFT_SINGLE
from abfed.learning.uplift import Contrast, PolicyValue, Table, arm_weights, policy_value
from abfed.protocol.errors import WorkspaceError

if TYPE_CHECKING:
    from abfed.coordinator.inbox import Accepted
    from abfed.lab.runs import Run

MODEL_ROW, COLUMN_ROW, RANDOM_ROW, MAJORITY_ROW = (
    "model",
    "best single column",
    "random",
    "majority",
)

Floats = npt.NDArray[np.float64]
Released = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """The final model of a run, evaluated on recipients held out.

    Attributes:
        run: whose releases are read.
    """

    run: Run

    @classmethod
    def of(cls, run: Run) -> Evaluation:
        """The evaluation of a run that trained a model.

        Raises:
            WorkspaceError: it has none.
        """
        if not any("evaluate" in steps for steps in run.releases.values()):
            raise WorkspaceError(
                "the run has no model that was evaluated",
                where=run.name,
                do="give the plan a model, and ε for training and evaluation",
            )
        return cls(run)

    @functools.cached_property
    def scores(self) -> ScoreHistogram:
        """The final model's scores by outcome, pooled over silos."""
        return pool(
            ScoreHistogram.of_release(one.arrays[HISTOGRAM], one.release.noise)
            for one in self._final.values()
        )

    @functools.cached_property
    def outcome(self) -> pd.DataFrame:
        """How well the outcome is told: one row each for the model and for what needs none.

        Returns:
            scorer, auc and log_loss with their parts (`frames.in_parts`).
        """
        single = self._pooled(lambda _, one: self._table(one, SINGLE, np.ones(1)))
        rows = [
            (MODEL_ROW, area_under_curve(self.scores), log_loss(self.scores)),
            (MAJORITY_ROW, Estimate(0.5, 0.0, 0.0), majority_loss(self.scores)),
            (COLUMN_ROW, area_under_counts(single.counts, math.sqrt(single.noise.max())), None),
            (RANDOM_ROW, Estimate(0.5, 0.0, 0.0), None),
        ]
        return self._frame(
            [
                {"scorer": name} | in_parts("auc", area) | in_parts("log_loss", loss)
                for name, area, loss in rows
            ]
        )

    @functools.cached_property
    def calibration(self) -> pd.DataFrame:
        """What was predicted and what happened (with its parts), by bin of the score."""
        return self._frame(
            [one._asdict() | in_parts("observed", one.observed) for one in calibration(self.scores)]
        )

    @functools.cached_property
    def recalibration(self) -> tuple[float, float] | None:
        """Slope and shift of the logit that fit best; (1, 0) would be calibrated already."""
        return recalibration(self.scores)

    @functools.cached_property
    def recalibrated(self) -> pd.DataFrame:
        """Log-loss and reliability as trained, and with slope and shift that fit best.

        Reliability is the mean distance of what was predicted from what happened, by bin; beside it
        stands what chance alone, and chance and noise, would show of a model that is right. The two
        numbers are fitted to the same counts, to many people: they flatter little.

        Returns:
            scores, log_loss with its parts, reliability, reliability_by_chance,
            reliability_by_both; empty where noise drowns it.
        """
        names = ["reliability", "reliability_by_chance", "reliability_by_both"]
        if self.recalibration is None:
            return self._frame([], ["scores", "log_loss", *names])
        rows = []
        for name, fit in (("as trained", (1.0, 0.0)), ("recalibrated", self.recalibration)):
            loss = in_parts("log_loss", log_loss(self.scores, *fit))
            far = reliability(self.scores, *fit) or (math.nan,) * 3
            rows.append({"scores": name} | loss | dict(zip(names, far, strict=True)))
        return self._frame(rows)

    @functools.cached_property
    def further(self) -> pd.DataFrame:
        """How well further outcomes are told, and buying, beside the majority; revenue's bins.

        Returns:
            outcome, auc, log_loss and majority_log_loss with their parts; a row each.
        """
        heads = Heads.of(self.run.plan)
        names = [*heads.outcomes[1:], *(["revenue above 0"] if heads.bound else [])]
        rows: list[dict[str, Any]] = []
        for number, name in enumerate(names):
            scores = pool(
                ScoreHistogram.of_release(one.arrays[FURTHER][number], one.release.noise)
                for one in self._final.values()
            )
            rows.append(
                {"outcome": name}
                | in_parts("auc", area_under_curve(scores))
                | in_parts("log_loss", log_loss(scores))
                | in_parts("majority_log_loss", majority_loss(scores))
            )
        return self._frame(rows)

    @functools.cached_property
    def revenue(self) -> pd.DataFrame:
        """Revenue by bins of what was predicted: predicted up to, recipients, observed mean.

        The observed mean has its parts, and is missing where noise drowns the bin. Of releases of
        before it takes each recipient at the middle of their bin of revenue.
        """
        bound = Heads.of(self.run.plan).bound
        if not bound:
            return self._frame([])
        released = [one.arrays[REVENUE] for one in self._final.values()]
        variance = sum(table_noise(one.release.noise) ** 2 for one in self._final.values())
        counts = np.sum(released, axis=0).astype(np.float64)
        before = any(one.release.version < 5 for one in self._final.values())
        values = AMOUNT_MIDDLES if before else AMOUNT_NODES
        return self._frame(
            [
                one._asdict() | in_parts("observed", one.observed)
                for one in amounts(counts, variance, bound, values)
            ]
        )

    @functools.cached_property
    def uplift(self) -> pd.DataFrame:
        """How well each arm's effect is ranked, by the model and by what needs none.

        Returns:
            arm, scorer, effect, qini and auuc (outcomes a recipient), each with its parts.
        """
        rows: list[dict[str, Any]] = []
        for place, arm in enumerate(self._treated):
            for name, key in ((MODEL_ROW, UPLIFT), (COLUMN_ROW, UPLIFT_SINGLE)):
                gain = self._contrast(key, place).gain()
                parts = (gain.effect, gain.qini, gain.auuc) if gain else (None, None, None)
                figures = zip(("effect", "qini", "auuc"), parts, strict=True)
                rows.append({"arm": arm, "scorer": name})
                for figure, part in figures:
                    rows[-1] |= in_parts(figure, part)
            zero = Estimate(0.0, 0.0, 0.0)
            rows.append({"arm": arm, "scorer": RANDOM_ROW} | in_parts("qini", zero))
        return self._frame(rows)

    @functools.cached_property
    def deciles(self) -> pd.DataFrame:
        """Each arm's effect by tenths of the model's uplift: arm, decile, uplift with its parts."""
        rows = [
            {"arm": arm, "decile": one.decile} | in_parts("uplift", one.uplift)
            for place, arm in enumerate(self._treated)
            for one in self._contrast(UPLIFT, place).deciles()
        ]
        columns = ["arm", "decile", *in_parts("uplift", None)]
        return self._frame(rows, columns)

    @functools.cached_property
    def policy(self) -> pd.DataFrame:
        """What the model's recommendations are worth, against one arm for everybody.

        Returns:
            policy, value with its parts (outcomes a recipient), share of recipients it recommends
            the arm to, and gain: over the best single arm.
        """
        found = self._policy_value()
        columns = ["policy", *in_parts("value", None), "share", *in_parts("gain", None)]
        if found is None:
            return self._frame([], columns)
        rows: list[dict[str, Any]] = [
            {"policy": MODEL_ROW, "share": np.nan}
            | in_parts("value", found.value)
            | in_parts("gain", found.gain)
        ]
        for arm, value, share in zip(self.run.plan.arms, found.arms, found.shares, strict=True):
            best = " (best single arm)" if arm is self.run.plan.arms[found.best] else ""
            row = {"policy": f"{arm.name} for everybody{best}", "share": share}
            rows.append(row | in_parts("value", value) | in_parts("gain", None))
        return self._frame(rows)

    @property
    def _final(self) -> dict[str, Accepted]:
        """Evaluations by silo."""
        releases = self.run.releases.items()
        return {silo: steps["evaluate"] for silo, steps in releases if "evaluate" in steps}

    @property
    def _treated(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.run.plan.arms if not arm.control)

    def _contrast(self, key: str, place: int) -> Contrast:
        """One treated arm against the control, over all silos."""
        arms = [arm.name for arm in self.run.plan.arms]
        pair = (arms.index(self.run.plan.control.name), arms.index(self._treated[place]))
        return Contrast(
            self._pooled(
                lambda silo, one: self._table(
                    one, key, self._weights(silo, pair)[:, None, None], place
                )
            )
        )

    def _policy_value(self) -> PolicyValue | None:
        every = tuple(range(len(self.run.plan.arms)))
        return policy_value(
            self._pooled(
                lambda silo, one: self._table(one, POLICY, self._weights(silo, every)[:, None])
            )
        )

    def _pooled(self, table: Callable[[str, Accepted], Table]) -> Table:
        first, *others = (table(silo, one) for silo, one in self._final.items())
        return sum(others, start=first)

    def _weights(self, silo: str, arms: tuple[int, ...]) -> Floats:
        return arm_weights(self.run.counts(silo)[0], arms)

    def _table(self, one: Accepted, key: str, weights: Floats, place: int | None = None) -> Table:
        released: Released = one.arrays[key] if place is None else one.arrays[key][place]
        return Table.of(released, table_noise(one.release.noise), weights)

    def _frame(self, rows: list[dict[str, Any]], columns: list[str] | None = None) -> pd.DataFrame:
        return marked(pd.DataFrame(rows, columns=columns), self.run.source)
