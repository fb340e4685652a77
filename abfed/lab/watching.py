"""The watch (S14): what the rules find at the sites of this machine, told once, to every sink.

A look reads each site's log (verifying every signature and link), each run that is new, and the
state of what should be in date; compares with what was told before; and brings what is new to the
sinks. What was told is kept in a sealed file after every sink took it: a sink that failed gets it
again at the next look, and no alarm is lost by a crash. The watch changes nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from abfed.lab.offices import Office
from abfed.lab.playbook import playbooks
from abfed.lab.responding import incidents_of, vendors_of
from abfed.lab.run_alarms import judge_run
from abfed.lab.workspace import Workspace
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import AbfedError, InputError, IntegrityError, WorkspaceError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.protocol.yamltext import parse_yaml
from abfed.site.alarms import Alarm, Severity, judge_log
from abfed.site.clock import Clock, moment_of, stamp
from abfed.site.files import read_private
from abfed.site.health import Metrics
from abfed.site.sealedfile import SealedFile
from abfed.site.sinks import Sink, deliver

FILE = "watch.yaml"  # in the workspace
TOLD = "watch-told.sealed"  # at the site that watches
KEPT = timedelta(days=400)
SOON = 14  # days before something ends that it is told


class Settings(Frozen):
    """What `watch.yaml` holds.

    Attributes:
        sinks: where alarms go, beside the terminal.
        burn_days: a budget that would be used up within so many days, at the pace of the last 30,
            is an alarm.
    """

    sinks: tuple[Sink, ...] = ()
    burn_days: Annotated[int, Field(ge=1, le=3650)] = 30


class Told(Frozen):
    """Alarms that every sink took, with when."""

    alarms: dict[str, At] = Field(default_factory=dict)


class Look(NamedTuple):
    """What one look found.

    Attributes:
        new: alarms that were not told before.
        standing: all alarms that hold now, told or not.
        failed: sinks that did not take the new ones, with why.
    """

    new: tuple[Alarm, ...]
    standing: tuple[Alarm, ...]
    failed: tuple[str, ...]


class Watch:
    """The watch over the sites of a workspace.

    Args:
        workspace: where they are.
        sites: which; all whose folders are here where left out.
        clock: where the time comes from; the workspace's own where left out.
    """

    def __init__(
        self, workspace: Workspace, sites: Iterable[str] = (), clock: Clock | None = None
    ) -> None:
        self._workspace = workspace
        self._sites = tuple(sites) or ("coordinator", *workspace.silos)
        self._clock = clock or workspace.clock
        self._settings = load_settings(workspace.path)
        self._home = workspace.office(self._sites[0])
        self._file = SealedFile(self._home.folder / TOLD, self._home.keys, "watch-told")
        self._runs: dict[str, tuple[Alarm, ...]] = {}
        self.metrics = Metrics()

    def look(self) -> Look:
        """Look once, and tell what is new."""
        now = self._clock()
        standing = tuple(sorted(self._found(now), key=lambda one: one.at))
        with self._file.alone():
            told = self._told(now)
            new = tuple(one for one in standing if one.key not in told)
            failed = self._tell(new)
            if not failed:
                told |= {one.key: stamp(now) for one in new}
                self._file.write(Told(alarms=told).model_dump(mode="json"))
        self._count(standing, new, failed)
        return Look(new, standing, failed)

    def keep_looking(
        self,
        every: float,
        tell: Callable[[Look], None],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Look again and again, until interrupted."""
        while True:
            tell(self.look())
            wait(every)

    def _found(self, now: datetime) -> Iterator[Alarm]:
        for site in self._sites:
            try:
                office = self._workspace.office(site)
                yield from _of_log(office, now)
                yield from _of_register(office, now)
            except IntegrityError as error:
                yield _now("chain-or-seal-broken", "critical", site, "", now, str(error))
            except AbfedError as error:
                yield _now("site-unreadable", "high", site, "", now, error.what)
            if site in self._workspace.silos:
                yield from self._of_silo(site, now)
        if "coordinator" in self._sites:
            yield from self._of_runs(now)
            yield from _of_playbooks(self._workspace.path, now)

    def _of_silo(self, site: str, now: datetime) -> Iterator[Alarm]:
        """The pace at which a silo's budgets are spent, and whether its files hold."""
        try:
            with self._workspace.silo(site) as silo:
                standings = silo.standing()
                spent = [
                    moment_of(one.at)
                    for one in silo.ledger.reservations()
                    if now - moment_of(one.at) < timedelta(days=30)
                ]
                every = len(silo.ledger.reservations())
        except IntegrityError as error:
            yield _now("chain-or-seal-broken", "critical", site, "", now, str(error))
            return
        except AbfedError as error:
            yield _now("site-unreadable", "high", site, "", now, error.what)
            return
        for one in standings:
            self.metrics.state.labels(state=f"budget-left-{site}-{one.scope}").set(one.left)
            share = len(spent) / every if every else 0.0
            pace = one.spent * share / 30  # ε a day: by the share of plans that are this new
            if pace > 0 and one.left / pace < self._settings.burn_days:
                what = (
                    f"budget {one.scope}: {one.left:.2g} of {one.budget:g} left, "
                    f"{one.left / pace:.0f} days at the pace of the last 30"
                )
                yield _now("budget-burn", "high", site, one.scope, now, what)

    def _of_runs(self, now: datetime) -> Iterator[Alarm]:
        """Runs are judged once: they don't change; one that did is an alarm."""
        for signed in sorted(self._workspace.runs_folder.glob("*/manifest.sig")):
            name = signed.parent.name
            if name not in self._runs:
                try:
                    self._runs[name] = tuple(judge_run(self._workspace.find_run(signed.parent)))
                except IntegrityError as error:
                    yield _now("run-damaged", "critical", "coordinator", name, now, str(error))
                    continue
            yield from self._runs[name]

    def _tell(self, new: tuple[Alarm, ...]) -> tuple[str, ...]:
        vendors = vendors_of(self._home)
        failed: list[str] = []
        for sink in self._settings.sinks:
            try:
                deliver(sink, new, vendors, self._workspace.path)
            except AbfedError as error:
                failed.append(f"{sink.kind}: {error.what}")
        return tuple(failed)

    def _told(self, now: datetime) -> dict[str, str]:
        values = self._file.read()
        if values is None:
            return {}
        told = parse_record(Told, values, where=TOLD).alarms
        return {key: at for key, at in told.items() if now - moment_of(at) < KEPT}

    def _count(
        self, standing: tuple[Alarm, ...], new: tuple[Alarm, ...], failed: tuple[str, ...]
    ) -> None:
        for severity in ("low", "medium", "high", "critical"):
            count = sum(one.severity == severity for one in standing)
            self.metrics.state.labels(state=f"alarms-{severity}").set(count)
        for alarm in new:
            self.metrics.note(f"alarm-{alarm.rule}")
        for _ in failed:
            self.metrics.note("sink-failed")
        self.metrics.note("look")


def load_settings(workspace: Path) -> Settings:
    """What a workspace's `watch.yaml` says; no sinks where there is none.

    Raises:
        WorkspaceError: it is malformed.
    """
    path = workspace / FILE
    if not path.exists():
        return Settings()
    values = parse_yaml(read_private(path), where=str(path), error=WorkspaceError)
    return parse_record(Settings, values, where=str(path), error=WorkspaceError)


def _of_log(office: Office, now: datetime) -> Iterator[Alarm]:
    """The rules over a site's log, after every signature and link was checked."""
    office.audit.verify()
    horizon = now - KEPT
    yield from (
        alarm
        for alarm in judge_log(office.site, office.audit.entries())
        if moment_of(alarm.at) > horizon
    )


def _of_register(office: Office, now: datetime) -> Iterator[Alarm]:
    """What should be in date at a site: incidents' clocks, vendors, reviews."""
    for one in incidents_of(office).list().values():
        clock = one.clock(now)
        if not one.closed_at and clock.startswith("OVERDUE"):
            yield Alarm(
                rule="authority-not-told",
                severity="critical",
                site=office.site,
                subject=one.id,
                at=stamp(one.deadline),
                what=f"the 72 hours are over: {clock}",
                do="tell the authority, and record it: `abfed incident told`",
            )
    for name in vendors_of(office).overdue(SOON):
        entry = vendors_of(office).list()[name]
        yield Alarm(
            rule="vendor-review-due",
            severity="medium",
            site=office.site,
            subject=name,
            at=_midnight(entry.vendor.review_by, -SOON),
            what=f"its review or agreement ends by {entry.vendor.review_by}",
            do="review it, propose and approve it anew",
        )


def _of_playbooks(workspace: Path, now: datetime) -> Iterator[Alarm]:
    try:
        known = playbooks(workspace)
    except InputError as error:
        yield _now("playbook-malformed", "medium", "coordinator", "", now, error.what)
        return
    for one in known.values():
        if one.due_on <= now.date():
            yield Alarm(
                rule="playbook-review-due",
                severity="low",
                site="coordinator",
                subject=one.name,
                at=_midnight(one.due_on.isoformat(), 0),
                what=f"it was last reviewed on {one.reviewed_on}",
                do=f"its owner ({one.owner}) reads it through and drills it",
            )


def _midnight(day: str, shift: int) -> str:
    return stamp(moment_of(f"{day}T00:00:00.000000Z") + timedelta(days=shift))


def _now(rule: str, severity: Severity, site: str, subject: str, now: datetime, what: str) -> Alarm:
    """An alarm about a state, dated by the day: told once a day while it lasts."""
    at = f"{stamp(now)[:10]}T00:00:00.000000Z"
    return Alarm(rule=rule, severity=severity, site=site, subject=subject, at=at, what=what[:300])
