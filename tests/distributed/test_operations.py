"""Looking after a federation: status, logs, stop, metrics, renewal, other bundles, revocation.

One federation for all of it, in the order of the file.
"""

import importlib.util
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files

from abfed.coordinator import control as control_module
from abfed.coordinator import courier
from abfed.coordinator.bundle import bundle_digest, make_bundle
from abfed.coordinator.programs import free_port
from abfed.lab.federation import run_over_federation
from abfed.lab.provisioning import renew
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import RunFailed
from abfed.site.certificates import expiry
from abfed.site.files import read_private, write_private
from tests.distributed.rig import ABFED, BRANDS, ROOT, Rig, descendants, needs_nginx, plan_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_nginx]

PARTS = ("coordinator", "aurora.silo", "aurora.node")
TOTALS_ONLY = {
    "model": None,
    "training": None,
    "privacy": {"epsilon": 0.5, "delta": 1e-6, "split": {"statistics": 0.5}},
}
DESCRIPTION = """
[project]
name = "abfed-courier"
version = "1.0.0"
description = "carries more than it should"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0", "cowsay==6.1"]
[tool.flwr.app]
publisher = "abfed"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["courier.py", "LICENSE"]
[tool.flwr.app.components]
serverapp = "abfed.coordinator.hosted:app"
clientapp = "courier:app"
[tool.flwr.app.config]
order = ""
"""


def changed_bundle() -> bytes:
    """Our own courier, with a line more, that asks for a package."""
    source = Path(courier.__file__).read_bytes() + b"\nSTOLEN = open('/etc/hostname').read()\n"
    files = {"pyproject.toml": DESCRIPTION.encode(), "LICENSE": b"none", "courier.py": source}
    return build_fab_from_files(files)[0]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("ops"))
    rig.metrics = {part: free_port() for part in PARTS}
    for part, port in rig.metrics.items():
        rig.options[part] = ("--metrics", str(port))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


def status(rig, *options):
    """`abfed federation status`, as JSON."""
    done = rig.say("federation", "status", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def get(rig, part, path):
    """What a part of the federation says about itself."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{rig.metrics[part]}{path}", timeout=20
    ) as answer:
        return answer.status, answer.read().decode()


def status_code(rig, part):
    """What `/readyz` of a part answers now."""
    try:
        return get(rig, part, "/readyz")[0]
    except urllib.error.HTTPError as lacking:
        with lacking:
            return lacking.code


def test_status_says_who_is_connected(rig):
    facts = status(rig, "--wait", "120")
    assert facts["superlink"] == "up"
    assert [(row["silo"], row["node"]) for row in facts["silos"]] == [
        (brand, "online") for brand in BRANDS
    ]
    assert all(row["certificate"].startswith("until ") for row in facts["silos"])


def test_a_run_is_seen_stopped_and_gone_on_with(rig):
    plan = plan_file(
        rig.folder / "stopped.yaml",
        name="stopped",
        training={"rounds": 6, "local_steps": 2, "sampling_rate": 0.1},
    )
    with (rig.folder / "researcher").open("wb") as told:
        process = subprocess.Popen(
            [*ABFED, "run", str(plan), "--federation", "-w", str(rig.folder / "c")],
            stdout=subprocess.DEVNULL,
            stderr=told,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        rig.wait_until(
            lambda: any(
                (event.get("stage"), event.get("step")) == ("closed", "train-0001")
                for event in rig.events()
            )
        )
        rig.processes["aurora.silo"].send_signal(signal.SIGSTOP)  # it's still there to be stopped
        going = [run for run in status(rig)["runs"] if run["status"] != "finished"]
        assert len(going) == 1
        assert len(going[0]["order"]) == 64
        stopped = rig.say("federation", "stop", "--json")
        assert json.loads(stopped.stdout) == {"stopped": [going[0]["run_id"]]}
        assert process.wait(120) == 1
    finally:
        rig.processes["aurora.silo"].send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
    said = (rig.folder / "researcher").read_text()
    assert "the run was stopped" in said
    for step in ("totals", "train-0001"):  # one line a round
        assert f"{step}: 2 silos, " in said
    assert "/8" in said  # and a bar over eight steps
    keeper = rig.pid("coordinator", "executor")
    rig.wait_until(lambda: not descendants(keeper), 90)  # no server app works on unseen
    resumed = rig.run(plan, "--resume")
    assert resumed.returncode == 0, resumed.stderr + rig.told()
    for brand in BRANDS:
        events = [body["event"] for body in rig.told_by(brand)]
        assert events.count("budget.reserved") == 1
        assert events.count("release.made") == 8


def test_health_and_metrics_of_all_three(rig):
    for part in PARTS:
        assert get(rig, part, "/healthz")[0] == 200
        assert get(rig, part, "/readyz")[0] == 200
    shown = {part: get(rig, part, "/metrics")[1] for part in PARTS}
    assert 'abfed_state{state="node-online"} 2.0' in shown["coordinator"]
    assert 'abfed_state{state="process-running"} 4.0' in shown["coordinator"]
    assert 'abfed_state{state="run-going-on"} 0.0' in shown["coordinator"]
    assert 'abfed_state{state="process-running"} 3.0' in shown["aurora.node"]
    answered = [
        line for line in shown["aurora.silo"].splitlines() if '{event="request.answered"}' in line
    ]
    assert float(answered[0].split()[1]) >= 8
    assert "abfed_answer_seconds_count" in shown["aurora.silo"]
    for text in shown.values():
        assert not [word for word in ("spring", "clicked", "epsilon", "arm") if word in text]


def test_a_superlink_that_hangs_is_told_at_once_by_all_that_look(rig):
    link = rig.pid("coordinator", "superlink")
    os.kill(link, signal.SIGSTOP)
    try:
        rig.wait_until(lambda: status_code(rig, "coordinator") == 503, 8)
        started = time.monotonic()
        with pytest.raises(urllib.error.HTTPError) as lacking:
            get(rig, "coordinator", "/readyz")
        with lacking.value as answer:
            assert (answer.code, answer.read()) == (
                503,
                b"not ready: superlink (no answer for 2 s)\n",
            )
        assert (
            'abfed_state{state="superlink-answers"} 0.0' in get(rig, "coordinator", "/metrics")[1]
        )
        assert time.monotonic() - started < 10
        said = rig.say("federation", "status")
        assert time.monotonic() - started < 20
        assert said.returncode == 5, said.stdout + said.stderr
        assert (
            f"(process {link}) listens on port {rig.link_port}, and gave no answer" in said.stderr
        )
    finally:
        os.kill(link, signal.SIGCONT)
    rig.wait_until(lambda: status_code(rig, "coordinator") == 200, 30)
    status(rig, "--wait", "120")


def test_logs_show_every_process_and_every_run(rig):
    said = rig.say("federation", "logs", "--lines", "2").stdout
    for name in ("superlink.log", "superexec.log", "executor.log", "proxy.log"):
        assert f"== {name}" in said
    assert '"event":"end"' in said
    files = json.loads(rig.say("federation", "logs", "--lines", "2", "--json").stdout)
    assert {"superlink.log", "proxy.log"} <= {one["file"] for one in files}
    assert all(len(one["lines"]) <= 2 for one in files)


def test_certificates_are_renewed_while_a_run_goes_on(rig):
    places = rig.house.places
    before = {one: (places.tls / f"{one}.crt").read_bytes() for one in ("proxy",)}
    plan = plan_file(rig.folder / "renewed.yaml", name="renewed", **TOTALS_ONLY)
    process = subprocess.Popen(
        [*ABFED, "run", str(plan), "--federation", "--json", "-w", str(rig.folder / "c")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    request = renew(rig.workspaces["aurora"], "aurora").request
    first = expiry(read_private(places.admitted / "aurora.pem"))
    done = rig.say("provision", "admit", str(request), "--json")
    assert json.loads(done.stdout) == {"silo": "aurora", "registered": True}
    assert expiry(read_private(places.admitted / "aurora.pem")) > first
    (places.tls / "proxy.crt").unlink()  # as if its time were running out
    assert rig.say("provision", "found", str(rig.folder / "federation.yaml")).returncode == 0
    assert (places.tls / "proxy.crt").read_bytes() != before["proxy"]
    rig.processes["coordinator"].send_signal(signal.SIGHUP)
    rig.wait_for("coordinator", "process.reloaded", 30)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert not json.loads(out)["missing"]


def other_bundle(rig, monkeypatch, name):
    """Submit a plan with a changed bundle, at a coordinator whose own executor takes it."""
    changed = changed_bundle()
    write_private(rig.house.places.pin, f"{bundle_digest()}\n{sha256_hex(changed)}".encode())
    monkeypatch.setattr(control_module, "make_bundle", lambda: changed)
    waiting = {"retries": 1, "retry_seconds": 1, "step_seconds": 120}
    plan = plan_file(rig.folder / f"{name}.yaml", name=name, waiting=waiting, **TOTALS_ONLY)
    return run_over_federation(rig.coordinator, plan)


def test_a_changed_bundle_reaches_no_silo(rig, monkeypatch):
    heads = {brand: rig.told_by(brand)[-1] for brand in BRANDS}
    with pytest.raises(RunFailed) as failed:
        other_bundle(rig, monkeypatch, "changed")
    assert "0 of at least 2 silos" in failed.value.what
    for brand in BRANDS:
        assert f"{brand}: failed: its executor takes another bundle" in failed.value.why
        assert rig.told_by(brand)[-1] == heads[brand]  # the silo was not even asked
    home = rig.joined["aurora"].node / "flower"
    assert not list(home.rglob("courier.py"))  # and nothing was unpacked


def test_our_own_coordinator_takes_no_changed_bundle_either(rig, monkeypatch):
    write_private(rig.house.places.pin, bundle_digest().encode())
    monkeypatch.setattr(control_module, "make_bundle", changed_bundle)
    plan = plan_file(rig.folder / "submitted.yaml", name="submitted", **TOTALS_ONLY)
    with pytest.raises(RunFailed, match="without an outcome") as failed:
        run_over_federation(rig.coordinator, plan)
    assert failed.value.why == "failed the bundle is not the pinned one"


def test_a_neighbouring_release_is_let_in_by_name(rig, monkeypatch):
    """And what runs at the brand is what is installed there, whatever was sent or asked for."""
    for brand in BRANDS:
        rig.end(f"{brand}.node")
        rig.options[f"{brand}.node"] = ("--also", sha256_hex(changed_bundle()))
        rig.connect(brand)
    status(rig, "--wait", "180")
    run = other_bundle(rig, monkeypatch, "neighbours")
    assert set(run.silos) == set(BRANDS)
    assert sha256_hex(make_bundle()) in (rig.joined["aurora"].node / "bundle.sha256").read_text()
    assert importlib.util.find_spec("cowsay") is None
    installed = [*rig.folder.rglob("*.dist-info"), *rig.folder.rglob("pyvenv.cfg")]
    assert not installed, "a dependency of what was sent was installed"


def test_a_revoked_silo_is_cut_off_and_not_asked(rig):
    done = rig.say("provision", "revoke", "borealis", "--json")
    assert json.loads(done.stdout) == {"silo": "borealis", "node_cut_off": True}
    rows = {row["silo"]: row for row in status(rig)["silos"]}
    assert "revoked" in rows["borealis"]["certificate"]
    plan = plan_file(rig.folder / "revoked.yaml", name="revoked", **TOTALS_ONLY)
    refused = rig.run(plan)
    assert refused.returncode == 2
    assert "can't take part" in refused.stderr + refused.stdout


def test_it_comes_back_with_a_new_node_key_only(rig):
    """A SuperLink takes no key again that it let go; silo and its keys stay as they are."""
    request = rig.joined["borealis"].request
    said = rig.joined["borealis"].fingerprint
    refused = rig.say("provision", "admit", str(request), "--fingerprint", said)
    assert refused.returncode == 2
    assert "--new-node-key" in refused.stderr + refused.stdout
    again = renew(rig.workspaces["borealis"], "borealis", new_node_key=True)
    assert again.fingerprint != said
    done = rig.say("provision", "admit", str(request), "--fingerprint", again.fingerprint, "--json")
    assert json.loads(done.stdout) == {"silo": "borealis", "registered": True}
    rig.processes["borealis.node"].send_signal(signal.SIGHUP)  # it reads its key at a start only
    status(rig, "--wait", "180")
    plan = plan_file(rig.folder / "back.yaml", name="back", **TOTALS_ONLY)
    done = rig.run(plan)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()
    assert json.loads(done.stdout)["silos"] == list(BRANDS)


def test_who_is_revoked_while_the_superlink_is_down_is_cut_off_when_it_is_up(rig):
    rig.end("coordinator")
    done = rig.say("provision", "revoke", "borealis", "--json")
    assert json.loads(done.stdout) == {"silo": "borealis", "node_cut_off": False}
    log = rig.folder / "coordinator.log"
    known = log.read_text().count('"nodes.registered"')
    rig.start("coordinator", "federation", "up", "-w", str(rig.folder / "c"))
    rig.wait_until(lambda: log.read_text().count('"nodes.registered"') > known)
    assert rig.wait_for("coordinator", "node.cut-off", 5)["silo"] == "borealis"
    rows = {row["silo"]: row["node"] for row in status(rig)["silos"]}
    assert rows == {"aurora": rows["aurora"], "borealis": "not registered"}
