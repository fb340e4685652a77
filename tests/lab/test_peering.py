"""With whom a silo adds one noise: keys whose fingerprints were compared, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.lab.workspace import Workspace
from abfed.protocol.envelope import key_id
from abfed.protocol.errors import InputError
from abfed.silo.pinning import pin_peer
from abfed.silo.policy import Policy
from abfed.site.files import read_private, write_private

Capture = pytest.CaptureFixture[str]
KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = Workspace.create(tmp_path / "ws", development=True)
    for name in ("aurora", "borealis"):
        made.create_silo(name, synthetic=True)
    return tmp_path / "ws"


def policy_of(workspace: Path) -> Path:
    with Workspace(workspace).silo("aurora") as service:
        return service.paths.policy


def told(workspace: Path, silo: str, capsys: Capture) -> dict:
    capsys.readouterr()
    assert main(["silo", "peers", silo, "-w", str(workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def pin(workspace: Path, key: str, fingerprint: str) -> int:
    words = ["silo", "pin", "aurora", "borealis", key, "--fingerprint", fingerprint]
    return main([*words, "-w", str(workspace)])


def test_what_one_silo_shows_is_what_another_pins(workspace: Path, capsys: Capture) -> None:
    shown = told(workspace, "borealis", capsys)
    assert pin(workspace, shown["public_key"], shown["fingerprint"].upper()) == 0
    found = told(workspace, "aurora", capsys)
    assert [one["public_key"] for one in found["peers"]] == [shown["public_key"]]
    assert not found["allowed"], "a pin doesn't allow anything by itself"
    assert pin(workspace, shown["public_key"], shown["fingerprint"]) == 0, "and again"
    assert len(told(workspace, "aurora", capsys)["peers"]) == 1
    with Workspace(workspace).silo("aurora") as service:
        kinds = [entry["body"]["event"] for entry in service.audit.entries()]
    assert kinds.count("peer.pinned") == 1


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("key", "fingerprint"),
    [(OTHER.hex(), key_id(KEY)), (KEY.hex()[:-2], key_id(KEY)), ("no key", ""), (KEY.hex(), "")],
)
def test_another_fingerprint_or_no_key_pins_nothing(
    workspace: Path, key: str, fingerprint: str
) -> None:
    before = read_private(policy_of(workspace))
    assert pin(workspace, key, fingerprint) == 2
    assert read_private(policy_of(workspace)) == before


@pytest.mark.parametrize(
    "section",
    [
        "",
        "noise_once:\n  allowed: true\n",
        "noise_once:\n  # by phone\n  allowed: true\n  peers: []\n  least_share: 2.0\n",
        f"noise_once:\n  peers:\n  - name: dawn\n    public_key: {OTHER.hex()}\n  colluders: 2\n",
    ],
)
def test_the_rest_of_the_policy_stays_as_its_people_wrote_it(workspace: Path, section: str) -> None:
    path = policy_of(workspace)
    write_private(path, read_private(path).rstrip() + b"\n" + section.encode())
    before = Policy.load(path)
    assert pin_peer(path, "borealis", KEY)
    after = Policy.load(path)
    assert after.noise_once is not None
    assert after.noise_once.peers[0].public_key == KEY.hex()
    kept = before.noise_once.peers if before.noise_once else ()
    assert after.noise_once.peers[1:] == kept
    assert after.noise_once.allowed is bool(before.noise_once and before.noise_once.allowed)
    assert after.model_copy(update={"noise_once": None}) == before.model_copy(
        update={"noise_once": None}
    )


def test_one_silo_is_not_two_and_not_itself(workspace: Path) -> None:
    path = policy_of(workspace)
    assert pin_peer(path, "borealis", KEY)
    for name, key in (("borealis", OTHER), ("corona", KEY), ("aurora", OTHER)):
        with pytest.raises(InputError):
            pin_peer(path, name, key)


def test_lists_written_in_another_form_are_left_to_people(workspace: Path) -> None:
    path = policy_of(workspace)
    text = read_private(path).rstrip() + b"\nnoise_once: {allowed: true}\n"
    write_private(path, text)
    with pytest.raises(InputError, match="can't be put"):
        pin_peer(path, "borealis", KEY)
    assert read_private(path) == text
