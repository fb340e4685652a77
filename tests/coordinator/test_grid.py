"""The embedded grid keeps a SuperLink's promises."""

import logging
import threading
import time

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from abfed.coordinator.grid import EmbeddedGrid, node_id
from abfed.protocol.errors import WorkspaceError


def client(handler):
    app = ClientApp()
    app.query()(handler)
    return app


def echo(message, context):
    return Message(message.content, reply_to=message)


def content(value=b"x"):
    return RecordDict({"abfed": ConfigRecord({"envelope": value})})


def run_on(grid, main):
    app = ServerApp()
    app.main()(main)
    grid.carry_out(app)


def ask(grid, silos, timeout=None):
    """Replies, and the ids of the messages they should answer."""
    found = {}

    def main(grid, context):
        sent = [Message(content(), node_id(silo), "query") for silo in silos]
        replies = list(grid.send_and_receive(sent, timeout=timeout))
        found["replies"] = replies
        found["ids"] = [message.metadata.message_id for message in sent]

    run_on(grid, main)
    return found["replies"], found["ids"]


def test_addresses_are_public_and_stable():
    assert node_id("aurora") == 8774106725436322670
    assert node_id("aurora") != node_id("borealis")
    grid = EmbeddedGrid({"borealis": client(echo), "aurora": client(echo)})
    assert [(node.name, node.node_id) for node in grid.get_nodes()] == [
        ("aurora", node_id("aurora")),
        ("borealis", node_id("borealis")),
    ]
    assert list(grid.get_node_ids()) == [node_id("aurora"), node_id("borealis")]


@pytest.mark.parametrize("workers", [1, 2])
def test_replies_stand_in_the_order_of_the_messages_and_name_them(workers):
    def slow(message, context):
        time.sleep(0.05)
        return echo(message, context)

    grid = EmbeddedGrid({"a": client(slow), "b": client(echo)}, workers=workers)
    replies, ids = ask(grid, ["a", "b"])
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids
    assert len({*ids, *(reply.metadata.message_id for reply in replies)}) == 4


def test_nothing_is_shared_between_server_and_silos():
    seen = []

    def keep(message, context):
        message.content["abfed"]["envelope"] = b"changed by " + context.node_config["silo"].encode()
        seen.append(message.content)
        return Message(message.content, reply_to=message)

    grid = EmbeddedGrid({"a": client(keep), "b": client(keep)})
    shared = content(b"original")

    def main(grid, context):
        sent = [Message(shared, node_id(silo), "query") for silo in ("a", "b")]
        replies = list(grid.send_and_receive(sent))
        seen[0]["abfed"]["envelope"] = b"changed later"
        assert replies[0].content["abfed"]["envelope"] == b"changed by a"
        assert replies[1].content["abfed"]["envelope"] == b"changed by b"

    run_on(grid, main)
    assert shared["abfed"]["envelope"] == b"original"


def test_an_exception_is_told_by_its_type_only(caplog):
    def broken(message, context):
        raise LookupError("row of jane@example.org")

    replies, _ = ask(EmbeddedGrid({"a": client(broken), "b": client(echo)}), ["a", "b"])
    assert replies[0].has_error()
    assert replies[0].error.reason == "LookupError"
    assert replies[1].has_content()
    assert "jane" not in caplog.text


def test_an_unknown_address_is_an_error_reply():
    replies, _ = ask(EmbeddedGrid({"a": client(echo)}), ["nobody", "a"])
    assert [reply.has_error() for reply in replies] == [True, False]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_late_reply_is_absent_and_the_others_are_not(workers):
    def slow(message, context):
        time.sleep(1.1)
        return echo(message, context)

    grid = EmbeddedGrid({"a": client(slow), "b": client(echo)}, workers=workers)
    replies, ids = ask(grid, ["a", "b"], timeout=1.0)
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids[1:]


def test_a_message_is_taken_when_it_is_its_turn():
    order = []

    class Late(list):
        def __iter__(self):
            for silo in ("a", "b"):
                order.append(f"made for {silo}")
                yield Message(content(), node_id(silo), "query")

    def note(message, context):
        order.append(f"answered by {context.node_config['silo']}")
        return echo(message, context)

    run_on(
        EmbeddedGrid({"a": client(note), "b": client(note)}),
        lambda grid, context: grid.send_and_receive(Late()),
    )
    assert order == ["made for a", "answered by a", "made for b", "answered by b"]


def test_pushed_messages_are_pulled_once():
    def main(grid, context):
        names = grid.push_messages([Message(content(), node_id("a"), "query")])
        assert len(list(grid.pull_messages(names))) == 1
        assert list(grid.pull_messages(names)) == []

    run_on(EmbeddedGrid({"a": client(echo)}), main)


def test_nothing_is_left_behind_also_after_an_error():
    grid = EmbeddedGrid({"a": client(echo), "b": client(echo)}, workers=2)
    logger = logging.getLogger("flwr")
    before = (set(threading.enumerate()), logger.level)

    def broken(grid, context):
        assert TaskIdentity.run_id
        assert logger.level == logging.WARNING
        grid.send_and_receive([Message(content(), node_id("a"), "query")])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on(grid, broken)
    assert (set(threading.enumerate()), logger.level) == before
    with pytest.raises(RuntimeError, match="not set"):
        _ = TaskIdentity.run_id


def test_one_run_at_a_time_in_a_process():
    grid = EmbeddedGrid({"a": client(echo)})

    def main(outer, context):
        with pytest.raises(WorkspaceError, match="another run"):
            run_on(grid, lambda grid, context: None)

    run_on(grid, main)
    run_on(grid, lambda grid, context: None)


def test_it_works_where_an_event_loop_runs():
    import asyncio

    async def cell():
        return ask(EmbeddedGrid({"a": client(echo)}), ["a"])

    replies, _ = asyncio.run(cell())
    assert replies[0].has_content()


def test_progress_is_heard_silo_by_silo():
    heard: list[str] = []
    ask(EmbeddedGrid({"a": client(echo), "b": client(echo)}, heard=heard.append), ["b", "a"])
    assert heard == ["b", "a"]


def test_flowers_own_switch_for_its_log_is_obeyed(monkeypatch):
    monkeypatch.setenv("FLWR_LOG_LEVEL", "INFO")
    level = logging.getLogger("flwr").level
    run_on(
        EmbeddedGrid({}),
        lambda grid, context: (
            pytest.fail("muted") if logging.getLogger("flwr").level != level else None
        ),
    )
