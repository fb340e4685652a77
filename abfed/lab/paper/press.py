"""WeasyPrint, imported in half the time: without what it would import, or start, and doesn't use.

To find a library it asks `ldconfig`, `gcc` and `ld`, in fifty processes, for names that libraries
have elsewhere; on Linux what they could answer is the name it tries next. And fontTools' subsetter
and its maker of static fonts, a quarter of a second each time, are for HarfBuzz without a subsetter
and for variable fonts: they are imported when they are called.
"""

from __future__ import annotations

import ctypes.util
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SUBSETTER, INSTANCER = "fontTools.subset", "fontTools.varLib.instancer"
_INSTANTIATE = "instantiateVariableFont"


def weasyprint() -> Any:
    """The `weasyprint` module.

    Raises:
        OSError: a library that it draws with isn't on this machine.
    """
    if "weasyprint" not in sys.modules:
        with _fonts_later(), _asking_nobody():
            importlib.import_module("weasyprint")
    return sys.modules["weasyprint"]


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # asked by whoever imports it
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _fonts_later() -> Iterator[None]:
    """Two modules of fontTools are promises, for whoever imports them meanwhile."""
    names = (SUBSETTER, INSTANCER.rpartition(".")[0], INSTANCER)
    if any(name in sys.modules for name in names):
        yield
        return
    fonttools: Any = importlib.import_module("fontTools")
    subsetter, package, instancer = (_Later(name) for name in names)
    package.__path__ = []
    vars(instancer)[_INSTANTIATE] = _called_later(INSTANCER, _INSTANTIATE)
    sys.modules.update(zip(names, (subsetter, package, instancer), strict=True))
    fonttools.subset = subsetter
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        for name in {"subset", "varLib"} & vars(fonttools).keys():
            delattr(fonttools, name)


def _called_later(module: str, name: str) -> Callable[..., Any]:
    """A function that is imported when it is called."""

    def called(*given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*given, **named)

    return called


@contextmanager
def _asking_nobody() -> Iterator[None]:
    """Libraries are opened by their names only; elsewhere than on Linux nothing changes."""
    asked = ctypes.util.find_library
    if sys.platform == "linux":
        ctypes.util.find_library = _unasked
    try:
        yield
    finally:
        ctypes.util.find_library = asked


def _unasked(name: str) -> str | None:
    del name
    return None
