"""Rules over the log: each finds what is injected, in time, and a quiet month stays quiet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from abfed.site.alarms import RULES, Rule, judge_log
from abfed.site.clock import moment_of, stamp

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
LOOKED_EVERY = timedelta(seconds=60)

FACTS: dict[str, dict[str, Any]] = {
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


def entry(at: datetime, event: str, **facts: Any) -> dict[str, Any]:
    """An entry as the log gives it, as far as rules read it."""
    return {"body": {"at": stamp(at), "event": event, "facts": facts}}


def event_of(rule: Rule) -> str:
    return rule.event + "done" if rule.event.endswith(".") else rule.event


Log = list[tuple[datetime, dict[str, Any]]]


def add(log: Log, at: datetime, event: str, **facts: Any) -> None:
    log.append((at, entry(at, event, **facts)))


def people_of(log: Log, morning: datetime, draw: np.random.Generator, people: int) -> None:
    """People sign in within two hours, and mistype now and then."""
    for person in range(people):
        at = morning + timedelta(minutes=float(draw.uniform(0, 120)))
        for _ in range(int(draw.poisson(0.15))):
            add(log, at, "sign-in.failed", person=f"p{person}")
            at += timedelta(seconds=20)
        add(log, at, "sign-in.done", person=f"p{person}")


def work_of(log: Log, morning: datetime, draw: np.random.Generator, plans: float) -> None:
    """Plans are asked, some refused; people are erased and get their data, as they ask for it."""
    rates = {
        "budget.reserved": plans,
        "request.refused": 1.5,
        "subject.erased": 6.0,
        "subject.exported": 0.5,
        "report.shared": 0.7,
    }
    for event, rate in rates.items():
        for _ in range(int(draw.poisson(rate))):
            code = str(draw.choice(["budget", "population", "rights", "sign-in"]))
            facts = {"code": code} if event == "request.refused" else {}
            add(log, morning + timedelta(hours=float(draw.uniform(0, 9))), event, **facts)


def quiet_month(seed: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A month of three brands and a coordinator, as busy as they are when nothing is wrong.

    Eight people sign in on working days; data comes in each night; a silo is late once a week.
    """
    draw = np.random.default_rng(seed)
    for site in ("coordinator", "aurora", "borealis", "corvid"):
        log: Log = []
        for day in range(30):
            morning = BEGAN + timedelta(days=day, hours=8)
            working = morning.weekday() < 5
            people_of(log, morning, draw, 8 if working else 1)
            work_of(log, morning, draw, 3.0 if working else 0.3)
            if draw.random() < 1 / 7 and site == "coordinator":
                late = morning + timedelta(hours=3)
                add(log, late, "answer.left-out", silo="corvid", reason="absent")
            add(log, morning - timedelta(hours=5), "data.ingested")
        yield site, [one for _, one in sorted(log, key=lambda pair: pair[0])]


def test_a_quiet_month_stays_quiet_and_the_figure_is_printed() -> None:
    counts: list[int] = []
    for seed in range(10):
        found = [alarm for site, log in quiet_month(seed) for alarm in judge_log(site, log)]
        counts.append(len(found))
    print(
        f"false alarms in ten quiet months of four sites: {counts}, {sum(counts) / 10:.1f} a month"
    )
    assert sum(counts) <= 5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_finds_what_is_injected_at_the_next_look(rule: Rule) -> None:
    """Into a quiet month: the alarm is there when the log is next looked at."""
    (site, log) = next(iter(quiet_month(1)))
    facts = FACTS.get(rule.name, {})
    began = BEGAN + timedelta(days=12, hours=13)
    gap = min(timedelta(seconds=30), rule.window / (2 * rule.most))
    injected = [entry(began + gap * n, event_of(rule), **facts) for n in range(rule.most)]
    log = sorted([*log, *injected], key=lambda one: one["body"]["at"])
    last = moment_of(injected[-1]["body"]["at"])
    found = [
        alarm
        for alarm in judge_log(site, log)
        if alarm.rule == rule.name and began <= moment_of(alarm.at) <= last
    ]
    assert found, "the anomaly was not found"
    alarm = found[0]
    assert alarm.severity == rule.severity
    assert alarm.subject == str(facts.get(rule.subject, "") if rule.subject else "")
    delay = moment_of(alarm.at) - began + LOOKED_EVERY
    print(f"{rule.name:22} found {delay.total_seconds():.0f} s after the first entry, at most")


@pytest.mark.parametrize("rule", [one for one in RULES if one.most > 1], ids=lambda one: one.name)
def test_one_less_is_no_alarm(rule: Rule) -> None:
    facts = FACTS.get(rule.name, {})
    log = [
        entry(BEGAN + timedelta(seconds=n), event_of(rule), **facts) for n in range(rule.most - 1)
    ]
    assert rule.name not in {alarm.rule for alarm in judge_log("aurora", log)}


def test_an_alarm_is_raised_once_a_window_and_again_after_it() -> None:
    rule = next(one for one in RULES if one.name == "sign-in-failures")
    burst = [entry(BEGAN + timedelta(seconds=5 * n), rule.event) for n in range(20)]
    later = [entry(BEGAN + timedelta(hours=1, seconds=5 * n), rule.event) for n in range(6)]
    found = list(judge_log("aurora", [*burst, *later]))
    assert len(found) == 2
    assert len({alarm.key for alarm in found}) == 2


def test_the_same_log_gives_the_same_alarms() -> None:
    log = list(itertools.chain.from_iterable(log for _, log in quiet_month(3)))
    log.sort(key=lambda one: one["body"]["at"])
    assert list(judge_log("aurora", log)) == list(judge_log("aurora", log))


def test_a_clock_that_goes_back_is_named() -> None:
    log = [entry(BEGAN, "sign-in.done"), entry(BEGAN - timedelta(minutes=5), "sign-in.done")]
    (alarm,) = judge_log("aurora", log)
    assert alarm.rule == "clock-went-back"
    assert "300 s" in alarm.what
