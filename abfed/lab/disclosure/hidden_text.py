"""Small counts in what was printed: a number is judged by the name that it stands behind.

1. Behind a name (`opened: 3`, `'plain': 3`, `opened  3`, `Row(opened=3)`) a whole number below
   `SMALL` is hidden, unless the name is a parameter's, or that of a share or an estimate; behind a
   name that counts, so is one that isn't whole, unless it could be a share.
2. A whole number that stands alone in its line, in a list of numbers, beside other figures of its
   row, or behind a number's colon in braces has no name: it counts.
3. Words of a sentence are left alone, unless they say what is counted: `3 buyers`, `opened 3`.

Time grows with the text: what is looked at around a number has an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from abfed.lab.disclosure.legible import settled
from abfed.lab.disclosure.phrases import (
    IN_WORDS,
    as_read,
    counts_before,
    counts_behind,
    digit_of,
    harmless,
    in_usual_digits,
    is_alone,
    is_part,
    undecorated,
)

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

SMALL = 10
"""Counts of people below it aren't shown: the usual threshold of official statistics."""
BOUND = f"< {SMALL}"

GROUPED = r"[-−+]?\d++(?:,\d{3}(?!\d))*+(?:\.\d++)?+"
"""A number, in groups of three digits or not."""
_PLAIN = r"[-−+]?\d++(?:\.\d*+)?+"
_IN_TEXT = re.compile(
    rf"(?<![\w.:]){GROUPED}(?:e[-+]?\d{{1,3}})?+(?![\w%]|\s?%|:\d)"
    rf"|(?:(?<=[A-Za-z\"']:)|(?<=\.\.)){GROUPED}(?![\w%:])"
    r"|(?<![\w.:-])\d++(?=[x×]\s|[^\W\d_]{4,41}(?!\w))|(?<=[^\W\d_]{4})\d++(?![\w%.:])"
)
"""A number by itself, behind a letter or a colon, or with a word right beside it."""
_LIST = re.compile(rf"[\[({{]\s{{0,9}}{_PLAIN}(?:[\s,]++{_PLAIN})*+[\s,]*+[\])}}]")
_WRAP = re.compile(r"(?:np\.)?(?:u?int|float|Int|UInt|Float|Decimal)\d{0,2}\(['\"]?$")
_UNWRAP = re.compile(r"['\"]?\)")
_ENDS = re.compile(
    r"\.?['\"]?[*†‡§!?`~]{0,3}(?:\s{0,9}(?:$|[,;)}\]|&│┃\\±(–—<>\n])|\s{2}|\s-\s|\t)|\.\s"
    r"|\s{1,3}[\w-]{1,40}\s?[=:]|\s[^\W\d_]{1,40}\s\d"
)
"""What stands behind a number that is a whole item: the end, a comma, a bracket, a gap."""
_PAIRED = re.compile(r"[,;]\s{1,3}[^\W\d_][\w-]{0,40}\s\d")
_PAIRED_BEFORE = re.compile(r"\d[,;]\s{1,3}[^\W\d_][\w-]{0,40}\s$")
_TURNS = re.compile(
    r"\s*(?:(?!(?:of|vs|in|to|from|and|or|at|by|with|for|is|than)\b)[^\W\d_][\w-]{0,40}"
    r"\s{1,3}[-\d][\d,.]*+\s*){2,}"
)
_LINE = "\n"
_TIMES = re.compile(r"\stimes\b")
_DECIMALS = re.compile(r"^,\d{1,2}(?![\d,])")
"""Decimals behind a comma: `3,0 buyers`."""
_QUOTED = re.compile(r"(['\"])([^'\"\n]{0,60})\1$")
_BEHIND = re.compile(r"\s{0,3}(?:of\s(?:the\s)?)?(?:\d[\d,]*\s)?([^\W\d_][\w-]{0,40})")
_BEFORE_NAMES = ",;|&│┃{['\"=:\t"
_PARTING = ":=|&│┃;→>⇒➔➜⟶≈~≃≅≤≥<·•–—-."
"""What stands between a name and its value, besides a comma and a gap."""
_DIGITS = frozenset("0123456789")
_AROUND = " \t\r'\"."
_WINDOW = 80  # characters before a number in which its name is looked for


def hidden_in_text(text: str, counted: Counted) -> str:
    """What was printed, each small count with a bound in its place.

    >>> from abfed.lab.disclosure.counted import Counted
    >>> hidden_in_text("Counter({'warm': 12, 'urgent': 3}); rounds: 5; 4 buyers", Counted())
    "Counter({'warm': 12, 'urgent': < 10}); rounds: 5; < 10 buyers"
    """
    said = in_usual_digits(settled(text))
    hidden = _hidden(said, counted)
    if "$" in hidden or "\\" in hidden:
        plain = as_read(hidden)
        if (bounded := _hidden(plain, counted)) != plain:
            return bounded
    return text if hidden == said else hidden


def _hidden(said: str, counted: Counted) -> str:
    small = set(_in_lists(said, counted))
    lists = [one.span() for one in _LIST.finditer(said)]
    for number in _outside(_IN_TEXT.finditer(said), lists):
        if _is_small(number, counted):
            small.add(number.span())
    small.update(_in_words_of_their_own(said, counted))
    parts, at = [], 0
    for start, end in sorted(small):
        parts += [said[at:start], BOUND]
        at = end
    return "".join([*parts, said[at:]])


def _in_words_of_their_own(said: str, counted: Counted) -> Iterator[tuple[int, int]]:
    """Small numbers that are spelled out: each is judged as its digit in the same place."""
    for word in IN_WORDS.finditer(said):
        left = said[max(0, word.start() - _WINDOW) : word.start()]
        right = said[word.end() : word.end() + _WINDOW]
        number = _IN_TEXT.match(f"{left}{digit_of(word)}{right}", len(left))
        if number is not None and _is_small(number, counted):
            yield word.span()


def read(number: str) -> float:
    """A number as it is written, with a sign of either kind."""
    return float(number.replace(",", "").replace("−", "-"))


def are_shares(values: Iterable[float]) -> bool:
    """Whether figures are shares, or differences between such: none beyond one, some not whole."""
    given = list(values)
    return all(abs(one) <= 1 for one in given) and any(one != int(one) for one in given)


def _outside(
    numbers: Iterable[re.Match[str]], spans: list[tuple[int, int]]
) -> Iterator[re.Match[str]]:
    """Numbers that stand in none of the spans, both in their order."""
    place = 0
    for one in numbers:
        while place < len(spans) and spans[place][1] <= one.start():
            place += 1
        if place == len(spans) or one.start() < spans[place][0]:
            yield one


def _in_lists(text: str, counted: Counted) -> Iterator[tuple[int, int]]:
    """Whole numbers in lists of numbers, unless the list is named after a parameter."""
    for held in _LIST.finditer(text):
        values = list(re.finditer(_PLAIN, held[0]))
        before = text[max(0, held.start() - _WINDOW) : held.start()].rpartition("\n")[2]
        name, _ = _before(before.rstrip("[( "))
        if (name and counted.spares(name)) or are_shares(read(one[0]) for one in values):
            continue
        for one in values:
            value = read(one[0])
            if value < SMALL and value.is_integer():
                length = len(one[0].rstrip("."))
                yield held.start() + one.start(), held.start() + one.start() + length


def _is_small(number: re.Match[str], counted: Counted) -> bool:
    """Whether a number in a text is a small count, by what stands around it."""
    value = read(number[0])
    if value >= SMALL:
        return False
    left, right = _around(number)
    before, after = undecorated(left), undecorated(_DECIMALS.sub("", right))
    behind = _BEHIND.match(after)
    if value.is_integer() and behind and counted.counts(behind[1]):
        return True
    if left[-1:].isalpha() or (right[:1].isalpha() and right[0] not in "x×"):  # within a word
        return left[-1:].isalpha() and counted.counts(_last_word(left))
    if harmless(before, after, counted):
        return False
    if is_alone(left, right.partition("\n")[0]):
        return value.is_integer()
    named = _is_named(value, before if left[-1:] == "`" else left, right, counted)
    in_words = value.is_integer() and _in_words(value, before, after, counted)
    return in_words if named is None else named


def _is_named(value: float, left: str, right: str, counted: Counted) -> bool | None:
    """Whether the name that a number stands behind makes it a small count; None: no name does."""
    name, beside = _before(left)
    ends = bool(_ENDS.match(right))
    counts = counted.counts(name) or name.casefold() in counted.names
    if name and counted.spares(name):
        return False
    if name and (ends or (value.is_integer() and counts)):
        return value.is_integer() or (abs(value) > 1 and counts)
    if not name and (
        (ends and (beside or _is_paired(left, right, counted)))
        or ((ends or _TIMES.match(right)) and _is_next_to_its_name(left, counted))
    ):
        return value.is_integer()
    return None


def _in_words(value: float, before: str, after: str, counted: Counted) -> bool:
    """Whether words around a number say that it counts people."""
    return (
        is_part(value, before, after, counted)
        or counts_behind(after, counted)
        or counts_before(before, counted)
    )


def _is_next_to_its_name(left: str, counted: Counted) -> bool:
    word = _last_word(left)
    return left[-1:].isspace() and (counted.counts(word) or word.casefold() in counted.names)


def _is_paired(left: str, right: str, counted: Counted) -> bool:
    """Whether names and numbers take turns: `gold 3, silver 4`, or in a line of nothing else."""
    paired = _PAIRED.match(right) or _PAIRED_BEFORE.search(left)
    if paired is None and not _TURNS.fullmatch(f"{left}0{right.partition(_LINE)[0]}"):
        return False
    return left[-1:].isspace() and not counted.spares(_last_word(left))


def _last_word(left: str) -> str:
    said = left.rstrip()
    return said[said.rfind(" ") + 1 :]


def _around(number: re.Match[str]) -> tuple[str, str]:
    """What stands before a number in its line, and what behind it, without a type's own words."""
    text, first = number.string, max(0, number.start() - _WINDOW)
    left = text[max(first, text.rfind("\n", first, number.start()) + 1) : number.start()]
    right = text[number.end() : number.end() + _WINDOW]
    if left[-1:] in {"(", "'", '"'} and (wrapped := _WRAP.search(left)):
        closed = _UNWRAP.match(right)
        return left[: wrapped.start()], right[closed.end() :] if closed else right
    return left, right


def _before(left: str) -> tuple[str, bool]:
    """The name that a value stands behind, if any, and whether it stands beside a figure."""
    bare = left.rstrip(" \t'\"") if left[-1:] in {"'", '"'} else left.rstrip()
    gap, parting = left[len(bare) :], bare[-1:]
    if parting and parting in _PARTING and not _is_within(bare, gap):
        held = bare[:-1].rstrip("-=<.· \t")
        held = held.rstrip("|& ") if parting == "=" else held
    elif parting == "," and (not gap or bare[-2:-1] in {"'", '"'}):
        held = bare[:-1].rstrip()
    elif "\t" in gap or len(gap) > 1:
        held = bare
    else:
        return "", False
    if held[-1:] in {"'", '"'} and (quoted := _QUOTED.search(held)):
        return quoted[2], False
    starts = [held.rfind(one) for one in _BEFORE_NAMES]
    if (apart := held.rfind("  ")) >= 0:
        starts.append(apart + 1)
    if held.count("(") > held.count(")"):
        starts.append(held.rfind("("))
    name = held[max(starts) + 1 :].strip()
    if any(letter.isalpha() for letter in name):
        return name, False
    return "", held[-1:] in _DIGITS and parting != "="


def _is_within(bare: str, gap: str) -> bool:
    """Whether a dash or a point parts no name from a value: it stands in a word, or in a range."""
    parting, rest = bare[-1], bare[:-1]
    if parting == ".":
        return not rest.endswith(".")
    if parting not in "-–—":
        return False
    return rest.rstrip()[-1:] in _DIGITS or not (gap and rest[-1:].isspace())
