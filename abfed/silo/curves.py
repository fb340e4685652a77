"""Rényi curves of charges, remembered beside the ledger's entries.

A curve follows from its charge alone; computing it takes up to a tenth of a second where batches
are sampled. Each is kept sealed in the ledger's database under the charge and the version of the
accountant, so that a better accountant counts anew, and a changed byte is found.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from abfed.privacy.accounting import ORDERS, Curve, merged
from abfed.protocol.canonical import digest
from abfed.protocol.messages import Charge
from abfed.silo.sealed_rows import SealedRows


class Curves:
    """Curves by charge.

    Args:
        rows: the ledger's database.

    Attributes:
        counted_by: digest of the grid of orders and the version of the accountant.
    """

    def __init__(self, rows: SealedRows) -> None:
        self._rows = rows
        self._known: dict[Charge, Curve] = {}
        self.counted_by = digest([list(ORDERS), version("dp-accounting")])

    def of(self, charges: tuple[Charge, ...]) -> Curve:
        """The curve of charges together."""
        total = Curve()
        for charge in merged(charges):
            if charge not in self._known:
                kept = self._rows.kept(self._name(charge))
                self._known[charge] = Curve.of((charge,)) if kept is None else Curve(_read(kept))
            total = total + self._known[charge]
        return total

    def keep(self, charges: tuple[Charge, ...]) -> None:
        """Remember the curves of charges for the next who opens the ledger."""
        for charge in merged(charges):
            if self._rows.kept(self._name(charge)) is None:
                values = self.of((charge,)).values  # with one charge, exactly its own curve
                self._rows.keep(self._name(charge), np.asarray(values, dtype="<f8").tobytes())

    def _name(self, charge: Charge) -> str:
        return "curve:" + digest([charge.model_dump(mode="json"), self.counted_by])


def _read(kept: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(kept, dtype="<f8").tolist())
