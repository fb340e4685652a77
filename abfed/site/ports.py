"""Where programs listen: ports of this machine, and who has them; paths of sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from abfed.protocol.errors import WorkspaceError
from abfed.protocol.printable import printable

MAX_PATH = 107  # bytes, of a Unix socket
_LISTENING = "0A"  # state of a socket in /proc/net/tcp, linux/tcp_states.h


def check_socket_path(path: Path) -> None:
    """See that a socket can have this path, before anything is made that would listen there.

    Raises:
        WorkspaceError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise WorkspaceError(
            "the path is too long for a socket",
            where=str(path),
            why=f"it may have {MAX_PATH} bytes, and this one has {length}",
            do="take a folder with a shorter path",
        )


def listens(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def holder(port: int) -> str:
    """Which program listens on a port, and its process's id, for people; empty where it isn't seen.

    The kernel tells the sockets of all users, and whose they are to root or to that user alone.
    """
    sockets = _listening(port)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(one.readlink()) in sockets for one in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"{printable(name)} (process {process.name})"
        except OSError:
            continue  # another user's, or it has just ended
    return ""


def held_by(port: int) -> str:
    """The same as the end of a sentence: ": nginx (process 1234)", or nothing."""
    found = holder(port)
    return f": {found}" if found else ""


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, as a process's descriptors name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue  # no Linux, or no IPv6
        for line in lines:
            _, local, _, state, *rest = line.split()
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                found.add(f"socket:[{rest[5]}]")
    return found
