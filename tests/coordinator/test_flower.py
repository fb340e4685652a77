"""What abfed stands on in Flower is still there: the first tests to read after an upgrade.

The embedded grid uses parts of Flower that are half private, so its version is pinned. Each test
names one such part and where it's used.
"""

import importlib.metadata
import inspect
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from abfed.coordinator.grid import EmbeddedGrid


def test_the_version_is_the_one_that_was_read():
    assert importlib.metadata.version("flwr") == "1.41.0", "read grid.py and this file again"


def test_a_grid_has_the_methods_that_ours_has():
    methods = {
        "set_run", "run", "create_message", "get_node_ids", "push_messages", "pull_messages",
        "send_and_receive",
    }  # fmt: skip
    assert Grid.__abstractmethods__ == methods
    public = {name for name in dir(Grid) if not name.startswith("_")}
    assert public == methods | {"get_nodes"}
    for name in methods - {"run"}:
        ours = inspect.signature(getattr(EmbeddedGrid, name)).parameters
        assert list(ours) == list(inspect.signature(getattr(Grid, name)).parameters), name


def test_the_task_identity_is_three_settable_names_that_start_empty():
    for name in ("_run_id", "_node_id", "_task_id"):
        assert getattr(TaskIdentity, name) is None
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), 1, "query")


@pytest.fixture
def message():
    """A message, made inside a run."""
    made = []
    app = ServerApp()
    app.main()(lambda grid, context: made.append(Message(RecordDict(), 7, "query")))
    EmbeddedGrid({}).carry_out(app)
    return made[0]


def test_an_id_is_given_through_the_metadatas_dictionary(message):
    assert message.metadata.message_id == ""
    message.metadata.__dict__["_message_id"] = "id"
    assert message.metadata.message_id == "id"
    reply = Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone"), reply_to=message)
    assert reply.metadata.reply_to_message_id == "id"
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (7, SUPERLINK_NODE_ID)


def test_the_wire_form_copies_everything(message):
    message.metadata.__dict__["_message_id"] = "id"
    message.content = RecordDict({"abfed": ConfigRecord({"envelope": b"\x00\xff"})})
    copy = message_from_proto(message_to_proto(message))
    assert copy.content["abfed"]["envelope"] == b"\x00\xff"
    assert copy.content["abfed"] is not message.content["abfed"]
    assert copy.metadata == message.metadata


def test_a_run_and_a_context_can_be_made():
    assert Run.create_empty(1).run_id == 1
    fields = inspect.signature(Context).parameters
    assert list(fields)[:5] == ["run_id", "node_id", "node_config", "state", "run_config"]
    assert NodeInfo(node_id=1, name="aurora").name == "aurora"


def test_the_strategy_calls_what_ours_overrides():
    def names(method):
        return list(inspect.signature(getattr(FedAvg, method)).parameters)

    assert names("configure_train") == ["self", "server_round", "arrays", "config", "grid"]
    assert names("aggregate_train") == ["self", "server_round", "replies"]
    assert names("configure_evaluate") == ["self", "server_round", "arrays", "config", "grid"]
    assert names("aggregate_evaluate") == ["self", "server_round", "replies"]
    assert {"grid", "initial_arrays", "num_rounds", "timeout"} <= set(names("start"))


def test_float64_stays_float64_through_a_record():
    array = np.array([1e-300, 1.0], dtype=np.float64)
    again = ArrayRecord({"w": Array(array)})["w"].numpy()
    assert again.dtype == np.float64
    assert (again == array).all()


def test_a_client_app_routes_by_type_and_nothing_of_it_is_deprecated():
    app = ClientApp()
    app.train()(lambda message, context: message)
    app.query()(lambda message, context: message)
    assert set(app._registered_funcs) == {"train.default", "query.default"}


def test_flower_is_imported_silently_and_reports_to_nobody():
    code = (
        "import abfed.coordinator.app, flwr.supercore.telemetry as t, sys;"
        "assert not t.FLWR_TELEMETRY_ENABLED.lower() in ('1', 'true'), t.FLWR_TELEMETRY_ENABLED;"
        "heavy = {'torch', 'pandas', 'pyarrow', 'duckdb', 'opacus', 'scipy', 'abfed.silo'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:'click", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
