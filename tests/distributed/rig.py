"""A real federation on loopback: coordinator, brands, each process started here and ended by id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from abfed.coordinator.programs import free_port
from abfed.lab.coordination import pin_silo
from abfed.lab.provisioning import found_federation, join, provisioner
from abfed.lab.samples.shipped import shipped
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.silo.ingest import ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.service import SiloService
from abfed.site.files import write_private

BRANDS = ("aurora", "borealis")
SCALE = 0.06
UP_SECONDS = 180
ROOT = Path(__file__).resolve().parents[2]
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
)
ABFED = [sys.executable, "-c", "from abfed.cli.main import script; script()"]


def plan_file(path: Path, **changes: object) -> Path:
    """The example plan over two brands, with two short rounds."""
    values = yaml.safe_load(shipped("experiments/spring.yaml").read_text())
    values |= {
        "silos": list(BRANDS),
        "minimum_silos": len(BRANDS),
        "training": {"rounds": 2, "local_steps": 3, "sampling_rate": 0.1},
        "waiting": {"retry_seconds": 1, "step_seconds": 240},
    }
    values |= changes
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return path


def found_brand(folder: Path, name: str, exports: Path) -> Workspace:
    """A brand's own workspace with its data in its silo."""
    workspace = Workspace.create(folder, development=True)
    declared = ExportMapping.load(exports / name / "mapping.yaml")
    silo = workspace.create_silo(
        name, columns=(*declared.outcomes, *declared.features), synthetic=True
    )
    with closing(SiloService(silo)) as service:
        ingest(service.store, service.keys, declared, exports / name / "export.csv")
    return workspace


class Rig:
    """A federation in a folder.

    Args:
        folder: where it lies.
        brands: who takes part.
        host: the name or address that brands connect to.
        prepare: called with a brand's exports before they're read.
    """

    def __init__(
        self,
        folder: Path,
        brands: tuple[str, ...] = BRANDS,
        *,
        host: str = "localhost",
        prepare: Callable[[Path], None] = lambda exports: None,
        joining: Callable[[str], dict] = lambda brand: {},
    ) -> None:
        self.folder = folder
        self.brands = brands
        self.hosts: dict[str, list[str]] = {}  # what to put before a process's command
        self.processes: dict[str, subprocess.Popen] = {}
        self.options: dict[str, tuple[str, ...]] = {}  # more options of a process, by its name
        self.port, self.link_port = free_port(), free_port()
        exports = folder / "exports"
        write_brands(exports, seed=5, scale=SCALE)
        prepare(exports)
        self.coordinator = Workspace.create(folder / "c", development=True)
        settings = folder / "federation.yaml"
        ports = {"port": self.port, "link_port": self.link_port}
        decided = {"name": "spring", "development": host == "localhost", "host": host, **ports}
        settings.write_text(yaml.safe_dump(decided))
        self.house, fingerprint = found_federation(self.coordinator, settings)
        self.workspaces = {one: found_brand(folder / one, one, exports) for one in brands}
        invitation = self.house.places.invitation.read_bytes()
        self.joined = {
            one: join(workspace, one, invitation, fingerprint=fingerprint, **joining(one))
            for one, workspace in self.workspaces.items()
        }
        for joined in self.joined.values():
            provisioner(self.coordinator).admit(
                joined.request.read_bytes(), fingerprint=joined.fingerprint
            )
        self.coordinator.sign_in_development()

    # ------------------------------------------------------------ processes

    def start(self, name: str, *arguments: str) -> subprocess.Popen:
        """Start `abfed …` and keep its handle under a name."""
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [*self.hosts.get(name, []), *ABFED, *arguments, *self.options.get(name, ())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        log.close()
        return self.processes[name]

    def serve(self, brand: str) -> None:
        """Start a brand's silo service."""
        self.start(f"{brand}.silo", "silo", "serve", brand, "-w", str(self.folder / brand))

    def connect(self, brand: str) -> None:
        """Start a brand's SuperNode and SuperExec."""
        self.start(f"{brand}.node", "federation", "node", str(self.joined[brand].node))

    def up(self) -> None:
        """Start everything, and wait until the nodes are connected."""
        self.start("coordinator", "federation", "up", "-w", str(self.folder / "c"))
        for brand in self.brands:
            self.serve(brand)
        self.wait_for("coordinator", "nodes.registered")
        for brand in self.brands:
            self.connect(brand)
        for brand in self.brands:
            self.wait_for(f"{brand}.silo", "silo.serving")
            self.wait_until(lambda brand=brand: "SuperNode ID" in self.node_log(brand))

    def wait_for(self, name: str, event: str, seconds: float = UP_SECONDS) -> dict:
        """Wait for an event in the log of a process."""
        path = self.folder / f"{name}.log"
        self.wait_until(lambda: f'"event":"{event}"' in path.read_text(), seconds)
        lines = [line for line in path.read_text().splitlines() if f'"{event}"' in line]
        return json.loads(lines[-1])

    def wait_until(self, holds, seconds: float = UP_SECONDS) -> None:
        """Wait until something holds, or fail with what the processes said."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.told()
            time.sleep(0.2)

    def node_log(self, brand: str) -> str:
        """What a brand's SuperNode said."""
        path = self.joined[brand].node / "log" / "supernode.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def told(self) -> str:
        """The last lines of every process, for a failure's message."""
        files = [*self.folder.glob("*.log"), *self.folder.rglob("log/*.log")]
        return "\n".join(
            f"== {file}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-12:])
            for file in files
        )

    def pid(self, name: str, program: str) -> int:
        """The id of a program that one of our keepers started last."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        found = [
            json.loads(line)["pid"]
            for line in lines
            if '"process.started"' in line and json.loads(line)["name"] == program
        ]
        return int(found[-1])

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """End one of our processes and wait for it."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(timeout=60)

    def down(self) -> None:
        """End all processes that were started here."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    # ------------------------------------------------------------ runs

    def run(self, plan: Path, *options: str, seconds: float = 600) -> subprocess.CompletedProcess:
        """`abfed run plan --federation --json`, in a process of its own."""
        return self.say("run", str(plan), "--federation", "--json", *options, seconds=seconds)

    def say(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess:
        """A command at the coordinator, in a process of its own."""
        return subprocess.run(
            [*self.hosts.get("coordinator", []), *ABFED, *words, "-w", str(self.folder / "c")],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def events(self) -> list[dict]:
        """Events of all runs so far, as the server app wrote them, in the order of time."""
        found = []
        for path in (self.folder / "c" / "federation" / "orders").glob("*.events"):
            whole = path.read_bytes().rpartition(b"\n")[0]
            found += [json.loads(line) for line in whole.splitlines()]
        return sorted(found, key=lambda event: event["at"])

    def told_by(self, brand: str) -> list[dict]:
        """The entries of a silo's audit log."""
        with self.workspaces[brand].silo(brand) as service:
            return [entry["body"] for entry in service.audit.entries()]

    def asked_again(self, name: str) -> Workspace:
        """The same coordinator without its runs, with the same silos in one process.

        Silos give the same release to the same question, so a run here must come out as the one
        before did, or the silos did something else than they say.
        """
        again = Workspace.create(self.folder / name)
        for part in ("coordinator", "lab"):
            shutil.rmtree(again.path / part)
            shutil.copytree(self.coordinator.path / part, again.path / part)
        silos = {one: str(self.folder / one / "silos" / one) for one in self.brands}
        write_private(again.path / "abfed.yaml", json.dumps({"silos": silos}).encode())
        again = Workspace(again.path)
        for one, workspace in self.workspaces.items():
            with workspace.silo(one) as service:
                key = service.keys.public_key
                pin_silo(again.coordinator, again.audit, one, key, by="rig")
        return again


def descendants(pid: int) -> set[int]:
    """Ids of all processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
