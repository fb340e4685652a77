"""What a notebook's parameter may be, as the comment behind it says; checked before any kernel.

The comment begins with one of these, and goes on with a colon and its words for people:

- `between 0 and 1`: a number between them, neither of the two;
- `from 2 to 100000`: a number from one to the other, both allowed;
- `each from 0.1 to 100`: a text that lists such numbers, with commas;
- `one of brands`: one of what the report's subject has of it; nothing where nothing is the default;
- `a period`: `2026`, `2026-Q2` or `2026-05`; nothing where nothing is the default.

A comment that begins otherwise only explains. What abfed itself hands over (a run, a plan) may be
asked for more closely, by words of `WITH_MODEL` and `MADE_UP`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from abfed.lab.periods import PERIOD
from abfed.protocol.errors import InputError

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOUNDS = re.compile(
    rf"(?P<each>each )?(?:between (?P<above>{_NUMBER}) and (?P<below>{_NUMBER})"
    rf"|from (?P<least>{_NUMBER}) to (?P<most>{_NUMBER})"
    r"|one of (?P<kind>[a-z]+)|(?P<period>a period))(?::|$)"
)
_SHOWN = 8  # names of brands
WITH_MODEL = "whose plan has a model"
MADE_UP = "whose primary question is simulated"
"""The page is of made-up people: it is about a plan, not about a run of real ones."""


class NotThere(InputError):
    """What was asked for isn't in what this report is about; it may be in another's."""


def check_bounds(
    name: str, value: Any, comment: str, choices: Mapping[str, Sequence[str]], *, where: str
) -> None:
    """Whether a value of the right type is one that the comment allows.

    Args:
        name: the parameter's.
        value: what was given; defaults are the notebook's own.
        comment: what stands behind it in the notebook.
        choices: what the report's subject has, such as its `brands`.
        where: the notebook, for messages.

    Raises:
        InputError: it isn't; says what would be.
        NotThere: it would be one of another report.
    """
    told = _BOUNDS.match(comment)
    if told is None:
        return
    if told["kind"] is not None:
        _check_choice(name, str(value), told["kind"], choices, where)
    elif told["period"]:
        if value and not PERIOD.fullmatch(str(value)):
            raise InputError(
                f"parameter {name!r} is no period", where=where, do="write 2026, 2026-Q2 or 2026-05"
            )
    elif not all(_inside(one, told) for one in _numbers(value)):
        raise InputError(
            f"parameter {name!r} is out of range",
            where=where,
            why=f"{'each of its numbers' if told['each'] else 'it'} must be "
            f"{told[0].rstrip(':').removeprefix('each ')}",
            do="give numbers with commas between them" if told["each"] else "give such a number",
        )


def check_fits(
    name: str, comment: str, unfit: Mapping[str, tuple[str, str]], *, where: str
) -> None:
    """Whether what a report is about is what its notebook asks for.

    Args:
        name: the parameter by which it is handed over.
        comment: what stands behind it in the notebook.
        unfit: words of such comments that ask for what this isn't: why it isn't, and what to do.
        where: the notebook, for messages.

    Raises:
        NotThere: it isn't.
    """
    for words, (why, do) in unfit.items():
        if words in comment:
            raise NotThere(f"{name} is to be {comment}", where=where, why=why, do=do)


def _numbers(value: Any) -> list[float]:
    """The numbers that a value lists; one that no text can be is outside of every range."""
    if not isinstance(value, str):
        return [float(value)]
    try:
        return [float(one) for one in value.split(",")]
    except ValueError:
        return [float("nan")]


def _inside(number: float, told: re.Match[str]) -> bool:
    if told["above"] is not None:
        return float(told["above"]) < number < float(told["below"])
    return float(told["least"]) <= number <= float(told["most"])


def _check_choice(
    name: str, value: str, kind: str, choices: Mapping[str, Sequence[str]], where: str
) -> None:
    known = list(choices.get(kind, ()))
    if not value or value in known:
        return
    listed = ", ".join(known[:_SHOWN]) + (" and others" if len(known) > _SHOWN else "")
    near = get_close_matches(value, known, n=1)
    raise NotThere(
        f"parameter {name!r} is none of the report’s {kind}",
        where=where,
        why=f"they are: {listed}" if known else f"nothing in it is said of single {kind}",
        do=f"did you mean {near[0]!r}?" if near else "name one of them, or leave it out",
    )
