"""Rules over the log: each finds what is injected, in time, and a quiet month stays quiet."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from abfed.lab.watch.rehearsing import ANOMALIES, BEGAN, PUT_AT, anomaly, quiet_month, rehearse
from abfed.site.alarms import RULES, Rule, judge_log
from abfed.site.clock import moment_of, stamp

LOOKED_EVERY = timedelta(seconds=60)


def entry(at: datetime, event: str, **facts: Any) -> dict[str, Any]:
    """An entry as the log gives it, as far as rules read it."""
    return {"body": {"at": stamp(at), "event": event, "facts": facts}}


def test_a_quiet_month_stays_quiet_and_the_figure_is_printed() -> None:
    rehearsed = rehearse(LOOKED_EVERY, 10)
    cried = {one.rule.name: one.false_alarms for one in rehearsed if one.false_alarms}
    print(f"false alarms in ten quiet months of four sites: {cried or 'none'}")
    assert sum(cried.values()) <= 5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_finds_what_is_injected_at_the_next_look(rule: Rule) -> None:
    """Into a quiet month: the alarm is there when the log is next looked at."""
    site, log = next(quiet_month(0))
    put = anomaly(rule)
    whole = sorted([*log, *put], key=lambda one: one["body"]["at"])
    last = moment_of(put[-1]["body"]["at"])
    found = [
        alarm
        for alarm in judge_log(site, whole)
        if alarm.rule == rule.name and PUT_AT <= moment_of(alarm.at) <= last
    ]
    assert found, "the anomaly was not found"
    assert found[0].severity == rule.severity
    assert found[0].subject == str(ANOMALIES.get(rule.name, {}).get(rule.subject, ""))
    (told,) = rehearse(LOOKED_EVERY, 0, [rule])
    assert told.after == moment_of(found[0].at) - PUT_AT + LOOKED_EVERY
    print(f"{rule.name:22} found {told.after.total_seconds():.0f} s after the first, at most")


def test_a_rule_that_finds_nothing_is_told_as_such() -> None:
    deaf = RULES[0]._replace(when=lambda _: False)
    (told,) = rehearse(LOOKED_EVERY, 0, [deaf])
    assert told.after is None


@pytest.mark.parametrize("rule", [one for one in RULES if one.most > 1], ids=lambda one: one.name)
def test_one_less_is_no_alarm(rule: Rule) -> None:
    log = anomaly(rule, entries=rule.most - 1)
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
