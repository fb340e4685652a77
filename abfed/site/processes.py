"""Keeping a site's processes alive, and ending them all.

1. Processes are started in order; each has its own log file, and is ended when its keeper dies,
   however it dies, with all that it has started (see `orphans`).
2. One that ends is started again, after pauses that double and are of random length, and begin
   anew once it has lived for a while. The others go on meanwhile. Where something else listens on
   its port by then, all are ended after `TAKEN_LOOKS` looks, with an error that says so: whoever
   keeps the keeper starts it again, and people are told.
3. On SIGHUP those that can read their files anew are told to; those that can't, and whose files
   have changed, are started again; those that wait for their next start wait no longer.
4. On SIGTERM or SIGINT all are ended, in the opposite order: asked first, killed after
   `END_SECONDS`. Only processes that were started here are ever touched, by their ids.
5. Logs don't fill the disk: one that has grown large is copied aside and begun anew, while its
   program goes on writing to it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import WorkspaceError
from abfed.site.clock import stamp, system_clock
from abfed.site.files import make_private_folder
from abfed.site.orphans import Orphans
from abfed.site.ports import held_by, holder, listens

END_SECONDS = 8.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0
TAKEN_LOOKS = 5  # at a port that somebody else has; some fifteen seconds, by the pauses
LIVED = 60.0  # seconds after which a process counts as having started well
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LARGEST_LOG = 16 << 20  # bytes; a larger one is put aside, once
LOG_LOOKS = 10.0  # seconds between looks at the sizes of logs


class Program(NamedTuple):
    """A process to keep.

    Attributes:
        name: of its log file.
        command: what to run.
        environment: added to that of the keeper.
        port: of loopback that it listens on, before the next one is started; 0 where it has none.
        setting: what people call that port, in a message about it.
        reload: whether SIGHUP is passed on to it.
        reads: files that it reads at its start only, such as certificates. At a SIGHUP it is ended,
            and so started again, where one of them is another than at its start.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = {}
    port: int = 0
    setting: str = ""
    reload: bool = False
    reads: tuple[Path, ...] = ()

    def read(self) -> list[str]:
        """What tells one content of those files from another."""
        return [sha256_hex(path.read_bytes()) for path in self.reads if path.exists()]


def log_line(event: str, **facts: object) -> None:
    """One JSON line on standard error: names and codes only."""
    line = {"at": stamp(system_clock()), "event": event, **facts}
    sys.stderr.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stderr.flush()


class Keeper:
    """Keeps programs running.

    Args:
        programs: what to run, in order.
        logs: the folder of their log files.
        started: called once when all are up.
        log: told what happens, in names and codes.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        logs: Path,
        started: Callable[[], None] | None = None,
        log: Callable[..., None] | None = None,
    ) -> None:
        self._log = log or log_line
        self._programs = list(programs)
        self._logs = logs
        self._started = started
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._born: dict[str, float] = {}
        self._read: dict[str, list[str]] = {}  # what each read at its start
        self._pause: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._taken: dict[str, int] = {}  # how often another was found on the port of each
        self._orphans = Orphans()
        self._stopping = False
        self._looked = time.monotonic()
        self.starts: dict[str, int] = {}  # how often each was started

    @property
    def running(self) -> int:
        """How many programs run now."""
        return sum(one.poll() is None for one in list(self._running.values()))

    @property
    def lacks(self) -> list[str]:
        """The programs that don't run now."""
        running = dict(self._running)
        return [
            one.name
            for one in self._programs
            if one.name not in running or running[one.name].poll() is not None
        ]

    def keep(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            WorkspaceError: something else listens on the port of one that ended.
        """
        make_private_folder(self._logs)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        try:
            for program in self._programs:
                self._start(program)
                self._wait_until_ready(program)
            if self._started is not None and not self._stopping:
                self._started()
            if not self._stopping:
                self._log("up", processes=[program.name for program in self._programs])
            while not self._stopping:
                self._revive()
                self._put_aside()
                time.sleep(0.2)
        finally:
            self._end_all()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        for program in self._programs:
            process = self._running.get(program.name)
            if process is None or process.poll() is not None:
                if program.name in self._due:
                    self._due[program.name] = 0.0  # it reads them at its start: now
            elif program.reload:
                process.send_signal(signal.SIGHUP)
                self._log("process.reloaded", name=program.name)
            elif program.read() != self._read[program.name]:
                process.kill()  # as by a crash, which all sites are made for
                self._log("process.renewed", name=program.name)

    def _start(self, program: Program) -> None:
        self._read[program.name] = program.read()
        with self._open_log(program.name) as log:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                dying_with_us(program.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(program.environment),
                start_new_session=True,  # Ctrl-C is the keeper's to handle
            )
        self._orphans.begun(process.pid)
        self._running[program.name] = process
        self._born[program.name] = time.monotonic()
        self.starts[program.name] = self.starts.get(program.name, 0) + 1
        self._log("process.started", name=program.name, pid=process.pid)

    def _open_log(self, name: str) -> IO[bytes]:
        path = self._logs / f"{name}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab")

    def _put_aside(self) -> None:
        """Copy logs that have grown large aside and cut them; all who write to them append."""
        now = time.monotonic()
        if now - self._looked < LOG_LOOKS:
            return
        self._looked = now
        for program in self._programs:
            path = self._logs / f"{program.name}.log"
            try:
                if path.stat().st_size > LARGEST_LOG:
                    shutil.copy(path, path.with_suffix(".log.1"))
                    os.truncate(path, 0)
            except OSError as error:
                self._log("log.kept", name=program.name, kind=type(error).__name__)

    def _wait_until_ready(self, program: Program) -> None:
        while program.port and not self._stopping:
            if listens(program.port):
                return
            self._revive()
            time.sleep(0.1)

    def _revive(self) -> None:
        """Start what has ended again, once its pause is over."""
        now = time.monotonic()
        for program in self._programs:
            process = self._running.get(program.name)
            if process is None or process.poll() is None:
                continue
            name = program.name
            if name not in self._due:
                if now - self._born[name] > LIVED:
                    self._pause.pop(name, None)
                self._wait_longer(name)
                self._log("process.ended", name=name, code=process.returncode)
                self._orphans.ended(process.pid)
            if now >= self._due[name] and not self._finds_taken(program):
                del self._due[name]
                self._start(program)

    def _finds_taken(self, program: Program) -> bool:
        """Whether something else listens where a program that ended did; then it waits on.

        Raises:
            WorkspaceError: it was found so too often.
        """
        name, port = program.name, program.port
        if not port or not listens(port):
            self._taken.pop(name, None)
            return False
        self._taken[name] = self._taken.get(name, 0) + 1
        self._log("port.taken", name=name, port=port, by=holder(port))
        if self._taken[name] >= TAKEN_LOOKS:
            raise WorkspaceError(
                f"address already in use: something listens on port {port}{held_by(port)}",
                where=program.setting,
                why=f"the {name} ended, and can't start again while its port is taken",
                do="end what listens there (`ss -ltnp` as root shows it), and start this again",
            )
        self._wait_longer(name)
        return True

    def _wait_longer(self, name: str) -> None:
        """Have a program wait for its next start, longer each time."""
        pause = self._pause.get(name, FIRST_PAUSE)
        self._pause[name] = min(2 * pause, LONGEST_PAUSE)
        self._due[name] = time.monotonic() + pause * random.uniform(0.5, 1.5)  # noqa: S311

    def _end_all(self) -> None:
        alive = [self._running[p.name] for p in self._programs if p.name in self._running]
        for process in reversed(alive):
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + END_SECONDS
        for process in reversed(alive):
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._orphans.ended(process.pid)
        self._orphans.close()
        self._log("down", processes=len(alive))


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux); for a fresh fork.

    Args:
        parent: the parent's id, as it was before the fork; where it is gone, this one ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


# Asks the kernel for a SIGKILL when the parent dies (PR_SET_PDEATHSIG) and becomes the command. A
# parent that died before the kernel was asked is seen by another one's id in its place.
_TIED = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def dying_with_us(command: Sequence[str]) -> list[str]:
    """The command, ended by the kernel when the process that starts it dies (Linux)."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-IS", "-c", _TIED, str(os.getpid()), *command]


def find_program(name: str) -> str:
    """The path of an installed program, beside our own Python first.

    Raises:
        WorkspaceError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = (
        str(beside) if beside.exists() else shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    )
    if not found:
        raise WorkspaceError(f"{name} is not installed", do=f"install it (Debian: {name})")
    return found
