"""Recipients: what a table of sends says of each of them, bounded. Rows in; sensitive.

A recipient's rows stand together (the store promises this order; it is checked). Outcomes are
summed over a recipient's sends, features are those of the first send. The plan's rule for clicks
without opens is applied before anything is counted.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import IntegrityError
from abfed.protocol.metrics import Count, Mean, Metric, Proportion, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.protocol.schema import DURATION_OUTCOMES, CategoryFeature, NumericFeature
from abfed.silo.rows import changes, flat, in_order, stored_words
from abfed.stats.adjusting import bounds_of
from abfed.stats.encoding import (
    Floats,
    Integers,
    encode_place,
    encode_products,
    encode_ratio,
    encode_share,
    encode_square,
)

Flags = npt.NDArray[np.bool_]

LARGEST_AMOUNT = 1e15
"""Of one send, in currency: keeps sums finite whatever a file held. Plans bound far below."""


class Recipients:
    """The recipients of one table.

    Args:
        table: sends, sorted by recipient; all rows of its recipients. Sensitive.
        plan: what is asked.

    Raises:
        IntegrityError: rows are not sorted by recipient, so that one could count twice.
    """

    def __init__(self, table: pa.Table, plan: Plan) -> None:
        self._table = table
        self._plan = plan
        self._starts = first_rows(table)
        self.many = len(self._starts)

    def arms(self, names: tuple[str, ...]) -> Integers:
        """The number of each recipient's arm; that behind the last for any other arm."""
        return self._places("arm", names)

    def simplex(self, metric: Metric) -> Integers:
        """A metric's simplex for each recipient."""
        if isinstance(metric, Proportion):
            return encode_share((self._sum(self._flags(metric.column)) > 0).astype(np.float64))
        if isinstance(metric, Quantile):
            return encode_place(self._bins(metric), len(metric.edges) + 1)
        if isinstance(metric, Ratio):
            return self._ratio(metric)
        low, high = bounds_of(metric)
        return encode_share((np.clip(self._total(metric), low, high) - low) / (high - low))

    def moments(self, metric: Metric, simplex: Integers) -> Integers:
        """Second moments of an encoded metric."""
        return encode_products(simplex) if isinstance(metric, Ratio) else encode_square(simplex)

    def share(self, feature: NumericFeature) -> Integers:
        """A numeric feature as a share of its bounds; missing is the middle."""
        values = self._numbers(feature.name)
        middle = (feature.low + feature.high) / 2
        known = np.where(np.isnan(values), middle, values)
        return encode_share((known - feature.low) / (feature.high - feature.low))

    def category(self, feature: CategoryFeature) -> Integers:
        """The number of a category; that behind the last for every other value."""
        return self._places(feature.name, feature.values)

    def band(self, feature: NumericFeature, edges: tuple[float, ...]) -> Integers:
        """Between which edges a numeric feature lies; behind the last band where unknown."""
        values = self._numbers(feature.name)
        bands = np.searchsorted(np.asarray(edges), values, side="right")
        return np.where(np.isnan(values), len(edges) + 1, bands).astype(np.int64)

    def orphans(self) -> Integers:
        """Whether a recipient has a click on a send that wasn't opened."""
        return encode_share((self._sum(self._orphaned) > 0).astype(np.float64))

    def _ratio(self, metric: Ratio) -> Integers:
        counted = np.ones(self._table.num_rows, dtype=np.bool_)
        if metric.denominator != "sends":
            counted = self._flags(metric.denominator)
        both = counted & self._flags(metric.numerator)
        return encode_ratio(self._sum(both), self._sum(counted), self._plan.sends_per_recipient)

    def _total(self, metric: Mean | Count) -> Floats:
        """Over a recipient's sends."""
        if metric.column == "sends":
            return self._sum(np.ones(self._table.num_rows, dtype=np.bool_)).astype(np.float64)
        if isinstance(metric, Count) or pa.types.is_boolean(self._table[metric.column].type):
            return self._sum(self._flags(metric.column)).astype(np.float64)
        return self._sum_amounts(metric.column)

    def _bins(self, metric: Quantile) -> Integers:
        """The bin of a recipient's total amount, or of the first time; the last if there's none."""
        edges = np.asarray(metric.edges)
        if metric.column not in DURATION_OUTCOMES:
            return np.searchsorted(edges, self._sum_amounts(metric.column), side="right")
        times = pc.fill_null(self._table[metric.column], np.inf).to_numpy()
        times = np.where(np.isnan(times), np.inf, times)
        return np.searchsorted(edges, np.minimum.reduceat(times, self._starts), side="right")

    def _flags(self, column: str) -> Flags:
        """A binary outcome of each send, by the plan's rule; unknown counts as not."""
        flags = self._stored(column)
        rule = self._plan.analysis.clicks_without_opens
        if rule == "open" and column == "opened":
            return flags | self._orphaned
        if rule == "ignore" and column == "clicked":
            return flags & ~self._orphaned
        return flags

    @functools.cached_property
    def _orphaned(self) -> Flags:
        """Sends with a click and no open."""
        return self._stored("clicked") & ~self._stored("opened")

    def _stored(self, column: str) -> Flags:
        filled = pc.fill_null(self._table[column], fill_value=False)
        return np.asarray(flat(filled).to_numpy(zero_copy_only=False), dtype=np.bool_)

    def _sum_amounts(self, column: str) -> Floats:
        """Sum of finite numbers over sends; unknown and not a number count as 0."""
        known = pc.fill_null(pc.cast(self._table[column], pa.float64()), 0.0).to_numpy()
        bounded = np.clip(np.nan_to_num(known, nan=0.0), -LARGEST_AMOUNT, LARGEST_AMOUNT)
        return bounded if self._single else np.add.reduceat(bounded, self._starts)

    def _sum(self, flags: Flags) -> Integers:
        counts = flags.astype(np.int64)
        return counts if self._single else np.add.reduceat(counts, self._starts)

    def _numbers(self, column: str) -> Floats:
        """A numeric feature of the first send; not a number where unknown."""
        filled = pc.fill_null(self._table[column], np.nan)
        values: Floats = np.asarray(filled.to_numpy(), dtype=np.float64)
        return values if self._single else np.asarray(values[self._starts])

    def _places(self, column: str, names: tuple[str, ...]) -> Integers:
        """Where the text of the first send stands among these; behind the last for any other."""
        texts = self._table[column]
        if not self._single:
            texts = texts.take(pa.array(self._starts))
        found = pc.index_in(texts, pa.array(names, pa.string()))
        return np.asarray(found.fill_null(len(names)).to_numpy(), dtype=np.int64)

    @property
    def _single(self) -> bool:
        """Everybody has one send: sums are the values themselves."""
        return bool(self.many == self._table.num_rows)


def first_rows(table: pa.Table) -> Integers:
    """Index of each recipient's first row.

    Raises:
        IntegrityError: rows are not sorted by recipient, so that one could count twice.
    """
    words = stored_words(flat(table["recipient"]))
    starts = np.flatnonzero(changes(words)).astype(np.int64)
    first, second = in_order(words[starts]).T
    rises = (first[1:] > first[:-1]) | ((first[1:] == first[:-1]) & (second[1:] > second[:-1]))
    if not rises.all():
        raise IntegrityError(
            "rows are not sorted by recipient",
            why="a recipient who counts twice isn't covered by the noise",
            do="report it: the store promises this order",
        )
    return starts
