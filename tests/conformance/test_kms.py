"""Files, files under a passphrase, and a real PKCS#11 token hold keys alike."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.key_services import open_kms
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms, KeyService, Pkcs11Kms
from abfed.site.rotation import rotate
from tests.conformance.kms import KEK, SECRET, KeyServiceConformance

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "246813"


def _secret(_: str) -> str:
    return "a passphrase of this site"


class TestFiles(KeyServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path) -> KeyService:
        return open_kms(FileKms(), tmp_path, "aurora", _secret)

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> KeyService:
        return open_kms(FileKms(), tmp_path, "borealis", _secret)


class TestFilesUnderAPassphrase(KeyServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyService:
        monkeypatch.setattr("abfed.site.kms_file.MEMORY", 64)  # KiB: the suite opens it often
        return open_kms(FileKms(passphrase=True), tmp_path, "aurora", _secret)

    @pytest.fixture
    def stranger(self, tmp_path: Path) -> KeyService:
        return open_kms(FileKms(passphrase=True), tmp_path, "borealis", _secret)

    def test_another_passphrase_opens_nothing(self, filled: KeyService, tmp_path: Path) -> None:
        wrapped = filled.wrap(KEK, SECRET)
        thief = open_kms(FileKms(passphrase=True), tmp_path, "aurora", lambda _: "another one")
        with pytest.raises(IntegrityError):
            thief.unwrap(KEK, wrapped)
        without = open_kms(FileKms(), tmp_path, "aurora", _secret)
        with pytest.raises(IntegrityError):
            without.unwrap(KEK, wrapped)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pkcs11Kms]:
    """A SoftHSM token of this module's own."""
    pytest.importorskip("pkcs11", reason="the extra `hsm` is not installed")
    if not Path(MODULE).exists() or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed (Debian: softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    settings = f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n"
    (folder / "softhsm2.conf").write_text(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "abfed", "--pin", PIN,
             "--so-pin", "97531"],
            check=True, capture_output=True,
        )  # fmt: skip
        yield Pkcs11Kms(module=MODULE, token="abfed")


class TestPkcs11(KeyServiceConformance):
    @pytest.fixture
    def service(self, token: Pkcs11Kms, tmp_path: Path) -> Iterator[KeyService]:
        opened = open_kms(token, tmp_path, "aurora", lambda _: PIN)
        yield opened
        for kek in (KEK, "fedcba9876543210"):
            opened.destroy(kek)

    @pytest.fixture
    def stranger(self, token: Pkcs11Kms, tmp_path: Path) -> KeyService:
        return open_kms(token, tmp_path, "borealis", lambda _: PIN)

    def test_the_key_never_comes_out(self, token: Pkcs11Kms, filled: KeyService) -> None:
        import pkcs11

        with pkcs11.lib(token.module).get_token(token_label="abfed").open(user_pin=PIN) as session:
            (key,) = session.get_objects({pkcs11.Attribute.LABEL: f"abfed:aurora:{KEK}"})
            with pytest.raises(pkcs11.PKCS11Error):
                key[pkcs11.Attribute.VALUE]

    def test_a_wrong_pin_or_token_is_said_without_the_pin(
        self, token: Pkcs11Kms, tmp_path: Path
    ) -> None:
        wrong = open_kms(token, tmp_path, "aurora", lambda _: "13572468")
        other = token.model_copy(update={"token": "none"})
        for one in (wrong, open_kms(other, tmp_path, "aurora", lambda _: PIN)):
            with pytest.raises(WorkspaceError, match="can't be opened") as caught:
                one.wrap(KEK, SECRET)
            assert "13572468" not in f"{caught.value} {caught.value!r}"

    def test_a_site_moves_into_the_token_and_back(self, token: Pkcs11Kms, tmp_path: Path) -> None:
        folder = tmp_path / "keys"
        keys = SiteKeys.create(folder, site="aurora")
        rotate(folder, to=token, secret=lambda _: PIN)
        moved = SiteKeys.open(folder, lambda _: PIN)
        assert (moved.key_id, moved.derive("x")) == (keys.key_id, keys.derive("x"))
        with pytest.raises(WorkspaceError, match="passphrase or PIN"):
            SiteKeys.open(folder)
        rotate(folder, to=FileKms(), secret=lambda _: PIN)
        assert SiteKeys.open(folder).derive("x") == keys.derive("x")
