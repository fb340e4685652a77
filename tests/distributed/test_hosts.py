"""Three brands and a coordinator on four hosts, each with users and folders of its own.

The hosts are network namespaces on one bridge. What crosses the bridge is captured; a link is cut
and slowed down in the middle of a round.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.distributed.rig import Rig, plan_file
from tests.whole.story import CANARIES, plant_canary

BRANDS = ("aurora", "borealis", "corvid")
BRIDGE = "abfedbr0"
ADDRESS = {"coordinator": "10.177.3.1", "aurora": "10.177.3.2"}
ADDRESS |= {"borealis": "10.177.3.3", "corvid": "10.177.3.4"}
COORDINATOR = 61_000
SILO = {brand: 61_100 + number for number, brand in enumerate(BRANDS)}
NODE = {brand: 61_200 + number for number, brand in enumerate(BRANDS)}
TOOLS = ("ip", "tshark", "setpriv", "nginx")


def missing():
    """Why this machine can't do it; empty where it can."""
    if os.getuid() != 0:
        return "needs root, for namespaces and users"
    lacking = [one for one in TOOLS if not shutil.which(one, path="/usr/sbin:/usr/bin:/sbin:/bin")]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    name = f"abfedprobe{os.getpid()}"  # another worker asks at the same time
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "network namespaces are not allowed here"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def namespace(host):
    return f"abfed-{host}"


@pytest.fixture(scope="module")
def network():
    """Four hosts on a bridge; all of it is taken away again, also what a killed run left."""
    take_away()
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("link", "set", BRIDGE, "up")
        for host, address in ADDRESS.items():
            name, outer = namespace(host), f"ab{host[:6]}"
            ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outer, "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        take_away()


def take_away():
    """The hosts and the bridge; that some of it is not there is no matter."""
    for host in ADDRESS:
        subprocess.run(["ip", "netns", "del", namespace(host)], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def on(host, user):
    """What to put before a command to run it on a host, as a user."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["ip", "netns", "exec", namespace(host), *reached(), *become]


def reached():
    """Where Python lies in a closed home, such as root's: show that part of it, on this host only.

    `ip netns exec` gives each command mounts of its own, so nothing changes outside.
    """
    real = Path(sys.executable).resolve()
    closed = [one for one in reversed(real.parents) if not one.stat().st_mode & 0o001]
    if not closed:
        return []
    home, first = closed[0], real.relative_to(closed[0]).parts[0]
    shown = Path("/tmp/abfedhosts-home")
    mounts = (
        f"mkdir -p {shown}/{first} && chmod 755 {shown} && mount -t tmpfs -o mode=755 t {shown}"
    )
    mounts += f" && mkdir {shown}/{first} && mount --bind {home}/{first} {shown}/{first}"
    mounts += f' && mount --rbind {shown} {home} && exec "$@"'
    return ["sh", "-c", mounts, "sh"]


def give(path, user):
    """Make a folder and all in it somebody's."""
    for one in (path, *path.rglob("*")):
        os.chown(one, user, user)


@pytest.fixture(scope="module")
def place():
    folder = Path(tempfile.mkdtemp(prefix="abfedhosts-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def capture(network, place):
    """Everything that crosses the bridge, in a file."""
    path = place / "bridge.pcap"
    path.touch(mode=0o666)
    process = subprocess.Popen(
        ["tshark", "-q", "-i", BRIDGE, "-F", "pcap", "-w", str(path)], stderr=subprocess.DEVNULL
    )
    yield path, process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.fixture(scope="module")
def rig(network, place):
    def joining(brand):
        run = place / f"run-{brand}"
        run.mkdir()
        run.chmod(0o755)
        os.chown(run, SILO[brand], SILO[brand])
        return {"node": place / f"node-{brand}", "socket": str(run / "silo.sock")}

    rig = Rig(
        place,
        BRANDS,
        host=ADDRESS["coordinator"],
        prepare=lambda exports: plant_canary(exports / "aurora" / "export.csv"),
        joining=joining,
    )
    shutil.rmtree(place / "exports")
    give(place / "c", COORDINATOR)
    rig.hosts["coordinator"] = on("coordinator", COORDINATOR)
    for brand in BRANDS:
        give(place / brand, SILO[brand])
        give(rig.joined[brand].node, NODE[brand])
        rig.hosts[f"{brand}.silo"] = on(brand, SILO[brand])
        rig.hosts[f"{brand}.node"] = on(brand, NODE[brand])
        socket = str(place / f"run-{brand}" / "silo.sock")
        rig.options[f"{brand}.silo"] = ("--socket", socket, "--peer", str(NODE[brand]))
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


DELAYS = (
    ("netem", "delay", "300ms", "100ms", "loss", "3%", "rate", "256kbit"),
    ("tbf", "rate", "256kbit", "burst", "32k", "latency", "800ms"),  # kernels without netem queue
)


def delay(link):
    """Delay a link by the first discipline that the kernel has; its name, or nothing."""
    for words in DELAYS:
        command = ["tc", "qdisc", "add", "dev", link, "root", *words]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return words[0]
    return ""


def disturb(rig, over, told_of):
    """Cut one brand's link for a while in the first round, and slow another's down."""
    orders = rig.folder / "c" / "federation" / "orders"
    while not over.is_set():
        time.sleep(0.2)
        told = "".join(path.read_text() for path in orders.glob("*.events"))
        if '"step":"train-0001"' in told:
            told_of.append(delay("abcorvid"))
            ip("link", "set", "abboreal", "down")
            time.sleep(15)
            ip("link", "set", "abboreal", "up")
            told_of.append("cut")
            return


@pytest.fixture(scope="module")
def done(rig, capture):
    plan = plan_file(rig.folder / "plan.yaml", silos=list(BRANDS), minimum_silos=3)
    plan.chmod(0o644)
    over, told_of = threading.Event(), []
    disturbing = threading.Thread(target=disturb, args=(rig, over, told_of), daemon=True)
    disturbing.start()
    finished = rig.run(plan, seconds=900)
    over.set()
    disturbing.join(30)
    assert finished.returncode == 0, finished.stdout + finished.stderr + rig.told()
    assert told_of in (["netem", "cut"], ["tbf", "cut"]), "the links were not disturbed"
    sys.stdout.write(f"one link was cut, another slowed down by the kernel's {told_of[0]}\n")
    capture[1].send_signal(signal.SIGINT)
    capture[1].wait(60)
    return json.loads(finished.stdout)


def test_a_plan_runs_over_four_hosts_with_a_link_cut_in_between(done):
    assert done["silos"] == list(BRANDS)
    assert not done["missing"]


@pytest.mark.privacy
def test_the_wire_shows_no_canary_and_no_plain_message(done, capture, rig):
    wire = capture[0].read_bytes()
    assert len(wire) > 50_000, "nothing was captured: the test proves nothing"
    shown = [*CANARIES, "ABFED", "spring-2026", "email-optimisation", "/v1/fleet", "recipient"]
    assert [one for one in shown if one.encode() in wire] == []


def test_all_of_it_is_tls(done, capture, rig):
    port = rig.port
    command = ["tshark", "-r", str(capture[0]), "-d", f"tcp.port=={port},tls", "-T", "fields"]
    wanted = "tcp.len > 0 && !tls && !tcp.analysis.flags && !(tcp.reassembled_in)"
    command += ["-Y", wanted, "-e", "tcp.payload"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    records = ("14", "15", "16", "17")  # TLS content types; the rest are pieces of long records
    assert not [one for one in plain if bytes.fromhex(one).isascii() and one[:2] not in records]


def test_the_coordinator_reaches_no_brand_file(done, rig):
    command = [*on("coordinator", COORDINATOR), "find", str(rig.folder), "-type", "f", "-readable"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    private = [str(rig.folder / brand) + "/" for brand in BRANDS]
    private += [str(rig.folder / f"node-{brand}") + "/" for brand in BRANDS]
    assert any(one.startswith(str(rig.folder / "c")) for one in found)
    assert not [one for one in found if one.startswith(tuple(private))]


def test_the_node_reaches_no_file_of_its_own_silo(done, rig):
    command = [*on("aurora", NODE["aurora"]), "find", str(rig.folder / "aurora"), "-readable"]
    assert subprocess.run(command, capture_output=True, check=False).stdout == b""


def test_brands_listen_on_nothing_that_others_reach(done, rig):
    for brand in BRANDS:
        command = ["ip", "netns", "exec", namespace(brand), "ss", "-Hltn"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        addresses = [line.split()[3] for line in lines.splitlines()]
        assert addresses
        assert all(one.startswith("127.0.0.1:") for one in addresses), addresses


def test_a_brand_reaches_the_fleet_and_nothing_else(done, rig):
    base = f"https://{ADDRESS['coordinator']}:{rig.port}"
    code = (
        "import httpx, ssl, sys, json\n"
        "context = ssl.create_default_context(cafile=sys.argv[1])\n"
        "client = httpx.Client(verify=context)\n"
        "print(json.dumps([client.post(one, content=b'').status_code for one in sys.argv[2:]]))\n"
    )
    paths = ["/v1/control/list-runs", "/v1/runtime/acquire-task", "/", "/health", "/docs"]
    paths += ["/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs"]
    paths += ["/v1//control/list-runs", "/v1/fleet/x/../../control/list-runs", "/v1/fleet/"]
    certificate = str(rig.joined["aurora"].node / "ca.crt")
    command = [*on("aurora", NODE["aurora"]), sys.executable, "-c", code, certificate]
    urls = [base + path for path in (*paths, "/v1/fleet/activate-node")]
    done = subprocess.run([*command, *urls], capture_output=True, text=True, check=True)
    codes = json.loads(done.stdout)
    assert codes[:-1] == [404] * len(paths)
    assert codes[-1] in {400, 401, 403, 415, 422}, "a node that isn't registered was let in"


def test_plain_text_is_refused(done, rig):
    command = [*on("aurora", NODE["aurora"]), "bash", "-c"]
    talk = f"exec 3<>/dev/tcp/{ADDRESS['coordinator']}/{rig.port}; "
    talk += r"printf 'POST /v1/fleet/activate-node HTTP/1.1\r\nHost: x\r\n\r\n' >&3; head -1 <&3"
    said = subprocess.run([*command, talk], capture_output=True, text=True, check=False).stdout
    assert " 400 " in said
