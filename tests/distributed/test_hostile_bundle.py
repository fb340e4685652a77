"""A hostile bundle, run by Flower's own executor as the node's user: it gets refusals only.

Flower runs what it is sent. With our executor a changed bundle isn't even unpacked; without it, the
wall between the node's user and the silo service has to hold alone. Both are tried here.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files

from abfed.coordinator.bundle import bundle_digest, make_bundle
from abfed.coordinator.executor import PIN, check_bundle
from abfed.lab.provisioning import found_federation, join, provisioner
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.protocol.boxes import box_request, unbox_reply
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import EMPTY_DIGEST, Request, decode, encode
from abfed.protocol.plan import Plan
from abfed.site.clock import stamp, system_clock
from tests.distributed.rig import ROOT, found_brand, plan_file
from tests.whole.story import CANARIES, plant_canary

NODE_USER = "nobody"
HOSTILE = Path(__file__).with_name("hostile.py")

DESCRIPTION = """
[project]
name = "useful-app"
version = "1.0.0"
description = "takes what it can get"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "stranger"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["hostile.py", "LICENSE"]
[tool.flwr.app.components]
serverapp = "hostile:app"
clientapp = "hostile:app"
"""

RUNNER = """
import hashlib, json, os, sys
from pathlib import Path
from flwr.app import Context, RecordDict
from flwr.cli.config_utils import get_fab_metadata
from flwr.cli.install import install_from_fab
from flwr.clientapp.utils import get_load_client_app_fn
from flwr.app import ConfigRecord, Message
from flwr.supercore.task_identity import TaskIdentity

task = json.loads(sys.stdin.read())
fab = Path(task["fab"]).read_bytes()
install_from_fab(fab, skip_prompt=True)
name, version = get_fab_metadata(fab)
load = get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
app = load(name, version, hashlib.sha256(fab).hexdigest())
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
request = RecordDict({"abfed": ConfigRecord({"envelope": bytes.fromhex(task["request"])})})
message = Message(request, dst_node_id=1, message_type="query")
message.metadata.__dict__["_message_id"] = "m1"
context = Context(
    run_id=1, node_id=1, node_config=task["config"], state=RecordDict(), run_config={}
)
reply = app(message, context)
print()
sys.stdout.write(reply.content["loot"]["all"].decode())
"""


def hostile_bundle() -> bytes:
    """The bundle that a hostile coordinator ships."""
    files = {"pyproject.toml": DESCRIPTION.encode(), "LICENSE": b"none"}
    content, _ = build_fab_from_files(files | {"hostile.py": HOSTILE.read_bytes()})
    return content


def can_be_run_by(user: str) -> bool:
    """Whether another user may use this Python and these sources."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return False
    command = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}"]
    command += ["--clear-groups", sys.executable, "-c", "import abfed, flwr"]
    done = subprocess.run(
        command, capture_output=True, check=False, cwd="/", env={"PYTHONPATH": str(ROOT)}
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def place():
    """A folder that other users may enter, with the silo's own private folder in it."""
    folder = Path(tempfile.mkdtemp(prefix="abfed-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def brand(place):
    """A brand with a marked person in its silo, and the federation that it joined."""
    exports = place / "silo-user" / "exports"
    exports.parent.mkdir(mode=0o700)
    for made in write_brands(exports, seed=5, scale=0.03):
        if made.name == "aurora":
            plant_canary(made.export)
    coordinator = Workspace.create(place / "silo-user" / "c", development=True)
    settings = place / "silo-user" / "federation.yaml"
    settings.write_text("name: spring\ndevelopment: true\n")
    house, fingerprint = found_federation(coordinator, settings)
    workspace = found_brand(place / "silo-user" / "aurora", "aurora", exports)
    invitation = house.places.invitation.read_bytes()
    joined = join(workspace, "aurora", invitation, fingerprint=fingerprint)
    provisioner(coordinator).admit(joined.request.read_bytes(), fingerprint=joined.fingerprint)
    coordinator.sign_in_development()
    return coordinator, workspace


@pytest.fixture(scope="module")
def service(place, brand):
    """The silo service, under its own user; ended by its id."""
    path = place / "silo.sock"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from abfed.cli.main import script; script()", "silo", "serve"]
    command += ["aurora", "-w", str(brand[1].path), "--socket", str(path), "--peer", NODE_USER]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        end = time.monotonic() + 120
        while not path.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        yield path, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stderr.close()


def request_for(coordinator: Workspace, plan: Plan) -> bytes:
    """A real request, as the coordinator of the federation signs it."""
    request = Request(
        plan=plan.canonical_bytes().decode(),
        step="totals",
        silo="aurora",
        incoming_digest=EMPTY_DIGEST,
        nonce=secrets.token_hex(16),
        issued_at=stamp(system_clock()),
        head="0" * 64,
        presented=coordinator.session().present(plan),
    )
    return coordinator.keys.sign("request", encode(request))


@pytest.fixture(scope="module")
def loot(place, brand, service):
    """What the hostile bundle brings home, run as the node's user by Flower's own executor."""
    coordinator, workspace = brand
    plan = Plan.load(plan_file(place / "silo-user" / "p.yaml", silos=["aurora"], minimum_silos=1))
    with workspace.silo("aurora") as silo:
        exchange = silo.keys.exchange_key
    sent = box_request(exchange, request_for(coordinator, plan), silo="aurora")
    home = place / "node"
    home.mkdir()
    fab = home / "useful.fab"
    fab.write_bytes(hostile_bundle())
    user = pwd.getpwnam(NODE_USER)
    for path in (home, fab):
        os.chown(path, user.pw_uid, user.pw_gid)
    roots = json.dumps([str(place), "/root", "/home", "/etc"])
    task = {"fab": str(fab), "request": sent.box.hex()}
    task["config"] = {"socket": str(service[0]), "roots": roots}
    environment = {"HOME": str(home), "FLWR_HOME": str(home / "flwr"), "PYTHONPATH": str(ROOT)}
    environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    command = ["setpriv", f"--reuid={NODE_USER}", f"--regid={user.pw_gid}", "--clear-groups"]
    done = subprocess.run(
        [*command, sys.executable, "-c", RUNNER],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=environment,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), sent.reply_key


pytestmark = [pytest.mark.slow, pytest.mark.privacy, pytest.mark.timeout(900)]
walled = pytest.mark.skipif(
    not can_be_run_by(NODE_USER), reason="needs root, setpriv and sources that others may read"
)


@walled
def test_it_runs_as_the_nodes_user(loot):
    assert loot[0]["uid"] == pwd.getpwnam(NODE_USER).pw_uid


@walled
def test_it_reads_no_file_of_the_silo(loot, place):
    private = str(place / "silo-user")
    assert loot[0]["files"], "it read nothing at all: the test proves nothing"
    assert not [path for path in loot[0]["files"] if path.startswith(private)]
    assert loot[0]["refused"] >= 1


@walled
def test_it_finds_no_canary_and_no_key_anywhere(loot, brand):
    told = json.dumps(loot[0])
    (file,) = (brand[1].silo_folder("aurora") / "keys").glob("kek-*")
    kek = file.read_bytes()
    assert not [canary for canary in CANARIES if canary in told]
    assert kek.hex() not in told
    assert kek.decode("latin-1") not in told


@walled
def test_it_reads_no_memory_of_the_silo_service(loot, service):
    assert not [name for name in loot[0]["memory"] if name.startswith(f"{service[1]}/")]


@walled
def test_what_it_makes_up_and_its_flood_get_no_answer(loot):
    got = loot[0]["socket"]
    assert got["made_up"] == [0, 0, 0]
    assert got["flood"] == 0


@walled
def test_what_it_is_given_is_sealed_to_the_coordinator(loot, brand):
    answers, reply_key = loot[0]["socket"], loot[1]
    with brand[1].silo("aurora") as silo:
        trusted = {silo.keys.key_id: silo.keys.public_key}
    kinds = []
    for text in (answers["first_hex"], *answers["again_hex"]):
        box = bytes.fromhex(text)[8:]
        assert b"ABFED1" not in box
        opened = open_envelope(unbox_reply(reply_key, box, silo="aurora"), trusted, where="answer")
        header = decode(opened.kind, opened.content, where="answer").header
        kinds.append((opened.kind, getattr(header, "code", "")))
    assert kinds == [("release", ""), *[("refusal", "stale")] * 3]


@walled
def test_playing_it_again_costs_nothing(loot, brand):
    with brand[1].silo("aurora") as silo:
        entries = [one["event"] for one in (e["body"] for e in silo.audit.entries())]
    assert entries.count("budget.reserved") == 1
    assert entries.count("release.made") == 1


def test_with_our_executor_it_is_not_even_unpacked(tmp_path, monkeypatch):
    pin = tmp_path / "bundle.sha256"
    pin.write_text(bundle_digest())
    monkeypatch.setenv(PIN, str(pin))
    check_bundle(make_bundle())
    with pytest.raises(IntegrityError, match="not the pinned one"):
        check_bundle(hostile_bundle())


def test_one_changed_byte_of_the_courier_is_another_bundle(tmp_path, monkeypatch):
    pin = tmp_path / "bundle.sha256"
    pin.write_text(bundle_digest())
    monkeypatch.setenv(PIN, str(pin))
    changed = bytearray(make_bundle())
    changed[len(changed) // 2] ^= 1
    with pytest.raises(IntegrityError):
        check_bundle(bytes(changed))


def test_without_a_pin_everything_is_refused(monkeypatch):
    monkeypatch.delenv(PIN, raising=False)
    with pytest.raises(IntegrityError, match="no bundle is pinned"):
        check_bundle(make_bundle())
