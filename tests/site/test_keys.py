"""Keys: private, one purpose each, bound to what they wrap, never shown or carried away."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from abfed.protocol.envelope import key_id, open_envelope, verify_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.keys import SIGNING_FILE, SiteKeys
from abfed.site.ring import FILE as RING_FILE

KEK_FILE = "kek-*"
FILES = (KEK_FILE, SIGNING_FILE, RING_FILE)


def file_of(folder: Path, name: str) -> Path:
    """The one file of this name; a key-encryption key's has its id in it."""
    (found,) = folder.glob(name)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "site" / "keys"


@pytest.fixture
def keys(folder: Path) -> SiteKeys:
    return SiteKeys.create(folder, site="aurora")


def test_keys_open_as_they_were_made(keys: SiteKeys, folder: Path) -> None:
    again = SiteKeys.open(folder)
    assert (again.site, again.public_key, again.key_id) == ("aurora", keys.public_key, keys.key_id)
    assert again.derive("x") == keys.derive("x")
    assert again.unwrap(keys.wrap(b"data key", name="f"), name="f") == b"data key"


def test_files_are_private_from_the_start(keys: SiteKeys, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(folder.iterdir()) == {file_of(folder, name) for name in FILES}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
@pytest.mark.parametrize("name", FILES)
def test_a_file_open_to_others_is_refused(
    keys: SiteKeys, folder: Path, name: str, mode: int
) -> None:
    file = file_of(folder, name)
    file.chmod(mode)
    with pytest.raises(IntegrityError, match="mode") as caught:
        SiteKeys.open(folder)
    assert caught.value.where == str(file)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_open_to_others_is_refused(keys: SiteKeys, folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(IntegrityError, match="mode"):
        SiteKeys.open(folder)


def test_nothing_shown_is_secret(keys: SiteKeys, folder: Path) -> None:
    secrets = [file_of(folder, KEK_FILE).read_bytes(), keys._signing.private_bytes_raw()]
    shown = f"{keys!r} {keys} {[keys]} {keys.key_id}"
    assert "aurora" in shown
    for secret in secrets:
        for spelled in (secret.hex(), repr(secret)[2:-1], str(list(secret))):
            assert spelled not in shown
    assert not hasattr(keys, "__dict__")
    # The signing key never lies in the open.
    for name in FILES:
        assert secrets[1] not in file_of(folder, name).read_bytes()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_keys_are_not_pickled(keys: SiteKeys, protocol: int) -> None:
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(keys, protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_keys_are_not_copied(keys: SiteKeys, copied: type) -> None:
    with pytest.raises(TypeError, match="can't be pickled"):
        copied(keys)


def test_a_wrapped_key_is_bound_to_its_name_site_and_use(keys: SiteKeys, folder: Path) -> None:
    wrapped = keys.wrap(b"data key", name="bucket-1")
    assert keys.unwrap(wrapped, name="bucket-1") == b"data key"
    with pytest.raises(IntegrityError):
        keys.unwrap(wrapped, name="bucket-2")
    with pytest.raises(IntegrityError):
        keys.unwrap(wrapped[:-1] + bytes([wrapped[-1] ^ 1]), name="bucket-1")
    other = SiteKeys.create(folder.parent / "other", site="aurora")
    with pytest.raises(IntegrityError):
        other.unwrap(wrapped, name="bucket-1")
    renamed = SiteKeys("borealis", keys._root, keys._signing, keys.kms)
    with pytest.raises(IntegrityError):
        renamed.unwrap(wrapped, name="bucket-1")


def test_each_purpose_has_its_own_secret(keys: SiteKeys, folder: Path) -> None:
    other = SiteKeys.create(folder.parent / "other", site="aurora")
    found = [one.derive(purpose) for one in (keys, other) for purpose in ("a", "b", "wrap", "")]
    assert len(set(found)) == 8
    assert {len(secret) for secret in found} == {32}
    assert keys._root not in found


def test_what_a_site_signs_verifies_under_its_fingerprint(keys: SiteKeys) -> None:
    trusted = {keys.key_id: keys.public_key}
    assert keys.key_id == key_id(keys.public_key)
    assert open_envelope(keys.sign("audit", b"x"), trusted, where="x").content == b"x"
    signature = keys.signature("audit", b"x")
    assert verify_bytes(keys.public_key, "audit", b"x", signature)
    assert not verify_bytes(keys.public_key, "journal", b"x", signature)


def test_keys_are_not_made_twice(keys: SiteKeys, folder: Path) -> None:
    before = [file_of(folder, name).read_bytes() for name in FILES]
    with pytest.raises(WorkspaceError, match="already"):
        SiteKeys.create(folder, site="aurora")
    assert [file_of(folder, name).read_bytes() for name in FILES] == before


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(keys: SiteKeys, folder: Path, name: str) -> None:
    file = file_of(folder, name)
    file.unlink()
    with pytest.raises((WorkspaceError, IntegrityError)) as caught:
        SiteKeys.open(folder)
    assert file.name in caught.value.where


def test_no_folder_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        SiteKeys.open(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (KEK_FILE, b""),
        (KEK_FILE, bytes(31)),
        (KEK_FILE, bytes(32)),
        (SIGNING_FILE, b""),
        (SIGNING_FILE, bytes(100)),
        (RING_FILE, b""),
        (RING_FILE, b"[]"),
        (RING_FILE, b'{"site":5}'),
        (RING_FILE, b'{"site": "aurora"}'),
        (RING_FILE, b'{"site":"borealis"}'),
        (RING_FILE, b"\xff"),
    ],
)
def test_damaged_files_are_refused(keys: SiteKeys, folder: Path, name: str, content: bytes) -> None:
    file_of(folder, name).write_bytes(content)
    with pytest.raises(IntegrityError):
        SiteKeys.open(folder)
