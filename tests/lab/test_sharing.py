"""A shared report opens for the one it was sealed for, and for nobody else."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.lab.coordination import pin_silo
from abfed.lab.readers import changed_readers, pinned_readers
from abfed.lab.reports.manifest import FIELDS, FORMAT
from abfed.lab.reports.sharing import (
    make_reader_key,
    open_shared,
    pin_reader,
    seal_to,
    share_report,
    unseal_with,
)
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError, IntegrityError, Refused, WorkspaceError
from abfed.site.files import write_private

PAGE = b"<p>a page with figures</p>"


@pytest.fixture
def workspace(tmp_path):
    made = Workspace.create(tmp_path / "workspace", development=True)
    made.sign_in_development()
    manifest = dict.fromkeys(FIELDS, "") | {
        "format": FORMAT, "report": "spring", "key": "k", "audience": ["analyst", "auditor"],
        "files": {"spring.html": sha256_hex(PAGE)},
    }  # fmt: skip
    write_private(made.reports_folder / "spring.html", PAGE)
    signed = made.keys.sign("report", canonical_bytes(manifest))
    write_private(made.reports_folder / "spring.report", signed)
    return made


def enrol(workspace, name, role, key):
    workspace.people.enrol(name, "a long enough passphrase 7", by="test")
    lasts = timedelta(days=1)
    workspace.people.grant(name, role, owner="test", reason="to try", lasts=lasts)
    pin_reader(workspace, name, make_reader_key(key))


def test_a_report_is_sealed_for_a_named_person_and_logged(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    enrol(workspace, "bob", "auditor", tmp_path / "bob.key")
    (sealed,) = share_report(workspace, "spring", ["ada"])
    assert PAGE not in sealed.read_bytes()
    public = workspace.keys.public_key
    manifest, files = open_shared(sealed, tmp_path / "ada.key", "ada", public, tmp_path / "in")
    assert manifest["report"] == "spring"
    assert [one.read_bytes() for one in files] == [PAGE]
    event = [one["body"] for one in workspace.audit.entries()][-1]
    assert event["event"] == "report.shared"
    assert event["facts"]["reader"] == "ada"
    assert event["facts"]["by"].startswith("dev")
    for key, name in (("bob.key", "ada"), ("ada.key", "bob")):
        with pytest.raises(IntegrityError, match="the seal doesn’t open"):
            open_shared(sealed, tmp_path / key, name, public, tmp_path / "no")
    with pytest.raises(IntegrityError):  # signed by another workspace
        open_shared(sealed, tmp_path / "ada.key", "ada", bytes(32), tmp_path / "no")


@pytest.mark.privacy
def test_only_those_it_is_for_get_it(workspace, tmp_path):
    enrol(workspace, "sam", "privacy-officer", tmp_path / "sam.key")
    with pytest.raises(Refused, match="isn't for sam"):
        share_report(workspace, "spring", ["sam"])
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    workspace.people.stop("ada", by="test")
    with pytest.raises(Refused, match="ada was stopped"):
        share_report(workspace, "spring", ["ada"])
    with pytest.raises(WorkspaceError, match="nobody called"):
        share_report(workspace, "spring", ["eve"])
    assert not list(workspace.reports_folder.glob("*.sealed"))


@pytest.mark.privacy
def test_who_left_gets_nothing_and_who_comes_back_pins_another_key(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    office = workspace.office()
    office.offboard("ada", by="test", reason="left")
    with pytest.raises(Refused, match="ada was stopped"):
        share_report(workspace, "spring", ["ada"])
    office.restore(f"ada@{office.site}", by="test")
    workspace.people.enrol("ada", "another long passphrase 8", by="test", again=True)
    lasts = timedelta(days=1)
    workspace.people.grant("ada", "auditor", owner="test", reason="is back", lasts=lasts)
    with pytest.raises(WorkspaceError, match="no key is pinned"):
        share_report(workspace, "spring", ["ada"])
    pin_reader(workspace, "ada", make_reader_key(tmp_path / "new.key"))
    assert len(share_report(workspace, "spring", ["ada"])) == 1


@pytest.mark.privacy
def test_who_was_stopped_or_has_no_role_any_more_shares_nothing(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")  # the report is of no run: no right
    workspace.people.take_back("dev", "analyst", by="test")
    with pytest.raises(Refused, match="isn't for dev@coordinator"):
        share_report(workspace, "spring", ["ada"])
    lasts = timedelta(days=1)
    workspace.people.grant("dev", "analyst", owner="test", reason="again", lasts=lasts)
    assert len(share_report(workspace, "spring", ["ada"])) == 1
    workspace.office().revoke("dev@coordinator", by="test", reason="left")
    with pytest.raises(Refused) as refused:
        share_report(workspace, "spring", ["ada"])
    assert refused.value.code in {"sign-in", "revoked"}


@pytest.mark.privacy
def test_a_share_with_a_file_less_than_was_signed_is_not_opened(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    (sealed,) = share_report(workspace, "spring", ["ada"])
    data = sealed.read_bytes()
    head = data[: 4 + int.from_bytes(data[:4], "big")]
    signed = (workspace.reports_folder / "spring.report").read_bytes()
    plain = canonical_bytes({"files": {}, "manifest": base64.b64encode(signed).decode()})
    public = X25519PrivateKey.from_private_bytes((tmp_path / "ada.key").read_bytes()).public_key()
    name = "report:spring:k:ada"
    sealed.write_bytes(head + seal_to(public.public_bytes_raw(), plain, name=name))
    with pytest.raises(IntegrityError, match="aren't those that were signed"):
        open_shared(sealed, tmp_path / "ada.key", "ada", workspace.keys.public_key, tmp_path / "in")
    with pytest.raises(InputError, match="can't be read"):
        open_shared(tmp_path / "none", tmp_path / "ada.key", "ada", bytes(32), tmp_path / "in")


def test_keys_that_are_pinned_at_once_are_all_kept(workspace, tmp_path):
    names = [f"p{number}" for number in range(6)]
    keys = {name: make_reader_key(tmp_path / name) for name in names}

    def pin(name):
        with changed_readers(workspace.coordinator) as pinned:
            time.sleep(0.01)
            pinned[name] = keys[name]
        public = bytes.fromhex(keys[name])
        pin_silo(workspace.coordinator, workspace.audit, f"silo-{name}", public, by="test")

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(pin, names))
    assert pinned_readers(workspace.coordinator) == keys
    assert len(workspace.pinned_keys()) == len(names)


def test_a_report_that_was_changed_is_not_shared(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    write_private(workspace.reports_folder / "spring.html", PAGE + b" ")
    with pytest.raises(IntegrityError, match="changed since"):
        share_report(workspace, "spring", ["ada"])


def test_a_pinned_key_is_not_replaced(workspace, tmp_path):
    enrol(workspace, "ada", "auditor", tmp_path / "ada.key")
    with pytest.raises(WorkspaceError, match="another key is pinned"):
        pin_reader(workspace, "ada", make_reader_key(tmp_path / "other.key"))
    with pytest.raises(WorkspaceError, match="a file already"):
        make_reader_key(tmp_path / "ada.key")


@settings(max_examples=20)
@given(st.binary(max_size=200), st.integers(min_value=0, max_value=300))
def test_a_changed_byte_is_found(plain, place):
    key = X25519PrivateKey.generate()
    public, private = key.public_key().public_bytes_raw(), key.private_bytes_raw()
    sealed = bytearray(seal_to(public, plain, name="n"))
    assert unseal_with(private, bytes(sealed), name="n") == plain
    sealed[place % len(sealed)] ^= 1
    with pytest.raises(IntegrityError):
        unseal_with(private, bytes(sealed), name="n")
