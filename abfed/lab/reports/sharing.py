"""Giving a report to named people: sealed to each one's key, and logged.

1. Who shares is signed in and not stopped, has a role that the report is for, as roles are granted
   at this moment, and may read each run it is about.
2. Each reader is a person of the coordinator's register, isn't stopped, and has such a role now.
3. The report is whole: its manifest's signature holds and each file has the bytes that it names.
4. It is sealed for one reader: to the X25519 key (RFC 7748) that was pinned for them, with a fresh
   key of the sender's each time, HKDF-SHA256 over the shared secret and both public keys, and
   AES-256-GCM. Report and reader are bound into the seal. Nobody else can open it, the sender
   included.
5. The log says who gave which report to whom before the sealed file is there.

A reader's private key is made and stays on their machine. A pinned key is never replaced silently.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from abfed.lab.incidents.responding import vendors_of
from abfed.lab.readers import READERS, changed_readers, pinned_readers
from abfed.lab.reports.manifest import SUFFIX, manifest_of, read_manifest
from abfed.lab.reports.verifying import find_manifest
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.documents import read_document
from abfed.protocol.envelope import key_id, parse_public_key
from abfed.protocol.errors import IntegrityError, Refused, WorkspaceError
from abfed.protocol.identity import Role
from abfed.protocol.sealing import KEY_BYTES, seal, unseal
from abfed.site.access import judge_token
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.rights import usable_roles

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace

MAGIC = b"ABFEDSHARE1"
SEALED = ".sealed"
PUBLIC_BYTES = 32  # RFC 7748
LARGEST_SHARED = 1 << 30  # bytes; a report in every format has some megabytes


def make_reader_key(path: Path) -> str:
    """Make a reader's key pair; the private half stays in this file.

    Returns:
        The public half in hex, to be given to those who share reports.

    Raises:
        WorkspaceError: there is a file already.
    """
    if path.exists():
        raise WorkspaceError("there is a file already", where=str(path), do="name another one")
    key = X25519PrivateKey.generate()
    if not path.parent.is_dir():
        make_private_folder(path.parent)
    write_private(path, key.private_bytes_raw())
    return key.public_key().public_bytes_raw().hex()


def pin_reader(workspace: Workspace, name: str, public_key: str) -> str:
    """Remember a person's public key.

    Returns:
        Its fingerprint, to be compared by phone.

    Raises:
        Refused: nobody is signed in who may manage people.
        WorkspaceError: there is no such person, or another key is pinned for them.
        InputError: it isn't a key.
    """
    actor = workspace.authorise("people.manage")
    workspace.people.person(name)
    raw = parse_public_key(public_key, do=f"ask {name} for what `abfed report reader-key` printed")
    with changed_readers(workspace.coordinator) as pinned:
        if pinned.get(name, raw.hex()) != raw.hex():
            raise WorkspaceError(
                f"another key is pinned for {name!r}", where=READERS,
                do="find out whose it is; take it out by hand if it was lost",
            )  # fmt: skip
        workspace.audit.append("reader.pinned", person=name, key=key_id(raw), by=actor)
        pinned[name] = raw.hex()
    return key_id(raw)


def share_report(
    workspace: Workspace, report: str, names: Sequence[str], into: Path | None = None
) -> list[Path]:
    """Seal a report for named people.

    Args:
        workspace: whose report it is.
        report: its name, or one of its files.
        names: readers.
        into: where sealed files go; beside the report where it isn't given. A folder outside the
            workspace may be synchronised by anybody, so it takes an approved vendor.

    Raises:
        Refused: nobody is signed in, somebody has no role that the report is for, or no approved
            vendor has the folder as a destination of reports.
        WorkspaceError: there is no such report or person, or no key is pinned for them.
        IntegrityError: the report isn't as it was made.
    """
    path = find_manifest(workspace, report)
    manifest = read_manifest(path, workspace.keys.public_key)
    audience = manifest["audience"]
    who, roles = _sharer(workspace)
    _require_role(who, roles, audience)  # 1
    for run in _runs_of(manifest["subject"]):
        workspace.authorise("run.read", submitter=workspace.find_run(run).asked_by)
    pinned = pinned_readers(workspace.coordinator)
    now = workspace.clock()
    for name in names:  # 2, all of them before the first is sealed
        person = workspace.people.person(name)
        if person.stopped_at:
            raise Refused(
                f"{name} was stopped at this site and gets no report", code="audience",
                why="who is stopped or has left keeps no right, whatever roles they had",
                do=f"see `abfed access stopped`; `abfed access restore {name}` lets them back",
            )  # fmt: skip
        _require_role(name, person.roles(now), audience)
        if name not in pinned:
            raise WorkspaceError(
                f"no key is pinned for {name!r}", where=READERS,
                do="they run `abfed report reader-key`; then `abfed report reader NAME KEY`",
            )  # fmt: skip
    content = _whole(path, manifest)  # 3
    folder = into or path.parent
    if not folder.resolve().is_relative_to(workspace.path.resolve()):  # S16
        vendors_of(workspace.office()).require("reports", str(folder.resolve()))
    if not folder.is_dir():
        make_private_folder(folder)
    made = []
    for name in names:
        sealed = seal_to(bytes.fromhex(pinned[name]), content, name=_bound(manifest, name))  # 4
        workspace.audit.append(  # 5
            "report.shared", report=manifest["report"], manifest=sha256_hex(path.read_bytes()),
            reader=name, by=who,
        )  # fmt: skip
        target = folder / f"{manifest['report']}-{name}{SEALED}"
        head = canonical_bytes({"report": manifest["report"], "key": manifest["key"]})
        write_private(target, len(head).to_bytes(4, "big") + head + sealed)
        made.append(target)
    return made


def open_shared(
    sealed: Path, key: Path, name: str, signer: bytes, into: Path
) -> tuple[dict[str, Any], list[Path]]:
    """Open what was sealed for this reader, and check it.

    Args:
        sealed: the file.
        key: the reader's private key file.
        name: the reader's name.
        signer: public key of the workspace that made the report.
        into: where its files go.

    Returns:
        The manifest, and the files.

    Raises:
        InputError: there is no such file, or it is far too large to be one.
        IntegrityError: it is for somebody else, was changed, or another workspace signed it.
    """
    data = read_document(sealed, "sealed report", most=LARGEST_SHARED)
    length = int.from_bytes(data[:4], "big")
    head = parse_canonical(data[4 : 4 + length], where=sealed.name)
    if not isinstance(head, dict) or set(head) != {"report", "key"}:
        raise IntegrityError("not a sealed report", where=sealed.name)
    own = read_private(key)
    try:
        plain = unseal_with(own, data[4 + length :], name=_bound(head, name))
    except IntegrityError as cause:
        raise IntegrityError(
            "the seal doesn’t open",
            where=sealed.name,
            why="it was sealed for another name or another key, or its bytes were changed",
            do="check --as and --key, and ask whoever shared it to share it again",
        ) from cause
    packed = parse_canonical(plain, where=sealed.name)
    try:
        files = {one: base64.b64decode(text) for one, text in packed["files"].items()}
        signed = base64.b64decode(packed["manifest"])
    except (KeyError, TypeError, AttributeError, binascii.Error) as cause:
        raise IntegrityError("not a report's files", where=sealed.name) from cause
    stranger = (
        "check --signer: it is the line in runs/coordinator.pub of the workspace that shared it"
    )
    manifest = manifest_of(signed, signer, where=sealed.name, stranger=stranger)
    there = {one: sha256_hex(content) for one, content in files.items()}
    if there != manifest["files"] or any(Path(one).name != one for one in files):
        raise IntegrityError("its files aren't those that were signed", where=sealed.name)
    make_private_folder(into)
    for one, content in files.items():
        write_private(into / one, content)
    write_private(into / f"{manifest['report']}{SUFFIX}", signed)
    return manifest, [into / one for one in files]


def seal_to(public_key: bytes, plain: bytes, *, name: str) -> bytes:
    """Bytes that only the holder of a private key can open, under this name only."""
    fresh = X25519PrivateKey.generate()
    own = fresh.public_key().public_bytes_raw()
    shared = fresh.exchange(X25519PublicKey.from_public_bytes(public_key))
    return MAGIC + own + seal(_key(shared, own, public_key), plain, name=name)


def unseal_with(private_key: bytes, sealed: bytes, *, name: str) -> bytes:
    """What `seal_to` sealed.

    Raises:
        IntegrityError: it is for another key or name, or was changed.
    """
    start = len(MAGIC) + PUBLIC_BYTES
    if not sealed.startswith(MAGIC) or len(sealed) < start or len(private_key) != PUBLIC_BYTES:
        raise IntegrityError("not a sealed report")
    sender = sealed[len(MAGIC) : start]
    own = X25519PrivateKey.from_private_bytes(private_key)
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(sender))
    except ValueError as cause:  # a key of small order (RFC 7748, 6.1)
        raise IntegrityError("the sender's key is malformed") from cause
    key = _key(shared, sender, own.public_key().public_bytes_raw())
    return unseal(key, sealed[start:], name=name)


def _key(shared: bytes, sender: bytes, reader: bytes) -> bytes:
    """The sealing key of one message; both public keys are in it (RFC 9180's reason too)."""
    info = b"abfed report share" + sender + reader
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(shared)


def _bound(head: dict[str, Any], reader: str) -> str:
    return f"report:{head['report']}:{head['key']}:{reader}"


def _whole(path: Path, manifest: dict[str, Any]) -> bytes:
    """All files of a report, and its manifest, in one piece."""
    files = {}
    for name, digest in manifest["files"].items():
        content = read_private(path.with_name(name))
        if sha256_hex(content) != digest:
            raise IntegrityError(
                "it was changed since it was made", where=name, do="make the report again"
            )
        files[name] = base64.b64encode(content).decode()
    signed = base64.b64encode(path.read_bytes()).decode()
    return canonical_bytes({"files": files, "manifest": signed})


def _runs_of(subject: Any) -> list[str]:
    """The runs that a report is about; none where it is about a plan, before any silo was asked."""
    named = subject if isinstance(subject, dict) else {}
    return [named["run"]] if "run" in named else sorted(named.get("runs", ()))


def _sharer(workspace: Workspace) -> tuple[str, tuple[Role, ...]]:
    """Who is signed in, and their roles; a report of no run asks for no right that judges them.

    Raises:
        Refused: nobody is signed in, or who is was stopped or let back since.
    """
    place = workspace.office().place()
    token = judge_token(workspace.session().token, place)
    return token.who, usable_roles(place.policy, token, place.now, [])


def _require_role(name: str, roles: Sequence[str], audience: Sequence[str]) -> None:
    if not set(roles) & set(audience):
        raise Refused(
            f"the report isn't for {name}", code="audience",
            why=f"it is for: {', '.join(audience)}",
            do="change the plan's `report: {audience: …}`, or have a role granted",
        )  # fmt: skip
