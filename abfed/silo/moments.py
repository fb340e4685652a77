"""Moments of sending, and of what came of it: from an export's dates to UTC, and hours between.

Strict: the 30th of February is no date. A local time without an offset is of the mapping's time
zone; where clocks go back it is the earlier of the two moments, where they go forward and skip it
the first moment after.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from abfed.silo.columns import ISO, SentAt, zone
from abfed.silo.rows import SENT_AT

MICROSECONDS_PER_HOUR = 3.6e9

FIRST, LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""What lies beyond, as what tools write for "never" does, stands as these: no time zone is known in
the year 10000, and a coarse unit's extremes come back as other dates in a finer one."""

_OFFSET = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"
_DATE_AND_TIME = r"[Tt ]\d"


def constant_moment(text: str, timezone: str) -> pa.Scalar:
    """The one moment that a mapping gives to all rows."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone(timezone))
    return pa.scalar(moment, SENT_AT)


def parse_moments(column: pa.Array, sent: SentAt) -> pa.Array:
    """Moments of a column of trimmed text, dates or timestamps; null where it is none."""
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return _in_utc(column, sent)
    encoded = column.dictionary_encode()
    texts = encoded.dictionary
    if sent.format != ISO:
        return _parsed(texts, sent, sent.format, aware="%z" in sent.format).take(encoded.indices)
    timed = pc.match_substring_regex(texts, _DATE_AND_TIME)
    offset = pc.and_(timed, pc.match_substring_regex(texts, _OFFSET))
    aware = _parsed(pc.if_else(offset, texts, None), sent, "ISO8601", aware=True)
    naive = _parsed(pc.if_else(offset, None, texts), sent, "ISO8601", aware=False)
    return pc.coalesce(aware, naive).take(encoded.indices)


def hours_between(first: pa.Array, second: pa.Array) -> pa.Array:
    """Hours from one moment to another, both in UTC; null where either is."""
    microseconds = pc.subtract(second.cast(pa.int64()), first.cast(pa.int64()))
    rounded = microseconds.cast(pa.float64(), safe=False)  # of a year like 0026: rejected anyway
    return pc.divide(rounded, MICROSECONDS_PER_HOUR)


def _parsed(texts: pa.Array, sent: SentAt, form: str, *, aware: bool) -> pa.Array:
    """Parse distinct texts by one format."""
    # pandas reads "now" and "today" as the clock's: a date has digits
    dated = pc.if_else(pc.match_substring_regex(texts, r"\d"), texts, None)
    series = pd.Series(dated.to_pylist(), dtype=object)
    parsed = pd.to_datetime(series, format=form, errors="coerce", utc=aware)
    return _in_utc(pa.array(parsed, from_pandas=True), sent)


def _in_utc(column: pa.Array, sent: SentAt) -> pa.Array:
    """Dates or timestamps, naive ones localised, all in UTC, to the microsecond."""
    timezone = column.type.tz if pa.types.is_timestamp(column.type) else None
    typed = _bounded(column, timezone).cast(pa.timestamp("us", tz=timezone), safe=False)
    moments = typed.to_pandas()
    if timezone is None:
        earlier = np.ones(len(moments), dtype=np.bool_)
        moments = moments.dt.tz_localize(
            zone(sent.timezone), ambiguous=earlier, nonexistent="shift_forward"
        )
    utc = moments.dt.tz_convert("UTC").dt.as_unit("us")
    return pa.array(utc, SENT_AT, from_pandas=True)


def _bounded(column: pa.Array, timezone: str | None) -> pa.Array:
    """Dates or timestamps from `FIRST` to `LAST`."""
    for moment, beyond in ((FIRST, pc.less), (LAST, pc.greater)):
        bound = pa.scalar(moment if timezone else moment.replace(tzinfo=None), column.type)
        column = pc.if_else(beyond(column, bound), bound, column)
    return column
