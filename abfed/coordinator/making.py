"""The part of Flower's grid interface that is the same on every grid of ours."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid


class MakesMessages(Grid):
    """A grid on which a message is made as Flower prefers: by its own class."""

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; part of Flower's interface, which prefers `Message(...)`."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)
