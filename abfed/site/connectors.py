"""Connectors: addresses at which a brand's e-mail tool gives its export (S16).

A connector stands in the brand's own `connectors.yaml` and is asked by that brand only. In order:

1. elsewhere than on this machine it is https, and belongs to a vendor that is approved for exactly
   this address; that is asked before anything is sent;
2. what the tool wants to know us by is read from a private file and goes to that host alone: no
   redirection is followed, no proxy asked;
3. what comes is whole, by what the tool itself says of its length, not larger than `LARGEST`, and
   here within an hour;
4. it is kept under no name: a file that is gone when it is closed, whatever ends the process.
"""

from __future__ import annotations

import http
import http.client
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import urlsplit

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, RunFailed, WorkspaceError
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.calling import host_of, http_to, path_of
from abfed.site.files import read_private
from abfed.site.vendors import Vendors, on_this_machine

FILE = "connectors.yaml"
LARGEST = 16 << 30  # bytes
EACH, IN_ALL = 30.0, 3600.0  # seconds
BLOCK = 1 << 20  # bytes read at a time


class Connector(Frozen):
    """Where an e-mail tool gives an export.

    Attributes:
        url: https, or http to this machine; no name or password in it.
        mapping: how its export becomes canonical columns; relative to the site's folder.
        secret_file: private; what is in it is sent as a bearer token.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]{1,300}$")]
    mapping: Annotated[str, Field(min_length=1, max_length=300)]
    secret_file: Annotated[str, Field(max_length=300)] = ""


class Connectors(Frozen):
    """What `connectors.yaml` holds."""

    connectors: dict[Name, Connector] = Field(default_factory=dict)


def load_connectors(folder: Path) -> dict[str, Connector]:
    """The connectors of a site by name; none where it has no file.

    Raises:
        WorkspaceError: the file is malformed.
        IntegrityError: it is open to others.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    values = parse_yaml(read_private(path), where=str(path), error=WorkspaceError)
    return dict(parse_record(Connectors, values, where=str(path), error=WorkspaceError).connectors)


def find_connector(folder: Path, name: str) -> Connector:
    """One of them.

    Raises:
        InputError: there is none of this name.
    """
    known = load_connectors(folder)
    if name not in known:
        raise InputError(
            f"there is no connector {name!r}",
            where=str(folder / FILE),
            why=f"there are: {', '.join(sorted(known)) or 'none'}",
        )
    return known[name]


def is_elsewhere(connector: Connector) -> bool:
    """Whether another machine is asked, so that it is a vendor's."""
    return not on_this_machine(urlsplit(connector.url).hostname or "")


@contextmanager
def fetched(connector: Connector, vendors: Vendors, folder: Path) -> Iterator[Path]:
    """An export as the tool gives it now. Rows: sensitive.

    Args:
        connector: whom to ask.
        vendors: the site's register.
        folder: the site's.

    Yields:
        A path that this process alone can read, until the block ends.

    Raises:
        Refused: the connector's vendor is not approved.
        RunFailed: it did not give an export, or not all of it.
    """
    if is_elsewhere(connector):  # 1
        if not connector.url.startswith("https:"):
            raise WorkspaceError("a connector to another machine takes https", where=FILE)
        vendors.require("connector", connector.url)
    with tempfile.TemporaryFile(dir=folder) as file:  # 4
        _fetch(connector, folder, file)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _fetch(connector: Connector, folder: Path, file: BinaryIO) -> None:
    parts = urlsplit(connector.url)
    headers = {"Accept": "text/csv, application/vnd.apache.parquet, */*"}
    if connector.secret_file:  # 2
        secret = read_private(folder / connector.secret_file).decode().strip()
        headers["Authorization"] = f"Bearer {secret}"
    try:
        with http_to(parts, each=EACH, in_all=IN_ALL) as connection:
            connection.request("GET", path_of(parts), headers=headers)
            why = _copy(connection.getresponse(), file)
    except (OSError, http.client.HTTPException, ValueError):
        why = "it can't be reached, or speaks otherwise"  # what it said is not repeated
    if why:
        raise RunFailed("the connector gave no export", where=host_of(parts), why=why)


def _copy(response: http.client.HTTPResponse, file: BinaryIO) -> str:
    """Take in what comes; empty where it is whole, or why it isn't (check 3)."""
    if response.status != http.HTTPStatus.OK:
        return f"it answered {response.status}"
    if response.length is None and not response.chunked:
        return "it doesn't say how long the export is, so a cut one could not be told"
    if (response.length or 0) > LARGEST:
        return f"it would be larger than {LARGEST >> 30} GiB"
    size = 0
    while block := response.read(BLOCK):
        size += len(block)
        if size > LARGEST:
            return f"it is larger than {LARGEST >> 30} GiB"
        file.write(block)
    return "it was cut" if response.length else ""
