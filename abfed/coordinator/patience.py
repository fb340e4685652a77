"""A grid that waits for silos as the plan says: retries with jitter, quorum, stragglers.

It stands on any grid. Flower's own `send_and_receive` looks for answers every three seconds, waits
for all of them or for the end, and takes a failed delivery for an answer. Here:

1. Answers are looked for often at first, then ever less, at most `SLOWEST_LOOK` seconds apart; the
   more are open, the less often, so that looking costs the same for each.
2. A silo that failed is asked again, after pauses that double and are of random length, as often
   as the plan says. What a silo itself answers, a refusal too, stands.
   One whose node isn't connected, or whose message wasn't taken because its node or the SuperLink
   had just gone, was not asked: it is looked for as often, and for `silent_seconds` at least, since
   whatever was restarted needs a while to come back. Looking uses up none of its tries, and costs
   little: pauses between looks stay short, so that who is back is soon found.
3. Once the quorum has answered, the rest has the plan's straggler seconds.
4. When the step's time is over, what there is counts. So a step always ends.
5. Answers are handed on as they come, at most `TOGETHER` in memory.
6. A SuperLink that doesn't answer is waited for, also between steps, as long as a step may take.

Asking again is safe: a silo gives the same release to the same question, at no charge.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import httpx
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.run import Run

from abfed.coordinator.desk import addresses_of
from abfed.coordinator.exchange import Requests
from abfed.coordinator.making import MakesMessages
from abfed.protocol.errors import RunFailed
from abfed.protocol.waiting import Waiting

FIRST_LOOK = 0.05  # seconds
SLOWEST_LOOK = 2.0
LOOK_FOR_ONE = 0.005  # seconds between looks, for each open message
LONGEST_PAUSE = 60.0
LONGEST_UNTIL_LOOK = 10.0  # for a node that isn't there
TOGETHER = 16  # messages
OUTAGES = (httpx.HTTPError, ObjectPushError)
"""What Flower raises when a SuperLink goes, or has just come back, in the middle of a call."""


Said = TypeVar("Said")


class NotTaken(Exception):
    """A message that the SuperLink didn't take: its node may have gone since it was listed."""


class PatientGrid(MakesMessages):
    """Waits for a step's answers.

    Args:
        inner: the grid that delivers.
        waiting: the plan's rules.
        heard: called with a silo's name when its answer is here.
    """

    def __init__(
        self, inner: Grid, waiting: Waiting, heard: Callable[[str], None] | None = None
    ) -> None:
        self._inner = inner
        self._waiting = waiting
        self._heard = heard
        self._gone: dict[str, float] = {}  # silo → since when its node is not to be reached
        self.unanswered = False
        """Whether the SuperLink gave no answer when it was last asked for something."""

    def set_run(self, run: Run) -> None:
        """Set the run that the grid works for."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run that the grid works for."""
        return self._inner.run

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected."""
        return self._waited_for(self._inner.get_node_ids)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes that are connected, with their names."""
        return self._waited_for(self._inner.get_nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answers that are there; none while the SuperLink doesn't say."""
        try:
            return self._reached(lambda: self._inner.pull_messages(message_ids))
        except OUTAGES:
            return []  # they are looked for again

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask, ask again, and give each answer that comes in time."""
        if not isinstance(messages, Requests):
            return self._inner.send_and_receive(messages, timeout=timeout)
        allowed = self._waiting.step_seconds
        step = _Step(self, messages, min(allowed, timeout or allowed))
        return step.carry_out()

    def deliver(self, message: Message) -> str:
        """Deliver one message; returns its id.

        Raises:
            OUTAGES: the SuperLink was gone in the middle of it.
            NotTaken: it didn't take the message.
        """
        names = self._reached(lambda: list(self._inner.push_messages([message])))
        taken = [name for name in names if name]
        if not taken:
            raise NotTaken(message.metadata.dst_node_id)
        return taken[0]

    def addresses(self) -> dict[str, int]:
        """Where silos are now; nowhere while the SuperLink doesn't say."""
        try:
            return self._reached(lambda: addresses_of(self._inner))
        except OUTAGES:
            return {}

    def gone_for(self, silo: str) -> float:
        """Seconds since a silo's node was first found gone, and not reached again since."""
        now = time.monotonic()
        return now - self._gone.setdefault(silo, now)

    def found(self, silo: str) -> None:
        """Take note that a silo's node was reached."""
        self._gone.pop(silo, None)

    def _reached(self, call: Callable[[], Said]) -> Said:
        """What the SuperLink says; whether it said anything is kept in `unanswered`."""
        self.unanswered = True
        said = call()
        self.unanswered = False
        return said

    def _waited_for(self, call: Callable[[], Said]) -> Said:
        """What the SuperLink says, as soon as it says something."""
        end = time.monotonic() + self._waiting.step_seconds
        while True:
            try:
                return self._reached(call)
            except OUTAGES as cause:
                if time.monotonic() > end:
                    raise RunFailed(
                        "the SuperLink does not answer",
                        do="see `abfed federation status`; then run the plan with --resume",
                    ) from cause
            time.sleep(SLOWEST_LOOK * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret

    @property
    def waiting(self) -> Waiting:
        """The plan's rules."""
        return self._waiting

    def tell(self, silo: str) -> None:
        """Say that a silo has answered."""
        if self._heard is not None:
            self._heard(silo)


class _Step:
    """One step's waiting."""

    def __init__(self, grid: PatientGrid, requests: Requests, seconds: float) -> None:
        self._grid = grid
        self._requests = requests
        self._end = time.monotonic() + seconds
        self._open: dict[str, str] = {}  # message id → silo
        self._names: dict[str, list[str]] = {}  # silo → ids of its messages
        self._answered: set[str] = set()
        self._failed: dict[str, Message] = {}
        self._tries: dict[str, int] = {}  # questions that it was sent
        self._looks: dict[str, int] = {}  # how often its node wasn't there to be asked
        self._due: dict[str, float] = {}  # silo → when to ask it again
        self._asked: dict[str, float] = {}  # silo → when it was asked last
        self._all = len(requests.silos) + len(requests.unconnected)

    def carry_out(self) -> Iterator[Message]:
        """The answers, each as it comes, and at the end what failed for good."""
        for number, silo in enumerate(list(self._requests.silos), start=1):
            self._ask(silo)
            if number % TOGETHER == 0:  # those last asked: where answers come at once, all of them
                yield from self._collect(list(islice(reversed(self._open), TOGETHER)))
        for silo in self._requests.unconnected:
            self._absent(silo)
        look = FIRST_LOOK
        while (self._open or self._due) and time.monotonic() < self._end:
            known = len(self._answered) + len(self._failed)
            yield from self._collect(list(self._open))
            if len(self._answered) + len(self._failed) > known:
                look = FIRST_LOOK
                self._hurry()
            self._ask_again()
            self._pause(look)
            look = min(1.3 * look, SLOWEST_LOOK)
        yield from self._failed.values()

    def _ask(self, silo: str) -> None:
        self._asked[silo] = time.monotonic()
        try:
            name = self._requests.deliver(silo, self._grid.deliver)
        except (*OUTAGES, NotTaken):
            self._absent(silo)
            return
        self._tries[silo] = self._tries.get(silo, 0) + 1
        self._grid.found(silo)
        self._open[name] = silo
        self._names.setdefault(silo, []).append(name)

    def _pause(self, look: float) -> None:
        """Wait until the next look; the longer, the more there is to look for."""
        if self._open or self._due:
            pause = min(max(look, LOOK_FOR_ONE * len(self._open)), max(look, SLOWEST_LOOK))
            time.sleep(max(0.0, min(pause, self._end - time.monotonic())))

    def _collect(self, names: list[str]) -> Iterator[Message]:
        """Take the answers to these messages that are there, a few at a time."""
        for start in range(0, len(names), TOGETHER):
            for reply in self._grid.pull_messages(names[start : start + TOGETHER]):
                silo = self._open.pop(reply.metadata.reply_to_message_id, "")
                if not silo or silo in self._answered:
                    continue
                if reply.has_error():
                    self._failed[silo] = reply
                    self._later(silo)
                else:
                    self._answered.add(silo)
                    for name in self._names.pop(silo, ()):  # it may have been asked again meanwhile
                        self._open.pop(name, None)
                    self._failed.pop(silo, None)
                    self._due.pop(silo, None)
                    self._grid.tell(silo)
                    yield reply

    def _later(self, silo: str) -> None:
        """Plan the next try, if there is one left."""
        tried = self._tries.get(silo, 0)
        if tried > self._grid.waiting.retries:
            self._due.pop(silo, None)
        else:
            self._wait(silo, tried, LONGEST_PAUSE)

    def _absent(self, silo: str) -> None:
        """Plan the next look for a node that isn't there, unless it was looked for long enough."""
        rules = self._grid.waiting
        looks = self._looks[silo] = self._looks.get(silo, 0) + 1
        if self._grid.gone_for(silo) >= rules.silent_seconds and looks > rules.retries + 1:
            self._due.pop(silo, None)
        else:
            self._wait(silo, looks, LONGEST_UNTIL_LOOK)

    def _wait(self, silo: str, times: int, longest: float) -> None:
        pause = min(self._grid.waiting.retry_seconds * 2 ** (times - 1), longest)
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
        self._due[silo] = time.monotonic() + pause * jitter

    def _ask_again(self) -> None:
        now = time.monotonic()
        due = [silo for silo, moment in self._due.items() if moment <= now]
        due += self._silent(now)
        if not due:
            return
        self._requests.connect(self._grid.addresses())
        for silo in due:
            self._due.pop(silo, None)
            if self._requests.reaches(silo):
                self._ask(silo)
            else:
                self._absent(silo)

    def _silent(self, now: float) -> list[str]:
        """Silos whose question is open, and of whom nothing was heard for too long.

        A courier that is killed before it has fetched its message leaves nobody who could say so:
        Flower holds that message for one that was delivered.
        """
        before = now - self._grid.waiting.silent_seconds
        waiting = set(self._open.values()) - self._answered - set(self._due)
        return sorted(silo for silo in waiting if self._asked[silo] <= before)

    def _hurry(self) -> None:
        """Shorten the step's time once the quorum has answered."""
        rules = self._grid.waiting
        if len(self._answered) >= math.ceil(rules.quorum * self._all):
            self._end = min(self._end, time.monotonic() + rules.straggler_seconds)
