"""A brand's node folder: what the SuperNode's user has. No row, and no key of the silo, is in it.

```
node.json       silo, the federation's address, the silo service's socket
node.key        the SuperNode's own key (P-384, OpenSSH); made here, never leaves
ca.crt          the federation's certificate
exec.secret     shared by SuperNode and SuperExec
bundle.sha256   digests of the bundles that the executor takes; written at each start
bin/            our executors
```
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from abfed.coordinator.commands import write_executors
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.protocol.identity import Hex64
from abfed.protocol.schema import Frozen, Name
from abfed.site.certificates import check_authority, node_point
from abfed.site.files import (
    check_private,
    make_own_folder,
    make_private_folder,
    read_private,
    sweep,
    write_private,
)

NODE_FILE = "node.json"
PIN_FILE = "bundle.sha256"


class NodeSettings(Frozen):
    """What a node folder says.

    Attributes:
        silo: whose node it is.
        address: of the federation's proxy, host:port.
        socket: path of the silo service's socket.
    """

    silo: Name
    address: str
    socket: str


class Invitation(Frozen):
    """What a coordinator gives to brands. Nothing in it is secret.

    Attributes:
        federation: its name.
        address: of its proxy, host:port.
        authority: its authority's certificate, PEM.
        coordinator: the coordinator's public key, hex.
    """

    federation: Name
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}$")]
    authority: str
    coordinator: Hex64


class Node:
    """A node folder, opened.

    Args:
        folder: the folder.

    Raises:
        WorkspaceError: it isn't one.
        IntegrityError: it is open to others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if not (folder / NODE_FILE).exists():
            raise WorkspaceError(
                "not a node's folder", where=str(folder), do="run `abfed provision join` first"
            )
        for one in (folder, folder / "bin"):  # whoever writes there chooses what the node runs
            check_private(one)
        where = str(folder / NODE_FILE)
        values = parse_canonical(read_private(folder / NODE_FILE), where=where)
        self.settings = parse_record(NodeSettings, values, where=where, error=WorkspaceError)

    @classmethod
    def create(cls, folder: Path, settings: NodeSettings, authority: bytes, bundle: str) -> Node:
        """Make a node's folder and its keys; keys and bundles that are there stay.

        Args:
            folder: where.
            settings: what it says.
            authority: the federation's certificate, PEM.
            bundle: digest of the bundle that is installed here.
        """
        make = make_own_folder if (folder / NODE_FILE).exists() else make_private_folder
        for one in (folder, folder / "bin", folder / "log"):
            make(one)
            sweep(one)
        if not (folder / "node.key").exists():
            _make_key(folder)
        secret = folder / "exec.secret"  # by itself: a crash may have come between the two
        if not secret.exists():
            write_private(secret, secrets.token_bytes(32))
        write_private(folder / "ca.crt", authority)
        if not (folder / PIN_FILE).exists():  # a node that runs may take a neighbour's too
            write_private(folder / PIN_FILE, bundle.encode())
        write_executors(folder / "bin", roles=frozenset({"clientapp"}))
        write_private(folder / NODE_FILE, canonical_bytes(settings.model_dump(mode="json")))
        return cls(folder)

    def take_bundles(self, digests: Sequence[str]) -> None:
        """Have the executor take these bundles and no other.

        Args:
            digests: what is installed here first; then those of neighbouring releases that people
                let in while a federation is upgraded. What runs is what is installed here, always.

        Raises:
            InputError: one is not a SHA-256.
        """
        for one in digests:
            if not re.fullmatch(r"[0-9a-f]{64}", one):
                raise InputError(
                    "not the digest of a bundle",
                    where=str(self.folder),
                    do="take it from `abfed federation bundle` on the other side",
                )
        write_private(self.folder / PIN_FILE, "\n".join(digests).encode())

    def change_key(self) -> None:
        """Make a new key for the SuperNode, which takes it at its next start."""
        sweep(self.folder)
        _make_key(self.folder)

    @property
    def point(self) -> bytes:
        """The public point of the node's key."""
        path = self.folder / "node.key"
        try:
            key = serialization.load_ssh_private_key(read_private(path), password=None)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise WorkspaceError(
                "not a node's key",
                where=str(path),
                why="the file was cut short or changed",
                do="restore it, or: abfed provision renew --new-node-key; then have it admitted",
            )
        return node_point(key.public_key())


def _make_key(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_private(folder / "node.key", pem)


def read_invitation(data: bytes) -> Invitation:
    """An invitation, as `abfed provision` wrote it.

    A coordinator is not trusted by brands: that the fingerprint is right says who wrote it, not
    that it is one.

    Raises:
        WorkspaceError: it isn't one.
    """
    where = "invitation"
    try:
        values = parse_canonical(data, where=where)
        read = parse_record(Invitation, values, where=where, error=WorkspaceError)
        check_authority(read.authority.encode())
    except (IntegrityError, WorkspaceError) as cause:
        raise WorkspaceError(
            "not an invitation",
            where=where,
            why=cause.what,
            do="have the coordinator's people send federation/invitation.json anew",
        ) from cause
    return read
