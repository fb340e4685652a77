"""What a silo costs a round, from ten silos to a thousand, on Flower's own Ray simulation.

The simulated silos sign real releases with real keys and compute on no rows (see the tests'
doubles), so what is measured is the coordinator, Flower and the protocol. A tenth of the silos, ten
at least, is asked in each round; with `--alike` ten of however many, so that what a round costs
whoever is asked is borne by as many in each line. Prints one line for each number of silos. Needs
the extra `ray`; `python benchmarks/bench_scale.py 10 100` runs chosen sizes, each in a process of
its own.

Seconds are the clock's, the CPU's of all processes together, and the CPU's of the driver alone.
With `--embedded` the same silos are in this process, without Ray; with `--as-is` Flower's
simulation looks for messages in its own way (see `deliver_by_node`).

To use more machines, start Ray on them (`ray start --head`, `ray start --address=…`), set
RAY_ADDRESS, and run this script on the head: Flower's simulation takes the cluster it finds.
"""

import contextlib
import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from peak import peak  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:  # what workers need is loaded when they need it
    from flwr.clientapp import ClientApp

    from abfed.site.keys import SiteKeys

SIZES = (10, 100, 300, 1000)
ROUNDS = 6
HIDDEN = (64, 32)
TRIES, START_LIMIT, LIMIT = 3, 120, 600  # starts of one size; seconds to begin, and to end
BEGAN = b"the server app has begun"
UNNEEDED = 'import sys; sys.modules["rfc3987_syntax"] = None'
"""For each of Ray's processes: jsonschema's optional grammar takes seconds of their start, and on a
busy machine more than Ray gives its agents."""
STORE = "message_ins_store"  # what Flower's state in memory calls its open messages
MARK = "BENCH_MARK"  # environment variable that all processes of one measurement carry
EMBEDDED = bool(os.environ.get("BENCH_EMBEDDED"))
ASKED = 10  # silos at least in a round
ALIKE = os.environ.get("BENCH_ALIKE", "")
AS_IS = bool(os.environ.get("BENCH_AS_IS"))


class Counted:
    """CPU seconds of every process of this measurement: the driver's, and all of Ray's.

    Ray's processes leave their parent, so they are known by what their environment says.
    """

    def __init__(self) -> None:
        self._others: set[int] = set()  # of other programs; looked at once
        self._ours: set[int] = set()

    def __call__(self) -> float:
        """So far."""
        for pid in {int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()}:
            if pid not in self._ours and pid not in self._others:
                (self._ours if carries(pid, os.environ[MARK]) else self._others).add(pid)
        ticks = 0
        for pid in self._ours:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])  # its own, ended children's
        return ticks / os.sysconf("SC_CLK_TCK")


def silo_name(number: int) -> str:
    """The name of a simulated silo."""
    return f"silo-{number:04d}"


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
        named = re.search(rb'"silo":"([^"]+)","step"', envelope)
        if named is None:
            raise TypeError
        return SiloDouble(keys_of(named[1].decode()), keys_of("coordinator")).answer(envelope)

    return make_courier(answer)


def deliver_by_node() -> None:
    """Have Flower's simulation find a node's messages without looking through all others'.

    As it is, its engine asks for each node in turn, and its state looks through every open message
    each time: with 1,000 nodes and 100 messages that is 0.7 CPU seconds a look, ten looks a second.
    """
    from flwr.app import Message
    from flwr.server.superlink.linkstate import linkstate_factory
    from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState

    class ByNode(InMemoryLinkState):
        """Flower's state in memory, with the messages of each node beside it."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._of_node: dict[int, list[str]] = {}

        def store_message_ins(self, message: Message) -> str | None:
            """Store a message."""
            name: str | None = super().store_message_ins(message)
            if name is not None:
                with self.lock:
                    self._of_node.setdefault(message.metadata.dst_node_id, []).append(name)
            return name

        def get_message_ins(
            self, node_id: int, limit: int | None, *, run_id: int | None = None
        ) -> list[Message]:
            """A node's messages that were not delivered yet."""
            with self.lock:
                names = self._of_node.pop(node_id, [])
                if not names:
                    return []
                own = vars(self)
                everything: dict[str, Message] = own[STORE]
                own[STORE] = {name: everything[name] for name in names if name in everything}
                try:
                    found: list[Message] = super().get_message_ins(node_id, limit, run_id=run_id)
                finally:
                    own[STORE] = everything
                rest = set(names) - {one.metadata.message_id for one in found}
                if rest:
                    self._of_node[node_id] = [name for name in names if name in rest]
                return found

    vars(linkstate_factory)["InMemoryLinkState"] = ByNode


def be_quiet() -> None:
    """Let Flower say what went wrong, and nothing else."""
    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def run(count: int) -> None:
    """Carry one plan out over so many silos; print what it took, as JSON."""
    be_quiet()
    from flwr.app import Context
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid, ServerApp

    from abfed.coordinator.conduct import Conduct, Coordinator, Event
    from abfed.coordinator.grid import EmbeddedGrid
    from abfed.coordinator.patience import PatientGrid
    from abfed.site.audit import AuditLog
    from tests.coordinator.doubles import Federation, make_plan

    names = [silo_name(number) for number in range(count)]
    plan = make_plan(
        silos=names,
        minimum_silos=min(count, ASKED),
        model={"outcome": "clicked", "hidden": list(HIDDEN)},
        training={"rounds": ROUNDS, "local_steps": 2},
        waiting={"silo_share": (ASKED if ALIKE else max(ASKED, count / 10)) / count},
    )
    told: dict[str, object] = {}

    class Named(PatientGrid):
        """Simulated nodes have no names: they get the silos', in the order of their numbers."""

        def get_nodes(self) -> list[NodeInfo]:
            nodes = sorted(self.get_node_ids())
            return [NodeInfo(node_id=n, name=s) for n, s in zip(nodes, names, strict=True)]

        def addresses(self) -> dict[str, int]:
            return {node.name: node.node_id for node in self.get_nodes()}

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        print(BEGAN.decode(), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            keys = keys_of("coordinator")
            coordinator = Coordinator(
                keys=keys,
                audit=AuditLog(Path(folder) / "audit.jsonl", keys),
                runs=Path(folder) / "runs",
                silos={name: keys_of(name).public_key for name in names},
                front=Federation(Path(folder) / "front", ("silo-0000",)).coordinator.front,
            )
            closed: list[tuple[float, float, float]] = []
            all_cpu = Counted()

            def note(event: Event) -> None:
                if event.stage == "closed" and event.step.startswith("train-"):
                    closed.append((time.monotonic(), all_cpu(), time.process_time()))

            patient = Named(grid, plan.waiting)
            outcome = Conduct(plan, coordinator, progress=note).run(patient)
            asked = len(outcome.manifest["weights"]["train-0001"])
            rounds = [
                [after - before for before, after in zip(*pair, strict=True)]
                for pair in itertools.pairwise(closed)
            ]
            told.update(silos=count, asked=asked, rounds=rounds, peak=peak())

    if EMBEDDED:
        EmbeddedGrid(dict.fromkeys(names, client_app())).carry_out(app)
        print(json.dumps(told))
        return
    from flwr.simulation import run_simulation

    if not AS_IS:
        deliver_by_node()
    run_simulation(
        server_app=app,
        client_app=client_app(),
        num_supernodes=count,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps(told))


def marked(mark: str) -> list[int]:
    """Ids of the processes of one measurement."""
    found = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
    return [pid for pid in found if carries(pid, mark)]


def carries(pid: int, mark: str) -> bool:
    """Whether a process's environment holds a measurement's mark."""
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended
        return False


def measured(size: int, environment: dict[str, str]) -> dict[str, Any]:
    """What one size took, in a process of its own.

    A Ray whose agents are slow to start (its limit of 30 s is fixed) dies, and its driver hangs:
    then it is tried again. Whatever was started is ended.
    """
    for _ in range(TRIES):
        mark = secrets.token_hex(16)
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                [sys.executable, __file__],
                env=environment | {"BENCH_ONE": str(size), MARK: mark},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                wait_for(child, said)
            finally:
                child.kill()
                child.wait()
                for pid in marked(mark):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            said.seek(0)
            lines = said.read().splitlines()
        found = [line for line in lines if line.startswith('{"silos"')]
        if found:
            return dict(json.loads(found[-1]))
        sys.stderr.write("\n".join([f"{size} silos did not come to an end", *lines[-20:], ""]))
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


def main() -> None:
    """Each size in a process of its own; a table at the end."""
    if os.environ.get("BENCH_ONE"):
        # Not from __main__: Ray's actors import what the client app refers to.
        importlib.import_module("bench_scale").run(int(os.environ["BENCH_ONE"]))
        return
    sizes = [int(one) for one in sys.argv[1:] if one.isdigit()] or list(SIZES)
    flags = ("--embedded", "--as-is", "--alike")
    embedded, as_is, alike = ("1" if flag in sys.argv else "" for flag in flags)
    with tempfile.TemporaryDirectory() as quick:
        (Path(quick) / "sitecustomize.py").write_text(UNNEEDED)
        paths = [
            quick,
            str(Path(__file__).parent),
            str(ROOT),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        environment = os.environ | {
            "BENCH_EMBEDDED": embedded,
            "BENCH_AS_IS": as_is,
            "BENCH_ALIKE": alike,
            "PYTHONPATH": os.pathsep.join(paths),
            "RAY_TMPDIR": quick,  # elsewhere a dead cluster's address may lie, and is waited for
        }
        table(sizes, environment)


def table(sizes: list[int], environment: dict[str, str]) -> None:
    """Measure and print a line for each size."""
    print(f"{'':13} {'s a round':>10} {'ms a silo-round':>31} {'MiB':>6}")
    print(f"{'silos':>6} {'asked':>6} {'':10} {'clock':>10} {'CPU':>10} {'driver':>9} {'peak':>6}")
    costs = []
    for size in sizes:
        one = measured(size, environment)
        middle = [statistics.median(column) for column in zip(*one["rounds"], strict=True)]
        costs.append([1e3 * value / one["asked"] for value in middle])
        clock, cpu, driver = costs[-1]
        row = f"{size:6} {one['asked']:6} {middle[0]:10.2f} {clock:10.1f} {cpu:10.1f}"
        print(f"{row} {driver:9.1f} {one['peak']:6.0f}", flush=True)
    ratios = [max(column) / min(column) for column in zip(*costs, strict=True)]
    clock, cpu, driver = ratios
    print(f"dearest over cheapest: clock {clock:.2f}, CPU {cpu:.2f}, driver {driver:.2f}")


if __name__ == "__main__":
    main()
