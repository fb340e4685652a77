"""How commands speak: tables for people, one JSON value with `--json`, errors in one shape.

1. Whatever is printed can't steer a terminal, whoever wrote it.
2. With `--json` there is one JSON value on standard output, also for an error or a defect; fields
   are called in ASCII and snake_case.
3. An error that isn't ours to expect is told by kind and place only: its text could hold a row's.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import click

from abfed.protocol.errors import AbfedError
from abfed.protocol.printable import printable

GREEK = {"ε": "epsilon", "δ": "delta", "σ": "sigma", "α": "alpha", "τ": "tau"}
"""How letters of headings are called in JSON."""

NOT_PRIVATE = (
    "NOT PRIVATE: exact totals, which silos of made-up brands give only; no budget is charged."
)
"""Of a plan without privacy, in place of what it would cost."""

INTERRUPTED = 130  # the exit code of what Ctrl-C ended
_INTERRUPTED = "interrupted; what was done is kept, run it again to go on"


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, paths are text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {field_name(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def field_name(heading: str) -> str:
    """A table's heading as a field of JSON; names of silos, files and so on stay as they are.

    >>> field_name("left after"), field_name("ε (PLD)"), field_name("spring-2026")
    ('left_after', 'epsilon_pld', 'spring-2026')
    """
    if heading.isascii() and " " not in heading:
        return heading
    for letter, name in GREEK.items():
        heading = heading.replace(letter, f" {name} ")
    letters = unicodedata.normalize("NFKD", heading.lower()).encode("ascii", "ignore").decode()
    return "_".join(re.findall(r"[a-z0-9]+", letters)) or "value"


def say_json(value: Any) -> None:
    """Print one JSON value, in ASCII: escapes are JSON's own."""
    sys.stdout.write(json.dumps(plain(value), indent=2) + "\n")


def say(text: str = "") -> None:
    """Print a line for people, or several."""
    sys.stdout.write(printable(text, lines=True) + "\n")


def complain(text: str) -> None:
    """Print a line on standard error, or several."""
    sys.stderr.write(printable(text, lines=True) + "\n")


def table(rows: Sequence[Mapping[Any, Any]], *, title: str = "") -> None:
    """Print rows of the same keys as a table."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float) for row in rows)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(printable(cell(value), lines=True) for value in row.values()))
    width = None if sys.stdout.isatty() else 140
    Console(width=width, markup=False, emoji=False).print(shown)  # cells are text, not markup


_WHOLE = 9999.5  # from here on four digits would be told in powers of ten


def cell(value: Any) -> str:
    """A value in a table: four digits, whole from 10,000 on; a dash for what is missing."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        return f"{value:.4g}" if abs(value) < _WHOLE else f"{value:,.0f}"
    return "–" if value is None else str(value)


def fail(error: AbfedError, *, as_json: bool) -> int:
    """Print an error of ours and return its exit code."""
    if as_json:
        say_json(error.as_dict() | {"exit_code": error.exit_code})
        return error.exit_code
    complain("\n".join(error.in_lines()))
    return error.exit_code


def misused(error: click.ClickException, *, as_json: bool) -> int:
    """Print what was wrong with the command itself."""
    what = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # the help is no sentence, or shown
        complain(f"{what}\n\nbad-command: no command is named".lstrip())
        return error.exit_code
    if as_json:
        said = {"error": "bad-command", "what": what, "where": "", "why": ""}
        say_json(said | {"do": "see --help", "exit_code": error.exit_code})
        return error.exit_code
    context = getattr(error, "ctx", None)
    usage = f"{context.get_usage()}\n" if context is not None else ""
    hint = f"\n  do:  {context.command_path} --help" if context is not None else ""
    complain(f"{usage}bad-command: {what}{hint}")
    return error.exit_code


def interrupted(*, as_json: bool) -> int:
    """Say that Ctrl-C was heard."""
    if as_json:
        say_json({"error": "interrupted", "what": _INTERRUPTED, "exit_code": INTERRUPTED})
    else:
        complain(_INTERRUPTED)
    return INTERRUPTED


def defect(error: BaseException, *, as_json: bool) -> int:
    """Report an error that isn't ours to expect, without its text: it might hold a value of a row.

    `ABFED_DEBUG=1` prints the whole traceback, on machines where that may be seen.
    """
    if os.environ.get("ABFED_DEBUG") == "1":
        traceback.print_exception(error)
        return 1
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "abfed" in frame.filename] or list(frames)
    place = f"{ours[-1].name}, line {ours[-1].lineno}" if ours else "an unknown place"
    told = {
        "what": f"{type(error).__name__} in {place}",
        "why": "an error of abfed, not of yours; its text is withheld, as it could hold data",
        "do": "run again with ABFED_DEBUG=1 where its text may be seen, and report it",
    }
    if as_json:
        say_json({"error": "defect", "where": ""} | told | {"exit_code": 1})
    else:
        complain(f"defect: {told['what']}\n  why: {told['why']}\n  do:  {told['do']}")
    return 1
