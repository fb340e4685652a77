"""Jupyter's own tools, imported where the process is ours to arrange.

Importing `nbformat`, and whatever stands on it, also imports what jsonschema's optional format
checks use. `rfc3987_syntax` is a grammar that is compiled for seconds of CPU time to check
addresses that a notebook hasn't got; the others take tenths. `None` in `sys.modules` is Python's
own way to say that a module isn't there; jsonschema then leaves that one check out. It is said for
the time of the import only. Papermill imports Arrow, and numpy with it, to read notebooks from
HDFS: a worker of a batch does without, in a third less memory.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

NEEDLESS = ("rfc3987_syntax", "rfc3987", "rfc3986_validator", "isoduration")
_FOR_HDFS = ("pyarrow", "pyarrow.fs")


def nbformat() -> Any:
    """The `nbformat` module."""
    return _imported("nbformat")


def nbclient() -> Any:
    """The `nbclient` module."""
    return _imported("nbclient")


def papermill() -> Any:
    """The `papermill` module."""
    return _imported("papermill", _FOR_HDFS)


def nbconvert() -> Any:
    """The `nbconvert` module."""
    return _imported("nbconvert")


def _imported(name: str, more: tuple[str, ...] = ()) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    absent = [one for one in (*NEEDLESS, *more) if one not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    finally:
        for one in absent:
            if sys.modules.get(one, "") is None:
                del sys.modules[one]
