"""The workspace: a folder with a coordinator, runs and reports, and, embedded, the brands' silos.

```
workspace/
  abfed.yaml      names the silos and where they lie
  coordinator/    a site: keys, audit log, pinned keys of the silos
  silos/<name>/   a site each: keys, policy, encrypted store, ledger, releases, audit log
  data/           exports that were fetched or made up
  lab/            the researcher's session
  runs/  reports/
```
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field, model_validator

from abfed.lab.coordination import (
    COORDINATOR,
    SILOS_FILE,
    coordinator_access,
    first_policy,
    pin_silo,
    write_coordinator_access,
)
from abfed.lab.development import make_development_person
from abfed.lab.entrance import Entrance
from abfed.lab.finished import PINNED, Finished, find_folder, open_finished
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.declared import parse_record
from abfed.protocol.documents import is_file, read_document
from abfed.protocol.errors import IntegrityError, PlanError, WorkspaceError
from abfed.protocol.plan import Plan
from abfed.protocol.schema import OUTCOMES, Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, system_clock
from abfed.site.files import (
    alone,
    check_private,
    flush_folder,
    make_private_folder,
    read_private,
    write_private,
)
from abfed.site.keys import SiteKeys
from abfed.site.people import People

if TYPE_CHECKING:
    from abfed.coordinator.app import Progress
    from abfed.lab.runs import Run
    from abfed.silo.service import SiloService

__all__ = ["COORDINATOR", "FILE", "PINNED", "Listing", "Workspace"]

FILE = "abfed.yaml"
LOCK = ".abfed.lock"  # held while silos are founded
RESERVED = (COORDINATOR, "all")
"""Names that mean something else: the coordinator's site, and all of what there is."""


class Listing(Frozen):
    """What `abfed.yaml` holds: each silo's folder, relative to the workspace or absolute."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    silos: dict[Name, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _none_is_reserved(self) -> Listing:
        for name in RESERVED:
            if name in self.silos:
                message = f"silos.{name}: no silo can be called so"
                raise ValueError(message)
        return self


class Workspace(Entrance):
    """A workspace, opened.

    Args:
        path: its folder.
        clock: where the time comes from, for all of its sites.

    Raises:
        WorkspaceError: the folder is not a workspace.
    """

    def __init__(self, path: str | Path, clock: Clock = system_clock) -> None:
        self.path = Path(path)
        self.clock = clock
        file = self.path / FILE
        if not is_file(file):
            raise WorkspaceError(
                "not an abfed workspace",
                where=str(self.path),
                why=f"it has no {FILE}",
                do="run `abfed init`, or name another folder with --workspace",
            )
        check_private(self.path)
        self._listing = self._read_listing()
        self.keys = SiteKeys.open(self.coordinator / "keys")
        self.audit = AuditLog(self.coordinator / "audit.jsonl", self.keys, clock)
        self.people = People(self.coordinator, self.keys, self.audit, clock)

    @classmethod
    def create(
        cls, path: str | Path, *, development: bool = False, clock: Clock = system_clock
    ) -> Workspace:
        """Make a workspace with a coordinator and no silos.

        Args:
            path: its folder.
            development: whether to make up a person to try abfed out with; its silos hear them.
            clock: where the time comes from.

        Raises:
            WorkspaceError: there is something at this path already.
        """
        folder = Path(path)
        if (folder / FILE).exists():
            raise WorkspaceError(
                "there is a workspace already", where=str(folder), do="work in it, or name another"
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError(
                "is there already, and not empty",
                where=str(folder),
                do="name another folder; one that an interrupted `abfed init` left can be removed",
            )
        make_private_folder(folder)
        for name in (COORDINATOR, "silos", "data", "lab", "runs", "reports"):
            make_private_folder(folder / name)
        keys = SiteKeys.create(folder / COORDINATOR / "keys", site=COORDINATOR, clock=clock)
        AuditLog(folder / COORDINATOR / "audit.jsonl", keys, clock).append(
            "coordinator.created", key=keys.key_id
        )
        write_private(folder / COORDINATOR / SILOS_FILE, canonical_bytes({}))
        write_coordinator_access(folder / COORDINATOR, keys, development=development)
        write_private(folder / "runs" / PINNED, keys.public_key.hex().encode())
        write_private(folder / FILE, b"version: 1\nsilos: {}\n")  # last: now it is a workspace
        opened = cls(folder, clock)
        if development:
            make_development_person(opened.lab, opened.people)
        return opened

    @property
    def data(self) -> Path:
        """Where exports lie that were fetched or made up."""
        return self.path / "data"

    @property
    def runs_folder(self) -> Path:
        """Where runs lie."""
        return self.path / "runs"

    @property
    def reports_folder(self) -> Path:
        """Where reports lie."""
        return self.path / "reports"

    @property
    def silos(self) -> tuple[str, ...]:
        """Names of the silos."""
        return tuple(sorted(self._listing.silos))

    def silo_folder(self, name: str) -> Path:
        """A silo's folder, which must be that silo's: its keys say whose it is.

        Raises:
            WorkspaceError: there is no such silo here, or no more.
            IntegrityError: another silo lies there.
        """
        try:
            folder = self.path / self._listing.silos[name]
        except KeyError as cause:
            known = ", ".join(self.silos) or "none"
            raise WorkspaceError(
                f"there is no silo {name!r} in this workspace",
                where=str(self.path),
                why=f"its silos are: {known}",
                do=f"run `abfed silo create {name}`",
            ) from cause
        if not folder.exists():
            raise WorkspaceError(
                f"silo {name!r} is listed, and its folder is gone",
                where=str(folder),
                do="mount its disk, or put it back: `abfed silo restore`",
            )
        found = SiteKeys.site_of(folder / "keys")
        if found != name:
            raise IntegrityError(
                f"the folder that {FILE} names for silo {name!r} is that of {found!r}",
                where=str(folder),
                why="rows would go to another brand, and its budget would be charged",
                do=f"correct the folders in {self.path / FILE}",
            )
        return folder

    def create_silo(
        self,
        name: str,
        *,
        columns: Sequence[str] = OUTCOMES,
        purposes: Sequence[str] = ("email-optimisation",),
        synthetic: bool = False,
        epsilon: float = 10.0,
        show_budget: bool = True,
    ) -> Path:
        """Found a silo in this workspace, with a policy that its people can edit afterwards.

        Args:
            name: the brand.
            columns: outcomes and features that plans may use.
            purposes: purposes that plans may state.
            synthetic: its people are made up.
            epsilon: the budget for all plans together, for each recipient.
            show_budget: whether releases say how much of it is left.

        Raises:
            WorkspaceError: there is a silo of this name.
            InputError: a name or number is malformed.
            Refused: nobody is signed in who may: its key is pinned at the coordinator.
        """
        from abfed.silo.service import SiloService

        if name in RESERVED:
            raise WorkspaceError(
                f"a silo can't be called {name!r}", why="the name means something else here"
            )
        person = self.authorise("policy.change")
        policy = first_policy(
            name,
            columns=columns,
            purposes=purposes,
            synthetic=synthetic,
            epsilon=epsilon,
            show_budget=show_budget,
            coordinator_key=self.keys.public_key,
            development=coordinator_access(self.coordinator).development_people,
        )
        with alone(self.path / LOCK):  # two at once would each forget the other's silo
            self._listing = self._read_listing()
            if name in self._listing.silos:
                raise WorkspaceError(f"there is a silo {name!r} already", where=str(self.path))
            folder = self.path / "silos" / name
            if folder.exists():
                pinned = name in self.pinned_keys()  # where not, naming it would make no silo of it
                listed = f"name it under silos in {self.path / FILE}, or "
                raise WorkspaceError(
                    f"a folder lies where silo {name!r} would be founded",
                    where=str(folder),
                    why=f"{FILE} doesn't name it: founding was interrupted, or it was moved here",
                    do=f"{listed if pinned else ''}move it away, and ask again",
                )
            aside = folder.with_name(f".{name}.new")
            if aside.exists():
                shutil.rmtree(aside)  # a killed process left it; nothing of it was ever used
            service = SiloService.create(aside, policy, site=name, clock=self.clock)
            key = service.keys.public_key
            service.close()
            aside.rename(folder)
            flush_folder(folder.parent)
            pin_silo(self.coordinator, self.audit, name, key, by=person)
            self._list(name, f"silos/{name}")
        return folder

    def place_of(self, name: str) -> Path:
        """Where a silo lies, or is to lie: where it is listed, else under `silos`."""
        return self.path / self._listing.silos.get(name, f"silos/{name}")

    def take_in(self, name: str) -> None:
        """List a silo whose folder lies under `silos` already."""
        with alone(self.path / LOCK):
            self._list(name, f"silos/{name}")

    def _read_listing(self) -> Listing:
        """What `abfed.yaml` says now."""
        file = self.path / FILE
        check_private(file)
        data = read_document(file, "list of silos", error=WorkspaceError)
        values = parse_yaml(data, where=str(file), error=WorkspaceError)
        return parse_record(Listing, values, where=str(file), error=WorkspaceError)

    def _list(self, name: str, relative: str) -> None:
        """Write a silo into `abfed.yaml`; the lock is held."""
        listed = self._read_listing().silos | {name: relative}
        self._listing = Listing(silos=listed)
        dumped = yaml.safe_dump({"version": 1, "silos": dict(sorted(listed.items()))})
        write_private(self.path / FILE, dumped.encode())

    @contextmanager
    def silo(self, name: str) -> Iterator[SiloService]:
        """Open a silo: only where its keys are, so embedded."""
        from abfed.silo.service import SiloService

        service = SiloService(self.silo_folder(name), self.clock)
        try:
            yield service
        finally:
            service.close()

    def run(self, plan: Plan | str | Path, progress: Progress | None = None) -> Run:
        """Carry a plan out for the person who is signed in, or find the run that already did.

        In a notebook a bar shows how far it is, where no progress of one's own is given.
        The same plan on the same data gives the same releases and costs nothing again. A plan with
        waves goes on with the next one; one without is read once (see `abfed.lab.waves`).

        Raises:
            PlanError: the plan is malformed.
            InputError: it peeks at a fixed-horizon design, or its next wave isn't over.
            Refused: nobody is signed in, or a policy or a budget said no.
            RunFailed: fewer silos than the plan's minimum answered.
        """
        from abfed.coordinator.app import Coordinator
        from abfed.coordinator.exchange import describe
        from abfed.lab.federation import run_embedded
        from abfed.lab.runs import Run
        from abfed.lab.views.progress import shown
        from abfed.lab.waves import refuse_peeking, wave_to_run

        loaded, text = (plan, None) if isinstance(plan, Plan) else _loaded(Path(plan))
        loaded = wave_to_run(self.runs_folder, loaded, today=self.clock().date())
        refuse_peeking(self, loaded)
        coordinator = Coordinator(
            keys=self.keys,
            audit=self.audit,
            runs=self.runs_folder,
            silos=self.pinned_keys(),
            front=self.front(self.session()),
            clock=self.clock,
        )
        folders = {name: self.silo_folder(name) for name in self.silos_here}
        with shown(progress, loaded.name) as tell:
            outcome = run_embedded(coordinator, folders, loaded, plan_text=text, progress=tell)
        return Run.open(
            outcome.folder,
            coordinator_key=self.keys.public_key,
            found=outcome.found,
            missing={silo: describe(one) for silo, one in outcome.missing_now.items()},
        )

    def runs(self) -> list[Run]:
        """Complete runs, oldest first, by the time that the coordinator signed.

        Raises:
            IntegrityError: one of them was changed, or bears another name.
        """
        found = [self._open_run(one.parent) for one in self.runs_folder.glob("*/manifest.sig")]
        return sorted(found, key=lambda run: (run.made_at, run.name))

    def finished_of(self, plan: Plan) -> list[Finished]:
        """Complete runs of a plan, or of all waves of its design, oldest first; figures unread.

        Folders of other plans aren't opened.
        """
        from abfed.lab.waves import waves_done

        wanted = {plan.canonical_bytes()}
        if plan.analysis.sequential is not None and not plan.analysis.wave:
            done = waves_done(self.runs_folder, plan)
            wanted = {stored.canonical_bytes() for _, stored in done.values()}
        found = [
            open_finished(one.parent, self.keys.public_key)
            for one in self.runs_folder.glob(f"{plan.name}-*/manifest.sig")
            if read_private(one.with_name("plan.json")) in wanted
        ]
        return sorted(found, key=lambda run: (run.made_at, run.name))

    def find_run(self, name: str | Path) -> Run:
        """A run by its folder's path or name; a prefix does where it is the only one.

        Of the waves of one design it is the last.

        Raises:
            WorkspaceError: there is none, or more than one.
        """
        return self._open_run(find_folder(self.runs_folder, name))

    def _open_run(self, folder: Path) -> Run:
        from abfed.lab.runs import Run

        return Run.open(folder, coordinator_key=self.keys.public_key)


def _loaded(path: Path) -> tuple[Plan, bytes]:
    """A plan from a file, and the file's text as it is."""
    return Plan.load(path), read_document(path, "plan", error=PlanError)
