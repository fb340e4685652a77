"""What is given to provisioning by somebody who means harm, or is mistaken."""

import json

import pytest

from abfed.cli.main import main
from abfed.coordinator.house import Settings
from abfed.lab.provisioning import found_federation, join, provisioner
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError, WorkspaceError
from abfed.site.certificates import spoken

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


def test_proxy_and_superlink_have_a_port_each(tmp_path):
    (tmp_path / "federation.yaml").write_text("name: spring\nport: 9443\nlink_port: 9443\n")
    with pytest.raises(InputError, match="port and link_port must differ"):
        Settings.load(tmp_path / "federation.yaml")
