"""How a send becomes one line of numbers, from the plan's declarations alone.

1. Nothing here is fitted: bounds, category lists and arms are public and stand in the plan, so the
   encoding tells nothing about anybody.
2. A declared feature gives columns in [-1, 1]: a number is scaled by its public bounds and clipped,
   missing is 0; a category is one-hot, unknown or missing is all zeros.
3. A line of the design matrix is, for the learner "s": features, arm one-hot, and for each arm but
   the control the features once more (arm × feature), so that a logistic model can already tell who
   reacts to what. For the learner "t" each arm has columns of its own, a constant and the features,
   and nothing is shared: as if there were one model for each arm, in one network. For the learner
   "x" a line is the features alone: its network has outputs for each arm (`abfed.learning.heads`).

Lines are made of compact features when they are needed: interactions are never stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from abfed.learning.heads import ONE_OUTPUT, Heads
from abfed.protocol.modelling import HashedText, Learner, SendTime
from abfed.protocol.plan import Plan
from abfed.protocol.schema import CategoryFeature, Feature, NumericFeature

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Design:
    """The columns of a plan's design matrix.

    Attributes:
        features: declared pre-send features, texts and the moment of sending.
        arms: names of the arms, in the plan's order: an arm's code is its place here.
        control: code of the control.
        learner: how arms share columns: "s", "t" or "x" (Künzel et al. 2019).
        heads: what the network's outputs stand for.

    Example:
        >>> age = NumericFeature(name="age", low=18.0, high=98.0)
        >>> Design((age,), ("plain", "new"), 0).column_names
        ('age', 'arm=plain', 'arm=new', 'arm=new × age')
    """

    features: tuple[Feature | HashedText | SendTime, ...]
    arms: tuple[str, ...]
    control: int
    learner: Learner = "s"
    heads: Heads = ONE_OUTPUT

    @classmethod
    def of(cls, plan: Plan) -> Design:
        """The design that a plan declares."""
        arms = tuple(arm.name for arm in plan.arms)
        control = arms.index(plan.control.name)
        if plan.model is None:
            return cls(plan.features, arms, control)
        own = (plan.model.send_time,) if plan.model.send_time is not None else ()
        features = (*plan.features, *plan.model.texts, *own)
        return cls(features, arms, control, plan.model.learner, Heads.of(plan))

    @property
    def feature_width(self) -> int:
        """Columns of the encoded features alone."""
        return sum(feature.width for feature in self.features)

    @property
    def width(self) -> int:
        """Columns of the design matrix: arms × (features + 1), or the features alone."""
        if self.learner == "x":
            return self.feature_width
        return len(self.arms) * (self.feature_width + 1)

    @property
    def treated(self) -> tuple[int, ...]:
        """Codes of the arms that have interactions: all but the control."""
        return tuple(code for code in range(len(self.arms)) if code != self.control)

    @property
    def numeric_columns(self) -> npt.NDArray[np.bool_]:
        """Which columns of the encoded features go from -1 to 1; the others are 0 or 1."""
        return np.concatenate(
            [
                np.full(one.width, isinstance(one, NumericFeature | SendTime))
                for one in self.features
            ]
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What each column of the encoded features is."""
        names: list[str] = []
        for feature in self.features:
            if isinstance(feature, CategoryFeature):
                names += [f"{feature.name}={value}" for value in feature.values]
            elif isinstance(feature, HashedText):
                names += [f"{feature.name}#{bucket}" for bucket in range(feature.buckets)]
            elif isinstance(feature, SendTime):
                names += ["hour (sine)", "hour (cosine)", "weekday (sine)", "weekday (cosine)"]
            else:
                names.append(feature.name)
        return tuple(names)

    @property
    def column_names(self) -> tuple[str, ...]:
        """What each column of the design matrix is."""
        names = self.feature_names
        if self.learner == "x":
            return names
        arms = [f"arm={arm}" for arm in self.arms]
        if self.learner == "t":
            return tuple(
                name for arm in arms for name in (arm, *(f"{arm} × {feature}" for feature in names))
            )
        crossed = [f"{arms[code]} × {name}" for code in self.treated for name in names]
        return (*names, *arms, *crossed)

    def expand(self, features: Floats, arms: npt.NDArray[np.integer[Any]]) -> Floats:
        """Lines of the design matrix.

        Args:
            features: encoded features, `(rows, feature_width)`. Rows: sensitive.
            arms: arm codes, `(rows,)`.

        Returns:
            `(rows, width)`. Rows: sensitive.
        """
        inner = self.feature_width
        if self.learner == "x":
            return features
        lines = np.zeros((len(features), self.width), dtype=np.float32)
        if self.learner == "t":
            for code in range(len(self.arms)):
                here, first = np.flatnonzero(arms == code), code * (inner + 1)
                lines[here, first] = 1.0
                lines[here, first + 1 : first + 1 + inner] = features[here]
            return lines
        lines[:, :inner] = features
        lines[np.arange(len(features)), inner + arms.astype(np.int64)] = 1.0
        start = inner + len(self.arms)
        for code in self.treated:
            here = np.flatnonzero(arms == code)
            lines[here, start : start + inner] = features[here]
            start += inner
        return lines

    def compact(
        self, lines: Floats, labels: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The encoded features and arm codes that lines of the design matrix were made of.

        Args:
            lines: `(rows, width)`. Rows: sensitive.
            labels: of the rows; for the learner "x" they tell the arm.

        Raises:
            ValueError: lines don't tell the arm, and there are no labels.

        Returns:
            Features `(rows, feature_width)` and arms `(rows,)`.
        """
        inner, count = self.feature_width, len(self.arms)
        if self.learner == "t":
            blocks = lines.reshape(len(lines), count, inner + 1)
            arms = blocks[:, :, 0].argmax(axis=1)
            return blocks[np.arange(len(lines)), arms, 1:], arms
        if self.learner == "x":
            if labels is None:
                message = "lines of an x-learner don't tell the arm"
                raise ValueError(message)
            return lines, labels[:, -1].astype(np.int64)
        return lines[:, :inner], lines[:, inner : inner + count].argmax(axis=1)


def encode_numeric(feature: NumericFeature, values: npt.NDArray[np.float64]) -> Floats:
    """Numbers scaled to [-1, 1] by their public bounds; NaN stands for missing.

    Rounded to 11 bits (IEEE 754 half precision), so that a cache on disk holds what memory does.

    Args:
        feature: the declaration.
        values: `(rows,)`. Rows: sensitive.

    Returns:
        `(rows, 1)`.
    """
    middle = feature.low / 2 + feature.high / 2
    half = feature.high / 2 - feature.low / 2  # halves first: bounds may be as far apart as floats
    scaled = np.clip((np.clip(values, feature.low, feature.high) - middle) / half, -1.0, 1.0)
    rounded = np.where(np.isnan(values), 0.0, scaled).astype(np.float16)
    return rounded.astype(np.float32)[:, None]


def encode_category(feature: CategoryFeature, codes: npt.NDArray[np.integer[Any]]) -> Floats:
    """Categories as one-hot lines.

    Args:
        feature: the declaration.
        codes: places in `feature.values`, `(rows,)`; negative for unknown or missing. Sensitive.

    Returns:
        `(rows, values)`.
    """
    lines = np.zeros((len(codes), feature.width), dtype=np.float32)
    known = np.flatnonzero(codes >= 0)
    lines[known, codes[known]] = 1.0
    return lines


@dataclass(frozen=True, slots=True, repr=False)
class RecipientRows:
    """Labelled sends, grouped by recipient. Rows: sensitive; has no `repr` that could show them.

    Attributes:
        design: how lines are made of them.
        features: encoded features, `(rows, feature_width)`.
        arms: arm codes, `(rows,)`.
        labels: 0 or 1, `(rows,)`; where there are several columns (`Heads.labels`), all of them,
            `(rows, columns)`, and NaN where an outcome other than the first isn't known.
        offsets: recipient i owns rows offsets[i] to offsets[i + 1], `(recipients + 1,)`.
    """

    design: Design
    features: Floats
    arms: npt.NDArray[np.int8]
    labels: Floats
    offsets: Integers

    @property
    def recipients(self) -> int:
        """How many recipients there are. Sensitive."""
        return len(self.offsets) - 1

    @property
    def rows(self) -> int:
        """How many rows they own together. Sensitive."""
        return len(self.labels)

    def blocks(self, size: int) -> Iterator[tuple[Floats, Floats]]:
        """All lines of the design matrix and their labels, about `size` rows at a time."""
        for start in range(0, len(self.labels), size):
            rows = slice(start, start + size)
            yield self.design.expand(self.features[rows], self.arms[rows]), self.labels[rows]

    def batch(self, chosen: Integers) -> tuple[Floats, Floats, Integers]:
        """All sends of some recipients.

        Args:
            chosen: places of recipients, ascending.

        Returns:
            Lines of the design matrix `(rows, width)`, labels `(rows,)`, and for each row the
            place of its recipient within `chosen`, ascending from 0.
        """
        starts, counts = self.offsets[chosen], self.offsets[chosen + 1] - self.offsets[chosen]
        owner = np.repeat(np.arange(len(chosen), dtype=np.int64), counts)
        before = np.cumsum(counts) - counts
        rows = np.arange(len(owner), dtype=np.int64) + (starts - before)[owner]
        lines = self.design.expand(self.features[rows], self.arms[rows])
        return lines, self.labels[rows], owner

    def by_size(self) -> tuple[RecipientRows, Integers]:
        """The same recipients sorted by their number of rows, and where each one was before.

        Returns:
            The rows, and for each recipient in the new order the old place, `(recipients,)`.
        """
        counts = np.diff(self.offsets)
        if (counts[1:] >= counts[:-1]).all():
            return self, np.arange(self.recipients, dtype=np.int64)
        order = np.argsort(counts, kind="stable").astype(np.int64)
        starts, counts = self.offsets[order], counts[order]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        moved = RecipientRows(
            self.design, self.features[rows], self.arms[rows], self.labels[rows], offsets
        )
        return moved, order
