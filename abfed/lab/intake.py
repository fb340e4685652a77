"""Bringing exports into a workspace's silos: what each brand's admin does, embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from abfed.lab.workspace import Workspace
from abfed.silo.ingest import IngestReport, ingest
from abfed.silo.intakes import on_record
from abfed.silo.mapping import ExportMapping


def ingest_export(
    workspace: Workspace, silo: str, export: Path, mapping: Path, *, connector: str = ""
) -> IngestReport:
    """Read an export into a silo's store, and note in its audit log that it was.

    Args:
        workspace: whose silo it is.
        silo: the brand.
        export: the file.
        mapping: how to read it.
        connector: which of the silo's connectors gave it; somebody brought it where left out.

    Returns:
        Counts of rows, for the silo's own people only.

    Raises:
        Refused: nobody is signed in at the silo who may.
        MappingError, DataError: nothing was changed then.
    """
    person = workspace.authorise("data.ingest", silo)
    declared = ExportMapping.load(mapping)
    with workspace.silo(silo) as service:
        policy = service.policy()
        through = {"connector": connector} if connector else {}
        with on_record(service.store, service.audit, person=person, **through):
            report = ingest(service.store, service.keys, declared, export, policy=policy)
    return report


def found_and_ingest(
    workspace: Workspace,
    silo: str,
    export: Path,
    mapping: Path,
    *,
    synthetic: bool = False,
    purposes: Sequence[str] = ("email-optimisation",),
) -> IngestReport:
    """Found a silo, unless it is there, that allows what the mapping declares; then ingest."""
    if silo not in workspace.silos:
        declared = ExportMapping.load(mapping)
        workspace.create_silo(
            silo,
            columns=(*declared.outcomes, *declared.features),
            purposes=purposes,
            synthetic=synthetic,
        )
    return ingest_export(workspace, silo, export, mapping)
