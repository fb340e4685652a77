"""Whether the ticks of an axis say where they stand, by what writes them.

matplotlib's own formatters write a tick's place: as a number, with what is common to all ticks set
apart (`1e6`), as a power, or as a day. Such a label counts nobody, whatever number it is. What a
notebook's author writes (`FixedFormatter`, a function, a format with words in it) may count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_NUMBERS = frozenset({
    "ScalarFormatter", "EngFormatter", "LogFormatter", "LogFormatterExponent",
    "LogFormatterMathtext", "LogFormatterSciNotation", "LogitFormatter",
})  # fmt: skip
_DAYS = frozenset({"DateFormatter", "AutoDateFormatter", "ConciseDateFormatter"})
_OF_PANDAS = frozenset({"PandasAutoDateFormatter", "TimeFormatter", "TimeSeries_DateFormatter"})
_DIRECTIVE = re.compile(r"%[-#]?[A-Za-z]")
_WORD = re.compile(r"\w")


def says_places(formatter: Any) -> bool:
    """Whether a formatter says the places of ticks, and nothing that its author added."""
    kind = type(formatter)
    match kind.__module__, kind.__name__:
        case "matplotlib.ticker", name if name in _NUMBERS:
            return not getattr(formatter, "unit", "")
        case "matplotlib.dates", name if name in _DAYS:
            return all(map(_is_of_days, _formats(formatter)))
        case "pandas.plotting._matplotlib.converter", name:
            return name in _OF_PANDAS and all(map(_is_of_days, _formats(formatter)))
    return False


def _formats(formatter: Any) -> Iterator[Any]:
    for name in ("fmt", "defaultfmt"):
        yield getattr(formatter, name, "")
    for name in ("formats", "zero_formats", "offset_formats"):
        yield from getattr(formatter, name, ())
    yield from getattr(formatter, "scaled", {}).values()


def _is_of_days(form: Any) -> bool:
    """Whether all words of a format are parts of a date."""
    return isinstance(form, str) and not _WORD.search(_DIRECTIVE.sub("", form))
