"""Every arm's value of a metric in one brand, read in the way that the plan declared beforehand.

Plainly; adjusted for a covariate; or post-stratified: the mean over the cells of a segmentation,
weighted by the cells' sizes in all arms together, so that arms whose cells differ by chance are
compared as if they didn't.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from abfed.protocol.analysis import Segment
from abfed.protocol.metrics import Metric, Quantile, Ratio
from abfed.protocol.plan import Plan
from abfed.stats.adjusting import chosen
from abfed.stats.cuped import read_adjusted
from abfed.stats.encoding import Floats
from abfed.stats.estimates import Flags, Reading, read
from abfed.stats.layout import cells_of
from abfed.stats.totals import SiloTotals


class Readout(NamedTuple):
    """Readings of a metric by arm, and a note on how they were made."""

    arms: dict[str, Reading]
    note: str = ""


def read_arms(plan: Plan, metric: Metric, totals: SiloTotals) -> Readout:
    """Read a metric in every arm of a brand."""
    adjustment = chosen(plan, metric.name)
    if adjustment is not None:
        return Readout(read_adjusted(metric, totals), f"adjusted for {adjustment.covariate}")
    strata = next((one for one in plan.analysis.segments if one.poststratify), None)
    plain = {arm: read(metric, totals, arm) for arm in totals.layout.arms}
    if strata is None or isinstance(metric, Ratio | Quantile):
        return Readout(plain)
    stratified, enough = _stratified(plan, metric, strata, totals, plain)
    if np.all(enough):
        return Readout(stratified, f"post-stratified by {strata.name}")
    if not np.any(enough):
        return Readout(plain, f"not post-stratified: cells of {strata.name} drown in noise")
    return Readout(stratified)


def _stratified(
    plan: Plan, metric: Metric, strata: Segment, totals: SiloTotals, plain: dict[str, Reading]
) -> tuple[dict[str, Reading], Flags]:
    """Σ over cells of the cell's share of all recipients times the arm's value there.

    Cells are as released; one that is empty or drowns in noise in some arm is left out for all, and
    where it holds more than a tenth of the recipients nothing is stratified: then an arm's reading
    is the plain one.

    Returns:
        The readings by arm, and where they are stratified.
    """
    many = len(cells_of(strata, plan.features))
    cells = [totals.cell(strata.name, index) for index in range(many)]
    readings = [{arm: read(metric, cell, arm) for arm in totals.layout.arms} for cell in cells]
    usable = np.stack([np.all([one.usable for one in cell.values()], axis=0) for cell in readings])
    sizes = np.stack([np.maximum(cell.counts()[0].sum(axis=-1), 0.0) for cell in cells])
    kept = np.where(usable, sizes, 0.0)
    enough = np.asarray(kept.sum(axis=0) > 0.9 * sizes.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = kept / kept.sum(axis=0)
    return {
        arm: _mixed(weights, readings, arm, plain[arm], enough) for arm in totals.layout.arms
    }, enough


def _mixed(
    weights: Floats, readings: list[dict[str, Reading]], arm: str, plain: Reading, enough: Flags
) -> Reading:
    """An arm's weighted mean over cells where there are enough of them; else its plain reading."""
    cells = [one[arm] for one in readings]

    def total(parts: list[Floats], power: int, otherwise: Floats) -> Floats:
        stacked = np.where(weights > 0, np.stack(parts), 0.0)
        return np.where(enough, (weights**power * stacked).sum(axis=0), otherwise)

    return plain._replace(
        value=total([one.value for one in cells], 1, plain.value),
        sampling=total([one.sampling for one in cells], 2, plain.sampling),
        privacy=total([one.privacy for one in cells], 2, plain.privacy),
    )
