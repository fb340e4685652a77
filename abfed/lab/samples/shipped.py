"""What comes with abfed besides its code: notebooks, example plans and mappings.

In a clone they lie beside the package, where people read and change them. A wheel has no beside: it
puts them under `share/abfed` of the environment that it is installed into.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import abfed
from abfed.protocol.errors import WorkspaceError


def shipped_folders() -> tuple[Path, ...]:
    """Where they may lie, the clone first."""
    clone = Path(abfed.__file__).resolve().parent.parent
    return clone, Path(sysconfig.get_path("data")) / "share" / "abfed"


def shipped(relative: str) -> Path:
    """A file that comes with abfed, such as an example plan.

    Raises:
        WorkspaceError: this installation came without it.
    """
    found = [path for path in (folder / relative for folder in shipped_folders()) if path.is_file()]
    if not found:
        raise WorkspaceError(
            f"{relative} did not come with this installation",
            where=", ".join(map(str, shipped_folders())),
            do="install abfed's wheel anew, or run from a clone of its source",
        )
    return found[0]
