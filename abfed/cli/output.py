"""How commands speak: tables for people, one JSON value with `--json`, errors in one shape."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from abfed.protocol.errors import AbfedError


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, paths are text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def say_json(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")


def say(text: str = "") -> None:
    """Print a line for people."""
    sys.stdout.write(text + "\n")


def table(rows: Sequence[Mapping[Any, Any]], *, title: str = "") -> None:
    """Print rows of the same keys as a table."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float) for row in rows)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(cell(value) for value in row.values()))
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(shown)


def cell(value: Any) -> str:
    """A value in a table: four significant digits, a dash for what is missing."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    return "–" if value is None else str(value)


def fail(error: AbfedError, *, as_json: bool) -> int:
    """Print an error of ours and return its exit code."""
    if as_json:
        say_json(error.as_dict() | {"exit_code": error.exit_code})
        return error.exit_code
    place = f"{error.where}: " if error.where else ""
    lines = [f"{error.kind}: {place}{error.what}"]
    lines += [f"  why: {error.why}"] if error.why else []
    lines += [f"  do:  {error.do}"] if error.do else []
    sys.stderr.write("\n".join(lines) + "\n")
    return error.exit_code


def defect(error: BaseException) -> int:
    """Report an error that isn't ours to expect, without its text: it might hold a value of a row.

    `ABFED_DEBUG=1` prints the whole traceback, on machines where that may be seen.
    """
    if os.environ.get("ABFED_DEBUG") == "1":
        traceback.print_exception(error)
        return 1
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "abfed" in frame.filename] or list(frames)
    place = f"{ours[-1].name}, line {ours[-1].lineno}" if ours else "an unknown place"
    sys.stderr.write(
        f"defect: {type(error).__name__} in {place}\n"
        "  why: an error of abfed, not of yours; its text is withheld, as it could hold data\n"
        "  do:  run again with ABFED_DEBUG=1 where its text may be seen, and report it\n"
    )
    return 1
