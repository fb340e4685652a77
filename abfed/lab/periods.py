"""Periods that reports are about: a year, a quarter or a month."""

from __future__ import annotations

import re

PERIOD = re.compile(r"[0-9]{4}(-(Q[1-4]|(0[1-9]|1[0-2])))?")
"""`2026`, `2026-Q2` or `2026-05`."""


def within(moment: str, period: str) -> bool:
    """Whether a moment (ISO 8601) lies in a period; every moment lies in none named.

    >>> within("2026-05-03T10:00:00Z", "2026-Q2"), within("2026-05-03", "2026-06")
    (True, False)
    """
    if not period:
        return True
    year, month = moment[:7].split("-")
    if period[:4] != year:
        return False
    part = period[5:]
    if part.startswith("Q"):
        return (int(month) + 2) // 3 == int(part[1:])
    return part in {"", month}
