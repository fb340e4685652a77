"""What the words around a number in a sentence say of it: that it counts people, or doesn't.

1. Behind a number, the first noun that is known within a few words says what it is of: `3 new
   buyers`, `3 of them`, `3 silos`, `3 days`. A unit, a month or money says that it is of no people.
2. Before it, a word that counts does, if nothing but words such as `were only` stands between; so
   does an arm's, a brand's or a segment's name. A parameter's name beside a number numbers it:
   `step 3`, `Python 3`, `figure 2`.
3. A part of a whole (`3 of 20`, `3 / 20`) counts people, unless 1 or 2 says something else.

What stands between is looked at for a few words only: time grows with the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from abfed.lab.disclosure.counted import listed

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

_REACH = 4  # words between a number and its noun
_WORD = re.compile(r"[^\W\d_](?:[\w\u2019'-]{0,40}\w)?")
_TOKEN = re.compile(rf"{_WORD.pattern}|\d[\d,.]*|\s{{2,}}|[^\w\s]")
_RANGE = re.compile(r"\s?(?:[-–—]|to|or|and)\s?(?=\d)")
"""Between the two ends of a range: `3 to 5 buyers`."""
_ASIDE = re.compile(r"\([^()\n]{0,40}\)")
"""What is said in brackets between a number and its noun: `3 (three) buyers`."""
_DECORATED = re.compile(r"[*`~\u2018“”\"]+|(?<!\w)['\u2019_]+|['\u2019_]+(?!\w)")
"""Marks of Markdown and quotes: nobody reads them aloud."""
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_UNIT = re.compile(
    r"\s?(?:[%‰°€£¥]|\$(?!\w)|[µμnm]?s\b|min\b|hrs?\b|h\b|secs?\b|mins?\b|points?\b|pp\b|bits?\b"
    r"|bytes?\b|[kKMGT]i?B\b|[kMG]?Hz\b|[mck]?m\b|px\b|pt\b|[ap]\.?m\b|[Ss][De]\b|sd\b|σ|ε)"
    rf"|\s?{_MONTH}\b"
)
_MONTH_BEFORE = re.compile(rf"\b{_MONTH}\.?\s$")
_MONEY = re.compile(r"[€£¥$]\s?$")
_NUMBERED = re.compile(r"(?:\b([^\W\d_]{1,40})\s)?\b([^\W\d_]{1,40})[\s#№]{1,3}$")
_EACH = listed("per each every a an")
_OF = r"\s{0,3}(?:[/\u2044\u2215÷]|(?:out\s)?of\s(?:the\s|all\s)?|in\severy\s|from\s|per\s)\s{0,3}"
_PART = re.compile(rf"{_OF}(\d[\d,]*)(?![\d/.])")
_WHOLE = re.compile(rf"(?<![\d/.])(\d[\d,]*){_OF}$")
_AGAINST = re.compile(r"\s(?:vs\.?|versus|against)\s\d")
_AGAINST_BEFORE = re.compile(r"(?<!\d)\d[\d,]{0,12}\s(?:vs\.?|versus|against)\s$")
_VALUE_OF = re.compile(r"\s{0,2}(?:[-=:–—@|→⇒·]|[=-]>|\.{2,9})\s{0,2}([^\W\d_][\w-]{0,40})")
"""Between a value and the name behind it: `3 -> opened`."""
_TIED = " \t(≈~×*/@,"
_PEOPLE = listed(
    "who whom whose them us anybody everybody somebody folks paid left came took non-null entries "
    "male female aged live living opted answered replied shared undelivered view views session "
    "sessions download downloads sale sales sold transaction transactions refund refunds cart "
    "carts basket baskets pageviews hits successes yes missing nulls outliers duplicates uniques "
    "ids identities families kids teenagers vips churners nonbuyers repeaters cases samples "
    "records observations obs"
)
"""Words that count in a sentence, and name no column of counts."""
_PLAIN = listed(
    "columns lines pages tables figures plots charts models items digits decimals places "
    "characters letters words files folders versions layers parameters features folds batches "
    "trees threads cores workers processes jobs attempts retries tries chunks bins clusters "
    "components neighbours neighbors degrees dimensions sections chapters points steps tests "
    "hypotheses comparisons intervals quantiles moments interactions predictors"
)
"""Nouns of no people, besides parameters."""
_ORDINALS = listed(
    "python version v pandas numpy figure fig table tab section chapter part page line column "
    "step fold layer point question note footnote appendix equation eq case option item no nr "
    "phase stage task cell block release model type class grade kind "
    "rule java node torch sklearn scipy matplotlib debian "
    "ubuntu linux http ipv tls sha article annex decision issue"
)
"""Words that number what stands behind them, besides parameters: `figure 2`."""
_LINKING = listed(
    "is are was were be been being has have had got gets get now then only just about around "
    "roughly approximately nearly almost exactly at most least to totals totalled totaled "
    "of numbers numbered counted came reached amount amounts amounted equal "
    "equals than fewer less more merely still stands stood remain remained remains the a it by "
    "them there all both also even below under over above up down fell rose dropped went from no "
    "not ca approx circa others additional remaining sum i e ie it's "
    "this that makes leaves leaving answer result results altogether overall"
)
"""Words that may stand between what is counted and its number: `buyers were only 3`."""
_PREPOSITIONS = listed("in on at to and or but by as is are was were")
_JOINING = frozenset("/,&+")
_DIGITS = frozenset("0123456789")
_STOPS = listed(
    "for with per when if than from into about while because since where which whereas after "
    "before until between during without within"
)
"""Words behind which another thing is spoken of."""
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IN_WORDS = re.compile(rf"(?<![\w-])(?:{'|'.join(_WORDS)})(?![\w-])", re.IGNORECASE)
"""A small number that is spelled out."""
_TOGETHER = re.compile(r"[-−+]?\d[\d,.]*(?:\s?%)?|[^\W\d_]+|[€£¥$‰°]")
_ONLY = re.compile(r"\b(?:only|just|exactly|merely)\s{1,3}$", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_FROM_0_TO_9 = frozenset(range(10))
_MARKED = re.compile(r"(?<=[0-9])[\u0300-\u036f\u20d0-\u20ff]+")
"""What is set over or around a digit: the frame of a key."""
_COMMAND = re.compile(r"\\(?:([a-zA-Z]+)\*?\s?|[,;:!()\[\]{} ])|[{}$]|~")
_LOOKS = re.compile(
    r"(?:math|text|bold|display|script|operator)[a-z]*|emph|bf|it|rm|sf|tt|[bB]ig+[lr]?|left|right"
    r"|(?:tiny|small|large|Large|LARGE|huge|Huge|normalsize)|q?quad|underline|overline|hat|bar"
)
"""What says how something looks."""
_EQUALS = re.compile(r"approx|sim(?:eq)?|l?eq|le|geq?|equiv|to|colon|[a-zA-Z]*arrow|mapsto|cong")


def in_usual_digits(said: str) -> str:
    """A text whose digits are 0 to 9, whatever they were: in circles, Arabic, Chinese.

    >>> in_usual_digits("❸ of ٣, 三")
    '3 of 3, 3'
    """
    said = _CONTROLS.sub("", said)
    if said.isascii():
        return said
    values = {one: unicodedata.numeric(one, -1) for one in set(said) if not one.isascii()}
    known = {ord(one): str(int(value)) for one, value in values.items() if value in _FROM_0_TO_9}
    return _MARKED.sub("", said.translate(known))


def as_read(said: str) -> str:
    r"""A text of TeX as it is read, without what says how it looks; one `$` alone is money.

    >>> as_read(r"$n = \mathbf{3}$ buyers")
    'n = 3 buyers'
    """
    money = "$" if said.count("$") % 2 else ""
    return _COMMAND.sub(lambda found: _as_read(found, money), said)


def _as_read(command: re.Match[str], money: str) -> str:
    if (name := command[1]) is None:
        return money if command[0] == "$" else " " if command[0][-1] in " ,;:~" else ""
    if _LOOKS.fullmatch(name):
        return " " if name.endswith("quad") else ""
    return " = " if _EQUALS.fullmatch(name) else f" {name.removeprefix('var')} "


def undecorated(said: str) -> str:
    """Without quotes and marks of Markdown."""
    return _DECORATED.sub("", said)


def harmless(left: str, right: str, counted: Counted) -> bool:
    """Whether what stands around a number says that it is of no people."""
    if _UNIT.match(right) or _MONTH_BEFORE.search(left):
        return True
    if _MONEY.search(left) and not right.startswith("$"):
        return True
    return _is_numbered(left, counted) or _noun(right, counted) is False


def _is_numbered(left: str, counted: Counted) -> bool:
    """Whether a number is the name of something: `step 3`, but not `per step 3`."""
    before = _NUMBERED.search(left)
    if before is None:
        return False
    word = before[2].casefold()
    if word in counted.names | counted.outcomes:
        return False
    return word in _ORDINALS or (
        counted.numbers(word) and (before[1] or "").casefold() not in _EACH
    )


def counts_behind(right: str, counted: Counted) -> bool:
    """Whether what stands behind a number says that it counts people."""
    if name := _VALUE_OF.match(right):
        return counted.counts(name[1]) or name[1].casefold() in counted.names
    return bool(_noun(right, counted))


def _noun(right: str, counted: Counted) -> bool | None:
    """Whether the first noun that is known counts people; None where there is none.

    Behind a preposition, a parameter is no longer what the number is of: `3 in 2 silos`.
    """
    beyond = False
    for word in _words_behind(right):
        if word in _JOINING:
            beyond = True
            continue
        plain = word in _PLAIN
        if not plain and (word in _PEOPLE or word in counted.names or counted.counts(word)):
            return True
        if not beyond and (plain or counted.spares(word)):
            return False
        beyond = beyond or word in _PREPOSITIONS
    return None


def _words_behind(right: str) -> Iterator[str]:
    said = _ASIDE.sub("", _RANGE.sub("", right) if _RANGE.match(right) else right)
    said = re.sub(r"^\s?[x×](?=\s)|^[)\]+]", "", said).lstrip(" ")
    words = 0
    for token in islice(_TOKEN.finditer(said), 3 * _REACH):
        word = token[0].casefold().removesuffix("\u2019s").removesuffix("'s")
        if not (word[0].isalnum() or word in _JOINING) or word in _STOPS or words > _REACH:
            return
        words += word[0].isalpha()
        if not word[0].isdecimal():
            yield word


def counts_before(left: str, counted: Counted) -> bool:
    """Whether what stands before a number, in words alone, says that it counts people."""
    bare = left.rstrip(_TIED)
    words = _OWN.sub("", bare.casefold()[-_FAR:]).split()
    tied = bool(left[len(bare) :].strip())
    for place, word in enumerate(reversed(words)):
        linking = word in _LINKING or word[0] in _DIGITS
        if (place > 0 or tied) and (
            word in counted.names or (not linking and counted.counts(word))
        ):
            return True
        if not linking:
            return False
    return False


def is_alone(left: str, right: str) -> bool:
    """Whether a line says nothing but a number, others beside it, and words such as `only`.

    Others with a sign or decimals say that it is an estimate: `2 (−5.0 to +9.5)`.

    >>> [is_alone("only ", " (15 %)"), is_alone("", " 4"), is_alone("2026-11-", "")]
    [True, True, False]
    """
    if _JOINED_BEFORE.search(left) or _JOINED.match(right):
        return False
    said = islice(_TOGETHER.finditer(f"{right} {left}"), _MOST_BESIDE)
    return all(one[0].casefold() in _LINKING or _WHOLE_OR_SHARE.fullmatch(one[0]) for one in said)


_MOST_BESIDE = 16  # numbers and words of a line; one with more is judged by these
_JOINED_BEFORE = re.compile(r"\d(?:[-/]|\s?×\s?)$")
_JOINED = re.compile(r"(?:[-/.:]|\s?×\s?)\d")
_WHOLE_OR_SHARE = re.compile(r"\d[\d,]*\.?|\d[\d,.]*\s?%")
_OWN = re.compile(r"['\u2019]s\b")
_FAR = 60  # characters before a number in which its words are looked for


def is_part(value: float, left: str, right: str, counted: Counted) -> bool:
    """Whether a number is a part of a whole, or a whole that has parts, of no known thing else."""
    behind, before = _PART.match(right), _WHOLE.search(left)
    if behind and not _JOINED_BEFORE.search(left):
        rest = right[behind.end() :]
        return value <= _of(behind[1]) and not (_UNIT.match(rest) or _noun(rest, counted) is False)
    if before and not _JOINED.match(right):
        return not _is_numbered(left[: before.start()], counted) and _of(before[1]) <= value
    if (against := _AGAINST_BEFORE.search(left)) is not None:
        return not _is_numbered(left[: against.start()], counted)
    return _AGAINST.match(right) is not None


def _of(number: str) -> float:
    return float(number.replace(",", "") or "0")


def digit_of(word: re.Match[str]) -> str:
    """A number in words as a digit. `One` is a pronoun, too: only where it is said to be no more.

    >>> [digit_of(one) for one in IN_WORDS.finditer("one or three, only one")]
    ['', '3', '1']
    """
    said, left = word[0].casefold(), word.string[max(0, word.start() - _FAR) : word.start()]
    return "" if said == "one" and not _ONLY.search(left) else str(_WORDS.index(said))
