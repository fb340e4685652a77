"""What a silo costs a round, from ten silos to a thousand, on Flower's own Ray simulation.

The simulated silos sign real releases with real keys and compute on no rows (see the tests'
doubles), so what is measured is the coordinator, Flower and the protocol. A tenth of the silos, ten
at least, is asked in each round. Prints one line for each number of silos. Needs the extra `ray`;
`python benchmarks/bench_scale.py 10 100` runs chosen sizes, each in a process of its own.
With `--embedded` the same silos are in this process, without Ray, and CPU seconds are counted.

To use more machines, start Ray on them (`ray start --head`, `ray start --address=…`), set
RAY_ADDRESS, and run this script on the head: Flower's simulation takes the cluster it finds.
"""

import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:  # what workers need is loaded when they need it
    from flwr.clientapp import ClientApp

    from abfed.site.keys import SiteKeys

SIZES = (10, 100, 300, 1000)
ROUNDS = 6
HIDDEN = (64, 32)
TRIES, LIMIT = 3, 600  # starts of one size; seconds of each
UNNEEDED = 'import sys; sys.modules["rfc3987_syntax"] = None'
"""For each of Ray's processes: jsonschema's optional grammar takes seconds of their start, and on a
busy machine more than Ray gives its agents."""
EMBEDDED = bool(os.environ.get("BENCH_EMBEDDED"))


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


def run(count: int) -> None:
    """Carry one plan out over so many silos; print what it took, as JSON."""
    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)
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
        minimum_silos=min(count, 10),
        model={"outcome": "clicked", "hidden": list(HIDDEN)},
        training={"rounds": ROUNDS, "local_steps": 2},
        waiting={"silo_share": 0.1 if count > 10 else 1.0},
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
        with tempfile.TemporaryDirectory() as folder:
            keys = keys_of("coordinator")
            coordinator = Coordinator(
                keys=keys,
                audit=AuditLog(Path(folder) / "audit.jsonl", keys),
                runs=Path(folder) / "runs",
                silos={name: keys_of(name).public_key for name in names},
                front=Federation(Path(folder) / "front", ("silo-0000",)).coordinator.front,
            )
            clock = time.process_time if EMBEDDED else time.monotonic
            closed: list[float] = []

            def note(event: Event) -> None:
                if event.stage == "closed" and event.step.startswith("train-"):
                    closed.append(clock())

            patient = Named(grid, plan.waiting)
            outcome = Conduct(plan, coordinator, progress=note).run(patient)
            asked = len(outcome.manifest["weights"]["train-0001"])
            rounds = [after - before for before, after in itertools.pairwise(closed)]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            told.update(silos=count, asked=asked, rounds=rounds, peak=peak)

    if EMBEDDED:
        EmbeddedGrid(dict.fromkeys(names, client_app())).carry_out(app)
        print(json.dumps(told))
        return
    from flwr.simulation import run_simulation

    run_simulation(
        server_app=app,
        client_app=client_app(),
        num_supernodes=count,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps(told))


def measured(size: int, environment: dict[str, str]) -> dict[str, Any]:
    """What one size took, in a process of its own.

    A Ray whose agents are slow to start (its limit of 30 s is fixed) dies, and its driver hangs:
    then all that was started is ended, and it is tried again.
    """
    for _ in range(TRIES):
        child = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
        lines = [line for line in out.splitlines() if line.startswith('{"silos"')]
        if lines:
            return dict(json.loads(lines[-1]))
        sys.stderr.write(f"{size} silos did not come to an end\n{out[-2000:]}{err[-2000:]}")
    raise SystemExit(1)


def main() -> None:
    """Each size in a process of its own; a table at the end."""
    if os.environ.get("BENCH_ONE"):
        # Not from __main__: Ray's actors import what the client app refers to.
        importlib.import_module("bench_scale").run(int(os.environ["BENCH_ONE"]))
        return
    sizes = [int(one) for one in sys.argv[1:] if one.isdigit()] or list(SIZES)
    flag = "1" if "--embedded" in sys.argv else ""
    with tempfile.TemporaryDirectory() as quick:
        (Path(quick) / "sitecustomize.py").write_text(UNNEEDED)
        paths = [
            quick,
            str(Path(__file__).parent),
            str(ROOT),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        environment = os.environ | {"BENCH_EMBEDDED": flag, "PYTHONPATH": os.pathsep.join(paths)}
        table(sizes, environment)


def table(sizes: list[int], environment: dict[str, str]) -> None:
    """Measure and print a line for each size."""
    print(f"{'silos':>6} {'asked':>6} {'s a round':>10} {'ms a silo-round':>16} {'MiB peak':>9}")
    costs = []
    for size in sizes:
        one = measured(size, environment | {"BENCH_ONE": str(size)})
        middle = statistics.median(one["rounds"])
        costs.append(1e3 * middle / one["asked"])
        row = f"{size:6} {one['asked']:6} {middle:10.2f} {costs[-1]:16.1f} {one['peak']:9.0f}"
        print(row, flush=True)
    print(f"dearest over cheapest silo-round: {max(costs) / min(costs):.2f}")


if __name__ == "__main__":
    main()
