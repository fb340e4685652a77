"""Attacks on a real federation: each is refused, with a record, and charges nothing.

One federation for all of it, in the order of the file; what a hostile relay could do with the boxes
themselves is tried in tests/coordinator/test_relay.py, a hostile bundle in test_hostile_bundle.py.
"""

import contextlib
import json
import resource
import signal
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from abfed.coordinator.control import control
from abfed.coordinator.order import Order, place_order
from abfed.lab.provisioning import provisioner
from abfed.protocol.boxes import box_request
from abfed.protocol.framing import frame
from abfed.protocol.plan import Plan
from abfed.site.certificates import make_authority, make_server_certificate
from abfed.site.clock import stamp, system_clock
from abfed.site.files import read_private, write_private
from abfed.site.keys import SiteKeys
from tests.distributed.rig import BRANDS, Rig, needs_nginx, plan_file
from tests.distributed.strangers import (
    Stranger,
    asked,
    frames,
    odd,
    posted,
    said_to,
    spellings,
)
from tests.distributed.test_operations import TOTALS_ONLY, status
from tests.signing import make_people, make_session

pytestmark = [pytest.mark.slow, pytest.mark.privacy, pytest.mark.timeout(1500), needs_nginx]
REFUSED = ("400", "404", "405", "413", "414", "431", "501", "505")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("strangers"))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


@pytest.fixture
def stranger(rig):
    return Stranger(rig.port, str(rig.house.places.authority_certificate))


@pytest.fixture(autouse=True)
def _nothing_is_charged_by_it(rig, request):
    """What silos have charged and released before an attack is what they have after it."""
    before = {brand: spent(rig, brand) for brand in BRANDS}
    yield
    if "runs_meanwhile" not in request.fixturenames:
        assert {brand: spent(rig, brand) for brand in BRANDS} == before


@pytest.fixture
def runs_meanwhile():
    """For a test in which an honest run goes on, which does charge."""


def spent(rig, brand):
    """How often a silo charged and released."""
    events = [body["event"] for body in rig.told_by(brand)]
    return events.count("budget.reserved"), events.count("release.made")


def proxy_log(rig):
    """What the proxy refused, as it is logged."""
    lines = (rig.house.places.log / "proxy.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def control_calls(rig):
    """How often the SuperLink's control interface was called."""
    return (rig.house.places.log / "superlink.log").read_text().count('"POST /v1/control/')


def test_no_spelling_reaches_another_interface(rig, stranger):
    calls, logged = control_calls(rig), len(proxy_log(rig))
    paths = spellings()
    said = {path: stranger.say(posted(path)) for path in paths}
    wrong = {path: one for path, one in said.items() if one.split(b" ")[1].decode() not in REFUSED}
    assert {path for path in wrong if "?" not in path and "#" not in path} == set()
    assert all(one.split(b" ")[1] in {b"404", b"415"} for one in wrong.values()), wrong
    assert control_calls(rig) == calls
    told = proxy_log(rig)[logged:]
    assert len(told) >= len(paths) - len(wrong)
    assert {one["address"] for one in told} == {"127.0.0.2"}
    assert all(set(one) == {"at", "event", "status", "address"} for one in told)  # no byte of it


def test_what_is_read_two_ways_or_is_too_much_is_refused(rig, stranger):
    calls = control_calls(rig)
    for what, content in odd().items():
        said = stranger.say(content)
        assert b"200" not in said, what
        assert said.count(b"|") == 0, f"{what}: two answers to one request"
    assert control_calls(rig) == calls


def test_plain_text_and_old_tls_are_refused(rig, stranger):
    logged = len(proxy_log(rig))
    said = stranger.say(posted("/v1/fleet/pull-messages"), tls=False)
    assert said.split(b" ")[1] == b"400"
    rig.wait_until(lambda: len(proxy_log(rig)) > logged, 10)
    old = ssl.create_default_context(cafile=str(rig.house.places.authority_certificate))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with stranger.plain() as line, pytest.raises(ssl.SSLError, match="protocol version"):
        old.wrap_socket(line, server_hostname="localhost").close()
    with socket.create_connection(("127.0.0.1", rig.link_port), 10) as line:  # and on loopback
        line.sendall(posted("/v1/control/list-runs"))
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in line.recv(100)


def fleet(rig, key, port=None):
    """The fleet interface for a node with this key, as a SuperNode calls it."""
    return FleetHttpClient.from_server_address(
        f"localhost:{port or rig.port}",
        insecure=False,
        root_certificates=rig.house.places.authority_certificate.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )


def test_a_node_that_nobody_admitted_gets_nothing(rig):
    key = ec.generate_private_key(ec.SECP384R1())
    point = public_key_to_bytes(key.public_key())
    with control(rig.link_port, rig.house.places.authority_certificate) as link:
        ids = {node.name: node.node_id for node in link.nodes()}
    as_aurora = FlowerNode(node_id=ids["aurora"])
    client = fleet(rig, key)
    asked = [
        lambda: client.RegisterNode(RegisterNodeFleetRequest(public_key=point)),
        lambda: client.ActivateNode(ActivateNodeRequest(public_key=point, heartbeat_interval=30)),
        lambda: client.PullMessages(PullMessagesRequest(node=as_aurora)),
        lambda: client.UnregisterNode(UnregisterNodeFleetRequest(node_id=ids["aurora"])),
    ]
    insider = load_ssh_private_key((rig.joined["borealis"].node / "node.key").read_bytes(), None)
    other = fleet(rig, insider)
    asked += [  # and an admitted one nothing of another's
        lambda: other.PullMessages(PullMessagesRequest(node=as_aurora)),
        lambda: other.UnregisterNode(UnregisterNodeFleetRequest(node_id=ids["aurora"])),
    ]
    logged = len(proxy_log(rig))
    for ask in asked:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            ask()
        assert 400 <= refused.value.response.status_code < 500
    client.close()
    other.close()
    assert len(proxy_log(rig)) == logged + len(asked)
    assert [row["node"] for row in status(rig)["silos"]] == ["online", "online"]


def is_cut(line):
    """Whether the other side has ended a line."""
    line.settimeout(0.05)
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.fixture
def many_files():
    """Room for more open files than some systems give."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_slow_lines_keep_nobody_out(rig, many_files, runs_meanwhile):
    authority = str(rig.house.places.authority_certificate)
    strangers = [Stranger(rig.port, authority, f"127.0.0.{n}") for n in range(2, 7)]
    slow = posted("/v1/fleet/pull-messages", "Content-Length: 100000", body=b"x")
    lines = []
    try:
        many = [(0, slow)] * 150  # more than one address may hold, before the first is cut off
        many += [(n % 5, (slow, b"POST /v1/fl", b"")[n % 3]) for n in range(850)]
        for address, begun in many:
            lines.append(strangers[address].line())
            with contextlib.suppress(OSError):  # more of one address than are let in
                lines[-1].sendall(begun)
        plan = plan_file(rig.folder / "meanwhile.yaml", name="meanwhile", **TOTALS_ONLY)
        done = rig.run(plan)
        assert done.returncode == 0, done.stderr + rig.told()
        rig.wait_until(lambda: all(is_cut(line) for line in lines), 60)
    finally:
        for line in lines:
            line.close()
    told = [one["status"] for one in proxy_log(rig)]
    assert {408, 503} <= set(told), "no limit was met"


class Impostor:
    """Stands where the proxy stands, with another certificate, for a while."""

    def __init__(self, certificate, key, folder):
        write_private(folder / "its.crt", certificate)
        write_private(folder / "its.key", key)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "its.crt", folder / "its.key")
        self.heard = []

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                line.settimeout(10)
                with contextlib.suppress(OSError), self._context.wrap_socket(line, True) as safe:
                    self.heard.append(safe.recv(4096))


def certificates(rig):
    """Key and certificate of servers that a node must not believe, and why it says it doesn't."""
    now, ours = system_clock(), provisioner(rig.coordinator)._authority()
    other = make_authority("spring", now, 30)
    old = now - timedelta(days=40)
    return {
        "self-signed": make_server_certificate(other, ["localhost"], now, 30),
        "expired": make_server_certificate(ours, ["localhost"], old, 30),
        "of another host": make_server_certificate(ours, ["example.org"], now, 30),
    }


def test_a_node_says_nothing_to_who_is_not_its_coordinator(rig, tmp_path):
    key = load_ssh_private_key((rig.joined["aurora"].node / "node.key").read_bytes(), None)
    for what, (private, certificate) in certificates(rig).items():
        with Impostor(certificate, private, tmp_path) as impostor:
            client = fleet(rig, key, impostor.port)
            with pytest.raises(httpx.ConnectError, match="certificate"):
                client.ActivateNode(ActivateNodeRequest(public_key=b"x", heartbeat_interval=30))
            client.close()
        assert not impostor.heard, what


def test_after_a_certificate_that_ran_out_nodes_come_back_by_themselves(rig):
    """Flower's SuperNode gives up there, and lives on, deaf: its keeper starts it again."""
    tls = rig.house.places.tls
    key, expired = certificates(rig)["expired"]
    write_private(tls / "proxy.key", key)
    write_private(tls / "proxy.crt", expired)
    before = rig.pid("aurora.node", "supernode")
    rig.processes["coordinator"].send_signal(signal.SIGHUP)
    rig.wait_until(lambda: rig.pid("aurora.node", "supernode") != before, 90)
    assert rig.say("provision", "found", str(rig.folder / "federation.yaml")).returncode == 0
    rig.processes["coordinator"].send_signal(signal.SIGHUP)
    rig.wait_until(lambda: all(row["node"] == "online" for row in status(rig)["silos"]), 150)


def orders(rig, tmp_path):
    """Orders that nobody may give: of a stranger's people, and of ours for another plan."""
    tmp_path.mkdir(exist_ok=True)
    plan_text = plan_file(tmp_path / "forged.yaml", name="forged", **TOTALS_ONLY).read_text()
    plan = Plan.load(tmp_path / "forged.yaml")
    other = Plan.load(plan_file(tmp_path / "other.yaml", name="other", **TOTALS_ONLY))
    stranger = SiteKeys.create(tmp_path / "keys", site="coordinator")
    people = make_people(tmp_path / "people", stranger)
    audience = ["coordinator", *BRANDS]
    return {
        "a stranger's": Order(
            plan=plan_text, presented=make_session(people, audience=audience).present(plan)
        ),
        "another plan's": Order(plan=plan_text, presented=rig.coordinator.session().present(other)),
    }


def ended(rig, digest):
    """How an order's run ended, by its events."""
    path = rig.house.places.orders / f"{digest}.events"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((one for one in lines if one["event"] == "end"), None)


def test_forged_orders_start_nothing(rig, tmp_path):
    folder, authority = rig.house.places.orders, rig.house.places.authority_certificate
    heads = {brand: rig.told_by(brand)[-1] for brand in BRANDS}
    forged = {what: place_order(folder, one) for what, one in orders(rig, tmp_path).items()}
    changed = place_order(folder, next(iter(orders(rig, tmp_path / "again").values())))
    content = read_private(folder / f"{changed}.order")
    write_private(folder / f"{changed}.order", content.replace(b"forged", b"f0rged"))
    forged |= {"changed on disk": changed, "none at all": "0" * 64}
    with control(rig.link_port, authority) as link:
        for what, digest in forged.items():
            run_id = link.start(digest)
            rig.wait_until(lambda run_id=run_id: link.finished(run_id))
            assert ended(rig, digest)["exit_code"] in {2, 3, 4}, what
    logged = [entry["body"] for entry in rig.coordinator.audit.entries()]
    ends = [one["facts"]["order"] for one in logged if one["event"] == "run.ended"]
    assert set(forged.values()) <= set(ends)
    for brand in BRANDS:
        assert rig.told_by(brand)[-1] == heads[brand], "a silo was asked"


def test_a_silo_answers_one_question_once_whoever_holds_the_socket(rig, tmp_path, runs_meanwhile):
    before, refused = spent(rig, "aurora"), silo_log(rig, "connection.refused")
    plan = Plan.load(plan_file(tmp_path / "p.yaml", name="socket", **TOTALS_ONLY))
    with_model = Plan.load(plan_file(tmp_path / "m.yaml", name="early"))
    envelope = asked(rig, "aurora", plan)
    kind, head = said_to(rig, "aurora", envelope)
    assert kind == "release"
    stranger = SiteKeys.create(tmp_path / "keys", site="coordinator")
    old = stamp(system_clock() - timedelta(seconds=400))
    no = {
        "stale": [envelope, asked(rig, "aurora", plan, issued_at=old)],
        "not-for-us": [asked(rig, "borealis", plan)],
        "order": [asked(rig, "aurora", plan, "train-0001")],
        "untrusted": [asked(rig, "aurora", plan, keys=stranger), envelope[:-1], b"ABFED" * 9],
        "sign-in": [asked(rig, "aurora", with_model, presented=showing(rig, plan))],
    }
    for code, envelopes in no.items():
        for one in envelopes:
            assert said_to(rig, "aurora", one) == ("refusal", code)
    assert said_to(rig, "aurora", asked(rig, "aurora", plan)) == ("release", head)  # free
    box = frame(
        box_request(rig.house.pinned()[0]["borealis"].exchange, envelope, silo="borealis").box
    )
    junk = [box, box[:4], box[:-1], (1 << 62).to_bytes(8, "big") + box, frame(bytes(100_000))]
    assert [frames(rig, "aurora", one) for one in junk] == [b""] * len(junk)
    with ThreadPoolExecutor(40) as pool:  # many at once, and half of them say nothing
        whole = [n % 2 == 0 for n in range(40)]
        assert set(pool.map(lambda one: frames(rig, "aurora", frame(b"x"), whole=one), whole)) == {
            b""
        }
    assert said_to(rig, "aurora", asked(rig, "aurora", plan)) == ("release", head)
    assert spent(rig, "aurora") == (before[0] + 1, before[1] + 1)
    assert silo_log(rig, "connection.refused") >= refused + len(junk)
    codes = [b["facts"]["code"] for b in rig.told_by("aurora") if b["event"] == "request.refused"]
    assert {code: codes.count(code) for code in no} == {c: len(some) for c, some in no.items()}


def showing(rig, plan):
    """What a person showed for a plan, as somebody copies it from there."""
    return rig.coordinator.session().present(plan)


def silo_log(rig, event):
    """How often aurora's silo service logged an event."""
    return (rig.folder / "aurora.silo.log").read_text().count(f'"event":"{event}"')
