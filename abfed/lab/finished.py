"""A finished run by its manifest: what it is of and who signed it, without its figures.

Opening checks the manifest's signature and the digest of each file that it names. The releases' own
signatures are checked where figures are read (`runs.Run`). This module needs neither numpy nor
Flower, so that who lists or orders many runs doesn't carry what computes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abfed.coordinator.beside import REPORT, read_beside
from abfed.coordinator.manifest import verify
from abfed.lab.paper.page import SOURCE_HEX
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.documents import is_file
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.plan import Plan, ReportSpec

SHOWN_RUNS = 10  # names, where there is none of the one that was asked for
SIGNATURE = "manifest.sig"
"""In a run's folder: its presence says that the run is complete."""
PINNED = "coordinator.pub"
"""Beside the runs: the public key (hex) of the coordinator that signs them."""


@dataclass(frozen=True, repr=False)
class Finished:
    """A complete run, its releases unread.

    Attributes:
        folder: where it lies; its name is the run's.
        plan: what was asked.
        report: how it is to be shown.
        manifest: what was signed.
    """

    folder: Path
    plan: Plan
    report: ReportSpec
    manifest: Mapping[str, Any]

    def __repr__(self) -> str:
        """Which run: one line."""
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.manifest["run"])

    @property
    def silos(self) -> tuple[str, ...]:
        """Silos whose totals are in the run."""
        parts: Mapping[str, Mapping[str, str]] = self.manifest["releases"]
        return tuple(sorted(silo for silo, one in parts.items() if "totals" in one))

    @property
    def made_at(self) -> str:
        """When it was complete (UTC, ISO 8601), as the coordinator signed it."""
        return str(self.manifest["created_at"])

    @property
    def asked_by(self) -> str:
        """Who submitted its plan, with their site."""
        who: str = self.manifest["asked_by"]
        return who

    @property
    def source(self) -> str:
        """What its tables say they were computed from (see `page.table`)."""
        return f"release:{sha256_hex(canonical_bytes(self.manifest))[:SOURCE_HEX]}"


def open_finished(folder: Path, coordinator_key: bytes) -> Finished:
    """Open and verify a run by its manifest.

    Raises:
        WorkspaceError: it isn't a finished run.
        IntegrityError: a byte of it was changed, or another coordinator signed it.
    """
    manifest = verify(folder, coordinator_key)
    plan = Plan.from_canonical((folder / "plan.json").read_bytes(), where=str(folder))
    return Finished(folder, plan, _shown(folder, coordinator_key), manifest)


def finished_runs(runs: Path, coordinator_key: bytes) -> list[Finished]:
    """Complete runs of a folder, oldest first, by the time that the coordinator signed.

    Raises:
        IntegrityError: one of them was changed, or bears another name.
    """
    found = [open_finished(one.parent, coordinator_key) for one in runs.glob(f"*/{SIGNATURE}")]
    return sorted(found, key=lambda run: (run.made_at, run.name))


def find_folder(runs: Path, name: str | Path) -> Path:
    """The folder of a run by its path or name, its plan's name, or a prefix that no other has.

    Of the waves of one design it is the last.

    Raises:
        WorkspaceError: there is none, or more than one.
    """
    from abfed.lab.waves import last_wave

    if is_file(Path(name) / SIGNATURE):
        return Path(name)
    known = sorted(one.parent for one in runs.glob(f"*/{SIGNATURE}"))
    exact = [one for one in known if one.name == str(name)]
    of_plan = [one for one in known if one.name.rpartition("-")[0] == str(name)]
    found = exact or of_plan or [one for one in known if one.name.startswith(str(name))]
    only = last_wave(found)
    if only is not None:
        return only
    names = ", ".join(one.name for one in found or known[-SHOWN_RUNS:])
    told = "these are" if found else "complete runs here, the last by name:"
    raise WorkspaceError(
        f"{len(found) or 'no'} complete runs are called {str(name)!r}",
        where=str(runs),
        why=f"{told} {names}" if names else "no run is complete here",
        do="name one run" if names else "run a plan first: `abfed run PLAN.yaml`",
    )


def _shown(folder: Path, coordinator_key: bytes) -> ReportSpec:
    """How a run is to be shown and to whom, as the coordinator signed it; else the defaults."""
    signed = read_beside(folder / REPORT, coordinator_key)
    return parse_record(ReportSpec, signed or {}, where=str(folder / REPORT))
