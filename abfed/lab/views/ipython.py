"""Tells IPython how to show what is ours, without loading any of it.

Plans, releases and models are declared on floors that show nothing. `register` is called when
`abfed` is imported where IPython runs, when one of its public names is first used there (IPython
may have come later), by `%load_ext abfed`, and by the kernel of a report. A card's module is
imported when the first card is drawn: an import of abfed stays as fast as it is.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

CARDS = {
    ("abfed.protocol.plan", "Plan"): ("abfed.lab.views.cards", "plan_card"),
    ("abfed.protocol.modelling", "Model"): ("abfed.lab.views.cards", "model_card"),
    ("abfed.protocol.messages", "Release"): ("abfed.lab.views.cards", "release_card"),
    ("abfed.coordinator.inbox", "Accepted"): ("abfed.lab.views.cards", "accepted_card"),
    ("pandas", "DataFrame"): ("abfed.lab.views.frames", "frame_table"),
}
"""Where a type is declared, and what draws it. A run brings its card with it (`display`); a ledger
is a frame of a run."""


def register(shell: Any) -> None:
    """Tell an IPython shell how to show what is ours; a second time changes nothing."""
    html = shell.display_formatter.formatters["text/html"]
    for (module, name), home in CARDS.items():
        html.for_type_by_name(module, name, partial(_drawn, home))


def _drawn(home: tuple[str, str], shown: Any) -> str:
    module, function = home
    markup: str = getattr(import_module(module), function)(shown)
    return markup
