"""The noised histogram of a model's scores on recipients held out.

1. Each held-out recipient is exactly one count, whatever the model scores them: L2 sensitivity 1.
2. Discrete Gaussian noise of the charged multiplier is added to every count, empty ones too, on a
   grid of 1/`GRID` of a count; what is released is rounded to whole counts, which is
   post-processing. On a grid of whole counts noise would be coarser than the continuous one that
   is charged: δ up to 1.6 times what is claimed at ε = 8 (decision 0061).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from abfed.learning.evaluation import BINS, histogram
from abfed.learning.heads import Heads, column
from abfed.learning.networks import one_thread, scores_of
from abfed.privacy.mechanisms import Noise
from abfed.protocol.errors import IntegrityError
from abfed.silo.permit import Permit


class HeldOutRows(Protocol):
    """One row of each recipient held out, wherever they lie. Sensitive."""

    @property
    def recipients(self) -> int:
        """How many there are."""
        ...

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    def blocks(
        self, size: int
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """All lines of the design matrix and their labels, at most `size` rows at a time."""
        ...


BLOCK = 1 << 15  # rows scored at a time
GRID = 1 << 16  # steps of the noise in a count; as fine as that of totals (`stats.encoding.SCALE`)


def noised_histogram(
    network: nn.Module, held_out: HeldOutRows, permit: Permit
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
    if held_out.rows != held_out.recipients:
        raise IntegrityError("a held-out recipient has more than one row", where=permit.step)
    counts, heads = np.zeros((2, BINS), dtype=np.int64), Heads.of(permit.plan)
    with one_thread():
        for lines, labels in held_out.blocks(BLOCK):
            own = heads.own(scores_of(network, lines), labels)
            counts += histogram(own, column(labels))
    return noised_counts(counts, charge.noise_multiplier, permit.noise)


def noised_counts(
    counts: npt.NDArray[np.int64], scale: float, noise: Noise
) -> npt.NDArray[np.int64]:
    """Counts with noise of this scale (in counts) from the fine grid, rounded. Released."""
    noised = noise.integers(counts * GRID, scale * GRID)
    return np.rint(noised / GRID).astype(np.int64)
