"""Provisioning, from a workspace: the coordinator's side and the brands'.

Each side makes its own keys. Between them go an invitation and a signed request, by any way at all:
nothing in them is secret, and their fingerprints are compared by phone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from abfed.coordinator.commands import SOCKET as WARM
from abfed.coordinator.house import FOLDER, House, Settings
from abfed.coordinator.node import Node, NodeSettings, read_invitation
from abfed.coordinator.units import (
    compose,
    coordinator_unit,
    node_unit,
    silo_unit,
    start_script,
)
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import InputError
from abfed.site.certificates import make_site_request, read_site_request, spoken
from abfed.site.clock import system_clock
from abfed.site.files import as_owner_of, make_private_folder, write_private
from abfed.site.ports import check_socket_path

if TYPE_CHECKING:  # these load Flower and accountants; a fingerprint is read without them
    from abfed.coordinator.provision import Provisioner
    from abfed.lab.workspace import Workspace


class Joined(NamedTuple):
    """What joining made.

    Attributes:
        node: the node's folder.
        request: for the coordinator.
        fingerprint: of the request.
        starts: where the silo's start script, both units and the Compose file lie. The silo's user
            and root run them, so the node's user must not be able to write them.
    """

    node: Path
    request: Path
    fingerprint: str
    starts: Path


def found_federation(workspace: Workspace, settings: Path) -> tuple[House, str]:
    """Found a federation at its coordinator; returns it and the invitation's fingerprint.

    Raises:
        Refused: nobody is signed in who may change what the coordinator trusts.
        WorkspaceError: the workspace lies too deep for a socket.
    """
    read = Settings.load(settings)
    workspace.authorise("policy.change")
    check_socket_path(workspace.path.resolve() / FOLDER / WARM)
    fingerprint = provisioner(workspace).found(read, settings.read_bytes())
    folder = workspace.path / FOLDER
    write_private(folder / "abfed-coordinator.service", coordinator_unit(workspace.path).encode())
    place = workspace.path.resolve()
    _write_script(folder / "start", "federation", "up", "--workspace", str(place))
    return House(workspace.path / FOLDER), fingerprint


def provisioner(workspace: Workspace) -> Provisioner:
    """Provisions the federation of a coordinator's workspace."""
    from abfed.coordinator.provision import Provisioner

    return Provisioner(workspace.path / FOLDER, workspace.keys, workspace.audit, system_clock)


def join(
    workspace: Workspace,
    silo: str,
    invitation: bytes,
    *,
    fingerprint: str,
    node: Path | None = None,
    socket: str = "",
) -> Joined:
    """Join a federation with a silo of this workspace.

    Args:
        workspace: the brand's.
        silo: which silo.
        invitation: as the coordinator gave it.
        fingerprint: of the invitation, as the coordinator's people read it out.
        node: the node's folder; `nodes/<silo>` in the workspace where it isn't given.
        socket: where the silo service will listen; in the node's folder where it isn't given.

    Raises:
        Refused: nobody is signed in at the silo who may change whom it hears.
        InputError: the fingerprint is another one.
        WorkspaceError: it isn't an invitation, or the node would lie too deep for its sockets.
    """
    from abfed.coordinator.bundle import bundle_digest
    from abfed.lab.workspace import COORDINATOR
    from abfed.silo.pinning import pin_coordinator

    workspace.authorise("policy.change", silo)
    given = read_invitation(invitation)
    found = spoken(sha256_hex(invitation))
    if "".join(fingerprint.split()).lower() != found.replace(" ", ""):
        raise InputError(
            "the fingerprint is not that of the invitation",
            where=given.federation,
            why=f"the invitation's is {found}",
            do="call the coordinator's people and compare it with theirs; then give it",
        )
    folder = node or _starts(workspace, silo)
    listening = Path(socket).absolute() if socket else folder.resolve() / "silo.sock"
    for one in (listening, folder.resolve() / WARM):
        check_socket_path(one)
    settings = NodeSettings(silo=silo, address=given.address, socket=str(listening))
    with workspace.silo(silo) as service:
        keys = service.keys
        coordinator = bytes.fromhex(given.coordinator)
        name, site = given.federation, COORDINATOR
        if pin_coordinator(service.paths.policy, name, site, coordinator):
            service.audit.append("coordinator.pinned", federation=given.federation)
        digest, authority = bundle_digest(), given.authority.encode()
        with as_owner_of(folder):
            point = Node.create(folder, settings, authority, digest).point
        request = make_site_request(keys, point)
        pinned = read_site_request(request)
        service.audit.append(
            "federation.joined",
            federation=given.federation,
            fingerprint=pinned.fingerprint.replace(" ", ""),
        )
    starts = _starts(workspace, silo)
    make_private_folder(starts)
    _write_starts(workspace.path, silo, folder, settings.socket)
    return Joined(folder, _write_request(folder, silo, request), pinned.fingerprint, starts)


def renew(
    workspace: Workspace, silo: str, node: Path | None = None, *, new_node_key: bool = False
) -> Joined:
    """A fresh request for the same keys, to have the silo's certificate renewed.

    Args:
        workspace: the brand's.
        silo: which silo.
        node: the node's folder, where it isn't in the workspace.
        new_node_key: make the SuperNode a new key. A federation takes none again that it let go.
    """
    starts = _starts(workspace, silo)
    folder = node or starts
    with workspace.silo(silo) as service:
        if new_node_key:
            workspace.authorise("policy.change", silo)
        with as_owner_of(folder):
            opened = Node(folder)
            if new_node_key:
                opened.change_key()
            point = opened.point
        request = make_site_request(service.keys, point)
    path = _write_request(folder, silo, request)
    return Joined(folder, path, read_site_request(request).fingerprint, starts)


def fingerprint_of(data: bytes) -> str:
    """The fingerprint of an invitation or of a request.

    Raises:
        WorkspaceError, IntegrityError: it is neither.
    """
    if data.startswith(b"-----BEGIN CERTIFICATE REQUEST"):
        return read_site_request(data).fingerprint
    read_invitation(data)
    return spoken(sha256_hex(data))


def _starts(workspace: Workspace, silo: str) -> Path:
    """Where what starts a silo and its node lies; the node itself, too, where nothing is said."""
    return workspace.path / "nodes" / silo


def _write_request(folder: Path, silo: str, request: bytes) -> Path:
    path = folder / f"{silo}.request.pem"
    with as_owner_of(folder):
        write_private(path, request)
    return path


def _write_starts(workspace: Path, silo: str, node: Path, socket: str) -> None:
    """Start scripts, units and the Compose file of a brand."""
    place, starts = workspace.resolve(), workspace / "nodes" / silo
    at = Path(socket)
    write_private(starts / f"abfed-silo-{silo}.service", silo_unit(place, silo, at).encode())
    write_private(starts / f"abfed-node-{silo}.service", node_unit(node, silo).encode())
    write_private(starts / "compose.yaml", compose(place, silo, node, at).encode())
    serve = ["silo", "serve", silo, "--workspace", str(place), "--socket", socket]
    _write_script(starts / "start-silo", *serve)
    with as_owner_of(node):
        _write_script(node / "start-node", "federation", "node", str(node.resolve()))


def _write_script(path: Path, *command: str) -> None:
    write_private(path, start_script(command).encode())
    path.chmod(0o700)
