"""Totals inside a silo: rows in, noised sums out.

Each recipient is bounded first (the store already dropped surplus sends; values are clipped by the
plan's public bounds, see `abfed.silo.recipients` and `abfed.stats.encoding`), then summed in whole
numbers, then noised. Only the noised sums leave this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from abfed.protocol.metrics import Metric
from abfed.protocol.plan import Plan
from abfed.protocol.schema import OUTCOMES, CategoryFeature, Feature, NumericFeature
from abfed.silo.permit import Computed, Permit
from abfed.silo.recipients import Recipients
from abfed.stats.adjusting import chosen, covariate_of
from abfed.stats.encoding import SCALE, Integers, encode_place, encode_square, encode_tensor
from abfed.stats.layout import BALANCE, ORPHANS, Block, Layout
from abfed.stats.once import weighed


def columns_needed(plan: Plan) -> tuple[str, ...]:
    """Outcomes and features that the plan's totals read: nothing else is fetched."""
    analysis = plan.analysis
    needed = {column for metric in plan.metrics for column in metric.columns()}
    needed |= set(analysis.outcome_columns())
    features = [segment.feature for segment in analysis.segments]
    features += analysis.balance
    adjustments = (chosen(plan, metric.name) for metric in plan.metrics)
    features += [one.covariate for one in adjustments if one is not None]
    return (*(name for name in OUTCOMES if name in needed), *dict.fromkeys(features))


def compute_totals(
    permit: Permit, tables: Iterable[pa.Table], weights: Integers | None = None
) -> Computed:
    """Sum over recipients and add noise.

    Args:
        permit: the right to compute; its charge is the noise.
        tables: rows of lawful recipients, sorted by recipient; each recipient's rows are all in one
            table and one arm. Sensitive.
        weights: by arm, of a plan with noise once: its share of noise is added then, which alone
            is not what was charged; such totals leave under masks only (`silo.together`).

    Returns:
        `totals`: int64 (arms, coordinates), in units of 1/`SCALE`, noised.

    Raises:
        IntegrityError: rows are not sorted by recipient.
    """
    layout = Layout.of(permit.plan)
    sums = np.zeros(layout.shape, dtype=np.int64)
    for table in tables:
        if table.num_rows:
            _add_table(sums, permit.plan, layout, table, weights)
    if permit.plan.privacy.unprotected:  # made-up people only: the gate's check 5
        return Computed(
            "totals", {"totals": sums}, {"noise_multiplier": 0.0, "scale": float(SCALE)}
        )
    sigma = permit.charge("gaussian").noise_multiplier
    own = sigma if weights is None else permit.share
    for block in layout.blocks:
        part = np.ascontiguousarray(sums[:, block.columns])
        sums[:, block.columns] = permit.noise.integers(part, own * block.sd * SCALE)
    said = {"noise_multiplier": sigma, "scale": float(SCALE)}
    if weights is None:
        return Computed("totals", {"totals": sums}, said)
    return Computed("totals", {"masked": sums}, said | {"share": own})  # not masked yet


def _add_table(
    sums: Integers, plan: Plan, layout: Layout, table: pa.Table, weights: Integers | None
) -> None:
    """Add one table's recipients to the sums, in place."""
    people = Recipients(table, plan)
    arms = people.arms(layout.arms)
    many = len(layout.arms)  # whoever is in none of them is numbered so, and counts nowhere
    cells = {one.name: _cells(plan, people, one.name) for one in plan.analysis.segments}
    for block, whole in _encoded(plan, layout, people):
        encoded = whole if weights is None else weighed(whole, arms, weights)
        if not block.segment:
            sums[:, block.columns] += _sums_by(arms, many, encoded)
            continue
        groups = arms * block.cells + cells[block.segment]
        by_cell = _sums_by(groups, many * block.cells, encoded)
        sums[:, block.columns] += by_cell.reshape(many, -1)


def _encoded(plan: Plan, layout: Layout, people: Recipients) -> Iterator[tuple[Block, Integers]]:
    """Each block with everybody's vector."""
    for metric in plan.metrics:
        simplex = people.simplex(metric)
        parts = _parts(plan, metric, people, simplex)
        for block in layout.blocks:
            if block.metric == metric.name:
                yield block, parts[block.role]
    for name in plan.analysis.balance:
        whole, squares = _feature(plan, people, name)
        for block in layout.blocks:
            if block.metric == BALANCE + name:
                yield block, squares if block.role == "moments" else whole
    orphans = layout.find(ORPHANS, "simplex")
    if orphans is not None:
        yield orphans, people.orphans()


def _parts(
    plan: Plan, metric: Metric, people: Recipients, simplex: Integers
) -> dict[str, Integers]:
    """A metric's vectors by what they hold."""
    parts = {"simplex": simplex}
    if metric.kind in {"mean", "count", "ratio"}:
        parts["moments"] = people.moments(metric, simplex)
    adjustment = chosen(plan, metric.name)
    if adjustment is not None:
        covariate = people.share(covariate_of(plan, adjustment))
        parts["tensor"] = encode_tensor(simplex, covariate)
        parts["covariate"] = encode_square(covariate)
    return parts


def _named(plan: Plan, name: str) -> Feature:
    return next(one for one in plan.features if one.name == name)


def _feature(plan: Plan, people: Recipients, name: str) -> tuple[Integers, Integers]:
    """A feature's simplex and, of a number, its squares."""
    feature = _named(plan, name)
    if isinstance(feature, NumericFeature):
        encoded = people.share(feature)
        return encoded, encode_square(encoded)
    place = encode_place(people.category(feature), len(feature.values) + 1)
    return place, place[:, :0]


def _cells(plan: Plan, people: Recipients, name: str) -> Integers:
    """Each recipient's cell of a segmentation."""
    segment = next(one for one in plan.analysis.segments if one.name == name)
    feature = _named(plan, segment.feature)
    if isinstance(feature, CategoryFeature):
        return people.category(feature)
    return people.band(feature, segment.edges or ())


def _sums_by(groups: Integers, many: int, encoded: Integers) -> Integers:
    """Sums of vectors over groups: (groups, width).

    Exact: a table's sums stay below 2⁵³, up to which float64 counts in ones.
    """
    columns = [np.bincount(groups, weights=part, minlength=many)[:many] for part in encoded.T]
    return np.rint(np.stack(columns, axis=1)).astype(np.int64)
