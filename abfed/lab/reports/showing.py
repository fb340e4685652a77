"""Papermill's client, with a bound on what a notebook shows.

1. What a page could never carry isn't gathered: a cell that prints without end, or hundreds of
   megabytes, is stopped as soon as the notebook has shown `MOST` characters.
2. Nothing of the cell that went over it is kept, and nothing that comes after is.
3. What was printed over (a carriage return) is taken away in time that grows with the text. The
   pattern of nbclient searches each line from each of its characters to its end: 200,000 in one
   line took it 17 s, and ten million would take half a day, in which no time-out and no interrupt
   is heard.
4. A kernel that was taken over sends what it likes. What has not the form of an output is refused
   here, before it becomes part of a notebook that can't be looked into or written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from abfed.lab.paper.jupyter import nbclient, papermill

MOST = 16 << 20  # characters of all outputs: a page of ten figures has two millions
_EACH = 4000  # characters that a message counts at the least: many empty ones are a bomb too

_Client: Any = papermill().clientwrap.PapermillNotebookClient

_PRINTED_OVER = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # finds the same, from a line's start
vars(nbclient().client)["_RGX_CARRIAGERETURN"] = _PRINTED_OVER


class Garbled(Exception):
    """What a kernel sent is no message of a notebook."""


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
        """See nbclient; what is over the bound is dropped.

        Raises:
            Garbled: it has not the form of what it says it is.
        """
        if self._left < 0:
            return None
        if not well_formed(msg):
            message = "an output without the form of one"
            raise Garbled(message)
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
    shown += [*content.get("traceback", ()), content.get("metadata", "")]
    return _EACH + sum(len(one) if isinstance(one, str) else len(str(one)) for one in shown)


_TEXTS = {"stream": ("name", "text"), "error": ("ename", "evalue")}
"""What is a text in a message of a kind, and must be there."""
_SHOWN = {"display_data", "execute_result", "update_display_data"}
_DEEPEST = 100  # levels within one another; nobody draws so many, and Python follows a thousand


def well_formed(msg: dict[str, Any]) -> bool:
    """Whether what stands in a message may stand in a notebook, by nbformat's schema."""
    content, kind = msg["content"], msg["msg_type"]
    if not isinstance(content, dict) or _too_deep(content):
        return False
    number = content.get("execution_count")
    if not (number is None or isinstance(number, int)):
        return False
    if kind == "error" and not _all_texts(content.get("traceback")):
        return False
    if kind in _SHOWN and not _showable(content):
        return False
    return all(isinstance(content.get(one), str) for one in _TEXTS.get(kind, ()))


def _showable(content: dict[str, Any]) -> bool:
    data, transient = content.get("data"), content.get("transient") or {}
    if not isinstance(data, dict) or not isinstance(transient, dict):
        return False
    if not isinstance(content.get("metadata"), dict):
        return False
    named = transient.get("display_id")
    if not (named is None or isinstance(named, str)):
        return False
    return all(
        _is_json(kind) or isinstance(one, str) or _all_texts(one) for kind, one in data.items()
    )


def _is_json(kind: str) -> bool:
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _all_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _too_deep(value: object) -> bool:
    """Whether lists and mappings lie in one another deeper than anybody shows."""
    level = [value]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return False
        level = inner
    return True
