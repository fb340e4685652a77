"""Kernels and workers forked from a warm process, seen from those who ask for them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Instance, Integer

from abfed.lab.reports.kernels import Place, kernel_folder, report_kernel

_PATIENCE = 10.0  # seconds for an answer


def ask(at: Path, **request: Any) -> dict[str, Any]:
    """One answer of the warm process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(at))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile("rb").readline() or b"{}")
    return answer


def forked_worker(at: Path, settings: dict[str, Any]) -> BinaryIO:
    """A worker; jobs go in and results come out of the stream, a line each.

    Raises:
        OSError: the warm process doesn't answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:  # the stream keeps it open
        connection.connect(str(at))
        request = {"do": "worker", "with": settings}
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rwb")  # type: ignore[return-value]


class Forked:
    """Each kernel is a fork of the warm process.

    Args:
        at: the socket on which it is asked.
    """

    def __init__(self, at: Path) -> None:
        self._at = at

    @contextmanager
    def opened(self, place: Place) -> Iterator[AsyncKernelManager]:
        """A manager of one kernel."""
        with kernel_folder(place) as folder:
            yield report_kernel(folder, ForkingProvisioner(at=self._at, folder=folder))


class ForkingProvisioner(KernelProvisionerBase):
    """Asks the warm process for the kernel's process, and about it."""

    at = Instance(Path, help="The warm process's socket.")
    folder = Instance(Path, help="The kernel's private folder.")
    pid = Integer(0, help="The kernel's process; 0 before it started and after it ended.")

    @property
    def has_process(self) -> bool:
        """Whether there is one."""
        return self.pid != 0

    async def poll(self) -> int | None:
        """Its exit code; None while it lives."""
        if not self.pid:
            return 0
        code: int | None = ask(self.at, do="poll", pid=self.pid)["code"]
        return code

    async def wait(self) -> int | None:
        """Wait for its end."""
        while (code := await self.poll()) is None:  # noqa: ASYNC110 - another process's end
            await asyncio.sleep(0.01)
        self.pid = 0
        return code

    async def send_signal(self, signum: int) -> None:
        """Pass a signal on to it and all it started."""
        if self.pid:
            ask(self.at, do="signal", pid=self.pid, number=int(signum))

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - as named there
        """End it at once."""
        del restart
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """Ask it to end."""
        del restart
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """Nothing is left: its folder goes with its context."""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Write how it is reached."""
        manager: Any = self.parent
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork."""
        del cmd, kwargs
        self.pid = ask(self.at, do="kernel", folder=str(self.folder))["pid"]
        return self.connection_info
