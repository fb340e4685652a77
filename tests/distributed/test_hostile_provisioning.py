"""What is given to provisioning by somebody who means harm, or is mistaken."""

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from abfed.cli.main import main
from abfed.coordinator.house import House, Settings
from abfed.coordinator.node import Node
from abfed.lab.provisioning import (
    fingerprint_of,
    found_federation,
    join,
    provisioner,
    renew,
)
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.site import certificates
from abfed.site.certificates import make_site_request, node_point, read_site_request, spoken
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms

HOSTILE = {
    "not-json": b"{",
    "nested": b"[" * 100_000,
    "no-mapping": b"[]",
    "a-key-more": {"more": "x"},
    "a-path-for-a-name": {"federation": "../../evil"},
    "no-name": {"federation": ""},
    "an-endless-name": {"federation": "x" * 100_000},
    "a-list": {"address": ["localhost:1"]},
    "an-option-for-an-address": {"address": "--insecure"},
    "a-line-more": {"address": "localhost:1\n--insecure"},
    "no-port": {"address": "localhost"},
    "no-certificate": {"authority": "hello"},
    "a-key-for-a-certificate": {"authority": "-----BEGIN PRIVATE KEY-----\nAAAA\n"},
    "no-key": {"coordinator": "zz"},
    "a-short-key": {"coordinator": "ab"},
}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A coordinator with a federation, and a brand that hasn't joined."""
    folder = tmp_path_factory.mktemp("sides")
    coordinator = Workspace.create(folder / "c")
    (folder / "federation.yaml").write_text("name: spring\nport: 19443\nlink_port: 19444\n")
    house, fingerprint = found_federation(coordinator, folder / "federation.yaml")
    brand = Workspace.create(folder / "b")
    brand.create_silo("aurora", synthetic=True)
    return coordinator, house, fingerprint, brand


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_a_coordinators_own_invitation_is_read_as_hostile(sides, changes):
    """Its fingerprint is right: whoever is asked by phone is who wrote it."""
    _, house, _, brand = sides
    values = json.loads(house.places.invitation.read_bytes())
    data = changes if isinstance(changes, bytes) else canonical_bytes(values | changes)
    before = {path: path.read_bytes() for path in brand.path.rglob("*") if path.is_file()}
    with pytest.raises(WorkspaceError, match="not an invitation"):
        join(brand, "aurora", data, fingerprint=spoken(sha256_hex(data)))
    assert before == {path: path.read_bytes() for path in brand.path.rglob("*") if path.is_file()}


def test_a_servers_certificate_is_no_authority(sides):
    _, house, _, brand = sides
    values = json.loads(house.places.invitation.read_bytes())
    for text in ((house.places.tls / "proxy.crt").read_text(), 2 * values["authority"]):
        data = canonical_bytes(values | {"authority": text})
        with pytest.raises(WorkspaceError, match="not an invitation"):
            join(brand, "aurora", data, fingerprint=spoken(sha256_hex(data)))


@pytest.mark.parametrize(
    "words",
    [
        ("join", "{}", "--silo", "aurora", "--fingerprint", "x"),
        ("admit", "{}"),
        ("fingerprint", "{}"),
    ],
    ids=["join", "admit", "fingerprint"],
)
def test_a_file_that_is_not_there_is_said_so(sides, capsys, tmp_path, words):
    coordinator, _, _, brand = sides
    for place in (tmp_path / "missing", tmp_path):
        given = [word.replace("{}", str(place)) for word in words]
        where = {"join": ["-w", str(brand.path)], "admit": ["-w", str(coordinator.path)]}
        assert main(["provision", *given, *where.get(words[0], [])]) == 2
        assert str(place) in capsys.readouterr().err


def test_who_is_revoked_is_named_not_a_path(sides):
    coordinator, house, fingerprint, brand = sides
    invitation = house.places.invitation.read_bytes()
    joined = join(brand, "aurora", invitation, fingerprint=fingerprint)
    provisioner(coordinator).admit(joined.request.read_bytes(), fingerprint=joined.fingerprint)
    before = sorted(house.places.folder.rglob("*.pem"))
    for name in ("../admitted/aurora", "./aurora", "*", "", "aurora/../aurora"):
        with pytest.raises(InputError, match="was not admitted"):
            provisioner(coordinator).revoke(name)
    assert sorted(house.places.folder.rglob("*.pem")) == before


@pytest.fixture(scope="module")
def joined(sides):
    """The brand, admitted."""
    coordinator, house, fingerprint, brand = sides
    joined = join(brand, "aurora", house.places.invitation.read_bytes(), fingerprint=fingerprint)
    provisioner(coordinator).admit(joined.request.read_bytes(), fingerprint=joined.fingerprint)
    return joined


def request_of(name):
    """A request of somebody who calls themselves so, with keys of their own."""
    keys = SiteKeys(name, b"x" * 32, Ed25519PrivateKey.generate(), FileKms())
    return make_site_request(keys, node_point(ec.generate_private_key(ec.SECP384R1()).public_key()))


def test_nobody_takes_the_name_of_a_silo_that_is_admitted(sides, joined):
    """Whoever is called reads out their own fingerprint, which is that of their own request."""
    coordinator, house = sides[:2]
    request = request_of("aurora")
    with pytest.raises(InputError, match="is admitted, with another key") as refused:
        provisioner(coordinator).admit(request, fingerprint=fingerprint_of(request))
    assert joined.fingerprint in refused.value.why
    assert "--replace" in refused.value.do
    pinned = House(house.places.folder).admitted("aurora")
    assert pinned.fingerprint == joined.fingerprint
    provisioner(coordinator).admit(request, fingerprint=fingerprint_of(request), replace=True)
    assert House(house.places.folder).admitted("aurora") == read_site_request(request)
    again = joined.request.read_bytes()
    provisioner(coordinator).admit(again, fingerprint=joined.fingerprint, replace=True)


def test_a_certificate_says_no_more_than_the_keys_whatever_was_asked(sides, monkeypatch):
    coordinator, house = sides[:2]
    many = [x509.UniformResourceIdentifier(f"https://localhost/{n}") for n in range(2000)]
    honest = certificates._keys_of

    def more(exchange, node):
        names = [*honest(exchange, node), *many, x509.DNSName("localhost")]
        return x509.SubjectAlternativeName(names)

    monkeypatch.setattr(certificates, "_keys_of", more)
    request = request_of("corvid")
    monkeypatch.undo()
    assert len(request) > 50_000
    pinned = provisioner(coordinator).admit(request, fingerprint=fingerprint_of(request))
    made = x509.load_pem_x509_certificate((house.places.admitted / "corvid.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == list(honest(pinned.exchange, pinned.node))


@pytest.mark.parametrize("folder", ["", "authority", "admitted", "withdrawn", "tls", "link", "bin"])
def test_a_federation_that_others_may_have_changed_is_refused_not_narrowed(sides, joined, folder):
    coordinator, house = sides[:2]
    text = house.places.settings.read_bytes()
    place = house.places.folder / folder
    place.chmod(0o777)
    try:
        for act in (
            lambda: provisioner(coordinator).found(house.settings, text),
            lambda: provisioner(coordinator).admit(joined.request.read_bytes(), fingerprint=""),
            lambda: provisioner(coordinator).revoke("aurora"),
            lambda: House(house.places.folder),
        ):
            with pytest.raises(IntegrityError, match="its mode is 0777"):
                act()
            assert place.stat().st_mode & 0o777 == 0o777
    finally:
        place.chmod(0o700)


@pytest.mark.parametrize("folder", ["", "bin"])
def test_a_node_that_others_may_have_changed_is_refused_not_narrowed(sides, joined, folder):
    _, house, fingerprint, brand = sides
    invitation = house.places.invitation.read_bytes()
    place = joined.node / folder
    place.chmod(0o770)
    try:
        for act in (
            lambda: Node(joined.node),
            lambda: renew(brand, "aurora"),
            lambda: join(brand, "aurora", invitation, fingerprint=fingerprint),
        ):
            with pytest.raises(IntegrityError, match="its mode is 0770"):
                act()
    finally:
        place.chmod(0o700)


def test_a_nodes_key_that_was_cut_short_is_said_so(sides, joined):
    brand, path = sides[3], joined.node / "node.key"
    kept = path.read_bytes()
    try:
        for cut in (b"", kept[: len(kept) // 2]):
            path.write_bytes(cut)
            with pytest.raises(WorkspaceError, match="not a node's key") as told:
                renew(brand, "aurora")
            assert "--new-node-key" in told.value.do
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("name", ["exec.secret", "node.key", "ca.crt", "bundle.sha256"])
def test_what_a_crash_kept_from_a_nodes_folder_is_made_by_joining_again(sides, joined, name):
    _, house, fingerprint, brand = sides
    (joined.node / name).unlink()
    join(brand, "aurora", house.places.invitation.read_bytes(), fingerprint=fingerprint)
    assert (joined.node / name).stat().st_size >= 32


def test_who_lies_too_deep_for_a_socket_is_told_before_anything_is_made(sides, tmp_path):
    """Where it wasn't, the silo service ended at its start and a run waited an hour for it."""
    _, house, fingerprint, brand = sides
    invitation = house.places.invitation.read_bytes()
    deep = tmp_path / ("d" * 100)
    with pytest.raises(WorkspaceError, match="too long for a socket"):
        join(brand, "aurora", invitation, fingerprint=fingerprint, node=deep)
    with pytest.raises(WorkspaceError, match="too long for a socket"):
        join(brand, "aurora", invitation, fingerprint=fingerprint, socket=str(deep / "s"))
    assert not deep.exists()
    settings = tmp_path / "federation.yaml"
    settings.write_text("name: spring\nport: 19443\nlink_port: 19444\n")
    coordinator = Workspace.create(tmp_path / ("c" * 100))
    with pytest.raises(WorkspaceError, match="too long for a socket"):
        found_federation(coordinator, settings)
    assert not (coordinator.path / "federation").exists()


def test_proxy_and_superlink_have_a_port_each(tmp_path):
    (tmp_path / "federation.yaml").write_text("name: spring\nport: 9443\nlink_port: 9443\n")
    with pytest.raises(InputError, match="port and link_port must differ"):
        Settings.load(tmp_path / "federation.yaml")
