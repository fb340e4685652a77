"""What a silo costs a round, from ten silos to a thousand, on Flower's own Ray simulation.

The simulated silos sign real releases with real keys and compute on no rows (see the tests'
doubles), so what is measured is the coordinator, Flower and the protocol. Two comparisons: a tenth
of the silos is asked in each round, ten at least; and ten are asked of however many, so that what a
round costs whoever is asked is borne by as many in each line.

One Ray serves all measurements. Each is a process of its own, and they take turns: every line
`TURNS` times, the median is printed. What is counted begins when `WARM` silo-rounds are over and
ends `COUNTED` later, the same for each line, on clocks that count nanoseconds: neither starts nor a
clock's ticks decide. Seconds are the wall clock's, the CPU's of all processes of this bench (the
driver, its actors and Ray's own; nobody else's), and the CPU's of the driver alone.

A machine that is busy, or slows down, makes a whole turn dearer. So lines are compared within a
turn: with the line of the fewest silos in the same turn, and of these ratios the median counts.

Flower's simulation looks for messages in its own way, which costs nodes times open messages;
by_node.py has it find a node's own, and all lines but the last are measured with it.

Needs the extra `ray`; `python benchmarks/bench_scale.py 10 100` measures chosen sizes. With
`--embedded` the same silos are in the driver's process, without Ray.

To use more machines, start Ray on them (`ray start --head`, `ray start --address=…`), set
RAY_ADDRESS, and run this script on the head: Flower's simulation takes the cluster it finds.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from by_node import deliver_by_node  # type: ignore[import-not-found]
from peak import peak  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:  # what workers need is loaded when they need it
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from abfed.site.keys import SiteKeys

SIZES = (10, 100, 300, 1000)
TURNS = 5
ASKED = 10  # silos at least in a round
WARM, COUNTED = 100, 1000  # silo-rounds
HIDDEN = (64, 32)
TRIES, RAY_LIMIT, START_LIMIT, LIMIT = 3, 120, 120, 600  # starts; seconds to begin, and to end
BEGAN = b"the server app has begun"
UNNEEDED = 'import sys; sys.modules["rfc3987_syntax"] = None'
"""For each of Ray's processes: jsonschema's optional grammar takes seconds of their start, and on a
busy machine more than Ray gives its agents."""
RAY = "from ray.scripts.scripts import main; main()"
RAY_OPTIONS = "--include-dashboard=false --include-log-monitor=false --disable-usage-stats"
MARK = "BENCH_MARK"  # environment variable that all processes of one bench carry
CASE = "BENCH_CASE"  # silos, how many of them are asked, and 1 for Flower as it is
EMBEDDED = bool(os.environ.get("BENCH_EMBEDDED"))
Columns = list[tuple[float, ...]]
"""Clock, CPU and driver; in each, a figure for each turn."""


class Case(NamedTuple):
    """What one line of the table measures."""

    silos: int
    asked: int
    as_is: int = 0

    @property
    def warm(self) -> int:
        """Rounds before the clocks are read."""
        return max(1, WARM // self.asked)

    @property
    def rounds(self) -> int:
        """Rounds that are counted."""
        return max(1, COUNTED // self.asked)


def all_cpu() -> float:
    """CPU seconds so far of every process of this bench: the driver's, and all of Ray's.

    Ray's processes leave their parent, so they are known by what their environment says.
    """
    total = 0.0
    for pid in marked(os.environ[MARK]):
        with contextlib.suppress(OSError):  # it has ended
            total += time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    return total


def silo_names(case: Case) -> list[str]:
    """The names of the simulated silos."""
    return [f"silo-{number:04d}" for number in range(case.silos)]


@cache
def keys_of(site: str) -> "SiteKeys":
    """Keys that follow from a name: each process makes the same, and none is worth anything."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from abfed.site.keys import SiteKeys
    from abfed.site.kms import FileKms

    seed = hashlib.sha256(f"bench {site}".encode()).digest()
    return SiteKeys(site, seed, Ed25519PrivateKey.from_private_bytes(seed), FileKms())


def client_app() -> "ClientApp":
    """A client app that answers as whichever silo is asked."""
    from abfed.coordinator.courier import make_courier
    from tests.coordinator.doubles import SiloDouble

    def answer(envelope: bytes) -> bytes:
        # A silo knows its own name; finding out whose turn it is must not cost what is measured.
        name = envelope.rpartition(b'"silo":"')[2].partition(b'"')[0].decode()
        return SiloDouble(keys_of(name), keys_of("coordinator")).answer(envelope)

    return make_courier(answer)


def be_quiet() -> None:
    """Let Flower say what went wrong, and nothing else."""
    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def carried_out(case: Case, grid: "Grid") -> dict[str, Any]:
    """Carry one plan out over so many silos; what a silo-round took."""
    from flwr.proto.node_pb2 import NodeInfo

    from abfed.coordinator.conduct import Conduct, Coordinator, Event
    from abfed.coordinator.grid import quiet_flower
    from abfed.coordinator.patience import PatientGrid
    from abfed.protocol.modelling import training_step
    from abfed.site.audit import AuditLog
    from tests.coordinator.doubles import make_front, make_plan

    names, keys = silo_names(case), keys_of("coordinator")
    last = case.warm + case.rounds
    ends = {training_step(case.warm), training_step(last)}
    read: list[tuple[float, float, float]] = []

    class Named(PatientGrid):
        """Simulated nodes have no names: they get the silos', in the order of their numbers."""

        def get_nodes(self) -> list[NodeInfo]:
            nodes = sorted(self.get_node_ids())
            return [NodeInfo(node_id=n, name=s) for n, s in zip(nodes, names, strict=True)]

        def addresses(self) -> dict[str, int]:
            return {node.name: node.node_id for node in self.get_nodes()}

    def note(event: Event) -> None:
        if event.stage == "closed" and event.step in ends:
            read.append((time.monotonic(), all_cpu(), time.process_time()))

    plan = make_plan(
        silos=names,
        minimum_silos=min(case.silos, ASKED),
        model={"outcome": "clicked", "hidden": list(HIDDEN)},
        training={"rounds": last, "local_steps": 2},
        waiting={"silo_share": case.asked / case.silos},
    )
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(
            keys=keys,
            audit=AuditLog(Path(folder) / "audit.jsonl", keys),
            runs=Path(folder) / "runs",
            silos={name: keys_of(name).public_key for name in names},
            front=make_front(keys, names),
        )
        end = time.monotonic() + START_LIMIT
        while len(list(grid.get_node_ids())) < case.silos and time.monotonic() < end:
            time.sleep(0.1)  # Flower begins while it still adds nodes
        with quiet_flower():  # as wherever abfed carries a plan out
            outcome = Conduct(plan, coordinator, progress=note).run(Named(grid, plan.waiting))
    asked = {len(outcome.manifest["weights"][step]) for step in ends}
    if asked != {case.asked}:
        raise SystemExit(f"{asked} were asked, not {case.asked}")
    each = [
        1e3 * (after - before) / (case.asked * case.rounds)
        for before, after in zip(*read, strict=True)
    ]
    return case._asdict() | {"each": each, "peak": peak()}


def run(case: Case) -> None:
    """Carry one plan out over so many silos; print what a silo-round took, as JSON."""
    be_quiet()
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    from abfed.coordinator.grid import EmbeddedGrid

    told: dict[str, object] = {}
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        print(BEGAN.decode(), flush=True)
        told.update(carried_out(case, grid))

    if EMBEDDED:
        EmbeddedGrid(dict.fromkeys(silo_names(case), client_app())).carry_out(app)
        print(json.dumps(told))
        return
    from flwr.simulation import run_simulation

    if not case.as_is:
        deliver_by_node()
    run_simulation(
        server_app=app,
        client_app=client_app(),
        num_supernodes=case.silos,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps(told))


def marked(mark: str) -> list[int]:
    """Ids of the processes of one bench."""
    found = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
    return [pid for pid in found if carries(pid, mark)]


def end_marked(mark: str) -> None:
    """End what a bench has started, but not the bench itself."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def carries(pid: int, mark: str) -> bool:
    """Whether a process's environment holds a bench's mark."""
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended
        return False


def measured(case: Case, environment: dict[str, str]) -> dict[str, Any]:
    """What one case took, in a process of its own; tried again where it came to no end."""
    for _ in range(TRIES):
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                [sys.executable, __file__],
                env=environment | {CASE: " ".join(map(str, case))},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                wait_for(child, said)
            finally:
                child.kill()
                child.wait()
            said.seek(0)
            lines = said.read().splitlines()
        found = [line for line in lines if line.startswith('{"silos"')]
        if found:
            return dict(json.loads(found[-1]))
        sys.stderr.write("\n".join([f"{case} did not come to an end", *lines[-20:], ""]))
    raise SystemExit(1)


def wait_for(child: subprocess.Popen[bytes], said: IO[str]) -> None:
    """Wait until it has ended, or its time is over; until it has begun, that is less."""
    end = time.monotonic() + START_LIMIT
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
        # The child writes at the same file's place, so that must not be moved: pread doesn't.
        if BEGAN in os.pread(said.fileno(), 1 << 20, 0):
            end = max(end, time.monotonic() + LIMIT)
            break
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, end - time.monotonic()))


@contextlib.contextmanager
def cluster(folder: str, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A Ray for all measurements, and the environment that finds it; ended at the end.

    Where its agents are slow to start (its limit of 30 s is fixed) it dies: it is tried again.
    """
    from abfed.coordinator.programs import free_port

    try:
        for number in range(TRIES):
            port = free_port()
            with contextlib.suppress(subprocess.TimeoutExpired, subprocess.CalledProcessError):
                words = f"start --head --port={port} --temp-dir={folder}/{number} {RAY_OPTIONS}"
                subprocess.run(
                    [sys.executable, "-c", RAY, *words.split()],
                    env=environment,
                    check=True,
                    capture_output=True,
                    timeout=RAY_LIMIT,
                )
                yield environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
                return
            end_marked(environment[MARK])
        raise SystemExit("Ray did not start")
    finally:
        end_marked(environment[MARK])


def main() -> None:
    """The cases in turns; a table at the end."""
    if os.environ.get(CASE):
        # Not from __main__: Ray's actors import what the client app refers to.
        importlib.import_module("bench_scale").run(Case(*map(int, os.environ[CASE].split())))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ray is ended on the way out
    sizes = [int(one) for one in sys.argv[1:] if one.isdigit()] or list(SIZES)
    embedded = "1" if "--embedded" in sys.argv else ""
    if not embedded and importlib.util.find_spec("ray") is None:
        print("not measured: Ray isn't here; pip install -e '.[ray]', or --embedded without it")
        return
    with tempfile.TemporaryDirectory() as quick, contextlib.ExitStack() as stack:
        (Path(quick) / "sitecustomize.py").write_text(UNNEEDED)
        paths = [quick, str(Path(__file__).parent), str(ROOT)]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        environment = os.environ | {
            "BENCH_EMBEDDED": embedded,
            MARK: secrets.token_hex(16),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        if not embedded and "RAY_ADDRESS" not in environment:
            environment = stack.enter_context(cluster(quick, environment))
        table(sizes, environment, as_is=not embedded)


def table(sizes: list[int], environment: dict[str, str], *, as_is: bool) -> None:
    """Measure in turns, and print a line for each case."""
    tenth = [Case(size, max(ASKED, size // 10)) for size in sizes]
    ends = [Case(size, ASKED) for size in (min(sizes), max(sizes))]
    cases = sorted({*tenth, *ends})
    alike = [case for case in cases if case.asked == ASKED]
    if as_is:
        cases.append(Case(max(sizes), ASKED, as_is=1))
    found: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases}
    for turn in range(TURNS):
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            found[case].append(measured(case, environment))
            _, cpu, driver = found[case][-1]["each"]
            said = f"turn {turn + 1}: {case.asked} of {case.silos} silos, CPU {cpu:.2f} ms"
            sys.stderr.write(f"{said} a silo-round, driver's {driver:.2f}\n")
    columns = {
        case: list(zip(*(one["each"] for one in ones), strict=True)) for case, ones in found.items()
    }
    print(f"{'':13} {'ms a silo-round':>31} {'CPU, from':>11} {'MiB':>6}  times the first line's")
    print(
        f"{'silos':>6} {'asked':>6} {'clock':>9} {'CPU':>10} {'driver':>10} {'to':>11} {'peak':>6}"
        f"  {'clock':>6} {'CPU':>6} {'driver':>6}"
    )
    times = {case: against(columns[case], columns[cases[0]]) for case in cases}
    for case, ones in found.items():
        clock, cpu, driver = (statistics.median(column) for column in columns[case])
        row = f"{case.silos:6} {case.asked:6} {clock:9.2f} {cpu:10.2f} {driver:10.2f}"
        spread = f"{min(columns[case][1]):.2f}-{max(columns[case][1]):.2f}"
        row += f" {spread:>11} {max(one['peak'] for one in ones):6.0f}"
        row += "".join(f" {one:6.2f}" for one in times[case])
        print(f"{row}{'  with Flower as it is' if case.as_is else ''}")
    for name, group in (("a tenth asked", tenth), ("ten asked", alike)):
        rows = zip(*(times[case] for case in group), strict=True)
        clock, cpu, driver = (max(row) / min(row) for row in rows)
        print(
            f"dearest over cheapest, {name}: clock {clock:.2f}, CPU {cpu:.2f}, driver {driver:.2f}"
        )


def against(columns: Columns, first: Columns) -> list[float]:
    """Clock, CPU and driver of a line as multiples of the first line's: medians over the turns."""
    return [
        statistics.median(mine / its for mine, its in zip(*pair, strict=True))
        for pair in zip(columns, first, strict=True)
    ]


if __name__ == "__main__":
    main()
