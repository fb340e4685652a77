"""A SuperNode holds no reply back: what is owed is sent before more is asked for."""

import contextlib
import hashlib
import sys
import threading

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate.nodestate_factory import NodeStateFactory

from abfed.coordinator import supernode
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.programs import flower

CONTENT = RecordDict().deflate()  # what stands for all of a reply


class Enough(Exception):
    """Ends the loop, which has no end of its own."""


@pytest.fixture
def reply():
    """A reply, made inside a run."""
    made = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        asked = Message(RecordDict(), 7, "query")
        asked.metadata.__dict__["_message_id"] = "asked"
        made.append(Message(RecordDict(), reply_to=asked))

    EmbeddedGrid({}).carry_out(app)
    made[0].metadata.__dict__["_message_id"] = hashlib.sha256(CONTENT).hexdigest()
    return made[0]


@pytest.fixture
def node(monkeypatch):
    """Flower's own loop over a link on which nobody asks any more; what it sent."""
    factory = NodeStateFactory(ObjectStoreFactory())
    for wrapped in ("_pull_and_store_message", "_push_messages"):
        monkeypatch.setattr(loop, wrapped, getattr(loop, wrapped))
    sent = []

    def receive():
        raise Enough

    def send(message, tree, seconds):
        sent.append(message.metadata.reply_to_message_id)
        return set(), ""

    @contextlib.contextmanager
    def connected(**_settings):
        yield (7, receive, send, *[None] * 5)

    monkeypatch.setattr(loop, "_init_connection", connected)
    monkeypatch.setattr(loop, "register_signal_handlers", lambda **_settings: None)

    def start():
        with pytest.raises(Enough):
            loop.start_client_internal(
                server_address="localhost:1",
                node_config={},
                state_factory=factory,
                isolation="process",
                runtime_api_address="localhost:2",
            )

    monkeypatch.setattr(supernode, "flower_supernode", start)
    return factory, sent


def owed(factory, reply, content=CONTENT):
    """Put a reply in a node's state, as an executor does; one that was killed left no content."""
    factory.state().store_message(reply)
    store = factory.objectstore_factory.store()
    tree = ObjectTree(object_id=reply.metadata.message_id)
    store.preregister(reply.metadata.run_id, tree)
    if content:
        store.put(reply.metadata.message_id, content)


def test_a_reply_that_is_owed_is_sent_although_nobody_asks(node, reply):
    factory, sent = node
    owed(factory, reply)
    supernode.main()
    assert sent == ["asked"]
    assert not supernode.owes(factory.state())


@pytest.mark.timeout(30)
def test_a_reply_whose_executor_was_killed_halfway_is_let_go_of(node, reply, monkeypatch):
    factory, sent = node
    monkeypatch.setattr(supernode, "WHOLE_WITHIN", 0.5)
    owed(factory, reply, content=b"")
    supernode.main()  # or it would wait for ever, and ask nobody
    assert sent == []
    assert not factory.state().get_messages_legacy()


@pytest.mark.timeout(30)
def test_a_reply_that_comes_slowly_is_sent_whole(node, reply):
    factory, sent = node
    owed(factory, reply, content=b"")
    store = factory.objectstore_factory.store()
    late = threading.Timer(0.5, store.put, (reply.metadata.message_id, CONTENT))
    late.start()
    supernode.main()
    late.join()
    assert sent == ["asked"]


def test_where_nothing_is_owed_it_asks(node):
    factory, sent = node
    assert not supernode.owes(factory.state())
    supernode.main()
    assert sent == []


def test_a_question_and_a_reply_that_is_being_sent_are_not_owed(reply):
    state = NodeStateFactory(ObjectStoreFactory()).state()
    reply.metadata.__dict__["_message_id"] = "one"
    state.store_message(reply)
    assert supernode.owes(state)
    assert len(state.get_messages_legacy(is_reply=True)) == 1
    assert not supernode.owes(state)


def test_it_is_what_a_node_runs():
    assert flower("supernode")[:2] == [sys.executable, "-c"]
    assert "from abfed.coordinator.supernode import main" in flower("supernode")[2]
