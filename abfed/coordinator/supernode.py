"""Flower's SuperNode, which sends what it owes before it asks for more.

Its loop takes a message, waits until a reply is there, and sends it; which reply is not looked at.
Where it drops a message that its executor has already (the run was stopped, or the link was cut,
while it was taken), that one's reply is sent in the next one's stead, and each later reply lies
until another message comes: from then on every step takes as long as the plan lets silos be silent.

This stands on half private parts of Flower; tests/coordinator/test_supernode.py names them.
"""

from __future__ import annotations

from typing import Any

from flwr.supernode import start_client_internal as loop
from flwr.supernode.cli import flower_supernode

OWED = 0
"""Returned in a message's run's stead: all that the loop looks at is that there is one."""

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


def main() -> None:
    """Run the SuperNode."""
    vars(loop)["_pull_and_store_message"] = take
    flower_supernode()
