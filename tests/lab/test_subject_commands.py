"""`abfed silo subject`: a person's request from the command to the receipt, and what it changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError
from abfed.silo.requests import due_on
from abfed.silo.subjects import Subjects
from abfed.site.files import write_private
from tests.signing import PASSWORD, sign_in
from tests.whole.story import small_plan

HOW = ["--normalise", "casefold"]


@pytest.fixture(scope="module")
def brands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brands") / "ws"
    assert main(["init", "-w", str(folder)]) == 0
    assert main(["data", "synth", "--ingest", "--scale", "0.02", "-w", str(folder)]) == 0
    for silo in ("aurora",):
        path = folder / "silos" / silo / "policy.yaml"
        values = yaml.safe_load(path.read_text())
        values["retrain_after_erasure"] = True
        values["rerun_reserve"] = 1.0
        write_private(path, yaml.safe_dump(values).encode())
    return folder


def person_of(brands: Path, place: int) -> str:
    mapping = yaml.safe_load((brands / "data" / "aurora" / "mapping.yaml").read_text())
    (column,) = mapping["recipient"]["columns"]
    rows = pd.read_csv(brands / "data" / "aurora" / "export.csv", dtype=str)
    return str(rows[column].drop_duplicates().iloc[place])


def test_an_erasure_names_the_plans_and_queues_them_and_holds(brands: Path, tmp_path: Path) -> None:
    workspace = Workspace(brands)
    sign_in(workspace)
    plan = small_plan(tmp_path / "plan.yaml")
    assert main(["run", str(plan), "-w", str(brands)]) == 0
    who = person_of(brands, 3)
    with workspace.silo("aurora") as service:
        subjects = Subjects(service)
        before = subjects.requests()
        made = subjects.carry_out("erase", [who, "nobody@example.org"], by="pat@aurora")
    held, unknown = made
    assert held.request.held
    assert not unknown.request.held
    (affected,) = held.affected
    assert set(affected.releases) == {"totals", "train-0001", "train-0002", "evaluate"}
    (run,) = workspace.runs()
    kept = run.releases["aurora"]
    assert dict(affected.releases) == {step: one.digest for step, one in kept.items()}
    assert {one.release.epoch for one in kept.values()} == {affected.epoch}
    assert affected.trained
    assert affected.models == (run.manifest["model"]["digest"],)
    assert "differentially private" in held.why_they_stand
    assert held.retraining
    assert unknown.affected == ()
    written = json.dumps([one.as_dict() for one in made])
    assert who not in written
    with workspace.silo("aurora") as service:
        again = Subjects(service)
        assert len(again.requests()) == len(before) + 2
        assert set(again.retraining()) == {one.digest for one in held.affected}
        assert service.holdings().erasures == 1
        receipt, data = again.export(who, by="pat@aurora")
        assert data["sends"] == []
        assert not receipt.request.held
    assert main(["silo", "verify", "aurora", "-w", str(brands)]) == 0
    export = brands / "data" / "aurora"
    arguments = ["silo", "ingest", "aurora", str(export / "export.csv")]
    assert main([*arguments, "-m", str(export / "mapping.yaml"), "-w", str(brands)]) == 0
    with workspace.silo("aurora") as service:
        assert Subjects(service).export(who, by="pat@aurora")[1]["sends"] == []
    for path in (brands / "silos").rglob("*"):
        assert not path.is_file() or who.encode() not in path.read_bytes(), path


def test_the_lab_finds_the_models_that_a_receipt_names(
    brands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By model, release or data epoch; without the kept model, by the last round's release."""

    def found(digest: str) -> list[str]:
        capsys.readouterr()
        assert main(["model", "list", "--made-of", digest, "--json", "-w", str(brands)]) == 0
        return [one["model"] for one in json.loads(capsys.readouterr().out)]

    workspace, who = Workspace(brands), person_of(brands, 3)
    asked = ["silo", "subject", "receipts", "aurora", who, "-w", str(brands)]
    with workspace.silo("aurora") as service:
        (affected,) = Subjects(service).affected()
        own = service.models.digests()
    (model,) = affected.models
    (run,) = workspace.runs()
    for digest in (model, model[:6], affected.digest, affected.epoch, *affected.releases.values()):
        assert found(digest) == [f"{run.plan.name}@1"]
    assert found("0" * 64) == []
    assert main(["model", "list", "--made-of", "spring", "-w", str(brands)]) == 2
    capsys.readouterr()
    assert main(asked) == 0
    assert f"model {model})" in capsys.readouterr().out
    (kept,) = (brands / "silos" / "aurora" / "models").glob("*.sealed")
    whole = kept.read_bytes()
    try:
        write_private(kept, whole[:-1] + bytes([whole[-1] ^ 1]))
        with workspace.silo("aurora") as service:  # damaged: answered all the same
            assert Subjects(service).affected()[0].models == own
        kept.unlink()
        capsys.readouterr()
        assert main(asked) == 0
        last = affected.releases["train-0002"]
        assert f"models up to train-0002, release {last})" in capsys.readouterr().out
    finally:
        write_private(kept, whole)


def test_a_person_gets_all_that_is_held_in_both_forms(
    brands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from abfed.lab.records.answering import write_answer

    workspace = Workspace(brands)
    who = person_of(brands, 7)
    rows = pd.read_csv(brands / "data" / "aurora" / "export.csv", dtype=str)
    mapping = yaml.safe_load((brands / "data" / "aurora" / "mapping.yaml").read_text())
    own = rows[rows[mapping["recipient"]["columns"][0]] == who]
    with workspace.silo("aurora") as service:
        receipt, data = Subjects(service).export(f" {who.upper()} ", by="pat@aurora")
    assert len(data["sends"]) == len(own)
    assert "recipient" not in data["sends"][0]
    files = write_answer(tmp_path / "answer", receipt, data)
    parsed = json.loads(files[0].read_text())
    assert parsed["receipt"]["receipt"] == receipt.request.receipt
    assert len(parsed["sends"]) == len(own)
    page = files[1].read_text()
    assert page.count("<tr>") == 8 + 1 + len(own)
    assert "http" not in page
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="already"):
        write_answer(tmp_path / "answer", receipt, data)


def test_opting_out_keeps_people_from_being_read_and_can_be_lifted(brands: Path) -> None:
    workspace = Workspace(brands)
    who = [person_of(brands, place) for place in (10, 11)]
    with workspace.silo("aurora") as service:
        subjects = Subjects(service)
        epoch = service.store.epoch
        made = subjects.carry_out("opt-out", who, by="pat@aurora", law="ccpa")
        assert all(one.request.held for one in made)
        assert made[0].affected == ()
        service.store.refresh()
        assert service.store.epoch != epoch
        assert subjects.export(who[0], by="pat@aurora")[1]["states"] == ["opted-out"]
        subjects.carry_out("restrict", who[:1], by="pat@aurora")
        assert subjects.export(who[0], by="pat@aurora")[1]["states"] == ["opted-out", "restricted"]
        subjects.carry_out("opt-in", who, by="pat@aurora")
        subjects.carry_out("unrestrict", who[:1], by="pat@aurora")
        assert subjects.export(who[0], by="pat@aurora")[1]["states"] == []


def test_deadlines_run_from_receipt_and_an_open_request_is_taken_up_again(brands: Path) -> None:
    workspace = Workspace(brands)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    who = person_of(brands, 20)
    with workspace.silo("aurora") as service:
        subjects = Subjects(service, lambda: now)
        (open_one,) = subjects.receive("erase", [who], received=now - timedelta(days=40))
        assert open_one.due_on == "2026-10-22"
        assert [one.receipt for one in subjects.overdue()] == [open_one.receipt]
        (done,) = subjects.carry_out("erase", [who], by="pat@aurora")
        assert done.request.receipt == open_one.receipt
        assert subjects.overdue() == ()
        with pytest.raises(InputError, match="future"):
            subjects.receive("erase", [who], received=now + timedelta(days=1))
        with pytest.raises(InputError, match="holds nothing"):
            subjects.receive("erase", ["   "])
        for damaged in ("a\x00b@example.com", "\x1b[2Ja@example.com"):
            with pytest.raises(InputError, match="control characters"):
                subjects.receive("erase", [who, damaged])
    assert due_on(datetime(2026, 1, 31, tzinfo=UTC).date(), "gdpr").isoformat() == "2026-02-28"
    assert due_on(datetime(2026, 12, 15, tzinfo=UTC).date(), "gdpr").isoformat() == "2027-01-15"


def test_the_log_has_the_act_and_the_receipt_and_nobody_s_name(brands: Path) -> None:
    who = person_of(brands, 30)
    workspace = Workspace(brands)
    with workspace.silo("aurora") as service:
        (made,) = Subjects(service).carry_out("erase", [who], by="pat@aurora")
        last = list(service.audit.entries())[-1]["body"]
    assert last["event"] == "subject.erased"
    assert last["facts"] == {"receipt": made.request.receipt, "by": "pat@aurora"}


def test_the_commands_ask_for_a_right_and_for_one_way_to_name_people(
    brands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-w", str(brands)]
    people = Workspace(brands).office("aurora").people
    people.enrol("ann", PASSWORD, by="test")  # from now on somebody here can be asked who it is
    people.grant("ann", "silo-admin", owner="test", reason="a test", lasts=timedelta(days=1))
    assert main(["silo", "subject", "erase", "aurora", "x@example.org", *where]) == 3
    assert main(["silo", "subject", "erase", "aurora", *where]) == 2
    file = tmp_path / "people.txt"
    file.write_bytes(b"\xff\xfe\x00")
    assert main(["silo", "subject", "erase", "aurora", "--file", str(file), *where]) == 2
    file.write_text("\n\n")
    assert main(["silo", "subject", "restrict", "aurora", "--file", str(file), *where]) == 2
    told = capsys.readouterr().err
    assert "names nobody" in told
    assert "UTF-8" in told


def test_what_is_past_retention_is_purged_before_anything_is_read(brands: Path) -> None:
    workspace = Workspace(brands)
    path = brands / "silos" / "borealis" / "policy.yaml"
    values = yaml.safe_load(path.read_text())
    write_private(path, yaml.safe_dump(values | {"retention_days": 30}).encode())
    with workspace.silo("borealis") as service:
        assert service.store.describe().sends > 0
        assert service.purge()
        assert service.store.describe().sends == 0, "the made-up sends are of last spring"
        assert not service.purge()
        entry = list(service.audit.entries())[-1]["body"]
        assert entry["event"] == "data.purged"
    export = brands / "data" / "borealis"
    arguments = ["silo", "ingest", "borealis", str(export / "export.csv")]
    assert main([*arguments, "-m", str(export / "mapping.yaml"), "-w", str(brands)]) == 0
    with workspace.silo("borealis") as service:
        assert service.store.describe().sends == 0, "purged sends came back with an old export"
    workspace.office("borealis").people.enrol("ann", PASSWORD, by="test")
    assert main(["silo", "purge", "borealis", "-w", str(brands)]) == 0, "a timer has no session"
