"""The protected unit: what a guarantee is about. Stated in every plan, release and report.

A guarantee of (ε, δ) means nothing without it. Here it is one recipient of one silo with all of
their sends, in or out of the data. There is no other value: a plan for another unit isn't a plan,
and a release for another isn't a release.
"""

from __future__ import annotations

from typing import Literal

from abfed.protocol.schema import Frozen


class ProtectedUnit(Frozen):
    """One recipient of one silo, in or out.

    Attributes:
        kind: whose data: a recipient with all of their rows in the silo.
        within: where they are one. Somebody known to two brands is two recipients: costs add.
        adjacency: neighbouring data differ by one recipient, added or removed.

    Example:
        >>> ProtectedUnit().sentence
        'one recipient of one silo with all of their e-mails, added or removed'
    """

    kind: Literal["recipient"] = "recipient"
    within: Literal["one-silo"] = "one-silo"
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"

    @property
    def sentence(self) -> str:
        """The unit in words."""
        return "one recipient of one silo with all of their e-mails, added or removed"


RECIPIENT = ProtectedUnit()
"""The one protected unit."""
