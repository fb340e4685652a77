"""What a round costs over real Flower: ours through the whole wall, beside plain Flower.

Ours: SuperLink, TLS proxy, node authentication, sealed and signed requests, silo service behind a
socket, ledger, private training with noise. Plain: Flower's own quickstart-style app over the same
SuperLink settings without any of that: no TLS, no authentication, two nodes, trivial job, its own
FedAvg. Both in one run of this script, one after the other, on the same two nodes' machine.
"""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from abfed.coordinator.programs import free_port  # noqa: E402
from tests.distributed.rig import Rig, plan_file  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "4"))
BESIDE = Path(sys.executable).parent

PLAIN = {
    "pyproject.toml": """
[project]
name = "plain"
version = "1.0.0"
description = "trivial"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "plain"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "plain:server"
clientapp = "plain:client"
[tool.flwr.app.config]
rounds = 4
out = ""
""",
    "LICENSE": "none",
    "plain.py": """
import time
import numpy as np
from flwr.app import ArrayRecord, Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()

@client.train()
def train(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
    content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
    return Message(content, reply_to=message)

@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    content = RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})})
    return Message(content, reply_to=message)

server = ServerApp()

@server.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord({"w": Array(np.zeros(400, np.float32))})
    strategy = FedAvg(min_available_nodes=2, min_train_nodes=2, min_evaluate_nodes=2)
    def note(number, arrays):
        with open(context.run_config["out"], "a") as file:
            file.write(f"{time.time()}\\n")
    rounds = int(context.run_config["rounds"])
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds, evaluate_fn=note)
""",
}


def ours(folder: Path) -> list[float]:
    """Seconds of each of our rounds."""
    folder.mkdir(parents=True)
    rig = Rig(folder)
    plan = plan_file(
        folder / "plan.yaml", training={"rounds": ROUNDS, "local_steps": 10, "sampling_rate": 0.1}
    )
    try:
        rig.up()
        done = rig.run(plan)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
    finally:
        rig.down()
    (events,) = (folder / "c" / "federation" / "orders").glob("*.events")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    closed = [
        datetime.fromisoformat(one["at"]).timestamp()
        for one in lines
        if one.get("stage") == "closed" and one["step"].startswith("train-")
    ]
    return [after - before for before, after in itertools.pairwise(closed)]


def plain(folder: Path) -> list[float]:
    """Seconds of each of plain Flower's rounds."""
    app, home, out = folder / "plain", folder / "home", folder / "rounds"
    app.mkdir(parents=True)
    for name, text in PLAIN.items():
        (app / name).write_text(text)
    port, nodes = free_port(), [free_port(), free_port()]
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "c"\n[superlink.c]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{BESIDE}:{os.environ['PATH']}",
    }
    link = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    commands = [[*link, "--disable-runtime-dependency-installation"]]
    commands += [
        ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(one)]
        for one in nodes
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{len(started)}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(12)
        config = f'rounds={ROUNDS} out="{out}"'
        subprocess.run(
            ["flwr", "run", str(app), "c", "-c", config], env=environment, check=True, cwd=folder
        )
        end = time.monotonic() + 120 * ROUNDS
        while not out.exists() or len(out.read_text().split()) < ROUNDS + 1:
            if time.monotonic() > end:
                raise SystemExit("plain Flower did not end")
            time.sleep(0.5)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(30)
    moments = [float(one) for one in out.read_text().split()]
    rounds = [after - before for before, after in itertools.pairwise(moments)]
    return rounds[1:]  # as for ours: from the end of the first round on


def main() -> None:
    """Run both and print."""
    with tempfile.TemporaryDirectory(prefix="abfed-bench-") as folder:
        rows = {"abfed, whole wall": ours(Path(folder) / "ours")}
        rows["plain Flower, trivial job"] = plain(Path(folder) / "plain")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, {ROUNDS} rounds, two nodes on this machine")
    for name, seconds in rows.items():
        middle, slowest = statistics.median(seconds), max(seconds)
        print(f"{name:28} median {middle:6.1f} s a round, slowest {slowest:6.1f} s")


if __name__ == "__main__":
    main()
