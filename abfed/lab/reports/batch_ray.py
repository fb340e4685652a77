"""The same batch over the machines of a Ray cluster (the optional extra `ray`).

Each machine must see the workspace's folder under the same path: runs are read from it and pages
are written to it. A job is what a worker gets: names, parameters and the public key. The key that
signs stays here. Each task takes one core, spawns its kernel on its own machine and confines it.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.reports.batches import Item, job_of
from abfed.protocol.errors import InputError, RunFailed

if TYPE_CHECKING:
    from abfed.lab.reports.batch_run import Ways

REACHED_WITHIN = 5.0  # seconds


def make_one(job: dict[str, Any]) -> dict[str, Any]:
    """What a machine of the cluster does with one job."""
    from abfed.lab.reports.kernels import Spawned
    from abfed.lab.reports.worker import work

    return work(job, Spawned())


def results_from_ray(
    items: Sequence[Item], folder: Path, public_key: bytes, ways: Ways
) -> Generator[tuple[Item, dict[str, Any]]]:
    """Results as they come, from the whole cluster.

    Raises:
        InputError: Ray isn't installed, or there is no cluster at this address.
        RunFailed: Ray did not start in time.
    """
    _look_for_cluster(ways.ray)
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as cause:
        raise InputError("Ray isn't installed", do="pip install 'abfed[ray]'") from cause
    ours = not ray.is_initialized()  # a notebook's own connection stays when the batch ends
    try:
        ray.init(address=ways.ray, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as cause:
        raise InputError("there is no Ray cluster at this address", where=ways.ray) from cause
    except Exception as cause:  # it raises just that where its own processes take too long
        raise RunFailed(
            "Ray did not start", where=ways.ray, why=type(cause).__name__, do="ask again"
        ) from cause
    try:
        task = ray.remote(num_cpus=1, max_retries=0)(make_one)
        waiting = {
            task.remote(job_of(item, folder, public_key, ways.timeout)): item for item in items
        }
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for one in ready:
                yield waiting.pop(one), _result(ray, one)
    finally:
        if ours:
            ray.shutdown()


def _look_for_cluster(address: str) -> None:
    """Refuse at once where nobody listens: Ray itself asks a dead address for twelve minutes.

    An address without a port (`auto`) is Ray's own note of the last cluster, which may have ended;
    Ray then tries once, for some forty seconds.
    """
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # read when Ray is imported
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()
    except (OSError, OverflowError) as cause:
        raise InputError(
            "there is no Ray cluster at this address",
            where=address,
            do="ray start --head says the address; ray status says whether it runs",
        ) from cause


def _result(ray: Any, one: Any) -> dict[str, Any]:
    """A task's result; a machine that died is a failed report, not a failed batch."""
    try:
        found: dict[str, Any] = ray.get(one)
    except ray.exceptions.RayError as cause:
        return {"error": f"its machine failed: {type(cause).__name__}", "partial": "", "seconds": 0}
    return found
