"""Flower's SuperNode, which sends what it owes before it asks for more, and no half of a reply.

Its loop takes a message, waits until a reply is there, and sends it; which reply is not looked at.
Where it drops a message that its executor has already (the run was stopped, or the link was cut,
while it was taken), that one's reply is sent in the next one's stead, and each later reply lies
until another message comes: from then on every step takes as long as the plan lets silos be silent.

An executor announces a reply, and then hands over its parts. One that is killed in between leaves
parts that never come, and Flower's loop would wait for them for ever: nothing would reach this silo
any more. Such a reply is let go of after `WHOLE_WITHIN`; the coordinator asks again. That time is
told by looks: in a node that was paused it has not run on.

A task whose executor ends before it has fetched its question is given up by Flower without a word,
and the loop would wait for that reply for ever, too. Where nobody is at work and nothing is owed,
the question gets the answer that Flower has for one whose executor ends later.

A SuperLink believes no signature whose time, by its own clock, is more than five seconds ahead or
five minutes old. Where it says no, the time in its answer is looked at: a node signs by the
coordinator's clock from then on, and logs by how much the two differ. So a wrong clock, whosever,
cuts nobody off; silos compare times by their own clocks and say what they find.

This stands on half private parts of Flower; tests/coordinator/test_supernode.py names them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from flwr.common.constant import TIMESTAMP_HEADER, Status
from flwr.supercore import date
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supernode import fleet_http_connection as connection
from flwr.supernode import node_auth_http_interceptor as signing
from flwr.supernode import start_client_internal as loop
from flwr.supernode.cli import flower_supernode
from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR

from abfed.site.processes import log_line

OWED = 0
"""Returned in a message's run's stead: all that the loop looks at is that there is one."""

WHOLE_WITHIN = 20.0
"""Seconds for the next part of a reply to come; on this machine, so they take milliseconds."""
LOOKS = 0.2  # seconds between two looks for it

FOLLOWED = timedelta(days=1)
"""Between the two clocks, at most: a signature for a later time would be of use until then."""
SAME = timedelta(
    seconds=4
)  # what a SuperLink bears with, and the time in an answer is whole seconds
_SIGNED = (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)

_give = loop._push_messages  # noqa: SLF001 - what is wrapped
_take = loop._pull_and_store_message  # noqa: SLF001 - what is wrapped


def owes(state: Any) -> bool:
    """Whether a reply lies in a node's state that was not taken out to be sent."""
    with state.lock_msg_store:
        return any(
            entry.message.metadata.reply_to_message_id and not entry.is_retrieved
            for entry in state.msg_store.values()
        )


def take(*, state: Any, **rest: Any) -> int | None:
    """Flower's own, where no reply is owed; else nothing is taken, and the loop sends."""
    return OWED if owes(state) else _take(state=state, **rest)


class Unfinished(Exception):
    """A reply of which parts never came; Flower's loop logs it and forgets the reply."""


def at_work(state: Any) -> bool:
    """Whether a task waits for an executor, or has one that was heard of."""
    statuses = [Status.PENDING, Status.STARTING, Status.RUNNING]
    return bool(state.get_tasks(statuses=statuses))


def await_reply(state: Any) -> None:
    """Wait until a reply lies in a node's state: an executor's, or that there will be none."""
    while True:
        working = at_work(state)  # before the look: a reply lies there before its task is finished
        if owes(state):
            return
        if not working:
            asked = state.get_messages_legacy(is_reply=False)  # they count as fetched from here on
            runs = {message.metadata.run_id for message in asked}
            state._store_error_replies(runs, CLIENT_APP_CRASHED_ERROR)  # noqa: SLF001 - its own way
            return
        time.sleep(LOOKS)


def give(*, state: Any, object_store: Any, send: Any, **rest: Any) -> None:
    """Flower's own, which sends a reply once all of it is there."""
    await_reply(state)
    if not owes(state):
        return  # nothing was asked that isn't answered

    def send_whole(message: Any, tree: Any, seconds: float) -> Any:
        parts = [part.object_id for part in iterate_object_tree(tree)]
        missing, looks = len(parts) + 1, 0
        while left := sum(object_store.get(part) == b"" for part in parts):
            looks += 1
            if left < missing:
                missing, looks = left, 0
            if looks * LOOKS > WHOLE_WITHIN:
                what = f"{left} of {len(parts)} parts never came: its executor may have been killed"
                raise Unfinished(what)
            time.sleep(LOOKS)
        return send(message, tree, seconds)

    _give(state=state, object_store=object_store, send=send_whole, **rest)


class TheirClock:
    """The coordinator's clock, as far as it was seen that it isn't ours."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time there."""
        return date.now() + self._ahead

    def learn(self, told: str) -> bool:
        """Set it by the time that an answer bears; whether it is another than was thought.

        Args:
            told: of the form that HTTP has for it.
        """
        try:
            ahead = parsedate_to_datetime(told) - date.now()
        except (TypeError, ValueError):  # none, or one without a zone
            return False
        if abs(ahead - self._ahead) < SAME:
            return False
        log_line("clock.differs", coordinator_ahead_seconds=round(ahead.total_seconds()))
        if abs(ahead) > FOLLOWED:
            return False
        self._ahead = ahead
        return True


class SignsByTheirClock(signing.NodeAuthHttpInterceptor):
    """Flower's own, which signs again where the coordinator's clock was seen to be another."""

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Sign and send a request, and if need be once more."""
        answer = super().intercept(context, call_next)
        refused = answer.status_code == httpx.codes.UNAUTHORIZED
        if not refused or not THEIRS.learn(answer.headers.get("date", "")):
            return answer
        for header in _SIGNED:
            del context.request.headers[header]
        return super().intercept(context, call_next)


THEIRS = TheirClock()


def main() -> None:
    """Run the SuperNode."""
    vars(signing)["now"] = THEIRS.now
    vars(connection)["NodeAuthHttpInterceptor"] = SignsByTheirClock
    vars(loop)["_push_messages"] = give
    vars(loop)["_pull_and_store_message"] = take
    flower_supernode()
