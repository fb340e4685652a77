"""Checking the silos of a workspace: one that is lost or can't be opened hides no other (S10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from abfed.protocol.errors import AbfedError
from abfed.silo.checking import Part, check_silo

if TYPE_CHECKING:
    from abfed.lab.entrance import Entrance


def check_silos(workspace: Entrance, names: Iterable[str]) -> dict[str, tuple[Part, ...]]:
    """The parts of each silo; of one that isn't there, or whose keys don't open, that it isn't.

    Args:
        workspace: where they are.
        names: which, of those that it lists.
    """
    found: dict[str, tuple[Part, ...]] = {}
    for name in names:
        try:
            found[name] = check_silo(workspace.silo_folder(name))
        except AbfedError as error:
            found[name] = (Part("folder", False, str(error)),)  # noqa: FBT003 - a field of a row
    return found
