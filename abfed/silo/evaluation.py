"""Evaluation under a permit: how the final model scores recipients held out.

Nothing leaves but the noised histogram: no loss, no count of recipients, no score.
"""

from __future__ import annotations

from abfed.learning.networks import network_for
from abfed.learning.shapes import HISTOGRAM, MODEL, unprefixed
from abfed.protocol.errors import IntegrityError
from abfed.silo.heldout import noised_histogram
from abfed.silo.permit import Computed, Permit
from abfed.silo.prepared import PreparedRows


def compute_evaluation(permit: Permit, prepared: PreparedRows) -> Computed:
    """Evaluate the incoming model.

    Raises:
        IntegrityError: the permit or the rows are for something else.
    """
    prepared.require(permit)
    if permit.step != "evaluate":
        raise IntegrityError("the permit is for another step", where=permit.step)
    network = network_for(permit.plan, unprefixed(MODEL, permit.incoming))
    return Computed(
        payload="evaluation",
        arrays={HISTOGRAM: noised_histogram(network, prepared.held_out, permit)},
        noise={"noise_multiplier": permit.charge("gaussian").noise_multiplier},
    )
