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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field

from abfed.lab.coordination import coordinator_access, default_access, write_coordinator_access
from abfed.lab.development import make_development_person
from abfed.lab.entrance import COORDINATOR, Entrance
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.plan import Plan
from abfed.protocol.schema import OUTCOMES, Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.audit import AuditLog
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.keys import SiteKeys
from abfed.site.people import People

if TYPE_CHECKING:
    from abfed.coordinator.app import Progress
    from abfed.lab.runs import Run
    from abfed.silo.service import SiloService

__all__ = ["COORDINATOR", "FILE", "PINNED", "Listing", "Workspace"]

FILE = "abfed.yaml"
PINNED = "coordinator.pub"  # in runs/: the public key that signs them, for reading without keys


class Listing(Frozen):
    """What `abfed.yaml` holds: each silo's folder, relative to the workspace or absolute."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    silos: dict[Name, str] = Field(default_factory=dict)


class Workspace(Entrance):
    """A workspace, opened.

    Args:
        path: its folder.

    Raises:
        WorkspaceError: the folder is not a workspace.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / FILE
        if not file.is_file():
            raise WorkspaceError(
                "not an abfed workspace",
                where=str(self.path),
                why=f"it has no {FILE}",
                do="run `abfed init`, or name another folder with --workspace",
            )
        values = parse_yaml(file.read_bytes(), where=str(file), error=WorkspaceError)
        self._listing = parse_record(Listing, values, where=str(file), error=WorkspaceError)
        self.keys = SiteKeys.open(self.coordinator / "keys")
        self.audit = AuditLog(self.coordinator / "audit.jsonl", self.keys)
        self.people = People(self.coordinator, self.keys, self.audit)

    @classmethod
    def create(cls, path: str | Path, *, development: bool = False) -> Workspace:
        """Make a workspace with a coordinator and no silos.

        Args:
            path: its folder.
            development: whether to make up a person to try abfed out with, whom silos that are
                founded here will hear.

        Raises:
            WorkspaceError: there is something at this path already.
        """
        folder = Path(path)
        if (folder / FILE).exists():
            raise WorkspaceError("there is a workspace already", where=str(folder))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError("is there already, and not empty", where=str(folder))
        make_private_folder(folder)
        for name in (COORDINATOR, "silos", "data", "lab", "runs", "reports"):
            make_private_folder(folder / name)
        keys = SiteKeys.create(folder / COORDINATOR / "keys", site=COORDINATOR)
        AuditLog(folder / COORDINATOR / "audit.jsonl", keys).append(
            "coordinator.created", key=keys.key_id
        )
        write_private(folder / COORDINATOR / "silos.json", canonical_bytes({}))
        write_coordinator_access(folder / COORDINATOR, keys, development=development)
        write_private(folder / "runs" / PINNED, keys.public_key.hex().encode())
        write_private(folder / FILE, b"version: 1\nsilos: {}\n")  # last: now it is a workspace
        opened = cls(folder)
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
        """A silo's folder.

        Raises:
            WorkspaceError: there is no such silo here.
        """
        try:
            return self.path / self._listing.silos[name]
        except KeyError as cause:
            known = ", ".join(self.silos) or "none"
            raise WorkspaceError(
                f"there is no silo {name!r} in this workspace",
                where=str(self.path),
                why=f"its silos are: {known}",
                do="run `abfed silo create`",
            ) from cause

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
        """
        from abfed.silo.service import SiloService

        if name in self._listing.silos:
            raise WorkspaceError(f"there is a silo {name!r} already", where=str(self.path))
        pinned = [{"name": COORDINATOR, "public_key": self.keys.public_key.hex()}]
        policy = {
            "silo": name,
            "synthetic": synthetic,
            "coordinators": pinned,
            "purposes": [
                {"name": purpose, "bases": ["consent", "legitimate-interests"]}
                for purpose in purposes
            ],
            "columns": list(columns),
            "budget": {"epsilon": float(epsilon), "delta": 1e-5},
            "per_plan": {"epsilon": min(5.0, float(epsilon)), "delta": 1e-6},
            "minimum_recipients": 10,
            "show_budget": show_budget,
            "access": default_access(
                COORDINATOR,
                self.keys.public_key,
                roles=("analyst", "service-account"),
                development=coordinator_access(self.coordinator).development_people,
            ),
        }
        text = "# What this silo allows. Whatever is not here is a no.\n" + yaml.safe_dump(
            policy, sort_keys=False
        )
        relative = f"silos/{name}"
        service = SiloService.create(self.path / relative, text, site=name)
        try:
            self._pin(name, service.keys.public_key)
        finally:
            service.close()
        listed = self._listing.silos | {name: relative}
        self._listing = Listing(silos=listed)
        dumped = yaml.safe_dump({"version": 1, "silos": dict(sorted(listed.items()))})
        write_private(self.path / FILE, dumped.encode())
        return self.path / relative

    @contextmanager
    def silo(self, name: str) -> Iterator[SiloService]:
        """Open a silo: only where its keys are, so embedded."""
        from abfed.silo.service import SiloService

        service = SiloService(self.silo_folder(name))
        try:
            yield service
        finally:
            service.close()

    def pinned_keys(self) -> dict[str, bytes]:
        """Public keys of the silos, as the coordinator pinned them."""
        file = self.coordinator / "silos.json"
        values = parse_canonical(read_private(file), where=str(file))
        return {name: bytes.fromhex(key) for name, key in values.items()}

    def run(self, plan: Plan | str | Path, progress: Progress | None = None) -> Run:
        """Carry a plan out for the person who is signed in, or find the run that already did.

        The same plan on the same data gives the same releases and costs nothing again. A plan with
        waves goes on with the next one; one without is read once (see `abfed.lab.waves`).

        Raises:
            PlanError: the plan is malformed.
            InputError: it peeks at a fixed-horizon design, or its next wave isn't over.
            Refused: nobody is signed in, or a policy or a budget said no.
            RunFailed: fewer silos than the plan's minimum answered.
        """
        from abfed.coordinator.app import Coordinator
        from abfed.lab.federation import run_embedded
        from abfed.lab.runs import Run
        from abfed.lab.waves import refuse_peeking, wave_to_run

        loaded, text = (plan, None) if isinstance(plan, Plan) else _loaded(Path(plan))
        loaded = wave_to_run(self.runs_folder, loaded)
        refuse_peeking(self, loaded)
        coordinator = Coordinator(
            keys=self.keys,
            audit=self.audit,
            runs=self.runs_folder,
            silos=self.pinned_keys(),
            front=self.front(self.session()),
        )
        folders = {name: self.silo_folder(name) for name in self.silos}
        outcome = run_embedded(coordinator, folders, loaded, plan_text=text, progress=progress)
        return Run.open(
            outcome.folder,
            coordinator_key=self.keys.public_key,
            found=outcome.found,
            missing={s: f"{one.reason}: {one.why}" for s, one in outcome.missing_now.items()},
        )

    def runs(self) -> list[Run]:
        """Complete runs, oldest first."""
        from abfed.lab.runs import Run

        folders = sorted(self.runs_folder.glob("*/manifest.sig"), key=lambda p: p.stat().st_mtime)
        return [Run.open(file.parent, coordinator_key=self.keys.public_key) for file in folders]

    def find_run(self, name: str | Path) -> Run:
        """A run by its folder's path or name; a prefix does where it is the only one.

        Raises:
            WorkspaceError: there is none, or more than one.
        """
        from abfed.lab.runs import Run

        if (Path(name) / "manifest.sig").is_file():
            return Run.open(Path(name), coordinator_key=self.keys.public_key)
        found = sorted(self.runs_folder.glob(f"{name}*/manifest.sig"))
        if len(found) == 1:
            return Run.open(found[0].parent, coordinator_key=self.keys.public_key)
        names = ", ".join(file.parent.name for file in found) or "none"
        raise WorkspaceError(
            f"{len(found)} complete runs are called {str(name)!r}",
            where=str(self.runs_folder),
            why=f"found: {names}",
            do="name one run, or run the plan first",
        )

    def _pin(self, name: str, public_key: bytes) -> None:
        """Remember a silo's public key; a key that is pinned is never replaced silently."""
        file = self.coordinator / "silos.json"
        pinned = parse_canonical(read_private(file), where=str(file))
        if pinned.get(name, public_key.hex()) != public_key.hex():
            raise WorkspaceError(f"another key is pinned for silo {name!r}", where=str(file))
        write_private(file, canonical_bytes(pinned | {name: public_key.hex()}))
        self.audit.append("silo.pinned", silo=name)


def _loaded(path: Path) -> tuple[Plan, bytes]:
    """A plan from a file, and the file's text as it is."""
    return Plan.load(path), path.read_bytes()
