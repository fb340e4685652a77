"""The security review: each control with its state, evidence, date and owner, on one page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from abfed.lab.paper.page import SOURCE_HEX, opening, paragraph, pill, roomy, section, table
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError

WORDS = {"holds": ("holds", "yes"), "look": ("look at it", "open"), "red": ("NOT SO", "no")}
_TICKED = re.compile("`([^`]+)`")
NEVER = "never checked"
FEW = 3
"""Lines of evidence that are shown at once; the rest unfolds."""


def open_review(path: Path) -> dict[str, Any]:
    """A review's values; its signature was checked before they were handed over.

    Raises:
        InputError: there is none.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise InputError(
            "it isn't a review's values", where=str(path),
            why="`abfed review` keeps what it found sealed; only a report is handed it",
            do="type `abfed review`, then `abfed report security`",
        ) from cause  # fmt: skip
    return values


def source_of(review: Mapping[str, Any]) -> str:
    """The source of figures that follow from a review."""
    return f"review:{sha256_hex(canonical_bytes(review))[:SOURCE_HEX]}"


def headline(review: Mapping[str, Any]) -> str:
    """How it stands, in a few sentences."""
    states = Counter(one["state"] for one in review["controls"])
    sites = ", ".join(review["sites"])
    red = [one["id"] for one in review["controls"] if one["state"] == "red"]
    said = (
        f"{states['red']} of {len(review['controls'])} controls do not hold: {', '.join(red)}."
        if red
        else f"All {len(review['controls'])} controls hold."
    )
    near = ""
    if states["look"] == 1:
        near = " One holds today and asks for a decision."
    elif states["look"]:
        near = f" {states['look']} hold today and ask for a decision."
    how = "Every state follows from facts that were checked; what was not checked counts as not so."
    return opening(
        "For the board",
        "<h1>Security review</h1>"
        f'<div class="soft">{escape(sites)} · {escape(review["at"][:10])}</div>'
        f'<div class="{"warn" if red else "key"}">{paragraph(f"{said}{near}")}</div>'
        f"{paragraph(how, 'soft')}",
    )


def asking(review: Mapping[str, Any]) -> str:
    """What isn't so and what needs a decision, first; what asks for the same stands together."""
    alike: dict[tuple[str, tuple[str, ...], str], list[Mapping[str, Any]]] = {}
    for state in ("red", "look"):
        for one in review["controls"]:
            if one["state"] == state:
                key = (state, tuple(one["evidence"]), one["owner"] or "nobody")
                alike.setdefault(key, []).append(one)
    rows = [
        (
            escape(", ".join(one["id"] for one in same)),
            "<br>".join(escape(one["asked"]) for one in same),
            pill(*WORDS[state]),
            _evidence(why),
            escape(owner),
        )
        for (state, why, owner), same in alike.items()
    ]
    if not rows:
        return section("What asks for somebody", paragraph("Nothing does."))
    head = ("Control", "What is asked", "State", "Why", "Owner")
    return section("What asks for somebody", table(head, rows, source=source_of(review), counts=()))


def every(review: Mapping[str, Any]) -> str:
    """All controls, with their evidence."""
    rows = [
        (
            f"{escape(one['id'])}",
            escape(one["asked"]),
            pill(*WORDS[one["state"]]),
            _evidence(one["evidence"]),
            f"<time>{escape(one['on'])}</time>" if one["on"] else NEVER,
            escape(one["owner"] or "nobody"),
        )
        for one in review["controls"]
    ]
    head = ("Control", "What is asked", "State", "Evidence", "As of", "Owner")
    return section("All controls", table(head, rows, source=source_of(review), counts=()))


def _evidence(lines: Sequence[str]) -> str:
    shown = roomy(_lines(lines[:FEW]))
    if len(lines) <= FEW:
        return shown
    rest = _lines(lines[FEW:])
    return f"{shown}<details><summary>{len(lines) - FEW} more</summary><div>{rest}</div></details>"


def _lines(lines: Sequence[str]) -> str:
    """Lines of evidence, told apart where there are several: one may wrap."""
    mark = "· " if len(lines) > 1 else ""
    return "<br>".join(f"{mark}{_commands(escape(line))}" for line in lines)


def _commands(line: str) -> str:
    """What stands between backticks, as code."""
    return _TICKED.sub(r"<code>\1</code>", line)
