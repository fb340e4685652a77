"""Training under a permit: one round of a plan in this silo.

1. σ, sampling rate and steps are the *charged* ones; where the plan says otherwise nothing runs.
2. The incoming model is evaluated first, on recipients held out, and then trained on the others.
3. What leaves is the noised difference and the noised histogram. Batches, losses, norms and counts
   stay here: they would be releases too.
"""

from __future__ import annotations

from abfed.learning.dpsgd import Checkpoint, summed_step, train_round
from abfed.learning.heads import Heads
from abfed.learning.losses import loss_of
from abfed.learning.networks import network_for
from abfed.learning.shapes import HISTOGRAM, MASKED, MODEL, UPDATE, prefixed, unprefixed
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Charge
from abfed.silo.heldout import noised_histogram
from abfed.silo.permit import Computed, Permit
from abfed.silo.prepared import PreparedRows, columns_needed, prepare

__all__ = ["PreparedRows", "columns_needed", "compute_summed", "compute_training", "prepare"]


def compute_training(
    permit: Permit, prepared: PreparedRows, checkpoint: Checkpoint | None = None
) -> Computed:
    """Evaluate the incoming model, then train it for one round.

    Args:
        permit: pays for the round.
        prepared: the plan's rows.
        checkpoint: of this permit's round, if it can be interrupted.

    Raises:
        IntegrityError: the permit or the rows are for something else.
    """
    prepared.require(permit)
    steps, evaluation = _paid_steps(permit), permit.charge("gaussian")
    settings = permit.plan.schedule
    network = network_for(permit.plan, unprefixed(MODEL, permit.incoming))
    counts = noised_histogram(network, prepared.held_out, permit)
    expected_batch = _expected_batch(permit)
    update = train_round(
        network,
        prepared.batches,
        settings,
        noise_multiplier=steps.noise_multiplier,
        noise=permit.noise,
        expected_batch=expected_batch,
        loss=loss_of(Heads.of(permit.plan)),
        checkpoint=checkpoint,
    )
    return Computed(
        payload="training",
        arrays=prefixed(UPDATE, update) | {HISTOGRAM: counts},
        noise={
            "noise_multiplier": steps.noise_multiplier,
            "sampling_rate": steps.sampling_rate,
            "clip": settings.clip,
            "steps": float(steps.count),
            "expected_batch": expected_batch,
            "evaluation_noise_multiplier": evaluation.noise_multiplier,
        },
    )


def compute_summed(permit: Permit, prepared: PreparedRows) -> Computed:
    """The same where noise is added once: one step's gradients, with a share of the noise.

    Args:
        permit: pays for the round.
        prepared: the plan's rows.

    Returns:
        `masked`: not masked yet; and the histogram, with noise of this silo's own.

    Raises:
        IntegrityError: the permit or the rows are for something else.
    """
    prepared.require(permit)
    steps, evaluation = _paid_steps(permit), permit.charge("gaussian")
    settings = permit.plan.schedule
    network = network_for(permit.plan, unprefixed(MODEL, permit.incoming))
    counts = noised_histogram(network, prepared.held_out, permit)
    sums = summed_step(
        network,
        prepared.batches,
        settings,
        share=permit.share,
        noise=permit.noise,
        loss=loss_of(Heads.of(permit.plan)),
    )
    return Computed(
        payload="training",
        arrays={MASKED: sums, HISTOGRAM: counts},
        noise={
            "noise_multiplier": steps.noise_multiplier,
            "share": permit.share,
            "sampling_rate": steps.sampling_rate,
            "clip": settings.clip,
            "steps": float(steps.count),
            "evaluation_noise_multiplier": evaluation.noise_multiplier,
        },
    )


def _paid_steps(permit: Permit) -> Charge:
    """The charge for the steps, which must be those of the plan."""
    charge, settings = permit.charge("sampled-gaussian"), permit.plan.schedule
    if not permit.step.startswith("train-"):
        raise IntegrityError("the permit is for another step", where=permit.step)
    if (charge.sampling_rate, charge.count) != (settings.sampling_rate, settings.local_steps):
        raise IntegrityError("the permit doesn't pay for the plan's steps", where=permit.step)
    return charge


def _expected_batch(permit: Permit) -> float:
    """Recipients that a step is expected to hold. From a noised count: released."""
    if permit.expected_recipients is None:
        raise IntegrityError("the permit has no noised count of recipients", where=permit.step)
    settings = permit.plan.schedule
    trained = permit.expected_recipients * (1 - settings.holdout)
    return max(1.0, settings.sampling_rate * trained)
