"""Models: sealed, signed, versioned, traced; they leave by right, fresh factor and four eyes."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from abfed.cli.main import main
from abfed.coordinator.registry import Registry
from abfed.coordinator.vault import model_digest
from abfed.lab.models import registry_of
from abfed.lab.workspace import Workspace
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import AbfedError, IntegrityError
from abfed.protocol.identity import Role
from abfed.site.files import write_private
from abfed.site.people import People
from tests.lab.example import example_values, make_run
from tests.signing import CHEAPEST_FOR_TESTS, make_session

MODEL = "subject-lines@1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "ws"
    make_run(folder, example_values())
    return folder


class House:
    """A workspace with a finished run, and people who sign in."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.workspace, self.capsys = Workspace(folder), capsys
        office = self.workspace.office()
        self.people = People(office.folder, office.keys, office.audit, hashing=CHEAPEST_FOR_TESTS)

    def signed_in(self, name: str, role: Role) -> Any:
        audience = self.workspace.sites()
        session = make_session(self.people, name, (role,), audience=audience)
        session.keep(self.workspace.lab)
        return session

    def types(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = main(["model", *words, "-w", str(self.workspace.path)])
        told = self.capsys.readouterr()
        return code, told.out + told.err

    def policy(self, **changes: Any) -> None:
        file = self.workspace.coordinator / "access.yaml"
        values = yaml.safe_load(file.read_text()) | changes
        write_private(file, yaml.safe_dump(values).encode())

    def registry(self) -> Registry:
        return registry_of(Workspace(self.workspace.path))


@pytest.fixture
def house(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> House:
    shutil.copytree(made, tmp_path / "ws", symlinks=True)
    return House(tmp_path / "ws", capsys)


def test_a_run_makes_a_candidate_once_with_card_and_lineage(house: House) -> None:
    code, told = house.types("list", "--json")
    (one,) = json.loads(told)
    assert (code, one["stage"], one["version"]) == (0, "candidate", 1)
    assert json.loads(house.types("list", "--json")[1]) == [one]
    model = house.registry().find("subject-lines").registration
    arrays = house.registry().load(model)
    assert model_digest(arrays) == model.digest
    (run,) = house.workspace.runs()
    assert model.releases == run.manifest["releases"]
    assert model.epochs == run.manifest["epochs"]
    traced = json.loads(house.types("lineage", MODEL, "--json")[1])
    assert traced["run"] == run.name
    assert traced["plan"]["digest"] == run.plan.digest
    assert set(traced["silos"]) == set(run.silos)
    code, told = house.types("card", MODEL)
    assert f"# {MODEL}: candidate" in told
    auc = run.training["auc"].iloc[-1]
    for fact in (f"AUC {auc:.3f}", run.name, "Predicts `clicked`", "| age | numeric | 0 to 100 |"):
        assert fact in told
    for silo, cost in run.ledger.set_index("silo")["epsilon_run"].items():
        assert f"| {silo} | {cost:.3f} | 1e-06 |" in told
    assert "not measured" in told
    assert house.types("show", MODEL)[0] == 0
    assert house.types("show", "nothing")[0] == 2


def test_sealed_on_disk_and_nothing_of_it_readable(house: House) -> None:
    model = house.registry().find(MODEL).registration
    arrays = house.registry().load(model)
    for path in (house.workspace.coordinator / "models").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0
            data = path.read_bytes()
            assert not [name for name, one in arrays.items() if one.tobytes()[:32] in data]


def test_every_changed_byte_is_found_and_named(house: House) -> None:
    assert house.types("verify") == (0, f"{MODEL}: holds\n")
    folder = house.workspace.coordinator / "models" / "subject-lines" / "1"
    for name in ("model.sealed", "registration.sig"):
        good = (folder / name).read_bytes()
        for place in range(0, len(good), max(1, len(good) // 12)):
            bad = bytearray(good)
            bad[place] ^= 4
            (folder / name).write_bytes(bytes(bad))
            code, told = house.types("verify", MODEL)
            assert code == 4, (name, place)
            assert name in told or "subject-lines" in told
        (folder / name).write_bytes(good)
    (folder / "model.sealed").unlink()
    assert house.types("verify")[0] == 4


def test_a_model_is_not_put_in_anothers_place(house: House) -> None:
    registry = house.registry()
    home = house.workspace.coordinator / "models" / "subject-lines"
    shutil.copytree(home / "1", home / "2")
    with pytest.raises(IntegrityError, match="another model"):
        registry.standings()
    shutil.rmtree(home / "2")
    shutil.rmtree(home / "1")
    house.signed_in("olga", "privacy-officer")
    assert house.types("approve", MODEL, "--reason", "good")[0] == 0  # registered anew, as it was
    shutil.rmtree(home / "1")
    with pytest.raises(IntegrityError, match="are gone"):
        registry.standings()


def test_it_leaves_approved_with_right_fresh_factor_and_purpose(
    house: House, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "m.safetensors"
    export = ("export", MODEL, str(out), "--purpose", "targeting at aurora")
    assert "nobody is signed in" in house.types(*export)[1]
    asked_by = house.registry().find(MODEL).registration.asked_by
    house.policy(
        rights=[
            {"role": "analyst", "right": "model.export", "relation": "submitter"},
            {"role": "privacy-officer", "right": "plan.approve"},
        ]
    )
    assert asked_by == "ada@coordinator"
    house.signed_in("eve", "analyst")
    assert "may not model.export" in house.types(*export)[1]  # it is not hers
    session = house.signed_in("ada", "analyst")
    code, told = house.types(*export)
    assert (code, "is candidate" in told) == (3, True), told
    assert f"`abfed model approve {MODEL} --reason …" in told
    assert "may not plan.approve" in house.types("approve", MODEL, "--reason", "x")[1]
    house.signed_in("olga", "privacy-officer")
    assert house.types("approve", MODEL, "--reason", "checked against the plan")[0] == 0
    assert "may not model.export" in house.types(*export)[1]
    assert not out.exists()

    session.keep(house.workspace.lab)
    stale = house.workspace.office().people.clock() + timedelta(minutes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("abfed.lab.offices.Office.place", _place_at(house, stale))
        assert "second factor of the last" in house.types(*export)[1]
    assert house.types("export", MODEL, str(out), "--purpose", " ")[0] == 2
    code, told = house.types(*export)
    assert code == 0, told
    model = house.registry().find(MODEL).registration
    assert model_digest(load_file(out)) == model.digest
    keys = house.workspace.keys
    signed = out.with_name("m.safetensors.registration").read_bytes()
    opened = open_envelope(
        signed, {key_id(keys.public_key): keys.public_key}, kind="registration", where="x"
    )
    assert json.loads(opened.content)["digest"] == model.digest
    events = [entry["body"] for entry in house.workspace.office().audit.entries()]
    (left,) = [one["facts"] for one in events if one["event"] == "model.exported"]
    assert (left["person"], left["purpose"]) == ("ada@coordinator", "targeting at aurora")
    assert house.types(*export)[0] == 2  # nothing is written over


def _place_at(house: House, moment: Any) -> Any:
    from abfed.lab.offices import Office

    real = Office.place

    def place(self: Office) -> Any:
        return real(self)._replace(now=moment)

    return place


def test_four_eyes_on_export_are_asked_for_counted_and_bound(house: House, tmp_path: Path) -> None:
    rights = [
        {"role": "analyst", "right": "model.export"},
        {"role": "privacy-officer", "right": "plan.approve"},
        {"role": "privacy-officer", "right": "model.export"},
    ]
    house.policy(rights=rights)
    olga = house.signed_in("olga", "privacy-officer")
    house.types("approve", MODEL, "--reason", "x")
    assert house.types("countersign", MODEL)[0] == 2  # the policy doesn't ask for it
    house.policy(rights=rights, four_eyes={"model_export": True, "days": 9})
    ada = house.signed_in("ada", "analyst")
    take = lambda name: house.types("export", MODEL, str(tmp_path / name), "--purpose", "p")  # noqa: E731
    code, told = take("a")
    assert (code, "0 of 1 approvals count" in told) == (3, True), told
    olga.keep(house.workspace.lab)
    assert house.types("countersign", MODEL, "--days", "10")[0] == 2
    assert house.types("countersign", MODEL)[0] == 0
    code, told = take("own")  # olga would take out what she allowed herself
    assert (code, "approvals count" in told) == (3, True), told
    ada.keep(house.workspace.lab)
    assert take("b")[0] == 0
    code, told = take("c")
    assert (code, "used up" in told) == (3, True), told
    olga.keep(house.workspace.lab)
    house.types("countersign", MODEL, "--times", "5")
    house.policy(rights=rights, four_eyes={"model_export": True, "days": 8})  # another policy
    ada.keep(house.workspace.lab)
    assert take("d")[0] == 3
    assert sorted(path.name for path in tmp_path.glob("[a-d]")) == ["b"]


def test_who_submitted_it_does_not_approve_it(house: House) -> None:
    with pytest.MonkeyPatch.context() as patch:
        house.policy(rights=[{"role": "privacy-officer", "right": "plan.approve"}])
        asked = house.registry().find(MODEL).registration
        own = asked.model_copy(update={"asked_by": "olga@coordinator"})
        real = Registry.find
        patch.setattr(
            Registry, "find", lambda self, label: real(self, label)._replace(registration=own)
        )
        house.signed_in("olga", "privacy-officer")
        code, told = house.types("approve", MODEL, "--reason", "mine")
        assert (code, "nobody approves their own plan" in told) == (3, True)


def test_who_made_the_account_that_submitted_it_does_not_approve_it(house: House) -> None:
    house.policy(
        rights=[{"role": "privacy-officer", "right": "plan.approve"}],
        four_eyes={"model_export": True},
    )
    name = house.registry().find(MODEL).registration.asked_by.partition("@")[0]
    house.signed_in(name, "analyst")
    by_olga = {"made_by": "olga@coordinator"}  # as a service account's record says
    house.people.change(name, lambda one: one.model_copy(update=by_olga))
    house.signed_in("olga", "privacy-officer")
    for words in (("approve", MODEL, "--reason", "my job's"), ("countersign", MODEL)):
        code, told = house.types(*words)
        assert (code, "nobody approves their own plan" in told) == (3, True), told
    house.signed_in("oscar", "privacy-officer")
    assert house.types("approve", MODEL, "--reason", "looked at it")[0] == 0
    assert house.types("countersign", MODEL)[0] == 0


def test_retired_or_frozen_it_is_given_out_no_more(house: House, tmp_path: Path) -> None:
    house.policy(
        rights=[
            {"role": "privacy-officer", "right": "plan.approve"},
            {"role": "privacy-officer", "right": "model.export"},
            {"role": "privacy-officer", "right": "model.delete"},
        ]
    )
    house.signed_in("olga", "privacy-officer")
    house.types("approve", MODEL, "--reason", "x")
    from abfed.lab.incidents.responding import freezes_of

    office = house.workspace.office()
    model = house.registry().find(MODEL).registration
    freezes_of(office).freeze("model", model.digest, office.audit, by="sam", reason="I-1")
    code, told = house.types("export", MODEL, str(tmp_path / "m"), "--purpose", "p")
    assert (code, "frozen" in told) == (3, True)
    freezes_of(office).lift("model", model.digest, office.audit, by="sam")
    assert house.types("retire", MODEL, "--reason", "drifted")[0] == 0
    code, told = house.types("export", MODEL, str(tmp_path / "m"), "--purpose", "p")
    assert (code, "is retired" in told, "model approve" in told) == (3, True, False)
    assert house.types("approve", MODEL, "--reason", "back")[0] == 2
    assert "retired, by olga@coordinator: drifted" in house.types("card", MODEL)[1]
    assert house.types("verify") == (0, f"{MODEL}: holds\n")


def test_a_list_of_stages_that_was_put_back_gives_nothing_out(house: House, tmp_path: Path) -> None:
    """Who can write to the disk, and has no key, brings a retired model's old stage back."""
    rights = ("plan.approve", "model.export", "model.delete")
    house.policy(rights=[{"role": "privacy-officer", "right": one} for one in rights])
    house.signed_in("olga", "privacy-officer")
    export = ("export", MODEL, str(tmp_path / "m"), "--purpose", "p")
    stages = house.workspace.coordinator / "models" / "stages.sealed"
    assert house.types("approve", MODEL, "--reason", "x")[0] == 0
    approved = stages.read_bytes()
    assert house.types("retire", MODEL, "--reason", "drifted")[0] == 0
    write_private(stages, approved)
    code, told = house.types(*export)
    assert (code, "retired since" in told) == (4, True), told
    assert not (tmp_path / "m").exists()
    code, told = house.types("verify")
    assert (code, "retired since" in told) == (4, True), told
    stages.unlink()  # nor does a list that is gone make it anything but a candidate
    assert house.types("verify")[0] == 4
    assert house.types(*export)[0] == 3
    write_private(stages, approved)
    assert house.types("retire", MODEL, "--reason", "again")[0] == 0  # also after a kill: mended
    assert house.types("verify")[0] == 0


def test_a_run_whose_model_was_changed_registers_nothing(house: House) -> None:
    (run,) = house.workspace.runs()
    sealed = run.folder / "model.sealed"
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AbfedError):
        house.registry()
    assert not list((house.workspace.coordinator / "models").glob("*/1"))
