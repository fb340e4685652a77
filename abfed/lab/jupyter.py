"""Jupyter's own tools, imported where the process is ours to arrange.

Importing `nbformat`, and whatever stands on it, also imports `rfc3987_syntax`, through jsonschema's
optional format checks: a grammar that is compiled for seconds of CPU time to check addresses that a
notebook hasn't got. `None` in `sys.modules` is Python's own way to say that a module isn't there;
jsonschema then leaves that one check out. It is said for the time of the import only.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

NEEDLESS = "rfc3987_syntax"


def nbformat() -> Any:
    """The `nbformat` module."""
    return _imported("nbformat")


def nbclient() -> Any:
    """The `nbclient` module."""
    return _imported("nbclient")


def papermill() -> Any:
    """The `papermill` module."""
    return _imported("papermill")


def nbconvert() -> Any:
    """The `nbconvert` module."""
    return _imported("nbconvert")


def _imported(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    absent = NEEDLESS not in sys.modules
    if absent:
        sys.modules[NEEDLESS] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        if absent and sys.modules.get(NEEDLESS, "") is None:
            del sys.modules[NEEDLESS]
