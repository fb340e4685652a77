"""Reading a file that somebody named: a regular one, of a sensible size, or a clear error.

A plan is a page. What is named instead may be a folder, a pipe that nobody writes to, or a device
without an end: none of these is waited for or read whole.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from abfed.protocol.errors import InputError
from abfed.protocol.yamltext import MAX_TEXT


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there; a name that can't be one's (too long, a NUL) isn't."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def read_document(
    path: str | Path, what: str, *, error: type[InputError] = InputError, most: int = MAX_TEXT
) -> bytes:
    """The content of a regular file.

    Args:
        path: as it was given.
        what: what it should be, such as "plan".
        error: the error class to raise.
        most: bytes.

    Raises:
        InputError: (or `error`) it isn't there, can't be read, isn't a regular file or is too long.
    """
    where = str(path)
    try:
        # Without O_NONBLOCK, opening a pipe waits for who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise error(
                    f"the {what} is {kind}, not a file", where=where, do="name a regular file"
                )
            data = file.read(most + 1)
    except IsADirectoryError as cause:
        raise error(f"the {what} is a folder, not a file", where=where, do="name a file") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the name
        told = getattr(cause, "strerror", None) or "not a name of a file"
        raise error(
            f"the {what} can't be read ({told})", where=where, do="check the path"
        ) from cause
    if len(data) > most:
        raise error(
            f"the {what} is longer than {most} bytes",
            where=where,
            do="see experiments/ for examples",
        )
    return data
