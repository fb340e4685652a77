"""The SuperLink's control interface, on loopback: start, list and stop runs; register nodes.

This stands on half private parts of Flower; tests/coordinator/test_flower.py names what has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from abfed.coordinator.bundle import ORDER, make_bundle
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import InputError, RunFailed
from abfed.site.ports import holder, listens

ANSWER_SECONDS = 30.0  # as Flower has it; a look at what may hang takes less
DOWN = "start it with `abfed federation up`"
HANGS = (
    "see `abfed federation logs`; what hangs for good is ended with kill -9 and its id: it is "
    "started again, and runs go on"
)


class RunState(NamedTuple):
    """A run as the SuperLink has it.

    Attributes:
        run_id: its number there.
        order: digest of the order it carries out.
        status: "pending", "starting", "running", "finished".
        detail: how it finished.
    """

    run_id: int
    order: str
    status: str
    detail: str

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it."""
        return self.status == "finished" and self.detail.startswith("stopped")

    @property
    def lost(self) -> bool:
        """Whether the SuperLink heard no more of its server app, and gave it up."""
        return self.status == "finished" and "No heartbeat" in self.detail


class NodeState(NamedTuple):
    """A registered SuperNode.

    Attributes:
        node_id: its number at the SuperLink.
        name: its silo's.
        status: "registered", "online", "offline".
        online_until: when its next heartbeat is due, in seconds since 1970; 0 before its first.
        public_key: what it was registered by.
    """

    node_id: int
    name: str
    status: str
    online_until: float
    public_key: bytes


class Control:
    """The control interface of one SuperLink.

    Args:
        port: its port on loopback.
        authority: path of the federation's certificate.
        seconds: how long an answer may take.
    """

    def __init__(self, port: int, authority: Path, seconds: float = ANSWER_SECONDS) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{port}",
            insecure=False,
            root_certificates=authority.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        self._client._client.timeout = httpx.Timeout(seconds)  # noqa: SLF001 - no public way

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def start(self, order: str) -> int:
        """Start a run that carries out an order; returns its number."""
        content = make_bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(sha256_hex(content), content, {})),
            override_config=user_config_to_proto({ORDER: order}),
        )
        return int(self._client.StartRun(request).run_id)

    def runs(self) -> list[RunState]:
        """All runs that the SuperLink knows."""
        found = self._client.ListRuns(ListRunsRequest()).run_dict
        return [
            RunState(
                run.run_id,
                run.override_config[ORDER].string if run.override_config else "",
                run.status.status,
                f"{run.status.sub_status} {run.status.details}".strip(),
            )
            for run in found.values()
        ]

    def finished(self, run_id: int) -> bool | None:
        """Whether a run is over; None where the SuperLink doesn't say, as while it is restarted."""
        try:
            return any(one.run_id == run_id and one.status == "finished" for one in self.runs())
        except (httpx.TransportError, httpx.HTTPStatusError):
            return None

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        self._client.StopRun(StopRunRequest(run_id=run_id))

    def nodes(self) -> list[NodeState]:
        """All registered SuperNodes; the SuperLink goes on listing those that it let go."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            NodeState(node.node_id, node.name, node.status, node.online_until, node.public_key)
            for node in found
            if node.status != "unregistered"
        ]

    def register(self, name: str, key: ec.EllipticCurvePublicKey) -> None:
        """Register a SuperNode by its public key, under its silo's name; again is nothing.

        Raises:
            InputError: the SuperLink has let this key go before.
        """
        wanted = public_key_to_bytes(key)
        for node in self.nodes():
            if node.name == name and node.public_key == wanted:
                return
            if node.name == name:
                self.unregister(node.node_id)
        try:
            self._client.RegisterNode(RegisterNodeRequest(public_key=wanted, name=name))
        except httpx.HTTPStatusError as cause:
            raise InputError(
                f"the SuperLink doesn't register the node (HTTP {cause.response.status_code})",
                where=name,
                why="it takes no key again that it let go",
                do="at the brand: abfed provision renew --new-node-key; then admit it",
            ) from cause

    def unregister(self, node_id: int) -> None:
        """Let a SuperNode in no longer; it is cut off at its next message."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))


@contextmanager
def control(port: int, authority: Path, seconds: float = ANSWER_SECONDS) -> Iterator[Control]:
    """The control interface, for a while.

    Args:
        port: see `Control`.
        authority: see `Control`.
        seconds: how long an answer may take.

    Raises:
        RunFailed: the SuperLink doesn't answer.
    """
    opened = Control(port, authority, seconds)
    try:
        yield opened
    except httpx.HTTPStatusError as cause:
        raise RunFailed(
            f"the SuperLink said no (HTTP {cause.response.status_code})", where=f"port {port}"
        ) from cause
    except httpx.TransportError as cause:
        why = silence(port, seconds, cause)
        raise RunFailed(
            "the SuperLink does not answer",
            where=f"127.0.0.1:{port}",
            why=why,
            do=HANGS if listens(port) else DOWN,
        ) from cause
    finally:
        opened.close()


def silence(port: int, seconds: float, cause: Exception) -> str:
    """Why nothing on a port of this machine answers as it should.

    Args:
        port: the port.
        seconds: how long was waited.
        cause: what came of asking.
    """
    if not listens(port):
        return f"nothing listens on port {port}"
    who = holder(port) or "something"
    if isinstance(cause, (httpx.TimeoutException, TimeoutError)):
        return f"{who} listens on port {port}, and gave no answer for {seconds:g} s"
    return f"{who} listens on port {port}, and hung up ({cause})"
