"""`%load_ext abfed`: what a notebook gains.

- `%%plan [NAME]` checks the YAML in a cell as it stands and shows the plan's card; with a name, the
  plan is kept under it. What is wrong is shown as a short card that says where, why and what to do.
  In JupyterLab a line under the cell says the same while it is typed (`typed`).
- abfed's errors show as such cards anywhere in the notebook, without a traceback: it could hold a
  row, and it helps nobody. So does an interrupt of what abfed was doing.
- What stands in quotation marks is completed where it names a plan's file, a run or a workspace, as
  in `Plan.load("` and `find_run("`; keys of a plan are, inside `%%plan`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from abfed.lab.paper.page import STYLE, facts
from abfed.lab.views.ipython import register
from abfed.lab.views.typed import listen, read
from abfed.protocol.errors import AbfedError
from abfed.protocol.plan import Plan

_OPEN = re.compile(r"""(?P<what>load|run|find_run|open|Workspace)\(\s*["'](?P<typed>[^"']*)$""")
"""A call of ours whose first text is being typed."""
_KEY = re.compile(r"^(?P<typed>[a-z_]*)$")
"""A line of YAML that is about to become a key of the plan itself, not of a part of it."""
_MOST_SHOWN = 20
"""Problems on a card."""
_INTERRUPTED = AbfedError(
    "interrupted",
    why="somebody stopped the cell; what was complete until then is kept",
    do="run the cell again: a run goes on where it stopped, and nothing is charged twice",
)


def load(shell: Any) -> None:
    """Add all of it to an IPython shell; a second time changes nothing."""
    from IPython.core.completer import context_matcher

    register(shell)
    listen(shell)
    shell.register_magic_function(_PlanMagic(shell), magic_kind="cell", magic_name="plan")
    shell.set_custom_exc((AbfedError, KeyboardInterrupt), _show_error)
    matchers = shell.Completer.custom_matchers
    if not any(getattr(one, "__name__", "") == completions.__name__ for one in matchers):
        matchers.append(context_matcher()(completions))


class _PlanMagic:
    """`%%plan [NAME]`."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def __call__(self, line: str, cell: str) -> Plan | None:
        """Check a plan; show it, or what is wrong with it."""
        name = line.strip()
        reading = read(name, cell)
        if reading.error is not None:
            _display(error_card(reading.error, reading.problems))
        elif name:
            self._shell.user_ns[name] = reading.plan
        return reading.plan


def error_card(error: AbfedError, problems: Sequence[str] = ()) -> str:
    """An error as what happened, where, why, and what to do next.

    Args:
        error: what happened.
        problems: what it is about, where that is more than one thing.
    """
    heading = "\n".join(problems[:_MOST_SHOWN]) if len(problems) > 1 else error.what
    if len(problems) > _MOST_SHOWN:
        heading += f"\nand {len(problems) - _MOST_SHOWN} more"
    parts = [("Where", error.where), ("Why", error.why), ("Do", error.do)]
    pairs = [(term, _lines(text)) for term, text in parts if text]
    return (
        f'<style>{STYLE}</style><div class="abfed card" role="alert">'
        f'<div class="kicker">abfed: {escape(error.kind)}</div>'
        f"<h2>{_lines(heading)}</h2>{facts(pairs)}</div>"
    )


def _lines(text: str) -> str:
    return "<br>".join(map(escape, text.splitlines()))


def _show_error(
    shell: Any, kind: type[BaseException], error: BaseException, traceback: Any, **how: Any
) -> list[str]:
    """Show an error of ours; Jupyter still learns that the cell failed."""
    del how
    if isinstance(error, AbfedError):
        _display(error_card(error))
    elif any(_ours(frame) for frame, _ in walk_tb(traceback)):
        _display(error_card(_INTERRUPTED))
    else:  # a cell that has nothing to do with us
        shell.showtraceback((kind, error, traceback))
    return [f"{kind.__name__}: {error}"]


def _ours(frame: FrameType) -> bool:
    """Whether code of abfed's was running."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "abfed"


def _display(markup: str) -> None:
    from IPython.display import HTML, display

    display(HTML(markup))


def completions(context: Any) -> dict[str, Any]:
    """What could stand where the cursor is: a plan's file, a run, a workspace, a plan's key."""
    from IPython.core.completer import SimpleCompletion

    before = context.line_with_cursor[: context.cursor_position]
    found: list[str] = []
    typed = ""
    if call := _OPEN.search(before):
        typed = call["typed"]
        found = [one for one in _named(call["what"]) if one.startswith(typed)]
    elif context.full_text.startswith("%%plan") and (key := _KEY.match(before)):
        typed = key["typed"]
        found = [f"{one}: " for one in Plan.model_fields if one.startswith(typed)]
    return {
        "completions": [SimpleCompletion(text=one, type="abfed") for one in found],
        "matched_fragment": typed,
        "suppress": bool(found),
    }


def _named(what: str) -> list[str]:
    """Texts that a call of ours could be given, relative to where the notebook works."""
    here = Path()
    if what == "Workspace":
        return sorted(str(one.parent) for one in here.glob("*/abfed.yaml"))
    runs = sorted(one.parent for one in here.glob("*/runs/*/manifest.sig"))
    if what == "find_run":
        return [one.name for one in runs]
    if what == "open":
        return [str(one) for one in runs]
    return sorted(str(one) for one in here.glob("experiments/**/*.yaml") if _looks_like_plan(one))


def _looks_like_plan(path: Path) -> bool:
    """Whether a file has a line that each plan has, and no mapping or batch."""
    try:
        return any(line.startswith(b"arms:") for line in path.read_bytes().splitlines())
    except OSError:  # gone meanwhile, or not ours to read: nothing to be offered
        return False
