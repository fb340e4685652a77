"""What the watch compares with today, part by part: pure reading, and alarms of `alarms.STATES`.

An alarm about a day (a deadline, a review) is dated by that day, so it is told once. One about a
state that has no day of its own (something damaged) is dated by today: told once a day while it
lasts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from abfed.lab.incidents.playbook import playbooks
from abfed.lab.incidents.responding import incidents_of, vendors_of
from abfed.lab.models import damaged_models
from abfed.lab.offices import Office
from abfed.lab.upkeep.backups import BACKUP_DAYS, backed_up
from abfed.lab.upkeep.examining import examine_files
from abfed.protocol.errors import AbfedError, InputError, IntegrityError
from abfed.protocol.printable import counted, printable
from abfed.silo.budgets import Standing
from abfed.silo.checking import check_silo
from abfed.silo.requests import open_by_day
from abfed.silo.retention import late_by
from abfed.silo.service import SiloService
from abfed.site.alarms import STATES, Alarm, judge_log
from abfed.site.clock import moment_of, stamp

KEPT = timedelta(days=400)
SOON = 14  # days before a vendor's review or agreement ends that it is told
DUE_SOON = 7  # days before a person's request must be answered that it is told
PACE = timedelta(days=30)
OVERDUE = timedelta(days=2)
"""How late a purge may be: it goes by whole days, and a schedule may miss one."""


def of_log(office: Office, now: datetime) -> Iterator[Alarm]:
    """The rules over a site's log, after every signature and link was checked."""
    office.audit.verify()
    horizon = now - KEPT
    yield from (
        alarm
        for alarm in judge_log(office.site, office.audit.entries())
        if moment_of(alarm.at) > horizon
    )


def of_files(office: Office, now: datetime) -> Iterator[Alarm]:
    """Files of a site that others may have read or changed, or that aren't sealed, or are links."""
    for one in examine_files(office.folder, now):
        if one.severity in ("high", "critical"):
            place = re.split(": mode | is ", one.what, maxsplit=1)[0]
            yield state_alarm("file-exposed", office.site, place, now, one.what)


def of_store(office: Office, now: datetime) -> Iterator[Alarm]:
    """Each byte of a silo's store, each entry of its ledger, each release that it kept."""
    for part in check_silo(office.folder, ("files", "store", "ledger", "releases")):
        if not part.holds:
            yield state_alarm("chain-or-seal-broken", office.site, part.part, now, part.what)


def of_incidents(office: Office, now: datetime) -> Iterator[Alarm]:
    """Open incidents whose 72 hours are over."""
    for one in incidents_of(office).list().values():
        clock = one.clock(now)
        if not one.closed_at and clock.startswith("OVERDUE"):
            yield _alarm(
                "authority-not-told", office.site, one.id, stamp(one.deadline),
                f"the 72 hours are over: {clock}",
                "tell the authority, and record it: `abfed incident told`",
            )  # fmt: skip


def of_vendors(office: Office, now: datetime) -> Iterator[Alarm]:
    """Vendors in use whose review or agreement ends soon, or has: told at both days."""
    vendors = vendors_of(office)
    do = "review it, propose and approve it anew"
    for name in vendors.overdue(SOON):
        ends = vendors.list()[name].vendor.ends_on
        said = f"its review or agreement ends by {ends}"
        yield _alarm("vendor-review-due", office.site, name, _midnight(ends, -SOON), said, do)
        if ends <= stamp(now)[:10]:
            said = f"its review or agreement ended on {ends}: it is not used any more"
            yield _alarm("vendor-expired", office.site, name, _midnight(ends, 0), said, do)


def of_models(office: Office, now: datetime) -> Iterator[Alarm]:
    """Models of a coordinator's registry, or kept in a silo, that don't open as they should."""
    for name, what in damaged_models(office).items():
        yield state_alarm("model-damaged", office.site, name, now, what)


def of_requests(office: Office, now: datetime) -> Iterator[Alarm]:
    """People's requests that must be answered within a week, or had to be: by their day."""
    today = stamp(now)[:10]
    horizon = stamp(now + timedelta(days=DUE_SOON))[:10]
    do = "`abfed silo subject due`, and answer them"
    for day, count in open_by_day(office.folder, office.keys).items():
        those = counted(count, "request of people")
        said = f"{those} had to be answered by {day}"
        if day < today:
            yield _alarm("request-overdue", office.site, day, _midnight(day, 1), said, do)
        elif day <= horizon:
            said = f"{those} must be answered by {day}"
            yield _alarm("request-due", office.site, day, _midnight(day, -DUE_SOON), said, do)


def of_backups(office: Office, now: datetime) -> Iterator[Alarm]:
    """A silo whose newest backup, by its own signed log, is too old."""
    at, ever = backed_up(office.audit)
    if at is None or now - at <= timedelta(days=BACKUP_DAYS):
        return
    day = f"{at:%Y-%m-%d}"
    said = f"last backed up on {day}" if ever else f"kept since {day}, and never backed up"
    due = stamp(at + timedelta(days=BACKUP_DAYS))
    yield _alarm("backup-overdue", office.site, "", due, said, "`abfed silo backup`")


def of_budgets(
    site: str, standings: Sequence[Standing], charged: Sequence[datetime], now: datetime, days: int
) -> Iterator[Alarm]:
    """Budgets that would be used up within so many days, at the pace of the last 30.

    Args:
        site: whose.
        standings: how each budget stands.
        charged: when each plan was charged.
        now: when.
        days: below which it is an alarm.
    """
    recent = sum(now - at < PACE for at in charged)
    share = recent / len(charged) if charged else 0.0
    for one in standings:
        pace = one.spent * share / PACE.days  # ε a day: by the share of plans that are this new
        if pace > 0 and one.left / pace < days:
            what = (
                f"budget {one.scope}: {one.left:.2g} of {one.budget:g} left, "
                f"{one.left / pace:.0f} days at the pace of the last {PACE.days}"
            )
            yield state_alarm("budget-burn", site, one.scope, now, what)


def of_retention(site: str, silo: SiloService, now: datetime) -> Iterator[Alarm]:
    """A silo that is not purged on schedule: sends past retention may lie there, if unread."""
    days = silo.policy().retention_days
    if days is None:
        return
    first = next(
        (
            moment_of(entry["body"]["at"])
            for entry in silo.audit.entries()
            if entry["body"]["event"] == "data.ingested"
        ),
        now,
    )
    if min(late_by(silo.store, days, now), now - first) > OVERDUE:
        what = f"it was not purged of sends older than {days} days: `abfed silo purge`, daily"
        yield state_alarm("retention-overdue", site, "", now, what)


def of_playbooks(workspace: Path, now: datetime) -> Iterator[Alarm]:
    """Playbooks that are due for review."""
    try:
        known = playbooks(workspace)
    except InputError as error:
        yield state_alarm("playbook-malformed", "coordinator", "", now, error.what)
        return
    for one in known.values():
        if one.due_on <= now.date():
            yield _alarm(
                "playbook-review-due", "coordinator", one.name,
                _midnight(one.due_on.isoformat(), 0), f"it was last reviewed on {one.reviewed_on}",
                f"its owner ({one.owner}) reads it through and drills it",
            )  # fmt: skip


def unreadable(site: str, now: datetime, error: AbfedError, part: str = "") -> Alarm:
    """Part of a site that could not be read: damaged, or not there.

    It is named, so that what is damaged next is not taken for what was told already today.
    """
    if isinstance(error, IntegrityError):
        return state_alarm("chain-or-seal-broken", site, part, now, str(error))
    return state_alarm("site-unreadable", site, part, now, error.what)


def state_alarm(rule: str, site: str, subject: str, now: datetime, what: str) -> Alarm:
    """An alarm about a state, dated by the day: told once a day while it lasts."""
    return _alarm(rule, site, subject, _midnight(stamp(now)[:10], 0), what, "")


def _alarm(rule: str, site: str, subject: str, at: str, what: str, do: str) -> Alarm:
    return Alarm(
        rule=rule,
        severity=STATES[rule],
        site=site,
        subject=subject,
        at=at,
        what=printable(what)[:300],
        do=do,
    )


def _midnight(day: str, shift: int) -> str:
    return stamp(moment_of(f"{day}T00:00:00.000000Z") + timedelta(days=shift))
