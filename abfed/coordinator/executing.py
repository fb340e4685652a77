"""What an executor does once it is told which task: Flower's runtime API, spoken for our own app.

This stands on parts of Flower that are half private; tests/coordinator/test_flower.py names what
has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, fab_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message

from abfed.coordinator.courier import failure
from abfed.coordinator.superexec import PatientRuntime
from abfed.protocol.errors import AbfedError

if TYPE_CHECKING:
    from abfed.coordinator.executor import Task

CheckBundle = Callable[[bytes], None]


def run_clientapp(task: Task, check_bundle: CheckBundle) -> None:
    """Carry one message to the silo service and its answer back.

    Raises:
        UnpinnedBundle: the bundle is not the pinned one; the other side is told by type.
    """
    client = PatientRuntime.from_server_address(
        server_address=task.address,
        insecure=task.certificates is None,
        root_certificates=task.certificates,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(task.token),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    try:
        message, context, _, bundle = pull_task_input(client)
        refused: AbfedError | None = None
        try:
            check_bundle(bundle.content)
        except AbfedError as error:
            refused, reply = error, failure(error, message)
        else:
            from abfed.coordinator.courier import app  # noqa: PLC0415 - only behind the check

            reply = _answered(lambda: app(message, context), message)
        context.state = RecordDict()  # nothing of a silo stays in Flower's memory
        push_message(client, reply, context)
        status = SubStatus.FAILED if refused else SubStatus.COMPLETED
        client.PushTaskOutput(
            PushTaskOutputRequest(
                context=context_to_proto(context),
                sub_status=status,
                details=refused.what if refused else "",
            )
        )
        if refused:
            raise refused
    finally:
        heartbeat.stop()
        client.close()


def _answered(answer: Callable[[], Message], message: Message) -> Message:
    try:
        return answer()
    except Exception as error:  # noqa: BLE001 - whatever it is, its text stays here
        return failure(error, message)


def run_serverapp(task: Task, check_bundle: CheckBundle) -> None:
    """Carry out one run with the installed server app.

    Raises:
        UnpinnedBundle: the bundle is not the pinned one.
        AbfedError: the run ended without a result.
    """
    from flwr.superlink.grid import HttpGrid  # noqa: PLC0415 - the coordinator's only

    grid = HttpGrid(
        runtime_api_address=task.address,
        insecure=task.certificates is None,
        root_certificates=task.certificates,
        token=task.token,
    )
    client = grid._runtime_client  # noqa: SLF001 - Flower's own runner does the same
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    status, details = SubStatus.FAILED, "the server app ended early"
    context = None
    try:
        given = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = given.task_id
        TaskIdentity.run_id = given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        context = context_from_proto(given.context)
        run = run_from_proto(given.run)
        grid.set_run(run)
        check_bundle(fab_from_proto(given.fab).content)
        from abfed.coordinator.hosted import app  # noqa: PLC0415 - only behind the check

        context.run_config = dict(run.override_config)
        app(grid, context)
        status, details = SubStatus.COMPLETED, ""
    except Exception as error:
        details = error.what if isinstance(error, AbfedError) else type(error).__name__
        raise
    finally:
        if context is not None:
            context.state = RecordDict()
        client.PushTaskOutput(
            PushTaskOutputRequest(
                context=context_to_proto(context) if context is not None else None,
                sub_status=status,
                details=details,
            )
        )
        heartbeat.stop()
        grid.close()
