"""A bar over the steps of a run, where somebody works in a notebook or in IPython.

1. Who gives a progress of their own, as the command line does, gets that and no bar.
2. Elsewhere nothing is shown: a script that wants a bar gives one.
3. A bar holds names of steps and silos, and nothing of what they answered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abfed.coordinator.app import Event, Progress

_FORM = "{desc}|{bar}| {n_fmt} of {total_fmt} steps, {elapsed}"


@contextmanager
def shown(progress: Progress | None, name: str) -> Iterator[Progress | None]:
    """The progress that was given; where none was, a bar for whoever works interactively.

    Args:
        progress: told of each event, or nothing.
        name: of the plan, in front of the bar.
    """
    if progress is not None or not _interactive():
        yield progress
        return
    bar = _Bar(name)
    try:
        yield bar.tell
    finally:
        bar.close()


def _interactive() -> bool:
    """Whether this is a notebook's kernel or IPython; neither is imported to find out."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


class _Bar:
    """Drawn with the first event: before it, nobody knows how many steps there are."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._drawn: Any = None
        self._answered = 0

    def tell(self, event: Event) -> None:
        """Something happened in the run."""
        if self._drawn is None:
            from tqdm.auto import tqdm

            self._drawn = tqdm(total=event.of, bar_format=_FORM)
        said = event.step
        if event.stage == "ask":
            self._answered = 0
        elif event.stage == "answer":
            self._answered += 1
            said = f"{event.step}: {self._answered} answered"
        elif event.stage == "left-out":
            said = f"{event.step}: without {event.silo}"
        elif event.stage == "closed":
            self._drawn.n = event.n
        elif event.stage in {"found", "complete"}:
            self._drawn.n = event.of
            said = event.stage
        self._drawn.set_description_str(f"{self._name}: {said} ", refresh=False)
        self._drawn.refresh()

    def close(self) -> None:
        """The bar stays as it is; one that isn't full is marked as such."""
        if self._drawn is not None:
            self._drawn.close()
