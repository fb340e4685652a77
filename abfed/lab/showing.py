"""Papermill's client, with a bound on what a notebook shows.

1. What a page could never carry isn't gathered: a cell that prints without end, or hundreds of
   megabytes, is stopped as soon as the notebook has shown `MOST` characters.
2. Nothing of the cell that went over it is kept, and nothing that comes after is.
3. What was printed over (a carriage return) is taken away in time that grows with the text. The
   pattern of nbclient searches each line from each of its characters to its end: 200,000 in one
   line took it 17 s, and ten million would take half a day, in which no time-out and no interrupt
   is heard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from abfed.lab.jupyter import nbclient, papermill

MOST = 16 << 20  # characters of all outputs: a page of ten figures has two millions
_EACH = 4000  # characters that a message counts at the least: many empty ones are a bomb too

_Client: Any = papermill().clientwrap.PapermillNotebookClient

_PRINTED_OVER = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # finds the same, from a line's start
vars(nbclient().client)["_RGX_CARRIAGERETURN"] = _PRINTED_OVER


class BoundedClient(_Client):  # type: ignore[misc]
    """Executes cells and gathers what they show, up to a bound.

    Args:
        progress: Papermill's own view of the notebook, told of each cell.
        over: called once, when the bound was passed.
        settings: nbclient's.
    """

    def __init__(self, progress: Any, *, over: Callable[[], None], **settings: Any) -> None:
        super().__init__(progress, **settings)
        self._over = over
        self._left = MOST

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """See nbclient; what is over the bound is dropped."""
        if self._left < 0:
            return None
        if msg["msg_type"] != "status":
            self._left -= _size(msg["content"])
        if self._left < 0:
            cell.outputs = []
            self._over()
            return None
        return super().process_message(msg, cell, cell_index)


def _size(content: dict[str, Any]) -> int:
    """How many characters a message would add to a page."""
    forms = content.get("data")
    shown = [content.get("text", ""), *(forms.values() if isinstance(forms, dict) else [])]
    shown += content.get("traceback", [])
    return _EACH + sum(len(one) if isinstance(one, str) else len(str(one)) for one in shown)
