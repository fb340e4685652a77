"""Certificates that run out while a run goes on: it goes on after renewal, or ends with the reason.

Days can't be waited for. What signs here has a clock that is behind by a certificate's life, so
what it signs runs out in seconds; who checks has the real time.
"""

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from abfed.coordinator.provision import Provisioner
from abfed.lab.provisioning import renew
from abfed.site.certificates import expiry
from abfed.site.files import read_private
from tests.distributed.rig import ABFED, ROOT, Rig, needs_nginx, plan_file
from tests.distributed.test_chaos import check_whole
from tests.distributed.test_operations import TOTALS_ONLY, status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_nginx]

SECONDS = 15  # that a certificate still has
ROUNDS = 5
WAITING = {"retry_seconds": 1, "retries": 60, "step_seconds": 300, "silent_seconds": 30}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("expiry"))
    try:
        rig.up()
        status(rig, "--wait", "180")
        yield rig
    finally:
        rig.down()


def late(rig, days):
    """The coordinator's provisioner; what it signs for so many days runs out in `SECONDS`."""
    then = datetime.now(UTC) - timedelta(days=days) + timedelta(seconds=SECONDS)
    return Provisioner(
        rig.house.places.folder, rig.coordinator.keys, rig.coordinator.audit, lambda: then
    )


def reload(rig):
    """As `systemctl reload abfed-coordinator` does."""
    rig.processes["coordinator"].send_signal(signal.SIGHUP)


def shorten_proxy(rig):
    """Give the proxy a certificate that is about to run out; returns when it does."""
    place, settings = rig.house.places.tls / "proxy.crt", rig.house.settings
    place.unlink()
    late(rig, settings.certificate_days).renew_servers(settings)
    reload(rig)
    return expiry(read_private(place))


def hear_of_it(rig, when):
    """Hold a run until a time is over, then have nodes shake hands anew, and fail."""
    log, silo = rig.folder / "borealis.node.log", rig.processes["aurora.silo"]
    known = log.read_text().count('"process.ended"')
    silo.send_signal(signal.SIGSTOP)  # aurora's node says nothing while it waits for its silo
    try:
        rig.wait_until(lambda: datetime.now(UTC) > when)
        reload(rig)  # as nginx does by itself after a thousand requests of a connection
        rig.wait_until(lambda: log.read_text().count('"process.ended"') > known, 120)
    finally:
        silo.send_signal(signal.SIGCONT)


def begin(rig, plan):
    """Start a run, looked on by a process of its own."""
    return subprocess.Popen(
        [*ABFED, "run", str(plan), "--federation", "--json", "-w", str(rig.folder / "c")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def await_round(rig, known):
    """Wait until the first round of a new run is closed."""
    closed = ("closed", "train-0001")
    rig.wait_until(
        lambda: any((e.get("stage"), e.get("step")) == closed for e in rig.events()[known:]), 400
    )


def renew_servers(rig):
    """As people do."""
    done = rig.say("provision", "found", str(rig.folder / "federation.yaml"))
    assert done.returncode == 0, done.stderr
    reload(rig)


def test_what_ran_out_in_a_run_is_renewed_and_the_run_ends_as_if_nothing_had_been(rig):
    plan = plan_file(
        rig.folder / "renewed.yaml",
        name="renewed",
        training={"rounds": ROUNDS, "local_steps": 2, "sampling_rate": 0.1},
        waiting=WAITING,
    )
    known = len(rig.events())
    places = rig.house.places
    process = begin(rig, plan)
    try:
        await_round(rig, known)
        request = rig.joined["aurora"].request.read_bytes()
        late(rig, rig.house.settings.certificate_days).admit(request, fingerprint="")
        hear_of_it(rig, shorten_proxy(rig))
        assert expiry(read_private(places.admitted / "aurora.pem")) < datetime.now(UTC)
        assert "ran out" in rig.house.ran_out
        (places.tls / "superlink.crt").unlink()  # as if its time were running out too
        renew_servers(rig)
        rig.wait_for("coordinator", "process.renewed", 30)  # it reads its own at a start only
        out, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said.decode() + rig.told()
    assert not json.loads(out)["missing"]
    assert not rig.house.ran_out
    check_whole(rig, json.loads(out)["run"], plan, ROUNDS)


def test_a_brand_whose_certificate_ran_out_is_not_asked_by_the_next_run_until_it_is_renewed(rig):
    rows = {row["silo"]: row["certificate"] for row in status(rig)["silos"]}
    assert rows["aurora"].startswith("the certificate is not valid now (it holds until ")
    plan = plan_file(rig.folder / "next.yaml", name="next", **TOTALS_ONLY)
    refused = rig.run(plan)
    assert refused.returncode == 2
    assert "not valid now" in refused.stderr + refused.stdout
    request = renew(rig.workspaces["aurora"], "aurora").request
    assert rig.say("provision", "admit", str(request)).returncode == 0
    done = rig.run(plan)
    assert done.returncode == 0, done.stdout + done.stderr + rig.told()


def test_where_nobody_renews_the_run_ends_in_time_with_the_reason_and_goes_on_later(rig):
    plan = plan_file(
        rig.folder / "ended.yaml",
        name="ended",
        training={"rounds": ROUNDS, "local_steps": 2, "sampling_rate": 0.1},
        waiting=WAITING | {"step_seconds": 60},
    )
    known = len(rig.events())
    process = begin(rig, plan)
    try:
        await_round(rig, known)
        hear_of_it(rig, shorten_proxy(rig))
        out, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, out.decode() + said.decode()
    assert "the proxy's certificate ran out at" in (out + said).decode()
    renew_servers(rig)
    status(rig, "--wait", "180")
    resumed = rig.run(plan, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr + rig.told()
    check_whole(rig, json.loads(resumed.stdout)["run"], plan, ROUNDS)
