"""What a person is given who asked a brand for their data: files to read, and receipts."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from abfed.protocol.errors import WorkspaceError
from abfed.silo.requests import Receipt
from abfed.site.files import check_place, make_private_folder, write_private

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{border:1px solid #bbb;padding:.3rem .6rem;text-align:left;white-space:nowrap}"
)


def room_for_answer(folder: Path) -> tuple[Path, Path]:
    """Where a person's data goes; asked before anything is logged as answered.

    Raises:
        WorkspaceError: there are such files already, or none can be made there.
    """
    files = (folder / "data.json", folder / "data.html")
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError("it is a file, not a folder", where=str(folder), do="name a folder")
    check_place(files[0] if folder.is_dir() else folder)
    for path in files:
        if path.exists():
            raise WorkspaceError("there is a file already", where=str(path), do="name another one")
    return files


def room_for_receipts(path: Path) -> None:
    """See that receipts can be written, before what they are for is done.

    Raises:
        WorkspaceError: there is a file already, or none can be made there.
    """
    if path.exists():
        raise WorkspaceError("there is a file already", where=str(path), do="name another one")
    check_place(path)


def write_answer(folder: Path, receipt: Receipt, data: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write a person's data as JSON and as a page; private files.

    Raises:
        WorkspaceError: there are such files already.
    """
    files = room_for_answer(folder)
    make_private_folder(folder)
    answer = {"receipt": receipt.as_dict(), **data}
    text = json.dumps(answer, indent=1, ensure_ascii=False, default=_plain) + "\n"
    write_private(files[0], text.encode())
    write_private(files[1], _page(receipt, data).encode())
    return files


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> None:
    """Write receipts as JSON lines.

    Raises:
        WorkspaceError: there is a file already.
    """
    room_for_receipts(path)
    lines = [json.dumps(one.as_dict(), separators=(",", ":")) for one in receipts]
    write_private(path, ("\n".join(lines) + "\n").encode())


def _page(receipt: Receipt, data: Mapping[str, Any]) -> str:
    """The data as a page that needs nothing but itself."""
    sends: Sequence[Mapping[str, Any]] = data["sends"]
    facts = {
        "Brand": data["silo"],
        "Person": str(data["person"]).replace("\x1f", " · "),
        "Receipt": receipt.request.receipt,
        "Received": receipt.request.received_at[:10],
        "Answered": receipt.request.done_at[:10],
        "Purposes that this data serves here": ", ".join(data["purposes"]) or "none",
        "Kept for": f"{data['kept_for_days']} days" if data["kept_for_days"] else "no fixed time",
        "Not read by any computation because": ", ".join(data["states"]) or "–",
    }
    rows = _pairs(facts)
    lists = "".join(f"<table>{_pairs(line)}</table>" for line in data["lists"])
    lists = lists and f"<h2>Lists that were made for sending</h2>{lists}"
    names = list(sends[0]) if sends else []
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(row[name])}</td>" for name in names) + "</tr>"
        for row in sends
    )
    held = f"<table><tr>{head}</tr>{body}</table>" if sends else "<p>Nothing is held.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Your data</title>'
        f"<style>{STYLE}</style><h1>Your data at {_text(data['silo'])}</h1>"
        f"<table>{rows}</table><h2>E-mails and what came of them</h2>{held}"
        f"{lists}</html>\n"
    )


def _pairs(facts: Mapping[str, Any]) -> str:
    return "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())


def _text(value: Any) -> str:
    return "–" if value is None else html.escape(str(_plain(value)))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
