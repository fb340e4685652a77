"""Subject lines and the moment of sending as numbers, from declarations alone.

1. A word's columns follow from a public hash of the word, the same at each site and for ever. No
   vocabulary is made, kept or sent; who has the model can't list words that it was trained on.
2. Words are runs of letters and digits after NFKC and case folding; pairs of neighbours count too.
   Each adds 1 or -1, by the hash, to one of `buckets` columns (Weinberger et al. 2009), so that
   words that meet by chance cancel as often as they add up. A line is scaled to length 1.
3. A moment is given as points on two circles, the hour of the day and the day of the week, in the
   declared time zone: midnight is as near to 23 h as to 1 h.
4. A missing text is all zeros. All columns lie in [-1, 1], in half precision as all features are.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from abfed.protocol.modelling import HashedText, SendTime

Floats = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
_DAY, _HOUR = 24 * 3600.0, 3600.0


def words_of(text: str) -> tuple[str, ...]:
    """Words and pairs of neighbours.

    >>> words_of("Spring SALE: 20 %")
    ('spring', 'sale', '20', 'spring sale', 'sale 20')
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    pairs = (f"{one} {other}" for one, other in itertools.pairwise(words))
    return (*words, *pairs)


@functools.lru_cache(maxsize=1 << 16)
def _place(word: str) -> tuple[int, float]:
    """A word's hash: 63 bits to choose a column by, and a sign."""
    number = int.from_bytes(hashlib.sha256(b"abfed.word.1:" + word.encode()).digest()[:8], "big")
    return number >> 1, 1.0 if number & 1 else -1.0


def encode_text(feature: HashedText, texts: Sequence[str | None]) -> Floats:
    """Texts as lines of length 1.

    Args:
        feature: the declaration.
        texts: one a row; None is missing. Rows: sensitive.

    Returns:
        `(rows, buckets)`.
    """
    lines: dict[str | None, Floats] = {}
    for text in set(texts):
        line = np.zeros(feature.buckets, dtype=np.float64)
        for word in words_of(text or ""):
            number, sign = _place(word)
            line[number % feature.buckets] += sign
        length = float(np.linalg.norm(line))
        lines[text] = (line / length if length else line).astype(np.float16).astype(np.float32)
    empty = np.zeros((0, feature.buckets), dtype=np.float32)
    return np.stack([lines[text] for text in texts]) if texts else empty


def encode_send_time(feature: SendTime, moments: npt.NDArray[np.int64]) -> Floats:
    """Moments as points on the circles of day and week.

    Args:
        feature: the declaration.
        moments: microseconds since 1970 in UTC, `(rows,)`. Rows: sensitive.

    Returns:
        `(rows, 4)`: sine and cosine of the hour, then of the weekday (Monday is 0).
    """
    hours, inverse = np.unique(moments // 3_600_000_000, return_inverse=True)
    offsets = np.array([_offset(feature.timezone, int(hour)) for hour in hours], dtype=np.float64)
    local = moments / 1e6 + (offsets[inverse] if len(hours) else 0.0)
    day = 2 * np.pi * (local % _DAY) / _DAY
    weekday = 2 * np.pi * (((local // _DAY) + 3) % 7) / 7  # 1970 began on a Thursday
    lines = np.stack([np.sin(day), np.cos(day), np.sin(weekday), np.cos(weekday)], axis=1)
    return lines.astype(np.float16).astype(np.float32)


@functools.lru_cache(maxsize=1 << 14)
def _offset(timezone: str, hour: int) -> float:
    """Seconds that a zone is ahead of UTC in an hour since 1970."""
    shift = datetime.fromtimestamp(hour * _HOUR, UTC).astimezone(ZoneInfo(timezone)).utcoffset()
    return shift.total_seconds() if shift is not None else 0.0
