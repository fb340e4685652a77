"""Flower's SuperNode, which sends what it owes before it asks for more, and no half of a reply.

Its loop takes a message, waits until a reply is there, and sends it; which reply is not looked at.
Where it drops a message that its executor has already (the run was stopped, or the link was cut,
while it was taken), that one's reply is sent in the next one's stead, and each later reply lies
until another message comes: from then on every step takes as long as the plan lets silos be silent.

An executor announces a reply, and then hands over its parts. One that is killed in between leaves
parts that never come, and Flower's loop would wait for them for ever: nothing would reach this silo
any more. Such a reply is let go of after `WHOLE_WITHIN`; the coordinator asks again.

This stands on half private parts of Flower; tests/coordinator/test_supernode.py names them.
"""

from __future__ import annotations

import time
from typing import Any

from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supernode import start_client_internal as loop
from flwr.supernode.cli import flower_supernode

OWED = 0
"""Returned in a message's run's stead: all that the loop looks at is that there is one."""

WHOLE_WITHIN = 20.0
"""Seconds for the next part of a reply to come; on this machine, so they take milliseconds."""
LOOKS = 0.2  # seconds between two looks for it

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


def give(*, object_store: Any, send: Any, **rest: Any) -> None:
    """Flower's own, which sends a reply once all of it is there."""

    def send_whole(message: Any, tree: Any, seconds: float) -> Any:
        parts = [part.object_id for part in iterate_object_tree(tree)]
        missing, end = len(parts) + 1, 0.0
        while left := sum(object_store.get(part) == b"" for part in parts):
            if left < missing:
                missing, end = left, time.monotonic() + WHOLE_WITHIN
            if time.monotonic() > end:
                what = f"{left} of {len(parts)} parts never came: its executor may have been killed"
                raise Unfinished(what)
            time.sleep(LOOKS)
        return send(message, tree, seconds)

    _give(object_store=object_store, send=send_whole, **rest)


def main() -> None:
    """Run the SuperNode."""
    vars(loop)["_push_messages"] = give
    vars(loop)["_pull_and_store_message"] = take
    flower_supernode()
