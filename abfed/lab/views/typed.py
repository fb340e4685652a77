"""A plan as it is typed into a `%%plan` cell: read once, for the cell's run and for the editor.

1. What is said while somebody types is what the cell says when it runs: one reading makes both.
2. Lines are counted from the cell's first one, as the editor counts them.
3. A text of more than 64 KiB is not read as it is typed: that much takes the kernel a second.
4. The editor asks over a comm that `%load_ext abfed` opens; nothing is run, counted or kept for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from yaml import MappingNode, Node, SequenceNode

from abfed.protocol.declared import Problem, problems
from abfed.protocol.errors import AbfedError, InputError, PlanError
from abfed.protocol.plan import Plan
from abfed.protocol.printable import counted, printable
from abfed.protocol.yamltext import nodes, parse_yaml

TARGET = "abfed.plan"
"""The comm's name, here and in the extension of JupyterLab."""
MOST = 65_536  # characters of a cell that is read as it is typed; the extension sends no more
MOST_TOLD = 3
"""Problems that stand under the editor; the rest are counted."""
_LONGEST = 300  # characters of one of them

_NAME = re.compile(r"[A-Za-z_]\w*")
_MAGIC = re.compile(r"%%plan(?!\S)[ \t]*(?P<line>[^\r\n]*)\r?\n?")
_ABOUT = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")
"""What a sentence about the plan as a whole begins with: the key that it is about."""


class Reading(NamedTuple):
    """What became of a text: a plan, or an error with its problems, each with its line."""

    plan: Plan | None
    error: AbfedError | None = None
    problems: tuple[str, ...] = ()


def read(line: str, cell: str, *, above: int = 1) -> Reading:
    """Read a `%%plan` cell.

    Args:
        line: what stands behind `%%plan`: nothing, or a name.
        cell: the YAML below it.
        above: lines of the cell above the YAML.
    """
    text = "\n" * above + cell
    try:
        if line and not _NAME.fullmatch(line):
            raise InputError("not a name", where=f"%%plan {line}", do="write %%plan my_plan")
        # Half a character of a pair can be typed, and isn't UTF-8: `parse_yaml` says so.
        data = text.encode("utf-8", "surrogatepass")
        values = parse_yaml(data, where="this cell", error=PlanError)
        return Reading(Plan.from_values(values, where="this cell"))
    except AbfedError as error:
        if isinstance(error.__cause__, ValidationError):
            told = tuple(_told(text, [*problems(Plan, error.__cause__)]))
            again = PlanError("; ".join(told), where=error.where, do=error.do)
            return Reading(None, again, told)
        return Reading(None, error, (f"{error.what} → {error.do}" if error.do else error.what,))


def _told(text: str, found: list[Problem]) -> Iterator[str]:
    """Problems in the order of their lines; keys of the plan that are missing stand last."""
    root = nodes(text)
    missing = [str(one.path[0]) for one in found if one.missing and len(one.path) == 1]
    others = [one for one in found if not (one.missing and len(one.path) == 1)]
    placed = [(_line_of(root, one), one.said) for one in others]
    for line, said in sorted(placed, key=lambda one: one[0]):
        yield printable(f"line {line}: {said}" if line else said)
    if missing:
        yield f"missing: {', '.join(missing)}"


def _line_of(node: Node | None, problem: Problem) -> int:
    """The line that a problem stands on, from 1; 0 where it is about all of the plan."""
    path = problem.path
    if not path and (about := _ABOUT.match(problem.said)):
        path = tuple(about[0].split("."))
    line = 0
    for part in path:
        if isinstance(node, MappingNode):
            pairs = ((key, value) for key, value in node.value if key.value == part)
            key, value = next(pairs, (None, node))  # not there: missing, or a form's tag
            line, node = (key.start_mark.line + 1 if key else line), value
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def summary(plan: Plan) -> str:
    """A plan in a line."""
    return (
        f"plan {plan.name}: {counted(len(plan.silos), 'brand')}, {counted(len(plan.arms), 'arm')}, "
        f"{counted(len(plan.metrics), 'metric')} ({plan.primary} decides), {_privacy(plan)}"
    )


def _privacy(plan: Plan) -> str:
    privacy = plan.privacy
    if privacy.unprotected:
        return "no privacy: made-up people only"
    return f"ε {privacy.epsilon:g}, δ {privacy.delta:g} for each recipient"


def answer(text: Any) -> dict[str, Any]:
    """What the editor is told about a whole cell.

    Returns:
        `plan`, a line about it; or `problems`, the first of them, and `more`, how many others.
        Neither for a text that is no `%%plan` cell.
    """
    if not isinstance(text, str) or len(text) > MOST:
        return {}
    from IPython.core.inputtransformer2 import leading_empty_lines, leading_indent

    lines = text.splitlines(keepends=True)
    kept = leading_empty_lines(lines)
    found = _MAGIC.match(whole := "".join(leading_indent(kept)))
    if found is None:
        return {}
    above = len(lines) - len(kept) + 1
    reading = read(found["line"].strip(), whole[found.end() :], above=above)
    if reading.plan is not None:
        return {"plan": summary(reading.plan)}
    told = reading.problems
    first = [shorten(one) for one in told[:MOST_TOLD]]
    return {"problems": first, "more": max(0, len(told) - MOST_TOLD)}


def shorten(text: str) -> str:
    """A problem that repeats what somebody typed is no longer than a few lines."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def listen(shell: Any) -> None:
    """Open the comm, where the shell is a notebook's kernel; a second time changes nothing."""
    if getattr(shell, "kernel", None) is None:
        return
    from comm import create_comm, get_comm_manager

    if any(one.target_name == TARGET for one in get_comm_manager().comms.values()):
        return
    channel = create_comm(target_name=TARGET)

    def hear(message: dict[str, Any]) -> None:
        asked = message["content"]["data"]
        channel.send({"id": asked.get("id"), **answer(asked.get("text"))})

    channel.on_msg(hear)
