"""Provisioning: who pins what, what is refused, what is written; renewing stops nothing."""

import re
import shlex
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from abfed.cli.main import main
from abfed.coordinator.bundle import bundle_digest, make_bundle
from abfed.coordinator.executor import PIN, UnpinnedBundle, check_bundle
from abfed.coordinator.house import FOLDER, House, Settings
from abfed.coordinator.node import PIN_FILE, Node
from abfed.coordinator.provision import Provisioner
from abfed.coordinator.proxy import proxy_configuration
from abfed.lab import operations
from abfed.lab.provisioning import fingerprint_of, found_federation, join, provisioner, renew
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.site.certificates import expiry, make_site_request, node_point
from abfed.site.files import read_private
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms

TEXT = "name: spring\nhost: localhost\nport: 19443\nlink_port: 19444\n"


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A coordinator with a federation, and a brand that hasn't joined yet."""
    folder = tmp_path_factory.mktemp("sides") / "100 % mine"  # as people name folders
    folder.mkdir()
    coordinator = Workspace.create(folder / "c")
    (folder / "federation.yaml").write_text(TEXT)
    house, fingerprint = found_federation(coordinator, folder / "federation.yaml")
    brand = Workspace.create(folder / "b")
    brand.create_silo("aurora", synthetic=True)
    return coordinator, house, fingerprint, brand


@pytest.fixture(scope="module")
def joined(sides):
    _, house, fingerprint, brand = sides
    return join(brand, "aurora", house.places.invitation.read_bytes(), fingerprint=fingerprint)


def test_another_fingerprint_is_not_joined(sides):
    _, house, _, brand = sides
    with pytest.raises(InputError, match="not that of the invitation"):
        join(brand, "aurora", house.places.invitation.read_bytes(), fingerprint="0000 1111")
    with pytest.raises(WorkspaceError, match="not an invitation"):
        join(brand, "aurora", b"{}", fingerprint="")


def test_joining_pins_the_coordinator_once_and_keeps_the_policys_text(sides, joined):
    coordinator, house, fingerprint, brand = sides
    path = brand.silo_folder("aurora") / "policy.yaml"
    text = read_private(path).decode()
    assert text.startswith("# What this silo allows.")
    with brand.silo("aurora") as silo:
        policy = silo.policy()
    key = coordinator.keys.public_key.hex()
    assert [one.name for one in policy.coordinators] == ["spring", "coordinator"]
    assert policy.coordinators[0].public_key == key
    assert policy.access.identities[0].public_key == key
    assert policy.access.identities[0].roles == ("analyst", "service-account")
    join(brand, "aurora", house.places.invitation.read_bytes(), fingerprint=fingerprint)
    assert read_private(path).decode() == text


def test_no_key_of_the_silo_and_no_row_is_in_the_nodes_folder(sides, joined):
    brand = sides[3]
    keys = brand.silo_folder("aurora") / "keys"
    secrets = [path.read_bytes() for path in keys.iterdir() if path.name != "site.json"]
    for path in joined.node.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [one for one in secrets if one in content], path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.name == "bin"


def test_a_stranger_is_not_admitted_and_the_right_fingerprint_is(sides, joined):
    coordinator, house, _, _ = sides
    request = joined.request.read_bytes()
    with pytest.raises(InputError, match="fingerprint"):
        provisioner(coordinator).admit(request, fingerprint="")
    assert house.pinned()[0] == {}
    provisioner(coordinator).admit(request, fingerprint=joined.fingerprint.upper())
    holds, fails = House(house.places.folder).pinned()
    assert set(holds) == {"aurora"}
    assert not fails
    assert fingerprint_of(request) == joined.fingerprint


def test_nobody_is_admitted_as_the_coordinator(sides):
    coordinator, house, _, _ = sides
    node = ec.generate_private_key(ec.SECP384R1()).public_key()
    point = node.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    request = make_site_request(coordinator.keys, point)  # as a brand of that name would make it
    with pytest.raises(InputError, match="coordinator's own name"):
        provisioner(coordinator).admit(request, fingerprint=fingerprint_of(request))
    assert not (house.places.admitted / "coordinator.pem").exists()


def test_the_same_keys_are_renewed_without_a_fingerprint(sides, joined):
    coordinator, house, _, brand = sides
    before = read_private(house.places.admitted / "aurora.pem")
    again = renew(brand, "aurora")
    provisioner(coordinator).admit(again.request.read_bytes(), fingerprint="")
    assert read_private(house.places.admitted / "aurora.pem") != before


def test_a_certificate_that_ran_out_is_renewed_without_a_fingerprint_and_no_other_key_is(
    sides, joined
):
    """Its keys were compared already."""
    coordinator, house, _, brand = sides
    later = datetime.now(UTC) + timedelta(days=40)
    at = Provisioner(house.places.folder, coordinator.keys, coordinator.audit, lambda: later)
    assert "aurora" not in House(house.places.folder, lambda: later).pinned()[0]
    at.admit(renew(brand, "aurora").request.read_bytes(), fingerprint="")
    assert "aurora" in House(house.places.folder, lambda: later).pinned()[0]
    with brand.silo("aurora") as silo:
        other = ec.generate_private_key(ec.SECP384R1()).public_key()
        changed = make_site_request(silo.keys, node_point(other))
    with pytest.raises(InputError, match="fingerprint"):
        at.admit(changed, fingerprint="")
    provisioner(coordinator).admit(renew(brand, "aurora").request.read_bytes(), fingerprint="")


def test_revoked_it_can_not_take_part_until_admitted_anew_with_a_new_node_key(sides, joined):
    coordinator, house, _, brand = sides
    provisioner(coordinator).revoke("aurora")
    opened = House(house.places.folder)
    assert opened.pinned() == ({}, {"aurora": "the certificate was revoked"})
    assert opened.admitted("aurora") is None
    with pytest.raises(InputError, match="can't take part"):
        opened.wanted(("aurora",))
    before = Node(joined.node).point
    with pytest.raises(InputError, match="not taken again") as refused:
        provisioner(coordinator).admit(joined.request.read_bytes(), fingerprint=joined.fingerprint)
    assert "--new-node-key" in refused.value.do
    again = renew(brand, "aurora", new_node_key=True)
    assert Node(joined.node).point != before
    with pytest.raises(InputError, match="fingerprint"):
        provisioner(coordinator).admit(again.request.read_bytes(), fingerprint=joined.fingerprint)
    provisioner(coordinator).admit(again.request.read_bytes(), fingerprint=again.fingerprint)
    assert set(opened.wanted(("aurora",))) == {"aurora"}


def test_a_certificate_that_ran_out_is_said_so(sides, joined):
    coordinator, house = sides[:2]
    if not house.pinned()[0]:  # by itself, without the tests before it
        request = joined.request.read_bytes()
        provisioner(coordinator).admit(request, fingerprint=joined.fingerprint)
    later = House(house.places.folder, lambda: datetime.now(UTC) + timedelta(days=40))
    with pytest.raises(InputError, match="can't take part") as refused:
        later.wanted(("aurora",))
    assert "not valid now" in refused.value.why


def test_servers_are_renewed_when_their_time_runs_out_and_not_before(sides):
    coordinator, house, _, _ = sides
    settings = Settings.load(house.places.settings)

    def at(days):
        folder, keys = house.places.folder, coordinator.keys
        later = datetime.now(UTC) + timedelta(days=days)
        Provisioner(folder, keys, coordinator.audit, lambda: later).renew_servers(settings)
        return expiry(read_private(house.places.tls / "proxy.crt"))

    first = at(0)
    assert at(10) == first
    assert at(25) > first


@pytest.mark.parametrize("name", ["../authority/revoked", "Aurora", "a/b", "a" * 49, ".."])
def test_a_request_in_a_name_that_is_no_sites_writes_nothing(sides, name):
    """Files are named by sites: a brand that calls itself a path must not choose where."""
    coordinator, house, _, _ = sides
    stranger = SiteKeys(name, b"x" * 32, Ed25519PrivateKey.generate(), FileKms())
    node = ec.generate_private_key(ec.SECP384R1()).public_key()
    before = {path: path.read_bytes() for path in house.places.folder.rglob("*.pem")}
    request = make_site_request(stranger, node_point(node))
    with pytest.raises(IntegrityError, match="does not name a site"):
        provisioner(coordinator).admit(request, fingerprint=fingerprint_of(request))
    after = {path: path.read_bytes() for path in house.places.folder.rglob("*.pem")}
    assert after == before


def test_the_authoritys_certificate_is_renewed_for_its_key_and_nothing_stops(tmp_path):
    coordinator = Workspace.create(tmp_path / "c")
    (tmp_path / "federation.yaml").write_text(TEXT)
    house, fingerprint = found_federation(coordinator, tmp_path / "federation.yaml")
    brand = Workspace.create(tmp_path / "b")
    brand.create_silo("aurora", synthetic=True)
    invitation = house.places.invitation.read_bytes()
    joined = join(brand, "aurora", invitation, fingerprint=fingerprint)
    places = house.places
    old = read_private(places.authority_certificate)

    def at(days):
        later = datetime.now(UTC) + timedelta(days=days)
        return Provisioner(places.folder, coordinator.keys, coordinator.audit, lambda: later)

    def found(days):
        return at(days).found(house.settings, TEXT.encode())

    assert found(200) == fingerprint
    assert read_private(places.authority_certificate) == old
    at(290).admit(joined.request.read_bytes(), fingerprint=joined.fingerprint)
    again = found(300)
    new = read_private(places.authority_certificate)
    assert again != fingerprint
    assert expiry(new) > expiry(old) + timedelta(days=290)
    for trusted in (old, new):  # of brands that joined again, and of those that haven't yet
        for name in ("proxy", "superlink"):
            server = x509.load_pem_x509_certificate(read_private(places.tls / f"{name}.crt"))
            server.verify_directly_issued_by(x509.load_pem_x509_certificate(trusted))
    now = datetime.now(UTC) + timedelta(days=300)
    assert set(House(places.folder, lambda: now).pinned()[0]) == {"aurora"}
    key = (joined.node / "node.key").read_bytes()
    Node(joined.node).take_bundles(bundles := [bundle_digest(), "ab" * 32])  # a neighbour's too
    rejoined = join(brand, "aurora", places.invitation.read_bytes(), fingerprint=again)
    assert read_private(joined.node / PIN_FILE).decode().split() == bundles
    assert (joined.node / "ca.crt").read_bytes() == new
    assert (joined.node / "node.key").read_bytes() == key
    assert rejoined.fingerprint == joined.fingerprint
    at(301).admit(rejoined.request.read_bytes(), fingerprint="")  # the same keys


def test_the_authoritys_key_lies_sealed(sides):
    house = sides[1]
    assert b"PRIVATE KEY" not in read_private(house.places.authority_key)
    with pytest.raises(IntegrityError):
        sides[3].keys.unwrap(read_private(house.places.authority_key), name="federation authority")


@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
)
def test_nginx_takes_the_configuration(sides):
    places = sides[1].places
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    done = subprocess.run(
        [nginx, "-t", "-p", str(places.proxy), "-c", "nginx.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_in_development_the_proxy_listens_on_loopback_only(sides):
    house = sides[1]
    alone = house.settings.model_copy(update={"development": True})
    assert "listen 127.0.0.1:19443 ssl;" in proxy_configuration(house.places, alone)
    assert "listen 19443 ssl;" in proxy_configuration(house.places, house.settings)


def test_the_pin_is_what_is_installed_and_neighbours_are_let_in_by_digest(joined, monkeypatch):
    node, changed = Node(joined.node), "ab" * 32
    pin = joined.node / PIN_FILE
    pin.write_text("0" * 64)  # of the release that was installed when it joined
    monkeypatch.setenv(PIN, str(pin))
    with pytest.raises(UnpinnedBundle):
        check_bundle(make_bundle())
    node.take_bundles([bundle_digest(), changed])
    check_bundle(make_bundle())
    assert read_private(pin).decode().split() == [bundle_digest(), changed]
    with pytest.raises(InputError, match="not the digest of a bundle"):
        node.take_bundles([bundle_digest(), "../../etc/passwd"])
    assert read_private(pin).decode().split() == [bundle_digest(), changed]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(sides, joined, tmp_path):
    coordinator = sides[0].path / FOLDER / "abfed-coordinator.service"
    for unit in (*joined.node.glob("*.service"), coordinator):
        text, place = unit.read_text(), tmp_path / unit.name
        command = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1]
        assert text.count("100 %% mine/") == text.count("100 ") >= 2
        place.write_text(text.replace(command, "/bin/true"))  # a checkout has no such command yet
        place.chmod(0o644)  # systemd complains of what anybody may write, as a umask of 000 makes
        done = subprocess.run(
            ["systemd-analyze", "verify", str(place)], capture_output=True, text=True, check=False
        )
        told = [line for line in done.stderr.splitlines() if unit.name in line]
        assert not [line for line in told if "not-found" not in line], done.stderr


def test_units_name_the_two_users_and_the_compose_file_is_well_formed(sides, joined):
    text = (joined.node / "abfed-silo-aurora.service").read_text()
    assert "User=abfed-silo" in text
    assert "--peer abfed-node" in text
    assert "User=abfed-node" in (joined.node / "abfed-node-aurora.service").read_text()
    for line in text.splitlines():
        assert not line or line.startswith("[") or "=" in line, line
    text = (joined.node / "compose.yaml").read_text()
    assert text.startswith("# Not run")
    services = yaml.safe_load(text)["services"]
    assert services["silo"]["network_mode"] == "none"
    shared = {v.split(":")[0] for v in services["silo"]["volumes"]}
    assert shared & {v.split(":")[0] for v in services["node"]["volumes"]} == {"socket"}


@pytest.mark.parametrize(
    ("socket", "folder"),
    [
        ("", ""),
        ("/run/abfed-aurora/silo.sock", "RuntimeDirectory=abfed-aurora"),
        ("/run/brands/aurora/s.sock", "RuntimeDirectory=brands/aurora"),
        ("/srv/shared/silo.sock", "/srv/shared"),
    ],
    ids=["default", "run", "below run", "elsewhere"],
)
def test_all_that_starts_a_silo_serves_the_socket_that_its_node_looks_for(
    sides, joined, socket, folder
):
    _, house, fingerprint, brand = sides
    invitation = house.places.invitation.read_bytes()
    again = join(brand, "aurora", invitation, fingerprint=fingerprint, socket=socket)
    wanted = Node(again.node).settings.socket
    assert wanted == (socket or str(again.node.resolve() / "silo.sock"))
    unit = (again.starts / "abfed-silo-aurora.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1].replace("%%", "%")
    assert shlex.split(command)[-2:] == ["--socket", wanted]
    made = [line for line in unit.splitlines() if line.startswith("RuntimeDirectory=")]
    writable = re.search(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)[1]
    if folder.startswith("/"):
        assert (made, shlex.split(writable)[1:]) == ([], [folder])
    else:
        assert (made, len(shlex.split(writable))) == ([folder] if folder else [], 1)
    script = (again.starts / "start-silo").read_text()
    assert f"--socket {shlex.quote(wanted)} " in script
    services = yaml.safe_load((again.starts / "compose.yaml").read_text())["services"]
    assert services["silo"]["command"][-2:] == ["--socket", wanted]
    place = str(Path(wanted).parent)
    assert {f"socket:{place}", f"socket:{place}:ro"} <= {
        one for service in services.values() for one in service["volumes"]
    }


def test_who_admits_is_told_why_a_node_is_not_registered(sides, joined, monkeypatch, capsys):
    request, coordinator = str(joined.request), str(sides[0].path)
    told = {"superlink": "down"}
    monkeypatch.setattr(Workspace, "authorise", lambda *_: None)
    monkeypatch.setattr(operations, "register_nodes", lambda _: [])
    monkeypatch.setattr(operations, "status", lambda _: told)
    words = ["provision", "admit", request, "-w", coordinator, "--fingerprint", joined.fingerprint]
    assert main(words) == 0
    assert "once the SuperLink is up" in capsys.readouterr().out
    told["superlink"] = "up"
    assert main(words) == 0
    assert "renew --silo aurora --new-node-key" in capsys.readouterr().out


def test_logs_are_shown_without_their_colours(sides, capsys):
    coordinator, house, _, _ = sides
    (house.places.log / "superlink.log").write_text("\x1b[92mINFO \x1b[0m: up\x1b]0;x\n")
    assert main(["federation", "logs", "-w", str(coordinator.path)]) == 0
    said = capsys.readouterr().out
    assert "INFO : up" in said
    assert "\x1b" not in said


def test_start_scripts_pass_their_words_on_as_they_are(sides, joined, tmp_path):
    said = tmp_path / "said"
    said.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    said.chmod(0o755)
    for script in (joined.node / "start-silo", joined.node / "start-node"):
        text = script.read_text()
        place = tmp_path / script.name
        place.write_text(text.replace(str(Path(sys.executable).with_name("abfed")), str(said)))
        told = subprocess.run(
            ["sh", str(place), "--metrics", "9"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert told[-2:] == ["--metrics", "9"]
        assert any(one.startswith("/") and "100 % mine" in one for one in told)


def test_a_folder_that_is_no_node_is_said_so(tmp_path):
    with pytest.raises(WorkspaceError, match="not a node's folder"):
        Node(tmp_path)


def test_there_is_no_federation_where_none_was_founded(tmp_path):
    with pytest.raises(WorkspaceError, match="no federation"):
        House(tmp_path / FOLDER)
