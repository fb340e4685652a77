"""Folders that are gone afterwards, whatever a notebook left in them.

`shutil` follows folders within folders by recursion, and stops at a thousand: a notebook that makes
more would keep what it wrote, and end the batch that it is part of. Here each folder is moved up
before it is emptied, so that none lies deeper than the second level, however deep it was.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A private temporary folder; it and all that lies in it go with the context."""
    folder = Path(tempfile.mkdtemp(prefix="abfed-")).resolve()
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder and all that lies in it; nothing is followed. One that is gone is no error.

    Nobody may write there any more.

    Raises:
        OSError: something can't be removed.
    """
    if not folder.is_dir():
        return
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        at.chmod(0o700)  # one that was made without rights can't be looked into
        with os.scandir(at) as entries:
            found = [(Path(one.path), one.is_dir(follow_symlinks=False)) for one in entries]
        for path, is_folder in found:
            if not is_folder:
                path.unlink()
                continue
            path.chmod(0o700)  # nor be moved
            moved = folder / secrets.token_hex(16)
            path.rename(moved)
            waiting.append(moved)
        if at != folder:
            at.rmdir()
    folder.rmdir()
