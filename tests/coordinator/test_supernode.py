"""A SuperNode holds no reply back, and signs by the clock of whoever judges its signature."""

import base64
import contextlib
import hashlib
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import TIMESTAMP_HEADER, SubStatus
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import cli
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import verify_signature
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supercore.superexec.run_superexec import run_superexec
from flwr.supernode import fleet_http_connection as connection
from flwr.supernode import node_auth_http_interceptor as signing
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate.nodestate_factory import NodeStateFactory

from abfed.coordinator import executing, superexec, supernode
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.programs import flower
from abfed.protocol.waiting import Waiting

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


@pytest.mark.timeout(120)
def test_a_reply_whose_executor_was_killed_halfway_is_let_go_of(node, reply, monkeypatch):
    factory, sent = node
    monkeypatch.setattr(supernode, "WHOLE_WITHIN", 0.5)
    owed(factory, reply, content=b"")
    supernode.main()  # or it would wait for ever, and ask nobody
    assert sent == []
    assert not factory.state().get_messages_legacy()


@pytest.mark.timeout(120)
def test_a_reply_that_comes_slowly_is_sent_whole(node, reply):
    factory, sent = node
    owed(factory, reply, content=b"")
    store = factory.objectstore_factory.store()
    late = threading.Timer(0.5, store.put, (reply.metadata.message_id, CONTENT))
    late.start()
    supernode.main()
    late.join()
    assert sent == ["asked"]


@pytest.mark.timeout(120)
def test_a_question_that_its_executor_never_fetched_is_answered_with_an_error(node, reply):
    """The loop waited for its reply until the step was over, and nothing reached this silo."""
    state = node[0].state()
    asked, sent = reply, []
    asked.metadata.__dict__["_reply_to_message_id"] = ""  # a question, as far as the node knows
    state.store_message(asked)
    task = state.create_task(
        task_type=TaskType.CLIENT_APP, run_id=asked.metadata.run_id, fab_hash="00"
    )
    assert supernode.at_work(state)
    state.finish_task(task, SubStatus.FAILED, "no heartbeat")

    def send(message, _tree, _seconds):
        sent.append((message.metadata.reply_to_message_id, message.has_error()))
        return set(), ""

    store = node[0].objectstore_factory.store()
    supernode.give(state=state, object_store=store, send=send, push_object=None)
    assert sent == [(asked.metadata.message_id, True)]
    supernode.give(state=state, object_store=store, send=send, push_object=None)
    assert len(sent) == 1


@pytest.mark.timeout(120)
def test_a_reply_is_waited_for_when_the_node_itself_was_paused(node, reply, monkeypatch):
    """SIGSTOP in between: its executor had handed all over, and nobody had looked yet."""
    factory, sent = node
    owed(factory, reply, content=b"")
    store, clock = factory.objectstore_factory.store(), [0.0]

    def paused(_seconds):
        if clock[0]:
            store.put(reply.metadata.message_id, CONTENT)
        clock[0] += 60.0

    monkeypatch.setattr(
        supernode, "time", SimpleNamespace(sleep=paused, monotonic=lambda: clock[0])
    )
    supernode.main()
    assert sent == ["asked"]


def test_what_asks_a_node_for_work_waits_for_the_answer_while_it_is_paused(monkeypatch):
    """Asking again would leave a task with somebody who no longer listens."""
    given = []

    def runs():
        module = sys.modules[run_superexec.__module__]
        given.append(module.RuntimeHttpClient.from_server_address("localhost:1", True, None, []))

    monkeypatch.setattr(cli, "flower_superexec", runs)
    module = sys.modules[run_superexec.__module__]
    monkeypatch.setattr(module, "RuntimeHttpClient", module.RuntimeHttpClient)
    superexec.main()
    given.append(executing.PatientRuntime.from_server_address("localhost:1", True, None, []))
    for client in given:
        assert 120 <= client._client.timeout.read < Waiting().silent_seconds
    assert "from abfed.coordinator.superexec import main" in flower("superexec")[2]


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


class Judge:
    """A SuperLink whose clock is `ahead` of ours: it refuses other times, and tells its own."""

    def __init__(self, key, ahead, *, told=True, believes=True):
        self.key, self.ahead, self.told, self.believes = (
            key,
            timedelta(seconds=ahead),
            told,
            believes,
        )
        self.asked = 0

    def __call__(self, context):
        self.asked += 1
        sent = context.request.headers
        time = sent[TIMESTAMP_HEADER]
        signature = base64.b64decode(sent[FLEET_HTTP_SIGNATURE_HEADER])
        assert verify_signature(self.key.public_key(), time.encode(), signature)
        now = datetime.now(UTC) + self.ahead
        age = (now - datetime.fromisoformat(time)).total_seconds()
        date = {"date": format_datetime(now, usegmt=True)} if self.told else {}
        return httpx.Response(200 if -5 < age < 305 and self.believes else 401, headers=date)


@pytest.fixture
def signs(monkeypatch):
    """A node's signing, as `main` sets it up, and its key."""
    key = ec.generate_private_key(ec.SECP384R1())
    monkeypatch.setattr(supernode, "THEIRS", supernode.TheirClock())
    monkeypatch.setattr(supernode, "flower_supernode", lambda: None)
    for module, name in (
        (signing, "now"),
        (connection, "NodeAuthHttpInterceptor"),
        (loop, "_push_messages"),
        (loop, "_pull_and_store_message"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    supernode.main()
    signer = connection.NodeAuthHttpInterceptor(key, key.public_key())

    def ask(judge):
        request = httpx.Request("POST", "https://localhost/v1/fleet/activate-node")
        context = ProtobufRequestContext("Activate", ActivateNodeRequest(), request)
        return signer.intercept(context, judge).status_code

    return ask, key


@pytest.mark.parametrize("ahead", [-600, -60, 600, 80_000])
def test_a_node_signs_by_the_clock_of_whoever_judges_its_signature(signs, capsys, ahead):
    ask, key = signs
    judge = Judge(key, ahead)
    assert ask(judge) == 200
    assert judge.asked == 2
    assert ask(judge) == 200
    assert judge.asked == 3, "what was learnt is kept"
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["event"] == "clock.differs"
    assert abs(told["coordinator_ahead_seconds"] - ahead) <= 20  # a machine may be slow
    assert ask(Judge(key, 0)) == 200  # and the clock is set right there


@pytest.mark.parametrize(
    ("judge", "asked"),
    [
        ({"ahead": 0, "believes": False}, 1),  # a stranger's: the clocks are not why
        ({"ahead": 600, "told": False}, 1),
        ({"ahead": 90_000}, 1),  # no signature for a time more than a day away
        ({"ahead": 600, "believes": False}, 2),
    ],
)
def test_it_signs_again_for_no_other_reason_and_once(signs, judge, asked):
    ask, key = signs
    judge = Judge(key, **judge)
    assert ask(judge) == 401
    assert judge.asked == asked
