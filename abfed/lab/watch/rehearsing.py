"""Rehearsing the watch (S14): how soon each rule finds what is put into a month, and what it cries.

Months of four sites are made up as they are when nothing is wrong: people sign in and mistype,
plans are asked and some refused, people ask for their data, a silo is late once a week. Over such a
month each rule's false alarms are counted; into one, each rule's anomaly is put, and it is told
how long after its first entry a look finds it. Entries are as a log has them, as far as rules read
them; the rules are the ones in force. No site is touched, and no clock waited for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from abfed.site.alarms import RULES, Rule, judge_log
from abfed.site.clock import moment_of, stamp

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
PUT_AT = BEGAN + timedelta(days=12, hours=13)
SITES = ("coordinator", "aurora", "borealis", "corvid")
MONTH = 30  # days
PACE = timedelta(seconds=30)
"""Between two entries of an anomaly; less where its window asks for more in that time."""

RATES: Mapping[str, float] = {
    "request.refused": 1.5,
    "request.failed": 0.02,
    "subject.erased": 6.0,
    "subject.exported": 0.5,
    "report.shared": 0.7,
    "model.exported": 0.1,
}
"""Entries a site and day when nothing is wrong."""

ANOMALIES: Mapping[str, Mapping[str, Any]] = {
    "strangers": {"code": "untrusted"},
    "stale-requests": {"code": "stale"},
    "stopped-people-ask": {"code": "frozen"},
    "silo-damaged": {"kind": "IntegrityError"},
    "silo-drops-out": {"reason": "absent", "silo": "borealis"},
    "silo-not-believed": {"reason": "outlier", "silo": "borealis"},
    "sign-in-lock-out": {"person": "eve"},
    "vendor-refused": {"vendor": "postbox"},
    "refusals": {"code": "budget"},
}
"""What an entry of a rule's anomaly says, where the rule reads it."""

Entry = Mapping[str, Any]
Log = list[tuple[datetime, Entry]]


class Rehearsed(NamedTuple):
    """One rule's rehearsal.

    Attributes:
        rule: which.
        entries: how many were put into the month.
        after: from the first of them to the look that finds it; None where it isn't found.
        false_alarms: in all quiet months together.
    """

    rule: Rule
    entries: int
    after: timedelta | None
    false_alarms: int


def rehearse(every: timedelta, months: int, rules: Sequence[Rule] = RULES) -> tuple[Rehearsed, ...]:
    """Put each rule's anomaly into a month, and count what it cries in quiet ones.

    Args:
        every: time between two looks.
        months: how many quiet months.
        rules: which.
    """
    cried = Counter(
        alarm.rule
        for seed in range(months)
        for site, log in quiet_month(seed)
        for alarm in judge_log(site, log, rules)
    )
    site, log = next(quiet_month(0))
    return tuple(
        Rehearsed(rule, rule.most, _found_after(rule, site, log, every), cried[rule.name])
        for rule in rules
    )


def anomaly(rule: Rule, at: datetime = PUT_AT, entries: int | None = None) -> list[Entry]:
    """What makes a rule an alarm: as many entries as it takes, unless told how many."""
    gap = min(PACE, rule.window / (2 * rule.most))
    event = f"{rule.event}done" if rule.event.endswith(".") else rule.event
    facts = ANOMALIES.get(rule.name, {})
    many = rule.most if entries is None else entries
    return [_entry(at + gap * number, event, facts) for number in range(many)]


def _found_after(rule: Rule, site: str, log: Sequence[Entry], every: timedelta) -> timedelta | None:
    """Between an anomaly's first entry and the look that finds it: looks are where it is worst."""
    put = anomaly(rule)
    whole = sorted([*log, *put], key=lambda one: str(one["body"]["at"]))
    ends = moment_of(put[-1]["body"]["at"])
    for alarm in judge_log(site, whole, (rule,)):
        at = moment_of(alarm.at)
        if PUT_AT <= at <= ends:
            return at - PUT_AT + every
    return None


def quiet_month(seed: int) -> Iterator[tuple[str, list[Entry]]]:
    """A month of three brands and a coordinator, as busy as they are when nothing is wrong.

    Eight people sign in on working days; data comes in each night; a silo is late once a week.
    """
    draw = np.random.default_rng(seed)
    for site in SITES:
        log: Log = []
        for day in range(MONTH):
            morning = BEGAN + timedelta(days=day, hours=8)
            working = morning.weekday() < 5
            _people(log, morning, draw, 8 if working else 1)
            _work(log, morning, draw, 3.0 if working else 0.3)
            if draw.random() < 1 / 7 and site == "coordinator":
                late = morning + timedelta(hours=3)
                _add(log, late, "answer.left-out", silo="corvid", reason="absent")
            _add(log, morning - timedelta(hours=5), "data.ingested")
        yield site, [one for _, one in sorted(log, key=lambda pair: pair[0])]


def _people(log: Log, morning: datetime, draw: np.random.Generator, people: int) -> None:
    """People sign in within two hours, and mistype now and then."""
    for person in range(people):
        at = morning + timedelta(minutes=float(draw.uniform(0, 120)))
        for _ in range(int(draw.poisson(0.15))):
            _add(log, at, "sign-in.failed", person=f"p{person}")
            at += timedelta(seconds=20)
        _add(log, at, "sign-in.done", person=f"p{person}")


def _work(log: Log, morning: datetime, draw: np.random.Generator, plans: float) -> None:
    """Plans are asked, some refused; people are erased and get their data, as they ask for it."""
    for event, rate in {"budget.reserved": plans, **RATES}.items():
        for _ in range(int(draw.poisson(rate))):
            code = str(draw.choice(["budget", "population", "rights", "sign-in"]))
            facts = {"code": code} if event == "request.refused" else {}
            _add(log, morning + timedelta(hours=float(draw.uniform(0, 9))), event, **facts)


def _add(log: Log, at: datetime, event: str, **facts: Any) -> None:
    log.append((at, _entry(at, event, facts)))


def _entry(at: datetime, event: str, facts: Mapping[str, Any]) -> Entry:
    """An entry as the log gives it, as far as rules read it."""
    return {"body": {"at": stamp(at), "event": event, "facts": facts}}


def spoken(span: timedelta) -> str:
    """A delay in words: rounded up, since it is promised at most.

    >>> spoken(timedelta(seconds=180)), spoken(timedelta(seconds=5401))
    ('3.0 min', '1.6 h')
    """
    seconds = span.total_seconds()
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    unit, name = (60.0, "min") if seconds < 5400 else (3600.0, "h")
    return f"{math.ceil(seconds / unit * 10) / 10:.1f} {name}"
