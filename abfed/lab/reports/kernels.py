"""Kernels that reports run in: this Python, this package, a folder of their own, and little else.

1. A kernel is described here: none that somebody installed is looked up or trusted.
2. It talks over sockets in a private temporary folder (IPC); no port is opened.
3. It needs no home: its profile and its history lie in that folder, and go with it.
4. It gets few variables (`variables`): a token in the environment stays outside.
5. It confines itself before it reads a cell (`confinement`): it reads Python, this package and the
   runs; it opens no silo, no key and no connection.
6. What is random in Python is fixed, so that a report is the same bytes each time.

Two ways to start one, and the page tells no difference: `Spawned` starts a new Python, `Forked`
(in `forking`) asks a warm process to fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Protocol

import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Instance

from abfed.lab.reports.kernel import CONNECTION, START
from abfed.lab.reports.passing import passing_folder
from abfed.lab.reports.variables import environment

LARGEST = 64 << 20  # bytes of one message: four for each character that a whole page may have

RECONNECT = 10  # milliseconds until a kernel that doesn't listen yet is tried again; zmq's own: 100


@dataclass(frozen=True, slots=True)
class Place:
    """What a kernel works in.

    Attributes:
        cwd: its working folder.
        read: folders that it may read, besides Python and this package.
        seed: what Python's own generators start from.
        files: small files, by name, that it finds in its private folder where `cwd` is None.
    """

    cwd: Path | None
    read: tuple[Path, ...] = ()
    seed: int = 0
    files: tuple[tuple[str, bytes], ...] = ()


class Kernels(Protocol):
    """A way to start kernels."""

    def opened(self, place: Place) -> AbstractContextManager[AsyncKernelManager]:
        """A manager of one kernel that isn't started yet; its folder is removed afterwards."""
        ...


class Spawned:
    """Each kernel is a new Python."""

    @contextmanager
    def opened(self, place: Place) -> Iterator[AsyncKernelManager]:
        """A manager of one kernel."""
        with kernel_folder(place) as folder:
            yield report_kernel(folder, SpawningProvisioner(folder=folder))


@contextmanager
def kernel_folder(place: Place) -> Iterator[Path]:
    """A private folder for one kernel, with what it must know."""
    with passing_folder() as folder:
        for file, content in place.files:
            (folder / file).write_bytes(content)
        start = {
            "cwd": str(place.cwd or folder),
            "read": [str(one) for one in place.read],
            "seed": place.seed,
            "environment": environment(folder),
        }
        (folder / START).write_text(json.dumps(start))
        yield folder


def report_kernel(folder: Path, provisioner: KernelProvisionerBase) -> AsyncKernelManager:
    """A manager that starts our kernel, whatever name it is asked for.

    Args:
        folder: the kernel's private folder.
        provisioner: what starts its process.
    """
    manager = AsyncKernelManager(transport="ipc", connection_file=str(folder / CONNECTION))
    manager.context.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
    # Nothing is dropped where the kernel is faster than its reader, who stops it at a bound.
    manager.context.setsockopt(zmq.RCVHWM, 0)
    # What is larger isn't taken: half a gigabyte in one message took five here to be read.
    manager.context.setsockopt(zmq.MAXMSGSIZE, LARGEST)
    manager.kernel_id = provisioner.kernel_id = "report"
    manager._kernel_spec = provisioner.kernel_spec = KernelSpec(  # noqa: SLF001 - as named there
        argv=[sys.executable, "-m", "abfed.lab.reports.kernel", str(folder)],
        display_name="abfed",
        language="python",
    )
    provisioner.parent = manager
    manager.provisioner = provisioner  # set: the registry of installed ones isn't asked
    return manager


class SpawningProvisioner(LocalProvisioner):
    """Starts a new Python with our variables only, in a session of its own."""

    folder = Instance(Path, help="The kernel's private folder.")

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """The command, and the variables."""
        env = json.loads((self.folder / START).read_text())["environment"]
        prepared: dict[str, Any] = await super().pre_launch(**(kwargs | {"env": env}))
        return prepared | {"env": env, "cwd": str(self.folder), **quiet()}

    async def wait(self) -> int | None:
        """Wait for the end, then end whatever the kernel started itself."""
        code = await super().wait()
        end_group(self.pgid)
        return code


def quiet() -> dict[str, int]:
    """What a kernel prints outside its cells goes nowhere."""
    return {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}


def end_group(group: int | None) -> None:
    """End all processes of a kernel's session that are left."""
    if group is None or group == os.getpgrp():
        return
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left
