"""The noised histogram of a model's scores on recipients held out.

1. Each held-out recipient is exactly one count, whatever the model scores them: L2 sensitivity 1.
2. Discrete Gaussian noise of the charged multiplier is added to every count, empty ones too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from abfed.learning.design_matrix import RecipientRows
from abfed.learning.evaluation import BINS, histogram
from abfed.learning.networks import logits, one_thread
from abfed.protocol.errors import IntegrityError
from abfed.silo.permit import Permit

BLOCK = 1 << 15  # recipients scored at a time


def noised_histogram(
    network: nn.Module, held_out: RecipientRows, permit: Permit
) -> npt.NDArray[np.int64]:
    """Score people held out and count them, under the permit's Gaussian charge.

    Args:
        network: the incoming model.
        held_out: one row a recipient. Rows: sensitive.
        permit: pays for one histogram.

    Returns:
        Noised counts `(2, BINS)`. Released.

    Raises:
        IntegrityError: the permit doesn't pay for exactly one histogram, or somebody has two rows.
    """
    charge = permit.charge("gaussian")
    if charge.count != 1:
        raise IntegrityError("the permit pays for more than one histogram", where=permit.step)
    if len(held_out.labels) != held_out.recipients:
        raise IntegrityError("a held-out recipient has more than one row", where=permit.step)
    counts = np.zeros((2, BINS), dtype=np.int64)
    with one_thread():
        for start in range(0, held_out.recipients, BLOCK):
            chosen = np.arange(start, min(start + BLOCK, held_out.recipients))
            lines, labels, _ = held_out.batch(chosen)
            counts += histogram(logits(network, lines), labels)
    return permit.noise.integers(counts, charge.noise_multiplier)
