"""The watch (S14): what the rules find at the sites of this machine, told once, to every sink.

A look reads each site's log (verifying every signature and link), each file of a silo's store, its
ledger and releases, every run and model (verifying all of it), who may read the sites' files, and
the state of what should be in date (see `watched`); compares with what was told before; and brings
what is new to the sinks. What was told is kept in a sealed file after every sink took it: a sink
that failed gets it again at the next look, those that took it don't, and no alarm is lost by a
crash. A part of the look, or a rule, that fails by a mistake of ours is an alarm itself and hides
nothing else. The watch changes nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from abfed.lab.incidents.responding import vendors_of
from abfed.lab.offices import Office
from abfed.lab.upkeep.supply import lock_made
from abfed.lab.watch.run_alarms import judge_run
from abfed.lab.watch.watched import (
    KEPT,
    of_backups,
    of_budgets,
    of_files,
    of_incidents,
    of_log,
    of_models,
    of_playbooks,
    of_requests,
    of_retention,
    of_store,
    of_vendors,
    state_alarm,
    unreadable,
)
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import digest
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import AbfedError, InputError, IntegrityError, WorkspaceError
from abfed.protocol.identity import At
from abfed.protocol.schema import Frozen
from abfed.protocol.yamltext import parse_yaml
from abfed.site.alarms import BROKEN, Alarm
from abfed.site.checkups import Checkups
from abfed.site.clock import Clock, moment_of, stamp
from abfed.site.files import read_private
from abfed.site.health import Metrics
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile
from abfed.site.sinks import Sink, deliver

FILE = "watch.yaml"  # in the workspace
TOLD = "watch-told.sealed"  # at the site that watches
NOTICED = 0.2  # seconds after which the end is noticed between two looks


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
    """Alarms that every sink took, with when; and the last look, sealed with them.

    Attributes:
        alarms: when each was told.
        looked_at: when it was looked last, by the site's clock; empty before the first look.
        failed: how many sinks did not take what was new then.
        taken: by sink, what it took while another one did not.
    """

    taken: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    alarms: dict[str, At] = Field(default_factory=dict)
    looked_at: At | Literal[""] = ""
    failed: Annotated[int, Field(ge=0)] = 0


class Look(NamedTuple):
    """What one look found.

    Attributes:
        new: alarms that were not told before, or not to every sink.
        first: those of them that this watch did not find at an earlier look: a terminal and a
            counter take each alarm at once, and need no second delivery.
        standing: all alarms that hold now, told or not.
        failed: sinks that did not take the new ones, with why.
    """

    new: tuple[Alarm, ...]
    first: tuple[Alarm, ...]
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
        self._found_before: set[str] = set()
        self._ended = False
        self.metrics = Metrics()

    def look(self) -> Look:
        """Look once, and tell what is new."""
        now = self._clock()
        standing = tuple(sorted(self._found(now), key=lambda one: one.at))
        with self._file.alone():
            before, broken = self._told(now)
            standing += broken
            told = {key: at for key, at in before.alarms.items() if now - moment_of(at) < KEPT}
            new = tuple(one for one in standing if one.key not in told)
            failed, taken = self._tell(new, before.taken)
            if not failed:
                told |= {one.key: stamp(now) for one in new}
                taken = {}
            kept = Told(alarms=told, looked_at=stamp(now), failed=len(failed), taken=taken)
            self._file.write(kept.model_dump(mode="json"))
        first = tuple(one for one in new if one.key not in self._found_before)
        self._found_before = {one.key for one in new}  # what was told is not new again
        self._count(standing, first, failed)
        return Look(new, first, standing, failed)

    def keep_looking(
        self,
        every: float,
        tell: Callable[[Look], None],
    ) -> None:
        """Look again and again, until `end`.

        A look that has begun is ended first, so that what sinks took is on record.
        """
        while self._goes_on():
            tell(self.look())
            again = time.monotonic() + every
            while self._goes_on() and (left := again - time.monotonic()) > 0:
                time.sleep(min(left, NOTICED))

    def _goes_on(self) -> bool:
        return not self._ended

    def end(self) -> None:
        """End after this look: takes no lock, so that a signal may call it at any instruction."""
        self._ended = True

    def _found(self, now: datetime) -> Iterator[Alarm]:
        for site in self._sites:
            yield from self._of_site(site, now)
        if (made := lock_made()) is not None:  # S18
            self.metrics.state.labels(state="lock-age-days").set((now.date() - made).days)
        if "coordinator" in self._sites:
            home = "coordinator"
            yield from _whole(self._of_runs(now), home, "of_runs", now)
            yield from _whole(of_playbooks(self._workspace.path, now), home, "of_playbooks", now)

    def _of_site(self, site: str, now: datetime) -> Iterator[Alarm]:
        """A site's log, registers and models; and, of a silo, its people's requests and budgets.

        What can't be opened hides nothing else.
        """
        try:
            office = self._workspace.office(site)
        except AbfedError as error:
            yield unreadable(site, now, error)
            return
        parts = [of_log, of_files, of_incidents, of_vendors, of_models]
        if site in self._workspace.silos:
            parts += [of_store, of_requests, of_backups]
        for part in parts:
            yield from _whole(part(office, now), site, part.__name__, now)
        yield from _whole(self._of_checkup(office, now), site, "of_checkup", now)
        if site in self._workspace.silos:
            yield from _whole(self._of_budgets(site, now), site, "of_budgets", now)

    def _of_checkup(self, office: Office, now: datetime) -> Iterator[Alarm]:
        """How long ago a site was checked, as a gauge (S7); one that never was has none."""
        last = Checkups(office.folder, office.keys).last()
        if last is not None:
            age = (now - moment_of(last.at)) / timedelta(days=1)
            self.metrics.state.labels(state=f"checkup-age-days-{office.site}").set(age)
        yield from ()

    def _of_budgets(self, site: str, now: datetime) -> Iterator[Alarm]:
        """The pace at which a silo's budgets are spent; the silo is opened as if it were asked."""
        try:
            with self._workspace.silo(site) as silo:
                standings = silo.standing()
                charged = [moment_of(one.at) for one in silo.ledger.reservations()]
                late = tuple(of_retention(site, silo, now))
        except AbfedError as error:
            yield unreadable(site, now, error, "budgets")
            return
        yield from late
        for one in standings:
            self.metrics.state.labels(state=f"budget-left-{site}-{one.scope}").set(one.left)
        yield from of_budgets(site, standings, charged, now, self._settings.burn_days)

    def _of_runs(self, now: datetime) -> Iterator[Alarm]:
        """Every run is opened and verified at every look; what it says is judged once."""
        for signed in sorted(self._workspace.runs_folder.glob("*/manifest.sig")):
            name = signed.parent.name
            try:
                run = self._workspace.find_run(signed.parent)
                if name not in self._runs:
                    self._runs[name] = tuple(judge_run(run))
            except AbfedError as error:
                yield state_alarm("run-damaged", "coordinator", name, now, str(error))
                continue
            yield from self._runs[name]

    def _tell(
        self, new: tuple[Alarm, ...], before: Mapping[str, tuple[str, ...]]
    ) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """Bring to each sink what it didn't take before; who failed, and what each has by now."""
        vendors = vendors_of(self._home)
        failed: list[str] = []
        taken: dict[str, tuple[str, ...]] = {}
        for sink in self._settings.sinks:
            name = digest(sink.model_dump(mode="json"))
            had = before.get(name, ())
            taken[name] = tuple(one.key for one in new)
            try:
                left = tuple(one for one in new if one.key not in had)
                deliver(sink, left, vendors, self._workspace.path)
            except AbfedError as error:
                failed.append(f"{sink.kind}: {error.what}")
                taken[name] = had
        return tuple(failed), taken

    def _told(self, now: datetime) -> tuple[Told, tuple[Alarm, ...]]:
        """What was told before; where that was changed nothing was, and that is an alarm itself.

        Somebody who may write to the disk could end the watch otherwise before it told of them.
        """
        try:
            return last_look(self._home.folder, self._home.keys) or Told(), ()
        except AbfedError as error:
            return Told(), (unreadable(self._sites[0], now, error, TOLD),)

    def _count(
        self, standing: tuple[Alarm, ...], first: tuple[Alarm, ...], failed: tuple[str, ...]
    ) -> None:
        for severity in ("low", "medium", "high", "critical"):
            count = sum(one.severity == severity for one in standing)
            self.metrics.state.labels(state=f"alarms-{severity}").set(count)
        for alarm in first:
            self.metrics.note(f"alarm-{alarm.rule}")
        for _ in failed:
            self.metrics.note("sink-failed")
        self.metrics.note("look")


def _whole(alarms: Iterator[Alarm], site: str, part: str, now: datetime) -> Iterator[Alarm]:
    """The alarms of one part of a look; where it fails, that is one, and the others go on."""
    try:
        yield from alarms
    except AbfedError as error:
        yield unreadable(site, now, error, part.removeprefix("of_"))
    except Exception as failure:  # noqa: BLE001 - by kind only: its text could be anything's
        yield state_alarm(BROKEN, site, part, now, f"failed with {type(failure).__name__}")


def last_look(folder: Path, keys: SiteKeys) -> Told | None:
    """What the watch of a site kept after its last look; None where it never looked.

    Raises:
        IntegrityError: it was changed.
    """
    values = SealedFile(folder / TOLD, keys, "watch-told").read()
    try:
        return None if values is None else parse_record(Told, values, where=TOLD)
    except InputError as cause:
        raise IntegrityError("not what the watch kept", where=TOLD) from cause


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
