"""From brands' files to a report, and what must hold on the way."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.coordinator.app import Event
from abfed.coordinator.vault import Vault
from abfed.lab.watch.watching import Watch
from abfed.lab.workspace import Workspace
from abfed.learning.shapes import parameter_shapes
from abfed.protocol.errors import IntegrityError, Refused
from tests.signing import sign_in
from tests.whole.story import (
    CANARIES,
    CANARY_AMOUNT,
    CANARY_ID,
    CANARY_REGION,
    contents,
    found_brands,
    given_away,
    overheard,
    small_plan,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The story told once: brands founded, plan run, report written; temporary files watched."""
    folder = tmp_path_factory.mktemp("story")
    places = {name: folder / name for name in ("workspace", "exports", "tmp", "messages")}
    places["tmp"].mkdir()
    before = tempfile.tempdir
    tempfile.tempdir = str(places["tmp"])
    try:
        found_brands(places["workspace"], places["exports"])
        places["plan"] = small_plan(folder / "plan.yaml")
        options = ["-w", str(places["workspace"])]
        with overheard(folder / "messages", places["tmp"]):
            assert main(["run", str(places["plan"]), *options]) == 0
        formats = ["--to", "html,ipynb", "--to", "md"]
        assert main(["report", str(places["plan"]), *formats, *options]) == 0
    finally:
        tempfile.tempdir = before
    return places


def test_a_run_ends_with_effects_a_model_and_a_report(told: dict[str, Path]) -> None:
    workspace = Workspace(told["workspace"])
    (run,) = workspace.runs()
    assert run.silos == ("aurora", "borealis", "corvid")
    effects = run.effects
    assert set(effects["scope"]) >= {"aurora", "borealis", "these brands"}
    assert len(effects[effects["scope"] == "these brands"]) == 8  # 4 metrics × 2 arms
    assert list(run.training["model"]) == [0, 1, 2]
    assert (run.folder / "model.sealed").stat().st_size > 1000
    assert {"signed", "plan"} - set(run.manifest) == {"signed"}
    (page,) = workspace.reports_folder.glob("*.html")
    html = page.read_text()
    assert "Spring subject lines" in html
    assert run.plan.digest in html


def test_the_watch_finds_nothing_wrong_with_honest_silos(told: dict[str, Path]) -> None:
    found = Watch(Workspace(told["workspace"])).look().standing
    assert {one.rule for one in found} <= {"budget-burn"}, found  # a fresh silo, spent at once


def test_the_same_plan_again_is_found_and_charges_nothing(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ledgers = _ledgers(told["workspace"])
    releases = contents(told["workspace"] / "runs")
    capsys.readouterr()
    assert main(["run", str(told["plan"]), "-w", str(told["workspace"]), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["found"] is True
    assert _ledgers(told["workspace"]) == ledgers
    assert contents(told["workspace"] / "runs") == releases


def test_a_new_title_is_the_same_question(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = small_plan(tmp_path / "other.yaml", report={"title": "Another title"})
    ledgers = _ledgers(told["workspace"])
    capsys.readouterr()
    assert main(["run", str(plan), "-w", str(told["workspace"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] is True
    assert _ledgers(told["workspace"]) == ledgers


def test_no_canary_in_any_byte(told: dict[str, Path]) -> None:
    """Ids, odd amounts and texts of a row: in no message, and in no file of any site, run, report
    or temporary folder, be it as text, number, code or plain hash."""
    export = {"export": (told["exports"] / "aurora" / "export.csv").read_bytes()}
    assert len(given_away(export)) >= len(CANARIES)  # it would be found
    messages = contents(told["messages"])
    assert len([name for name in messages if name.endswith("-out")]) == 3 * 4  # silos × steps
    assert {Path(one).suffix for one in contents(told["workspace"] / "reports")} >= {
        ".html", ".ipynb", ".md",
    }  # fmt: skip
    files = contents(told["workspace"]) | contents(told["tmp"]) | messages
    assert len(files) > 60
    assert given_away(files) == []


def test_no_canary_behind_the_coordinators_key(told: dict[str, Path]) -> None:
    """Model and checkpoints opened, releases unpacked: what a stolen coordinator would show."""
    workspace = Workspace(told["workspace"])
    (run,) = workspace.runs()
    vault, shapes = Vault(workspace.keys), parameter_shapes(run.plan)
    sealed = {"final": run.folder / "model.sealed"}
    sealed |= {one.stem: one for one in (run.folder / "checkpoints").glob("*.sealed")}
    assert len(sealed) == 3
    files = {}
    for version, path in sealed.items():
        model = vault.open(path.read_bytes(), shapes, name=run.name, version=version)
        files |= {f"{version} {name}": array.tobytes() for name, array in model.items()}
    for silo, steps in run.releases.items():
        for step, one in steps.items():
            for name, array in one.arrays.items():
                files[f"{silo} {step} {name}"] = array.tobytes()
    assert len(files) > 20
    assert given_away(files) == []


def test_no_canary_in_an_error(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The marked row itself made wrong, in each way that a row can be."""
    source = told["exports"] / "aurora"
    with (source / "export.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["email"] == CANARY_ID]
    options = ["-m", str(source / "mapping.yaml"), "-w", str(told["workspace"])]
    wrong = {
        "variant": "warm" if rows[0]["variant"] != "warm" else "urgent",
        "order_value": CANARY_AMOUNT + "x",
        "basis": CANARY_REGION,
        "clicked": CANARY_ID,
        "sent": CANARY_REGION,
    }
    for column, text in wrong.items():
        export = tmp_path / "export.csv"
        with export.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerow(rows[0] | {column: text})
        assert main(["silo", "ingest", "aurora", str(export), *options]) == 2, column
    said = capsys.readouterr()
    assert "arm" in said.err
    assert given_away({"said": (said.out + said.err).encode()}) == []


def test_the_canary_is_there_through_the_key(told: dict[str, Path]) -> None:
    """The test above would find nothing either if the marked row had been lost."""
    report = told["exports"] / "aurora"
    arguments = ["silo", "ingest", "aurora", str(report / "export.csv")]
    options = ["-m", str(report / "mapping.yaml"), "-w", str(told["workspace"]), "--json"]
    with Workspace(told["workspace"]).silo("aurora") as service:
        epoch = service.store.epoch
    assert main([*arguments, *options]) == 0
    with Workspace(told["workspace"]).silo("aurora") as service:
        assert service.store.epoch == epoch  # every row was known, the marked one too


def test_no_canary_in_what_is_said(
    told: dict[str, Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    options = ["-w", str(told["workspace"])]
    with caplog.at_level(logging.DEBUG):
        for command in (
            ["silo", "show", "aurora"],
            ["ledger", "show"],
            ["audit", "verify"],
            ["run", str(told["plan"])],
        ):
            assert main([*command, *options]) == 0
    said = capsys.readouterr()
    for canary in CANARIES:
        assert canary not in said.out + said.err + caplog.text


def test_every_file_of_a_site_is_private(told: dict[str, Path]) -> None:
    for path in (told["workspace"]).rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:04o}"


def test_logs_hold_and_a_changed_entry_is_named(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", "-w", str(told["workspace"])]) == 0
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    log = copy / "silos" / "borealis" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"budget.reserved", b"budget.returned"))
    assert main(["audit", "verify", "-w", str(copy)]) == 4
    assert "entry 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "target", ["model.sealed", "manifest.json", "releases/corvid/totals.release"]
)
def test_a_flipped_byte_in_a_run_is_refused(
    told: dict[str, Path], tmp_path: Path, target: str
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    (file,) = copy.glob(f"runs/*/{target}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError):
        Workspace(copy).runs()


def test_files_that_nobody_signed_change_nothing(told: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    (before,) = Workspace(copy).runs()
    strange = {
        "report.json": b'{"title": "Forged", "audience": ["analyst"]}',
        "timings.json": b'{"totals": 1}',
        "plan.yaml": b"name: forged",
        "releases/evil/totals.release": b"x",
        "releases/aurora/train-0099.release": b"x",
        "checkpoints/final.sealed": b"x",
    }
    for name, data in strange.items():
        path = before.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (after,) = Workspace(copy).runs()
    assert after.report == before.report
    assert after.timings == before.timings
    assert after.silos == before.silos
    assert after.effects.equals(before.effects)
    assert {silo: set(steps) for silo, steps in after.releases.items()} == {
        silo: set(steps) for silo, steps in before.releases.items()
    }


def test_a_second_look_on_new_data_is_refused_and_another_question_is_charged(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    export = tmp_path / "export.csv"
    lines = (told["exports"] / "corvid" / "export.csv").read_text().splitlines()
    fresh = lines[1].replace("corvid-000000", "corvid-999999")
    export.write_text("\n".join([lines[0], fresh]) + "\n")
    mapping = str(told["exports"] / "corvid" / "mapping.yaml")
    options = ["-w", str(copy)]
    alone = {
        "model": None,
        "training": None,
        "privacy": {"epsilon": 2.0, "delta": 1e-6, "split": {"statistics": 2.0}},
    }
    plan = small_plan(tmp_path / "plan.yaml", **alone)
    assert main(["run", str(plan), *options]) == 0
    charged = _ledgers(copy)
    assert main(["silo", "ingest", "corvid", str(export), "-m", mapping, *options]) == 0
    capsys.readouterr()
    assert main(["run", str(plan), *options]) == 2
    assert "peeking at a fixed-horizon design" in capsys.readouterr().err
    assert _ledgers(copy) == charged
    other = small_plan(tmp_path / "other.yaml", primary="opened", **alone)
    assert main(["run", str(other), *options]) == 0
    assert _ledgers(copy) == {silo: count + 1 for silo, count in charged.items()}
    assert len(list((copy / "runs").glob("*/manifest.sig"))) == 3


def test_an_exhausted_budget_is_refused_and_costs_nothing(
    told: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    for silo in ("aurora", "borealis", "corvid"):
        policy = copy / "silos" / silo / "policy.yaml"
        policy.write_text(policy.read_text().replace("epsilon: 10.0", "epsilon: 2.6"))
    before = _ledgers(copy)
    plan = small_plan(tmp_path / "plan.yaml", name="one-more")
    assert main(["run", str(plan), "-w", str(copy), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out.split("Workspace")[-1])
    assert (answer["error"], answer["code"]) == ("refused", "budget")
    assert _ledgers(copy) == before


def _ledgers(workspace: Path) -> dict[str, int]:
    """How many charges each silo has."""
    opened = Workspace(workspace)
    counts = {}
    for name in opened.silos:
        with opened.silo(name) as service:
            counts[name] = len(service.ledger.reservations())
    return counts


def test_no_secret_of_the_person_stands_outside_their_lab(told: dict[str, Path]) -> None:
    """Password, second factor, session key and tokens: in no site, run, report or temporary."""
    lab = told["workspace"] / "lab"
    person = json.loads((lab / "development-person.json").read_bytes())
    session = json.loads((lab / "session-coordinator.json").read_bytes())
    secrets = [person["password"], person["otp_secret"], *person["recovery_codes"], session["key"]]
    canaries = [secret.encode() for secret in secrets]
    canaries += [bytes.fromhex(session["key"]), session["token"].encode()]
    canaries += [b'"kind":"token"', b'"kind":"submission"', b"QUJGRUQx"]  # envelopes, in base64
    assert session["token"].startswith("QUJGRUQx")
    files = contents(told["workspace"]) | contents(told["tmp"])
    for name, data in files.items():
        if not name.startswith("lab/"):
            assert not [one for one in canaries if one in data], name


def test_a_stop_ends_a_run_at_the_next_message(told: dict[str, Path], tmp_path: Path) -> None:
    """Stopped between two rounds: refused, timed; let in again and signed in, the run goes on."""
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    plan = small_plan(tmp_path / "plan.yaml", name="interrupted")
    opened = Workspace(copy)
    office = opened.office()
    stopped: list[float] = []

    def stop_after_the_first_round(event: Event) -> None:
        if (event.stage, event.step) == ("closed", "train-0001"):
            stop = office.revoke("dev@coordinator", by="sam", reason="left")
            stopped.append(stop.durable_ms)

    with pytest.raises(Refused) as caught:
        opened.run(plan, progress=stop_after_the_first_round)
    assert caught.value.code == "revoked"
    (journal,) = copy.glob("runs/interrupted-*/journal.jsonl")
    steps = [json.loads(line)["body"].get("step") for line in journal.read_text().splitlines()]
    assert steps[-1] == "train-0001"
    assert stopped[0] > 0
    office.restore("dev@coordinator", by="sam")
    with pytest.raises(Refused, match="session has ended"):  # not the one that was stopped
        opened.run(plan)
    sign_in(opened)
    assert opened.run(plan).manifest["status"] == "complete"


def test_a_stop_at_one_silo_is_that_silos_own(told: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(told["workspace"], copy)
    opened = Workspace(copy)
    office = opened.office("aurora")
    office.revoke("dev@coordinator", by="sam", reason="left")
    run = opened.run(told["plan"])
    assert run.found
    assert (run.missing or {})["aurora"].startswith("refused (revoked)")
    stop = office.stops.list()["dev@coordinator"]
    assert stop.refused_after_ms is not None
    assert 0 < stop.refused_after_ms < 60_000
