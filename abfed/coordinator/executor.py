"""Our own executors: what stands first on the PATH of every SuperExec, under Flower's names.

Flower's executors unpack and run the bundle they are sent. Ours don't:

1. The bundle's SHA-256 must be the pinned one, written when the site was started, from what is
   installed here. Any other bundle is refused, and nothing of it is unpacked or imported.
2. What runs is the app that is installed here: the courier on a node, the server app at the
   coordinator. Dependencies are never installed.
3. An executor that hasn't been given a pin refuses everything. Kinds of task that abfed doesn't
   have (agents, models, connectors, simulations) are refused always.
4. Errors are told to the other side by the name of their type.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import AbfedError, IntegrityError

PIN = "ABFED_BUNDLE_SHA256_FILE"
"""Environment variable: the file that holds the pinned digest."""

_log = logging.getLogger(__name__)


class UnpinnedBundle(IntegrityError):
    """Another bundle was sent than the one that is taken here. Its name is all the sender sees."""


class Task(NamedTuple):
    """What a SuperExec says on the command line."""

    address: str
    token: str
    certificates: bytes | None


def _task(arguments: list[str] | None) -> Task:
    """Flower's command line of an executor; what we have no use for is ignored."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--root-certificates")
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--parent-pid", type=int)
    given, _ = parser.parse_known_args(arguments)
    if given.parent_pid is not None:
        from flwr.supercore.app_utils import start_parent_process_monitor  # noqa: PLC0415

        start_parent_process_monitor(given.parent_pid)
    path = given.root_certificates
    plain = given.insecure or not path  # Flower speaks plain text where no certificate is given
    if plain and not _is_loopback(given.runtime_api_address):
        raise IntegrityError("plain text is refused beyond loopback", where="executor")
    return Task(given.runtime_api_address, given.token, Path(path).read_bytes() if path else None)


def _is_loopback(address: str) -> bool:
    return address.rpartition(":")[0] in {"127.0.0.1", "localhost", "[::1]"}


def check_bundle(content: bytes) -> None:
    """Refuse any bundle but the pinned one.

    Raises:
        UnpinnedBundle: it is another one, or none is pinned.
    """
    path = os.environ.get(PIN, "")
    if not path:
        raise UnpinnedBundle("no bundle is pinned here", where="executor", do=f"set {PIN}")
    pinned = Path(path).read_text(encoding="ascii").split()  # a neighbour's may stand there too
    if sha256_hex(content) not in pinned:
        raise UnpinnedBundle(
            "the bundle is not the pinned one",
            where="executor",
            why="the coordinator runs another version of abfed, or somebody changed its bundle",
            do="compare the output of `abfed federation bundle` on both sides",
        )


def clientapp(arguments: list[str] | None = None) -> int:
    """`flwr-clientapp`: one message through the installed courier."""
    from abfed.coordinator.executing import run_clientapp  # noqa: PLC0415

    return _guarded(lambda: run_clientapp(_task(arguments), check_bundle))


def serverapp(arguments: list[str] | None = None) -> int:
    """`flwr-serverapp`: one run of the installed server app."""
    from abfed.coordinator.executing import run_serverapp  # noqa: PLC0415

    return _guarded(lambda: run_serverapp(_task(arguments), check_bundle))


def refuse(arguments: list[str] | None = None) -> int:
    """Any other kind of task."""
    del arguments
    sys.stderr.write("abfed: refused: there is no such kind of task here\n")
    return 3


def _guarded(work: Callable[[], None]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        work()
    except AbfedError as error:
        _log.warning("executor: %s: %s", error.kind, error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - its text could hold anything
        _log.warning("executor: %s", type(error).__name__)
        return 1
    return 0
