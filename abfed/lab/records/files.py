"""Records of processing as files: a signed one that proves itself, and a page to read (S22)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from abfed.lab.offices import Office
from abfed.lab.records.answering import STYLE
from abfed.lab.records.record import records_of, stated
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.documents import read_document
from abfed.protocol.envelope import key_id, open_envelope, parse_public_key
from abfed.protocol.errors import WorkspaceError
from abfed.silo.service import SiloService
from abfed.site.files import make_private_folder, write_private


def write_records(
    folder: Path, service: SiloService, office: Office, now: datetime, *, by: str
) -> list[Path]:
    """Write each record as `<kind>.record`, signed by the silo, and as `<kind>.html`.

    Raises:
        WorkspaceError: there are such files already.
    """
    made = {one.kind: stated(one, service, now) for one in records_of(service, office, now)}
    written: list[Path] = []
    for kind in made:
        for path in (folder / f"{kind}.record", folder / f"{kind}.html"):
            if path.exists():
                raise WorkspaceError(
                    "there is a file already", where=str(path), do="name another folder"
                )
            written.append(path)
    make_private_folder(folder)
    for kind, record in made.items():
        signed = service.keys.sign("record", canonical_bytes(record))
        write_private(folder / f"{kind}.record", signed)
        write_private(folder / f"{kind}.html", _page(record).encode())
    gaps = sum(len(record["gaps"]) for record in made.values())
    service.audit.append("records.written", records=len(made), gaps=gaps, by=by)
    return written


LARGEST_RECORD = 64 << 20  # bytes


def read_record(path: Path, public_key: str) -> dict[str, Any]:
    """A record that was handed over, its signature checked.

    Raises:
        InputError: the key is none.
        IntegrityError: it was changed, or is another silo's.
    """
    key = parse_public_key(public_key, do="give the silo's, as it is pinned elsewhere")
    content = open_envelope(
        read_document(path, "record", most=LARGEST_RECORD),
        {key_id(key): key},
        kind="record",
        where=path.name,
    ).content
    record: dict[str, Any] = parse_canonical(content, where=path.name)
    return record


def _page(record: Mapping[str, Any]) -> str:
    """A record as a page that needs nothing but itself."""
    gaps = "".join(f"<li>{escape(gap)}</li>" for gap in record["gaps"])
    told = f"<h2>Missing</h2><ul>{gaps}</ul>" if gaps else "<p>Nothing is missing.</p>"
    made = f"Made by {record['silo']} (key {record['key']}) on {record['made_at'][:10]} "
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(record["title"])}'
        f"</title><style>{STYLE}</style><h1>{escape(record['title'])}</h1>"
        f"<p>{escape(made)}from policy {record['policy'][:16]}, data epoch "
        f"{record['data_epoch'][:16]}, log {record['audit_head'][:16]}.</p>"
        f"{_as_html(record['facts'])}{told}</html>\n"
    )


def _as_html(value: Any) -> str:
    """A plain value as nested tables."""
    if isinstance(value, Mapping):
        rows = "".join(
            f"<tr><th>{escape(str(key))}</th><td>{_as_html(inner)}</td></tr>"
            for key, inner in value.items()
        )
        return f"<table>{rows}</table>" if rows else "–"
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return "".join(_as_html(one) for one in value)
        return escape(", ".join(map(str, value))) or "–"
    return "–" if value is None else escape(str(value))
