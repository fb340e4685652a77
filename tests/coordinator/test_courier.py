"""The courier carries bytes, tells nothing, and is light."""

import subprocess
import sys

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

from abfed.coordinator.courier import make_courier, unwrap, wrap
from abfed.coordinator.grid import EmbeddedGrid, node_id
from abfed.protocol.errors import IntegrityError


def carry(handler, content, message_type="query"):
    """The reply of a courier with this carrier to a message with this content."""
    replies = []
    app = ServerApp()

    @app.main()
    def main(grid, context):
        message = Message(content, node_id("a"), message_type)
        replies.extend(grid.send_and_receive([message]))

    EmbeddedGrid({"a": make_courier(handler)}).carry_out(app)
    return replies[0]


@pytest.mark.parametrize("message_type", ["query", "train"])
def test_bytes_go_and_come_as_they_are(message_type):
    sent = bytes(range(256)) * 10
    reply = carry(lambda envelope: envelope[::-1], wrap(sent), message_type)
    assert unwrap(reply.content, where="reply") == sent[::-1]


def test_it_answers_no_other_kind_of_message():
    reply = carry(lambda envelope: envelope, wrap(b"x"), "evaluate")
    assert reply.has_error()


def test_a_carrier_that_raises_tells_its_type_only(caplog):
    def broken(envelope):
        raise ConnectionRefusedError("/run/abfed/aurora.sock: jane@example.org")

    reply = carry(broken, wrap(b"x"))
    assert reply.error.reason == "ConnectionRefusedError"
    assert "jane" not in caplog.text
    assert "ConnectionRefusedError" in caplog.text


def test_ctrl_c_is_not_swallowed():
    def interrupted(envelope):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(interrupted, wrap(b"x"))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({"envelope": b"x"})}),
        RecordDict({"abfed": ConfigRecord({"envelope": "text"})}),
        RecordDict({"abfed": ConfigRecord({"envelope": b"x", "more": b"y"})}),
        RecordDict({"abfed": MetricRecord({"envelope": 1})}),
        RecordDict({"abfed": ConfigRecord({"envelope": b"x"}), "arrays": ArrayRecord()}),
    ],
)
def test_anything_but_one_envelope_is_not_carried(content):
    def unreachable(envelope):
        pytest.fail("it was carried")

    reply = carry(unreachable, content)
    assert reply.error.reason == "IntegrityError"
    with pytest.raises(IntegrityError, match="envelope"):
        unwrap(content, where="test")


def test_it_loads_nothing_heavy():
    code = (
        "import abfed.coordinator.courier, sys;"
        "heavy = {'torch', 'pandas', 'opacus', 'scipy', 'pydantic', 'pyarrow', 'duckdb',"
        " 'safetensors', 'abfed.silo', 'abfed.learning', 'abfed.stats', 'abfed.privacy'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-W", "ignore:'click", "-c", code], check=True)
