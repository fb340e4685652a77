"""Flower without a server: a grid that calls the silos' client apps in this process.

Flower's strategies and server apps run on it unmodified. What it promises, as a SuperLink would:

1. Each message is copied through Flower's wire form both ways, so that no record is shared between
   server and silo, or between silos.
2. A client app that raises, or an unknown address, becomes an error reply; only the type's name of
   an exception is told.
3. A reply that took longer than the timeout is absent. (A call in this process can't be broken off,
   so it's waited for and then dropped.)
4. Replies stand in the order of the messages, so that nothing depends on which silo was faster.
5. Nothing is left running, and no state in Flower, when a server app has ended: one runs at a time.

This stands on parts of Flower that are half private (the task identity, message ids, the wire
form): Flower's version is pinned, and tests/coordinator/test_flower.py names what has moved.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from abfed.coordinator.courier import failure
from abfed.coordinator.making import MakesMessages
from abfed.protocol.errors import WorkspaceError

RUN_ID = 1
TASK_ID = 1
_running = threading.Lock()


def node_id(silo: str) -> int:
    """The address of an embedded silo: public, and the same on each machine (63 bits)."""
    number = int.from_bytes(hashlib.sha256(b"abfed node " + silo.encode()).digest()[:8], "big")
    return (number >> 1) | 1 << 62


class EmbeddedGrid(MakesMessages):
    """The silos of this process.

    Args:
        clients: client app by name of silo.
        workers: silos that compute at the same time. With 1 they're called in the caller's own
            thread.
        heard: called with a silo's name as soon as it has answered, for progress.
    """

    def __init__(
        self,
        clients: Mapping[str, ClientApp],
        *,
        workers: int = 1,
        heard: Callable[[str], None] | None = None,
    ) -> None:
        self._clients = {node_id(silo): (silo, app) for silo, app in clients.items()}
        if len(self._clients) != len(clients):
            message = "two silos have the same address"
            raise ValueError(message)
        self._workers = workers
        self._heard = heard
        self._run = Run.create_empty(RUN_ID)
        self._replies: dict[str, tuple[Message, float]] = {}

    def set_run(self, run: Run) -> None:
        """Set the run that this grid works for."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid works for."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """The silos' addresses, in the order of their names."""
        return sorted(self._clients, key=lambda node: self._clients[node][0])

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The silos' addresses with their names, as a SuperLink gives them."""
        return [NodeInfo(node_id=node, name=self._clients[node][0]) for node in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; their answers wait until they're pulled.

        A message is taken from `messages` when it is its turn, not before: a request must still be
        fresh when it arrives.
        """
        if self._workers == 1:
            delivered = [self._deliver(message) for message in messages]
        else:
            delivered = self._deliver_together(messages)
        self._replies.update({name: (reply, seconds) for name, reply, seconds in delivered})
        return [name for name, _, _ in delivered]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to these messages, each once."""
        return [self._replies.pop(name)[0] for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return the answers that took no longer than `timeout` seconds."""
        names = self.push_messages(messages)
        answers = [self._replies.pop(name) for name in names]
        return [reply for reply, seconds in answers if timeout is None or seconds <= timeout]

    def carry_out(self, app: ServerApp) -> None:
        """Run a server app on this grid.

        Raises:
            WorkspaceError: another one is running in this process.
        """
        with _identity(), quiet_flower():
            app(self, _context(SUPERLINK_NODE_ID, {}))

    def _deliver_together(self, messages: Iterable[Message]) -> list[tuple[str, Message, float]]:
        sent = messages if isinstance(messages, Sequence) else list(messages)
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="abfed-silo")
        try:
            return list(pool.map(lambda place: self._deliver(sent[place]), range(len(sent))))
        finally:
            # Also on Ctrl-C: what hasn't begun never begins, and what has is waited for.
            pool.shutdown(wait=True, cancel_futures=True)

    def _deliver(self, message: Message) -> tuple[str, Message, float]:
        """A message's id, the reply to it, and the seconds that took."""
        _name(message)
        started = time.monotonic()
        reply = self._answer(message)
        _name(reply)
        return message.metadata.message_id, _copy(reply), time.monotonic() - started

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self._clients:
            error = Error(code=ErrorCode.NODE_UNAVAILABLE, reason="no silo has this address")
            return Message(error, reply_to=message)
        silo, app = self._clients[node]
        received = _copy(message)
        try:
            return app(received, _context(node, {"silo": silo}))
        except Exception as problem:  # noqa: BLE001 - a silo's failure must not end the run
            return failure(problem, received)
        finally:
            if self._heard is not None:
                self._heard(silo)


def _name(message: Message) -> None:
    """Give a message its id, as a SuperLink does: Flower has no public way."""
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex


def _copy(message: Message) -> Message:
    """The message as the other side would receive it."""
    return message_from_proto(message_to_proto(message))


def _context(node: int, node_config: dict[str, str]) -> Context:
    return Context(
        run_id=RUN_ID,
        node_id=node,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config={},
    )


@contextmanager
def _identity() -> Iterator[None]:
    """Who we are, for Flower's messages: state of the class, so of the whole process."""
    if not _running.acquire(blocking=False):
        raise WorkspaceError(
            "another run is going on in this process",
            why="Flower keeps one identity for each process",
            do="wait for it, or start this one in another process",
        )
    try:
        before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)  # noqa: SLF001
        TaskIdentity.run_id, TaskIdentity.node_id = RUN_ID, SUPERLINK_NODE_ID
        TaskIdentity.task_id = TASK_ID
        try:
            yield
        finally:
            TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before  # noqa: SLF001
    finally:
        _running.release()


@contextmanager
def quiet_flower() -> Iterator[None]:
    """Only warnings and worse from Flower, which otherwise prints some twenty lines a round.

    Somebody who has set `FLWR_LOG_LEVEL`, Flower's own switch, gets what they asked for.
    """
    logger = logging.getLogger("flwr")
    level = logger.level
    if "FLWR_LOG_LEVEL" not in os.environ:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
