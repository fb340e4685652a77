"""Alarms from a site's audit log (S14): rules over signed entries, each a count within a window.

A rule counts entries of some kind, by the subject that they are about (a silo, a person, or the
site as a whole). When the count within the window reaches the threshold there is an alarm, dated by
the entry that reached it; the same rule about the same subject is quiet until a window has passed.
So the alarms follow from the log alone: whoever reads it later gets the same ones.

Pure functions over entries. Nothing here has a row, and an alarm holds names and codes only.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from abfed.protocol.identity import At
from abfed.protocol.printable import printable
from abfed.protocol.schema import Frozen
from abfed.site.clock import moment_of, stamp

Severity = Literal["low", "medium", "high", "critical"]
Facts = Mapping[str, Any]

SKEW = timedelta(seconds=60)
"""How far the clock may go back between two entries of a log."""


class Alarm(Frozen):
    """Something that a person should look at.

    Attributes:
        rule, severity: which rule, and how bad.
        site: whose log or run it was found in.
        subject: a silo, a person, a run; empty where it is the site as a whole. As it is shown: a
            name that is no text would come back from the disk as another, and be told again.
        at: when it happened: the time of the entry that reached the threshold.
        what: in words; names, codes and counts of entries only.
        do: what to do first.
    """

    rule: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]
    severity: Severity
    site: str
    subject: Annotated[str, BeforeValidator(printable)] = ""
    at: At
    what: Annotated[str, Field(max_length=300)]
    do: Annotated[str, Field(max_length=300)] = ""

    @property
    def key(self) -> str:
        """What makes it the same alarm when it is found again."""
        return f"{self.rule} {self.site} {self.subject} {self.at}"


class Rule(NamedTuple):
    """One rule.

    Attributes:
        name, severity: as in its alarms.
        event: the entries that it counts; a prefix where it ends with a dot.
        most: how many are too many.
        window: within which time.
        what: in words.
        do: what to do first.
        when: which of these entries count; all where left out.
        subject: the fact that says whom they are about; empty for the site as a whole.
    """

    name: str
    severity: Severity
    event: str
    most: int
    window: timedelta
    what: str
    do: str
    when: Callable[[Facts], bool] | None = None
    subject: str = ""

    def counts(self, event: str, facts: Facts) -> bool:
        """Whether an entry counts."""
        named = event.startswith(self.event) if self.event.endswith(".") else event == self.event
        return named and (self.when is None or self.when(facts))


def _code(*codes: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.get("code") in codes


def _reason(*reasons: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.get("reason") in reasons


HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_LOG = "read the site's log: `abfed audit query`"

RULES: tuple[Rule, ...] = (
    Rule(
        "sign-in-failures", "high", "sign-in.failed", 5, timedelta(minutes=10),
        "sign-ins fail in a row", "see who; `abfed incident contain … person`",
    ),
    Rule(
        "sign-in-lock-out", "medium", "sign-in.locked-out", 1, HOUR,
        "a person is locked out", "ask them whether it was they", subject="person",
    ),
    Rule(
        "sign-in-flood", "high", "sign-in.too-many", 1, HOUR,
        "more sign-ins are tried than the site takes", "see where they come from",
    ),
    Rule(
        "strangers", "critical", "request.refused", 3, HOUR,
        "requests come that no coordinator of ours signed, or not for us",
        "playbook hostile-coordinator", _code("untrusted", "not-for-us"),
    ),
    Rule(
        "stale-requests", "high", "request.refused", 3, HOUR,
        "requests are replayed, or a clock is wrong", "compare the sites' clocks", _code("stale"),
    ),
    Rule(
        "stopped-people-ask", "high", "request.refused", 3, HOUR,
        "somebody who was stopped, or something frozen, keeps asking", _LOG,
        _code("revoked", "frozen"),
    ),
    Rule(
        "refusals", "medium", "request.refused", 25, HOUR,
        "many requests are refused", "see `abfed audit query` for the codes",
    ),
    Rule(
        "silo-damaged", "critical", "request.failed", 1, HOUR,
        "the silo found something of its own damaged", "`abfed silo verify`",
        lambda facts: facts.get("kind") == "IntegrityError",
    ),
    Rule(
        "requests-fail", "medium", "request.failed", 5, DAY,
        "requests can't be computed", _LOG,
    ),
    Rule(
        "budget-burst", "high", "budget.reserved", 20, DAY,
        "many plans were charged in a day", "`abfed ledger history`",
    ),
    Rule(
        "erasure-burst", "medium", "subject.erased", 100, HOUR,
        "many people were erased", "ask the privacy officer whether that was meant",
    ),
    Rule(
        "export-burst", "high", "subject.exported", 20, HOUR,
        "many people's data were exported", "ask the privacy officer whether that was meant",
    ),
    Rule(
        "model-exports", "high", "model.exported", 3, DAY,
        "models are taken out", "see who; `abfed incident contain … model`",
    ),
    Rule(
        "reports-shared", "medium", "report.shared", 10, HOUR,
        "many reports are given away", "see to whom; playbook leaked-report",
    ),
    Rule(
        "silo-drops-out", "medium", "answer.left-out", 3, DAY,
        "a silo is late or gone again and again", "ask its administrator",
        _reason("absent", "failed"), subject="silo",
    ),
    Rule(
        "silo-not-believed", "critical", "answer.left-out", 1, DAY,
        "a silo's answer was not believed, or was an outlier", "playbook poisoned-silo",
        _reason("integrity", "outlier"), subject="silo",
    ),
    Rule(
        "sum-refused", "critical", "sum.refused", 1, DAY,
        "a sum that is noised once doesn't open, or no silos can have added up to it",
        "playbook poisoned-silo",
    ),
    Rule(
        "review-overdue", "medium", "access.review-overdue", 1, timedelta(days=7),
        "who may do what was not reviewed in time", "`abfed access review`",
    ),
    Rule(
        "vendor-refused", "medium", "vendor.refused", 3, HOUR,
        "services are called that no approved vendor has", "`abfed vendor show`", subject="vendor",
    ),
    Rule(
        "log-torn", "low", "audit.torn-entry-removed", 1, HOUR,
        "the last entry of the log was torn: a crash, or a full disk", "see what ended then",
    ),
    Rule(
        "checkpoint-unusable", "high", "checkpoint.unusable", 1, DAY,
        "a sealed checkpoint does not open", "see who could change the run's folder",
    ),
)  # fmt: skip
"""Every rule over the log, with its threshold; docs/operations.md has the table."""


BROKEN = "watch-broken"
"""The alarm about a rule, or a part of a look, that fails by itself."""

STATES: Mapping[str, Severity] = {
    BROKEN: "high",
    "chain-or-seal-broken": "critical",
    "site-unreadable": "high",
    "file-exposed": "critical",
    "clock-went-back": "high",
    "run-damaged": "critical",
    "model-damaged": "critical",
    "budget-burn": "high",
    "authority-not-told": "critical",
    "request-overdue": "high",
    "request-due": "low",
    "backup-overdue": "medium",
    "retention-overdue": "high",
    "vendor-review-due": "medium",
    "vendor-expired": "high",
    "playbook-review-due": "low",
    "playbook-malformed": "medium",
    "update-norm": "critical",
    "update-direction": "high",
    "noise-missing": "critical",
    "noise-untold": "high",
    "loss-rises": "high",
}
"""Alarms that count no entries: about how a site stands today, and about runs."""

CHECKS: Severity = "high"
"""Of an experiment's own checks; their alarms are called `check-` and the check's name."""


def judge_log(
    site: str, entries: Iterable[Mapping[str, Any]], rules: Iterable[Rule] = RULES
) -> Iterator[Alarm]:
    """The alarms of a log.

    Args:
        site: whose log it is.
        entries: in order, as `AuditLog.entries` gives them.
        rules: what is looked for.

    Yields:
        One alarm each time that a rule's count is reached, in the order of the log.
    """
    windows: dict[tuple[str, str], deque[datetime]] = defaultdict(deque)
    quiet: dict[tuple[str, str], datetime] = {}
    latest: datetime | None = None
    broken: set[str] = set()
    chosen = tuple(rules)
    for entry in entries:
        body = entry["body"]
        at, event, facts = moment_of(body["at"]), body["event"], body["facts"]
        if latest is not None and latest - at > SKEW:
            yield _clock_went_back(site, at, latest)
        latest = at if latest is None else max(latest, at)
        for rule in chosen:
            if rule.name in broken:
                continue
            try:
                counts = rule.counts(event, facts)
            except Exception as failure:  # noqa: BLE001 - one rule's mistake ends no other
                broken.add(rule.name)
                yield _broken(site, rule.name, at, failure)
                continue
            if not counts:
                continue
            subject = str(facts.get(rule.subject, "")) if rule.subject else ""
            seen = windows[rule.name, subject]
            seen.append(at)
            while seen and at - seen[0] > rule.window:
                seen.popleft()
            if len(seen) < rule.most or at < quiet.get((rule.name, subject), at):
                continue
            quiet[rule.name, subject] = at + rule.window
            yield _alarm(rule, site, subject, at, len(seen))


def _alarm(rule: Rule, site: str, subject: str, at: datetime, count: int) -> Alarm:
    often = f" ({count} within {_span(rule.window)})" if rule.most > 1 else ""
    return Alarm(
        rule=rule.name,
        severity=rule.severity,
        site=site,
        subject=subject,
        at=stamp(at),
        what=f"{rule.what}{often}",
        do=rule.do,
    )


def _broken(site: str, rule: str, at: datetime, failure: Exception) -> Alarm:
    return Alarm(
        rule=BROKEN,
        severity=STATES[BROKEN],
        site=site,
        subject=rule,
        at=stamp(at),
        what=f"the rule fails with {type(failure).__name__}, and finds nothing any more",
        do="say so to whoever maintains it; look at the log yourself",
    )


def _clock_went_back(site: str, at: datetime, latest: datetime) -> Alarm:
    return Alarm(
        rule="clock-went-back",
        severity=STATES["clock-went-back"],
        site=site,
        at=stamp(latest),
        what=f"the site's clock went back by {(latest - at).total_seconds():.0f} s",
        do="see to its time service; budgets by period rest on it",
    )


def _span(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
