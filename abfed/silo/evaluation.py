"""Evaluation under a permit: how the final model scores recipients held out.

Nothing leaves but noised tables: no loss, no count of recipients, no score.

1. Each held-out recipient stands once in each table that concerns them, whatever the model says of
   them; the root of that number of tables is the L2 sensitivity of all of them together.
2. Discrete Gaussian noise of the charged multiplier times that is added to every count
   (`abfed.silo.heldout`).
3. Single columns to compare with are chosen by the model alone, which is released.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import nn

from abfed.learning.calibration import recalibration
from abfed.learning.counterfactual import (
    Leading,
    chances,
    leading_columns,
    revenue_share,
    uplifts,
)
from abfed.learning.design_matrix import Design
from abfed.learning.evaluation import (
    ScoreHistogram,
    amount_counts,
    histogram,
)
from abfed.learning.heads import Heads, column
from abfed.learning.networks import network_for, one_thread, scores_of
from abfed.learning.shapes import (
    FURTHER,
    HISTOGRAM,
    MODEL,
    POLICY,
    REVENUE,
    SINGLE,
    UPLIFT,
    UPLIFT_SINGLE,
    release_shapes,
    unprefixed,
)
from abfed.learning.uplift import (
    COLUMN_EDGES,
    UPLIFT_EDGES,
    contrast_counts,
    counted_once,
    policy_counts,
)
from abfed.privacy.mechanisms import Noise
from abfed.protocol.errors import IntegrityError
from abfed.silo.heldout import BLOCK, HeldOutRows, noised_counts
from abfed.silo.permit import Computed, Permit
from abfed.silo.prepared import PreparedRows

Counts = npt.NDArray[np.int64]
Lines = npt.NDArray[np.float32]

LEAST_SLOPE = 0.25  # of a correction of scores that can be believed


def compute_evaluation(permit: Permit, prepared: PreparedRows) -> Computed:
    """Evaluate the incoming model.

    Raises:
        IntegrityError: the permit or the rows are for something else, or somebody has two rows.
    """
    prepared.require(permit)
    if permit.step != "evaluate":
        raise IntegrityError("the permit is for another step", where=permit.step)
    charge = permit.charge("gaussian")
    if charge.count != 1:
        raise IntegrityError("the permit pays for more than one evaluation", where=permit.step)
    network = network_for(permit.plan, unprefixed(MODEL, permit.incoming))
    counts = _tables(network, prepared.held_out, permit)
    sensitivity = math.sqrt(counted_once(len(permit.plan.arms), Heads.of(permit.plan).tables))
    scale = charge.noise_multiplier * sensitivity
    return Computed(
        payload="evaluation",
        arrays={name: noised_counts(table, scale, permit.noise) for name, table in counts.items()},
        noise={"noise_multiplier": charge.noise_multiplier, "sensitivity": sensitivity},
    )


def correction_of(computed: Computed) -> tuple[float, float]:
    """Slope and shift of the logit that fit this silo best, from what it releases; or (1, 0)."""
    scores = ScoreHistogram.of_release(computed.arrays[HISTOGRAM], computed.noise)
    slope, shift = recalibration(scores) or (1.0, 0.0)
    fits = LEAST_SLOPE <= slope <= 1 / LEAST_SLOPE
    return (slope, shift) if fits else (1.0, 0.0)  # else it is noise that was fitted


def _tables(network: nn.Module, held_out: HeldOutRows, permit: Permit) -> dict[str, Counts]:
    """All tables, without noise. Sensitive."""
    if held_out.rows != held_out.recipients:
        raise IntegrityError("a held-out recipient has more than one row", where=permit.step)
    design = Design.of(permit.plan)
    counts = {
        name: np.zeros(shape.shape, dtype=np.int64)
        for name, shape in release_shapes(permit.plan, permit.step).items()
    }
    with one_thread():
        leading = leading_columns(network, design)
        for number, (lines, labels) in enumerate(held_out.blocks(BLOCK)):
            noise = permit.noise.fork(number)
            for name, found in _of_block(network, design, leading, lines, labels, noise):
                counts[name] += found
    return counts


def _of_block(
    network: nn.Module,
    design: Design,
    leading: Leading,
    lines: Lines,
    labels: Lines,
    noise: Noise,
) -> Iterator[tuple[str, Counts]]:
    """What some held-out rows add to each table. Rows: sensitive."""
    features, arms = design.compact(lines, labels)
    yield from _of_further(network, design, lines, labels, noise)
    own = design.heads.own(scores_of(network, lines), labels)
    labels = column(labels)
    chance = chances(network, design, features)
    uplift = uplifts(chance, design)
    yield HISTOGRAM, histogram(own, labels)
    single = leading.outcome.scores(features)
    everybody = np.zeros(len(arms), dtype=np.bool_)
    yield SINGLE, contrast_counts(single, everybody, labels, COLUMN_EDGES)[0]
    by_model, by_column = [], []
    for place, arm in enumerate(design.treated):
        here = (arms == arm) | (arms == design.control)
        treated, outcome = arms[here] == arm, labels[here]
        by_model.append(contrast_counts(uplift[here, place], treated, outcome, UPLIFT_EDGES))
        by_one = leading.uplift[place].scores(features[here])
        by_column.append(contrast_counts(by_one, treated, outcome, COLUMN_EDGES))
    yield UPLIFT, np.stack(by_model)
    yield UPLIFT_SINGLE, np.stack(by_column)
    yield POLICY, policy_counts(chance.argmax(axis=1), arms, labels, len(design.arms))


def _of_further(
    network: nn.Module, design: Design, lines: Lines, labels: Lines, noise: Noise
) -> Iterator[tuple[str, Counts]]:
    """What held-out rows add to the tables of further outcomes and of revenue. Rows: sensitive."""
    heads = design.heads
    if not heads.further:
        return
    scores = scores_of(network, lines)
    tables = []
    for number in range(1, heads.further + 1):
        label = column(labels, number)
        known = ~np.isnan(label)
        happened = label[known] > 0
        tables.append(histogram(heads.own(scores, labels, number)[known], happened))
    yield FURTHER, np.stack(tables)
    if heads.bound:
        first = len(heads.outcomes)
        buys, sizes = (heads.own(scores, labels, first + part) for part in (0, 1))
        spent = column(labels, first)
        known = ~np.isnan(spent)
        from scipy.special import ndtr  # noqa: PLC0415 - few models tell revenue

        predicted = revenue_share(buys, sizes)
        draws = ndtr(noise.floats(len(spent), 1.0))  # uniform
        yield REVENUE, amount_counts(predicted[known], spent[known], draws[known])
