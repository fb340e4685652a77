"""The logs of a workspace's sites: verified against one another, asked, handed out, pruned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import head_of, verify_chain
from abfed.protocol.documents import read_document
from abfed.protocol.envelope import (
    key_id,
    open_envelope,
    parse_public_key,
    signature_bytes,
    verify_bytes,
)
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.messages import Release, decode
from abfed.site.anchors import Anchor, Verdict, verify_against
from abfed.site.audit import AuditLog
from abfed.site.clock import moment_of, stamp
from abfed.site.files import check_place, read_private, write_private

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace

LARGEST = 4 << 30  # bytes of an export or of anchors: some million entries
PRINTED = "give the key that was printed when the file was written"

SHORTEST_RETENTION = timedelta(days=365)
"""Entries younger than a year are never pruned: a review or an inquiry may ask for them."""


def log_of(workspace: Workspace, site: str) -> AuditLog:
    """The log of a site of this workspace."""
    return workspace.office(site).audit


def anchors_here(workspace: Workspace) -> list[Anchor]:
    """Every head of any site's log that another site of this workspace keeps.

    In what the coordinator keeps: each release, signed by the silo whose head it carries, and each
    run's manifest. In each silo's log: the head of the coordinator whose request it answered.

    Raises:
        IntegrityError: a signed thing that holds anchors was changed.
    """
    found = list(seen_here(workspace))
    hub = workspace.keys.site
    hub_key = workspace.keys.key_id
    for silo in workspace.silos:
        for entry in log_of(workspace, silo).entries():
            signer, _, head = str(entry["body"]["facts"].get("heard", "")).partition(":")
            if signer == hub_key:
                where = f"entry {entry['sequence']} of its log"
                found.append(Anchor(hub, head, entry["body"]["at"], silo, where))
    return found


def seen_here(workspace: Workspace) -> Iterator[Anchor]:
    """Every head that the coordinator keeps; no silo's folder is opened, one may be lost.

    Raises:
        IntegrityError: a signed thing that holds anchors was changed.
    """
    hub = workspace.keys.site
    trusted = {key_id(key): key for key in workspace.pinned_keys().values()}
    own = {workspace.keys.key_id: workspace.keys.public_key}
    for path in sorted(workspace.runs_folder.glob("*/releases/*/*.release")):
        where = str(path.relative_to(workspace.path))
        opened = open_envelope(read_private(path), trusted, kind="release", where=where)
        header = decode("release", opened.content, where=where).header
        if isinstance(header, Release):
            yield Anchor(header.silo, header.head, header.made_at, hub, where)
    for path in sorted(workspace.runs_folder.glob("*/manifest.sig")):
        where = str(path.relative_to(workspace.path))
        opened = open_envelope(read_private(path), own, kind="manifest", where=where)
        manifest = parse_canonical(opened.content, where=where)
        for site, head in manifest["audit_heads"].items():
            yield Anchor(site, head, manifest["created_at"], hub, where)


def write_anchors(workspace: Workspace, site: str, file: Path) -> int:
    """Write what this coordinator keeps of a site's log, signed, for that site to verify against.

    Returns:
        How many heads.

    Raises:
        WorkspaceError: no file can be made there.
    """
    check_place(file)
    known = [one._asdict() for one in seen_here(workspace) if one.of == site]
    content = canonical_bytes({"anchors": known, "by": workspace.keys.site})
    write_private(file, workspace.keys.sign("audit", content))
    return len(known)


def read_anchors(file: Path, public_key: str) -> list[Anchor]:
    """Heads that another site keeps, as it wrote and signed them.

    Raises:
        InputError: the key is malformed, or there is no such file.
        IntegrityError: they were changed, or another key signed them.
    """
    raw = parse_public_key(public_key, do=PRINTED)
    data = read_document(file, "file of anchors", most=LARGEST)
    opened = open_envelope(data, {key_id(raw): raw}, kind="audit", where=file.name)
    values = parse_canonical(opened.content, where=file.name)
    try:
        return [Anchor(**one) for one in values["anchors"]]
    except (TypeError, KeyError) as cause:
        raise IntegrityError("holds no anchors", where=file.name) from cause


def verify_site(workspace: Workspace, site: str, anchors: Iterable[Anchor]) -> Verdict:
    """Verify a site's log against every head of it that others keep.

    Raises:
        IntegrityError: it is empty or gone, though founding a site is its first entry; or entries
            were pruned that had to be kept; or see `verify_against`.
    """
    own = [one for one in anchors if one.of == site]
    start = log_of(workspace, site).start()
    if start.until and moment_of(start.until) > workspace.clock() - SHORTEST_RETENTION:
        raise IntegrityError(
            f"{start.entries} entries were pruned, some of them younger than a year",
            where=f"{site}'s log",
            why="heads that others keep of these can't be looked for any more",
            do="restore the log from a backup, and find out who pruned it",
        )
    verdict = verify_against(log_of(workspace, site), own, where=f"{site}'s log")
    if not verdict.state.entries:
        raise IntegrityError(
            "the log is gone: founding the site was its first entry",
            where=f"{site}'s log",
            do="find out who took it away; `abfed doctor` says what else is missing",
        )
    return verdict


def figures(verdict: Verdict, log: Path, spent: float) -> dict[str, Any]:
    """What a verified log holds, and what an entry that is kept costs: bytes, and time to verify.

    Args:
        verdict: what was found.
        log: the file.
        spent: how long that took (seconds).
    """
    kept = max(1, verdict.state.entries - verdict.pruned)
    return {
        "entries": verdict.state.entries,
        "pruned": verdict.pruned,
        "head": verdict.state.head,
        "anchors": verdict.anchors,
        "older_anchors": verdict.older,
        "unanchored": verdict.unanchored,
        "bytes_per_entry": round(log.stat().st_size / kept) if log.exists() else 0,
        "microseconds_per_entry": round(1e6 * spent / kept),
    }


def ask(
    workspace: Workspace, site: str, wanted: dict[str, str], *, since: str = "", event: str = ""
) -> list[dict[str, Any]]:
    """Entries of a site's log that name all that is wanted, oldest first.

    Args:
        workspace: whose site it is.
        site: the site.
        wanted: beginnings of values by fact, such as a person, a plan's digest or a receipt; a
            value is looked for under each name that logs use for it.
        since: no entry from before this day, as `2026-11-25`.
        event: only events whose name begins so.

    Raises:
        InputError: `since` is not a day.
        Refused: nobody is signed in at the site who may read its log.
        IntegrityError: the log doesn't verify.
    """
    begins = stamp(day(since)) if since else ""
    workspace.authorise("audit.read", site)
    log = log_of(workspace, site)
    log.verify()
    name, _, home = wanted.get("person", "").partition("@")
    own_name = name if home == site else ""
    return [
        {"entry": one["sequence"], **one["body"]}
        for one in log.entries()
        if one["body"]["at"] >= begins
        and one["body"]["event"].startswith(event)
        and all(
            _names(one["body"]["facts"], what, value)
            # the site's own people stand in its log by their name alone, too
            or (what == "person" and _names(one["body"]["facts"], what, own_name, whole=True))
            for what, value in wanted.items()
        )
    ]


SPELLINGS = {
    "person": ("person", "by", "who", "reader", "approved_by", "owner"),
    "plan": ("plan",),
    "model": ("model", "run"),
    "run": ("run",),
    "receipt": ("receipt",),
}
"""Under which facts entries name a thing."""


def _names(facts: dict[str, Any], what: str, value: str, *, whole: bool = False) -> bool:
    for name in SPELLINGS[what]:
        words = str(facts.get(name, "")).split()
        if whole:
            if value and value in words:
                return True
        elif any(word.startswith(value) or word.partition("@")[0] == value for word in words):
            return True
    return False


def export(workspace: Workspace, site: str, file: Path) -> int:
    """Write a site's log as JSON lines with proof, for another system to keep.

    The first line is a signed statement: site, public key, where it begins, how many entries, and
    the head. Each further line is an entry as it stands in the log, with its own signature.

    Returns:
        How many entries.

    Raises:
        Refused: nobody is signed in at the site who may read its log.
        WorkspaceError: no file can be made there.
    """
    actor = workspace.authorise("audit.read", site)
    check_place(file)
    office = workspace.office(site)
    office.audit.append("audit.exported", person=actor)
    state, start = office.audit.verify(), office.audit.start()
    stated = {"site": site, "key": office.keys.public_key.hex(), "start": start._asdict(),
              "entries": state.entries, "head": state.head}  # fmt: skip
    signature = office.keys.signature("audit", canonical_bytes(stated)).hex()
    lines = [canonical_bytes({"statement": stated, "signature": signature})]
    lines += [canonical_bytes(entry) for entry in office.audit.entries()]
    write_private(file, b"".join(line + b"\n" for line in lines))
    return len(lines) - 1


def check_export(file: Path, public_key: str) -> dict[str, Any]:
    """Check JSON lines that `export` wrote, with nothing but the site's public key.

    Returns:
        The statement.

    Raises:
        InputError: the key is malformed, or there is no such file.
        IntegrityError: names the first line that doesn't hold.
    """
    raw, where = parse_public_key(public_key, do=PRINTED), file.name
    lines = read_document(file, "export", most=LARGEST).split(b"\n")
    if lines.pop() != b"" or not lines:
        raise IntegrityError("cut short", where=where)
    first = parse_canonical(lines[0], where=where)
    try:
        stated, signed = first["statement"], signature_bytes(first["signature"], where=where)
        start = stated["start"]["entries"], stated["start"]["head"]
    except (TypeError, KeyError) as cause:
        raise IntegrityError("its first line is no statement", where=where) from cause
    if not verify_bytes(raw, "audit", canonical_bytes(stated), signed):
        raise IntegrityError("the signature of the statement does not hold", where=where)

    def entries() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines[1:], 1):
            at = f"{where}, line {number + 1}"
            entry = parse_canonical(line, where=at)
            if not isinstance(entry, dict) or set(entry) != {
                "sequence", "previous", "body", "signature",
            }:  # fmt: skip
                raise IntegrityError("not an entry", where=at)
            signature = signature_bytes(entry["signature"], where=at)
            if not verify_bytes(raw, "audit", head_of(entry).encode(), signature):
                raise IntegrityError("the signature does not hold", where=at)
            yield entry

    state = verify_chain(entries(), where=where, start=start)
    if state != (stated["entries"], stated["head"]):
        raise IntegrityError("the tail is missing", where=where, why="the statement names a later")
    found: dict[str, Any] = stated
    return found


def prune(workspace: Workspace, site: str, before: datetime) -> int:
    """Let go of a site's oldest entries; their number, time and head stay, signed.

    Raises:
        Refused: nobody is signed in at the site who may change what it keeps.
        InputError: the entries are too young.
    """
    actor = workspace.authorise("policy.change", site)
    office = workspace.office(site)
    if office.place().now - before < SHORTEST_RETENTION:
        days = SHORTEST_RETENTION.days
        raise InputError(f"entries are kept for {days} days at least", where=site)
    return office.audit.prune(before, by=actor)


def day(text: str) -> datetime:
    """The beginning of a day (UTC).

    Raises:
        InputError: not a day.
    """
    try:
        return moment_of(f"{text}T00:00:00.000000Z")
    except ValueError as cause:
        raise InputError(f"{text!r} is not a day", do="write it as 2026-11-25") from cause


def as_lines(entries: Iterable[dict[str, Any]]) -> str:
    """Entries as JSON lines."""
    return "".join(json.dumps(one, ensure_ascii=False, sort_keys=True) + "\n" for one in entries)
