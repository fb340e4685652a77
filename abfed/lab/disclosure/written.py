"""What is written in pictures, as a report's kernel told it, and whether it shows small counts.

The kernel notes it while it draws (`overhearing`), by the digest of each picture; what it told is
read here, outside, as anybody's words. A picture can't be hidden in part: one in which a small
count is written is left out whole. A number in a picture is judged by the rules of text, and by the
names that it stands under:

1. a number alone (on a bar, at a point) counts people, unless all names it stands under (of both
   axes, of its legend) are a parameter's, a share's or an estimate's, or all such are shares;
2. the ticks of an axis count nobody where they are its scale: matplotlib itself says their places
   (`places`), each says its own, or three and more stand evenly apart. Others are judged by the
   axis' name, as a column is by its heading;
3. marks, such as the height of a bar, say nothing here: only what is written is judged.

A drawing that the kernel didn't draw has no places: what is said in it is judged as words alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.lab.disclosure.drawings import print_of, said_in
from abfed.lab.disclosure.hidden_text import GROUPED, SMALL, are_shares, hidden_in_text, read
from abfed.lab.disclosure.legible import settled

if TYPE_CHECKING:
    from abfed.lab.disclosure.counted import Counted

MOST_TOLD = 64 << 20  # bytes: a report of a hundred drawings tells a megabyte
MOST_CELLS = 400
"""Of an image, a mesh, or marks on a grid: 20 × 20. A week's hours are 168, a year's days 371. The
smallest letters that PIL has at hand take 42 cells each, so that nine go in as many."""
_EVENLY = 3  # ticks from which on even distances say that they are a scale
_ROUNDED, _EXACTLY = 0.51, 0.01  # of one in the last place
_MATH = re.compile(r"(?<!\\)\$")
_TEN_TO = re.compile(r"10\^\{?([-−]?\d+)\}?")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\(?:q?quad(?![a-zA-Z]) ?|[,:;> ])|~")
_NO_SPACE = re.compile(r"\\!")
_COMMAND = re.compile(r"\\[a-zA-Z]+ ?|(?<!\\)[{}$]")
_QUOTED = re.compile(r"\\(.)")
_ALONE = re.compile(
    rf"({GROUPED}\.?(?:e[-+−]?\d{{1,2}})?)"
    rf"(?:\s?(?:/|(?:out )?of)\s?{GROUPED})?(?:\s?\([^()%]{{0,20}}%\))?\s?[*+!†‡]{{0,3}}"
)
"""A number, with or without what belongs to it: its whole, its share, a mark."""
_TICK = re.compile(
    r"[^\d\s.+−-]{0,3}\s?([-−+]?\d[\d,]*(?:\.\d+)?(?:e[-−]?\d{1,2})?)\s?[^\d\s]{0,3}"
)
"""A scale's number, with its unit or without."""


class Text(NamedTuple):
    """Some words in a picture, and the names that a number in them stands under."""

    said: str
    under: tuple[str, ...] = ()


class Scale(NamedTuple):
    """An axis: its name, what its ticks say at which places, whether matplotlib itself says it."""

    name: str
    ticks: tuple[tuple[str, float], ...]
    own: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What is written in a picture.

    Attributes:
        texts: words, each where it stands.
        scales: the ticks of each axis.
        table: whether a table is drawn in it.
        pixels: whether a picture of colours stands in it, such as one that was drawn before.
        cells: how many the largest has of what is drawn cell by cell.
    """

    texts: tuple[Text, ...] = ()
    scales: tuple[Scale, ...] = ()
    table: bool = False
    pixels: bool = False
    cells: int = 0

    def words(self) -> Iterator[str]:
        """All words, as they were given and as they are set."""
        given = list(self._given())
        yield from given
        yield from (said for one in given if (said := as_set(one)) != one)

    def _given(self) -> Iterator[str]:
        yield from (one.said for one in self.texts)
        yield from (said for scale in self.scales for said, _ in scale.ticks)

    def __add__(self, other: Written) -> Written:
        """The same pixels can be drawn twice, with and without words that nobody sees."""
        return Written(
            self.texts + other.texts,
            self.scales + other.scales,
            self.table or other.table,
            self.pixels or other.pixels,
            max(self.cells, other.cells),
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What a kernel told of the pictures that it drew, by their digests."""

    by_digest: Mapping[str, Written] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Told:
        """What a kernel told. A line that makes no sense says nothing of any picture."""
        found: dict[str, Written] = {}
        if not file.is_file() or file.stat().st_size > MOST_TOLD:
            return cls(found)
        for line in file.read_bytes().splitlines():
            try:
                said = json.loads(line)
                written = _written(said)
                digests = [str(one) for one in said["digests"]]
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                continue
            for one in digests:
                found[one] = found[one] + written if one in found else written
        return cls(found)

    def of(self, picture: bytes) -> Written | None:
        """What is written in a picture; None where the kernel didn't draw it."""
        return self.by_digest.get(digest_of(picture))

    def of_drawing(self, drawing: str) -> Written | None:
        """What is written in a drawing (SVG), wherever it stands and however it is written anew."""
        return self.by_digest.get(print_of(drawing))


def digest_of(picture: bytes) -> str:
    """What a picture is known by, here and where it is drawn."""
    return hashlib.sha256(picture).hexdigest()


def _written(said: Mapping[str, Any]) -> Written:
    texts = [Text(str(one["said"]), tuple(map(str, one["under"]))) for one in said["texts"]]
    scales = [
        Scale(
            str(one["name"]),
            tuple((str(said), float(at)) for said, at in one["ticks"]),
            bool(one.get("own")),
        )
        for one in said["scales"]
    ]
    flags = bool(said["table"]), bool(said.get("pixels")), int(said.get("cells", 0))
    return Written(tuple(texts), tuple(scales), *flags)


def as_set(said: str) -> str:
    r"""A text as matplotlib sets it, its formulas without what says how they look.

    >>> as_set(r"$\mathrm{jane}$.doe, $10^{2}$")
    'jane.doe, 1e2'
    """
    said = settled(said)
    if len(_MATH.findall(said)) % 2 or "$" not in said:
        return said.replace(r"\$", "$")
    said = _FRACTION.sub(r"\1/\2", _TEN_TO.sub(r"1e\1", said))
    said = _NO_SPACE.sub("", _SPACE.sub(" ", said))
    return _QUOTED.sub(r"\1", _COMMAND.sub("", said))


def made_by_hand(drawing: str) -> Written:
    """What is written in a drawing that the kernel didn't draw: words without places."""
    return Written(tuple(map(Text, said_in(drawing))))


def shows_small(written: Written, counted: Counted) -> bool:
    """Whether a count of fewer people than `SMALL` is written in a picture."""
    texts = [Text(as_set(one.said).strip(), one.under) for one in written.texts]
    for scale in written.scales:
        if not _is_scale(scale):
            texts += [Text(as_set(said).strip(), (scale.name,)) for said, _ in scale.ticks]
    return any(_alone_is_small(texts, counted)) or any(
        hidden_in_text(one.said, counted) != one.said
        for one in texts
        if not _ALONE.fullmatch(one.said)
    )


def _alone_is_small(texts: Sequence[Text], counted: Counted) -> Iterator[bool]:
    """For each number that stands alone, whether it is a small count."""
    beside: dict[tuple[str, ...], list[float]] = {}
    for one in texts:
        if number := _ALONE.fullmatch(one.said):
            beside.setdefault(one.under, []).append(read(number[1].replace("−", "-")))
    for under, values in beside.items():
        names = [as_set(one) for one in under]
        named = bool(names) and all(one.strip() and counted.spares(one) for one in names)
        if named or are_shares(values):
            continue
        counts = any(counted.counts(one) for one in names)
        for value in values:
            yield value < SMALL and (value.is_integer() or (counts and abs(value) > 1))


def _is_scale(scale: Scale) -> bool:
    """Whether the ticks say where they stand."""
    if scale.own:
        return True
    found = [_TICK.fullmatch(as_set(said).strip()) for said, _ in scale.ticks]
    if not all(found):
        return False
    said = [read(one[1].replace("−", "-")) for one in found if one]
    at = [place for _, place in scale.ticks]
    if not all(map(math.isfinite, at)):
        return False
    last = max((_last_place(one[1]) for one in found if one), default=0.0)
    if all(abs(one - place) <= _ROUNDED * last for one, place in zip(said, at, strict=True)):
        return True
    places = sorted(zip(at, said, strict=True))
    (start, low), (end, high) = places[0], places[-1]
    if len(places) < _EVENLY or start == end or low == high:
        return False
    slope = (high - low) / (end - start)
    return all(abs(low + slope * (x - start) - y) <= _EXACTLY * last for x, y in places)


def _last_place(number: str) -> float:
    """What one more in the last place of a written number is worth."""
    mantissa, _, power = number.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return float(10.0 ** (int(power.replace("−", "-") or 0) - decimals))
