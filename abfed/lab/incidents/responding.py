"""Responding to incidents: containing at sites of this machine, and bundling evidence (S15).

The incident is kept at one site; what it contains may be at several. Evidence is a ZIP file with
slices of the audit logs as they are, each line signed and linked, with who had access, what was
frozen and which versions ran; a signed manifest names the digest of each member. It holds no row,
no key and no secret, and is still not for everybody: notes are in it.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, get_args

from abfed.lab.coordination import COORDINATOR
from abfed.lab.entrance import Entrance
from abfed.lab.offices import Office, parse_who
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.chain import head_of
from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.envelope import key_id, open_envelope, signature_bytes, verify_bytes
from abfed.protocol.errors import (
    InputError,
    IntegrityError,
    WorkspaceError,
)
from abfed.protocol.yamltext import parse_yaml
from abfed.site.clock import moment_of, stamp
from abfed.site.files import check_place, write_private
from abfed.site.freezes import Freezes, Kind
from abfed.site.incidents import Incidents, Severity
from abfed.site.vendors import Entry, Vendor, Vendors

KINDS: tuple[str, ...] = ("silo", "person", "key", "model", "plan", "vendor")
BEFORE = timedelta(days=30)
"""How far before an incident was known its evidence begins."""

LARGEST_EVIDENCE = 1 << 30  # bytes

MANIFEST, SIGNED = "manifest.json", "manifest.signed"
_PACKAGES = ("abfed", "flwr", "torch", "opacus", "pyarrow", "cryptography", "dp-accounting")


class Contained(NamedTuple):
    """What was frozen at one site, and how long it took until it was on disk."""

    site: str
    kind: str
    name: str
    durable_ms: float


def incidents_of(office: Office) -> Incidents:
    """The incidents of a site."""
    return Incidents(office.folder, office.keys, office.audit, office.clock)


def freezes_of(office: Office) -> Freezes:
    """What is frozen at a site."""
    return Freezes(office.folder, office.keys, office.clock)


def vendors_of(office: Office) -> Vendors:
    """The vendors of a site."""
    return Vendors(office.folder, office.keys, office.audit, office.clock)


def contain(office: Office, kind: str, name: str, *, by: str, reason: str) -> Contained:
    """Freeze something at a site from the next message on.

    Raises:
        InputError: there is no such kind, or it is frozen already.
    """
    if kind == "person":
        person, home = parse_who(name, office.site)
        stop = office.revoke(f"{person}@{home}", by=by, reason=reason)
        return Contained(office.site, kind, f"{person}@{home}", stop.durable_ms)
    if kind == "vendor" and name not in vendors_of(office).list():
        raise InputError(f"{office.site} has no vendor {name!r:.60}", do="see `abfed vendor show`")
    if kind == "silo" and name != office.site != COORDINATOR:
        raise InputError(
            f"{office.site} asks no other silo, so freezing {name!r:.60} there stops nothing",
            do=f"freeze it at the coordinator, which asks it, or at {name:.60} itself",
        )
    made = freezes_of(office).freeze(_kind(kind), name, office.audit, by=by, reason=reason)
    return Contained(office.site, kind, name, made.durable_ms)


def lift(office: Office, kind: str, name: str, *, by: str) -> None:
    """Let something be used again.

    Raises:
        InputError: it is not frozen here.
        Refused: it is the person who lifts.
    """
    if kind == "person":
        person, home = parse_who(name, office.site)
        office.check_not_self(by, person)
        office.restore(f"{person}@{home}", by=by)
        return
    freezes_of(office).lift(_kind(kind), name, office.audit, by=by)


def frozen_at(office: Office) -> list[dict[str, Any]]:
    """What is frozen at a site, people too, with the times to disk and to the first refusal."""
    rows = [
        {
            "kind": one.kind,
            "name": one.name,
            "at": one.at,
            "by": one.by,
            "reason": one.reason,
            "durable_ms": one.durable_ms,
            "refused_after_ms": one.refused_after_ms,
        }
        for one in freezes_of(office).list()
    ]
    rows += [
        {
            "kind": "person",
            "name": who,
            "at": stop.at,
            "by": stop.by,
            "reason": stop.reason,
            "durable_ms": stop.durable_ms,
            "refused_after_ms": stop.refused_after_ms,
        }
        for who, stop in sorted(office.stops.list().items())
    ]
    return rows


def parse_severity(text: str) -> Severity:
    """A severity by its name.

    Raises:
        InputError: there is none of this name.
    """
    for one in get_args(Severity):
        if one == text:
            severity: Severity = one
            return severity
    raise InputError(f"{text!r:.40} is no severity", do=f"one of {', '.join(get_args(Severity))}")


def load_vendor(path: Path) -> Vendor:
    """A vendor's entry from a YAML file.

    Raises:
        InputError: it can't be read, or is malformed.
    """
    where = str(path)
    data = read_document(path, "vendor's entry")
    return parse_record(Vendor, parse_yaml(data, where=where, error=InputError), where=where)


def propose_vendor(office: Office, vendor: Vendor, *, by: str) -> Entry:
    """Put a vendor's entry into a site's register, for somebody else to approve.

    Raises:
        InputError: its owner is nobody of the site; another has the same service.
    """
    known = office.people.register().people
    if known and vendor.owner not in known:
        raise InputError(
            f"owner {vendor.owner!r} is nobody of {office.site}, so nobody would answer for it",
            where=vendor.name,
            do="name a person of `abfed people list`",
        )
    return vendors_of(office).put(vendor, by=by)


def write_evidence(
    workspace: Entrance, office: Office, incident: str, path: Path, *, sites: Sequence[str], by: str
) -> str:
    """Write the evidence of an incident, and record that it was.

    Args:
        workspace: where the sites are.
        office: the site that keeps the incident, and signs.
        incident: its id.
        path: the ZIP file; it must not be there yet.
        sites: whose logs go in.
        by: who asks for it.

    Returns:
        The SHA-256 of the file.

    Raises:
        WorkspaceError: there is a file already.
        IntegrityError: a log doesn't hold: the bundle would prove nothing. Say so in the notes.
    """
    if path.exists():
        raise WorkspaceError("there is a file already", where=str(path), do="name another one")
    check_place(path)
    kept = incidents_of(office)
    found = kept.find(incident)
    since = stamp(moment_of(found.known_at) - BEFORE)
    members: dict[str, bytes] = {
        "incident.json": _json(found.model_dump(mode="json")),
        "versions.json": _json(_versions()),
    }
    for site in sites:
        members |= _site_members(workspace.office(site), since)
    manifest = {
        "incident": incident,
        "site": office.site,
        "made_at": stamp(office.place().now),
        "by": by,
        "since": since,
        "members": {name: sha256_hex(data) for name, data in sorted(members.items())},
    }
    members[MANIFEST] = canonical_bytes(manifest)
    members[SIGNED] = office.keys.sign("evidence", canonical_bytes(manifest))
    bundle = _zipped(members)
    write_private(path, bundle)
    digest = sha256_hex(bundle)
    kept.bundled(incident, digest, by=by)
    return digest


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """A file of a bundle; one that its archive's own check finds damaged was changed."""
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError) as cause:
        raise IntegrityError("a part of it was changed or cut off", where=where) from cause


def verify_evidence(path: Path, public_key: bytes) -> dict[str, Any]:
    """Check a bundle: signature, digests, and every line and link of every log in it.

    Returns:
        The manifest, with the number of entries of each log under `entries`.

    Raises:
        IntegrityError: something of it was changed; says what.
        InputError: it isn't such a file.
    """
    where = path.name
    # whoever gets it by mail has it with any mode: its signature says whether it was changed
    bundle = read_document(path, "bundle of evidence", most=LARGEST_EVIDENCE)
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            infos = archive.infolist()
            if sum(one.file_size for one in infos) > LARGEST_EVIDENCE:
                raise InputError("it unpacks to more than any bundle of evidence", where=where)
            members = {one.filename: _member(archive, one, where) for one in infos}
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, EOFError) as cause:
        raise InputError("not a bundle of evidence", where=where) from cause
    if len(members) != len(infos):
        raise IntegrityError("a part of it is there twice", where=where)
    if SIGNED not in members:
        raise IntegrityError("its signed manifest is missing", where=where)
    trusted = {key_id(public_key): public_key}
    content = open_envelope(members[SIGNED], trusted, kind="evidence", where=where).content
    manifest = parse_canonical(content, where=where)
    if members.get(MANIFEST) != content:
        raise IntegrityError("the manifest is not the one that was signed", where=where)
    there = {name: sha256_hex(data) for name, data in members.items()}
    del there[MANIFEST], there[SIGNED]
    for name in sorted({*there, *manifest["members"]}):
        if there.get(name) != manifest["members"].get(name):
            raise IntegrityError(f"{name} is missing, was added, or was changed", where=where)
    entries = {
        name: _check_slice(data, bytes.fromhex(members[f"{name[:-6]}.key"].decode()), name)
        for name, data in members.items()
        if name.endswith(".jsonl")
    }
    result: dict[str, Any] = {**manifest, "entries": entries}
    return result


def _kind(name: str) -> Kind:
    for kind in ("silo", "key", "model", "plan", "vendor"):
        if kind == name:
            return kind
    raise InputError(f"{name!r:.40} can't be frozen", do=f"one of {', '.join(KINDS)}")


def _site_members(office: Office, since: str) -> dict[str, bytes]:
    """One site's part of the evidence."""
    site = office.site
    lines = [
        canonical_bytes(entry) for entry in office.audit.entries() if entry["body"]["at"] >= since
    ]
    people = [
        {
            "person": name,
            "kind": one.kind,
            "grants": [grant.model_dump(mode="json") for grant in one.grants],
            "stopped_at": one.stopped_at,
        }
        for name, one in sorted(office.people.register().people.items())
    ]
    access = {
        "people": people,
        "frozen": frozen_at(office),
        "vendors": vendors_of(office).standings(),
        "policy": office.place().policy.model_dump(mode="json"),
    }
    return {
        f"{site}/audit.jsonl": b"".join(line + b"\n" for line in lines),
        f"{site}/audit.key": office.keys.public_key.hex().encode(),
        f"{site}/access.json": _json(access),
    }


def _check_slice(data: bytes, public_key: bytes, where: str) -> int:
    """Check a part of a log: each signature, and each link but the first."""
    head, number, count = "", -1, 0
    for count, raw in enumerate(data.splitlines(), start=1):
        entry = parse_canonical(raw, where=where)
        signature = signature_bytes(entry["signature"], where=where)
        if not verify_bytes(public_key, "audit", head_of(entry).encode(), signature):
            raise IntegrityError(f"the signature of line {count} does not hold", where=where)
        if head and (entry["previous"], entry["sequence"]) != (head, number + 1):
            raise IntegrityError(f"line {count} does not follow the one before it", where=where)
        head, number = head_of(entry), entry["sequence"]
    return count


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"python": platform.python_version(), "system": platform.platform()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _zipped(members: dict[str, bytes]) -> bytes:
    """The members as a ZIP file whose bytes follow from them alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _ordered(members):
            archive.writestr(zipfile.ZipInfo(name), members[name])
    return buffer.getvalue()


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name not in (MANIFEST, SIGNED), name))
