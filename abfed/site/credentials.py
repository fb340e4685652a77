"""Passphrases and PINs that open a site's key service: from a folder, never from the command line.

`ABFED_CREDENTIALS` names a private folder with a file for each, such as `aurora.passphrase`. Under
systemd it is `CREDENTIALS_DIRECTORY`, which `LoadCredential=` fills in memory. What is read is kept
nowhere and shown nowhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from abfed.protocol.errors import WorkspaceError
from abfed.site.files import read_private

FOLDERS = ("ABFED_CREDENTIALS", "CREDENTIALS_DIRECTORY")


def credential(name: str) -> str:
    """A passphrase or PIN.

    Raises:
        WorkspaceError: there is none of this name, or it is no text.
        IntegrityError: others may read it.
    """
    for variable in FOLDERS:
        folder = os.environ.get(variable)
        if folder and (Path(folder) / name).exists():
            try:
                found = read_private(Path(folder) / name).decode().rstrip("\n")
            except UnicodeDecodeError as cause:
                raise WorkspaceError("is not a text", where=name) from cause
            if found:
                return found
    raise WorkspaceError(
        "a passphrase or PIN is needed to open this site's keys",
        where=name,
        do=f"put it into a private file of this name in the folder that {FOLDERS[0]} names",
    )


def is_there(name: str) -> bool:
    """Whether there is a passphrase or PIN of this name."""
    try:
        return bool(credential(name))
    except WorkspaceError:
        return False
