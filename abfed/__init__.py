"""abfed: federated, differentially private A/B testing for marketing e-mail.

Importing this package loads neither side of a silo's wall: the public names below are
resolved when they are first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abfed.lab.runs import Run
    from abfed.lab.workspace import Workspace
    from abfed.protocol.errors import AbfedError
    from abfed.protocol.plan import Plan

__version__ = "0.1.0"
__all__ = ["AbfedError", "Plan", "Run", "Workspace", "__version__"]

_HOMES = {
    "AbfedError": "abfed.protocol.errors",
    "Plan": "abfed.protocol.plan",
    "Run": "abfed.lab.runs",
    "Workspace": "abfed.lab.workspace",
}


def __getattr__(name: str) -> Any:
    """Resolve a public name from the module it lives in."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    found = getattr(import_module(home), name)
    if "IPython" in sys.modules:
        _show_in_notebooks()
    return found


def _show_in_notebooks() -> None:
    """Where somebody works in IPython: what is ours shows as cards."""
    shell = sys.modules["IPython"].get_ipython()
    if shell is not None:
        import_module("abfed.lab.views.ipython").register(shell)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext abfed`: `%%plan`, checked as it is typed; completion; errors as cards."""
    import_module("abfed.lab.views.extension").load(shell)


def __dir__() -> list[str]:
    """List the public names only."""
    return sorted(__all__)


if "IPython" in sys.modules:
    _show_in_notebooks()
