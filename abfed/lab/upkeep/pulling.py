"""Bringing an export in through a connector: the same ingest, with nobody carrying the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abfed.lab.incidents.responding import vendors_of
from abfed.lab.intake import ingest_export
from abfed.protocol.errors import DataError
from abfed.silo.mapping import ExportMapping
from abfed.site.connectors import fetched, find_connector

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace
    from abfed.silo.ingest import IngestReport


def pull_export(workspace: Workspace, silo: str, name: str) -> IngestReport:
    """Fetch an export through one of the silo's connectors and read it into its store.

    Returns:
        Counts of rows, for the silo's own people only.

    Raises:
        Refused: nobody is signed in at the silo who may, or the connector's vendor isn't approved.
        RunFailed: the connector gave no export.
        MappingError, DataError: nothing was changed then.
    """
    workspace.authorise("data.ingest", silo)  # before anybody is asked
    office = workspace.office(silo)
    connector = find_connector(office.folder, name)
    mapping = office.folder / connector.mapping
    ExportMapping.load(mapping)
    with fetched(connector, vendors_of(office), office.folder) as export:
        try:
            return ingest_export(workspace, silo, export, mapping, connector=name)
        except DataError as error:  # its place has no name that anybody could look at
            where = f"the export of connector {name}"
            raise DataError(error.what, where=where, why=error.why, do=error.do) from None
