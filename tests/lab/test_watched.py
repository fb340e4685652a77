"""What the watch compares with today: each state is put wrong, and told at the next look."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from abfed.lab.incidents.playbook import copy_playbooks
from abfed.lab.incidents.responding import contain, incidents_of, vendors_of
from abfed.lab.intake import ingest_export
from abfed.lab.models import damaged_models, registry_of
from abfed.lab.upkeep.backups import BACKUP_DAYS, back_up
from abfed.lab.upkeep.doctor import check_up
from abfed.lab.upkeep.supply import lock_made
from abfed.lab.watch.watched import of_budgets
from abfed.lab.watch.watching import Watch
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import pack
from abfed.silo.budgets import Standing
from abfed.silo.models import KeptModel, Models
from abfed.silo.subjects import Subjects
from abfed.site.alarms import STATES, Alarm
from abfed.site.files import write_private
from tests.examples import model_values
from tests.lab.example import example_values, make_run, read_playbooks_today
from tests.silo.asking import SetClock, model_arrays
from tests.site.test_vendors import vendor

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSPHRASE = "only for this test, made up"
ELSEWHERE = {
    "update-norm",
    "update-direction",
    "noise-missing",
    "noise-untold",
    "loss-rises",
    "watch-broken",
}
"""Put wrong in tests/lab/test_watching.py, over a run's releases."""


MAPPING = """
experiment: {constant: spring}
recipient: {columns: [who]}
arm: {column: arm, values: {a: a, b: b}}
sent_at: {column: at}
outcomes: {opened: {column: opened, yes: ["yes"], no: ["no"]}}
basis: {column: basis, values: {consent: consent}}
opted_out: {column: out, yes: ["yes"], no: ["no"]}
region: {constant: EU}
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model, registered, and a silo beside it."""
    folder = tmp_path_factory.mktemp("watched") / "ws"
    make_run(folder, example_values())
    workspace = Workspace(folder)
    shutil.rmtree(folder / "silos")  # stand-ins: their keys are all they have
    (folder / "silos").mkdir(mode=0o700)
    registry_of(workspace)
    workspace.create_silo("dahlia", columns=("opened", "clicked"))
    read_playbooks_today(folder)
    return folder


@pytest.fixture
def clock() -> SetClock:
    return SetClock(datetime.now(UTC))


@pytest.fixture
def workspace(kept: Path, tmp_path: Path, clock: SetClock) -> Workspace:
    shutil.copytree(kept, tmp_path / "ws", symlinks=True)
    return Workspace(tmp_path / "ws", clock)


def look(workspace: Workspace) -> dict[str, Alarm]:
    """A look of a process of its own; the stand-ins' untold noise is not what is tested."""
    found = Watch(workspace).look().new
    return {one.rule: one for one in found if one.rule not in ELSEWHERE}


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def forward(workspace: Workspace, **parts: float) -> None:
    assert isinstance(workspace.clock, SetClock)
    workspace.clock.forward(**parts)


def _changed_log(workspace: Workspace) -> None:
    path = workspace.silo_folder("dahlia") / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"silo.created", b"silo.founded", 1))


def _lost_silo(workspace: Workspace) -> None:
    (workspace.silo_folder("dahlia") / "keys").rename(workspace.path / "gone")


def _clock_back(workspace: Workspace) -> None:
    workspace.audit.append("a.test")
    forward(workspace, minutes=-10)
    workspace.audit.append("a.test")


def _changed_run(workspace: Workspace) -> None:
    flip(next(workspace.runs_folder.glob("*/model.sealed")))


def _changed_model(workspace: Workspace) -> None:
    flip(next((workspace.coordinator / "models").glob("*/*/model.sealed")))


def _untold(workspace: Workspace) -> None:
    incidents_of(workspace.office()).open("a test", by="sam", playbook="leaked-report")
    forward(workspace, hours=73)


def _asked(workspace: Workspace, days: float) -> None:
    with workspace.silo("dahlia") as service:
        asked = [f"{who}@example.org" for who in range(3)]
        Subjects(service).receive("erase", asked, law="ccpa")
    forward(workspace, days=days)


def _vendor(workspace: Workspace, days: float) -> None:
    ends = (workspace.clock() + timedelta(days=20)).date().isoformat()
    register = vendors_of(workspace.office())
    lasting = {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": "2999-01-01"}
    register.put(vendor(review_by=ends, agreement=lasting), by="ada@coordinator")
    register.approve("postbox", by="sam@coordinator")
    forward(workspace, days=days)


def _bad_playbook(workspace: Workspace) -> None:
    copy_playbooks(workspace.path)
    write_private(workspace.path / "playbooks" / "stolen-laptop.yaml", b"name: [")


def _unpurged(workspace: Workspace) -> None:
    path = workspace.silo_folder("dahlia") / "policy.yaml"
    values = yaml.safe_load(path.read_text()) | {"retention_days": 30}
    write_private(path, yaml.safe_dump(values).encode())
    rows = workspace.path.parent / "rows.csv"
    sent = f"{workspace.clock() - timedelta(days=40):%Y-%m-%dT%H:%M:%S}Z"
    rows.write_text(f"who,arm,at,opened,basis,out\nx@example.org,a,{sent},no,consent,no\n")
    mapping = workspace.path.parent / "mapping.yaml"
    mapping.write_text(MAPPING)
    ingest_export(workspace, "dahlia", rows, mapping)
    forward(workspace, days=3)


def _opened_to_others(workspace: Workspace) -> None:
    (workspace.coordinator / "customers.csv").write_text("who\n")


WRONG: dict[str, tuple[Callable[[Workspace], None], str, str]] = {
    "chain-or-seal-broken": (_changed_log, "dahlia", ""),
    "site-unreadable": (_lost_silo, "dahlia", ""),
    "file-exposed": (_opened_to_others, "coordinator", "customers.csv"),
    "clock-went-back": (_clock_back, "coordinator", "600 s"),
    "run-damaged": (_changed_run, "coordinator", ""),
    "model-damaged": (_changed_model, "coordinator", "subject-lines"),
    "authority-not-told": (_untold, "coordinator", "72 hours"),
    "request-overdue": (lambda ws: _asked(ws, 46), "dahlia", "3 requests"),
    "request-due": (lambda ws: _asked(ws, 39), "dahlia", "3 requests"),
    "backup-overdue": (
        lambda ws: forward(ws, days=BACKUP_DAYS + 1), "dahlia", "never backed up"
    ),
    "retention-overdue": (_unpurged, "dahlia", "older than 30 days"),
    "vendor-review-due": (lambda ws: _vendor(ws, 7), "coordinator", "ends by"),
    "vendor-expired": (lambda ws: _vendor(ws, 21), "coordinator", "not used any more"),
    "playbook-review-due": (lambda ws: forward(ws, days=800), "coordinator", "last reviewed"),
    "playbook-malformed": (_bad_playbook, "coordinator", ""),
}  # fmt: skip


@pytest.mark.parametrize("rule", WRONG)
def test_each_state_that_is_put_wrong_is_told_at_the_next_look(
    rule: str, workspace: Workspace
) -> None:
    quiet = look(workspace)
    assert rule not in quiet
    put, site, words = WRONG[rule]
    put(workspace)
    found = look(workspace)
    assert rule in found, found
    alarm = found[rule]
    assert (alarm.site, alarm.severity) == (site, STATES[rule])
    assert words in f"{alarm.subject} {alarm.what}"
    assert rule not in look(workspace), "it is told once"


def test_a_byte_that_is_changed_in_a_store_is_told(workspace: Workspace) -> None:
    _unpurged(workspace)
    look(workspace)
    flip(next((workspace.silo_folder("dahlia") / "store").glob("bucket-*")))
    found = look(workspace)
    assert "chain-or-seal-broken" in found, found
    assert found["chain-or-seal-broken"].subject == "store"


def test_an_entry_that_is_taken_out_of_a_log_is_told(workspace: Workspace) -> None:
    for number in range(3):
        workspace.audit.append("a.test", number=number)
    look(workspace)
    path = workspace.coordinator / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], lines[-1]]))  # each that is left is signed by its site
    assert look(workspace)["chain-or-seal-broken"].subject == "log"


def test_what_is_damaged_next_is_told_on_the_same_day(workspace: Workspace) -> None:
    store = workspace.silo_folder("dahlia") / "store"
    store.chmod(0o750)
    assert "chain-or-seal-broken" in look(workspace)
    store.chmod(0o700)
    assert look(workspace) == {}
    _changed_log(workspace)
    assert "log" in {one.subject for one in Watch(workspace).look().new}


def test_no_state_is_without_such_a_test() -> None:
    assert set(STATES) == {*WRONG, *ELSEWHERE, "budget-burn"}


def test_the_age_of_check_ups_and_of_the_lock_are_gauges(workspace: Workspace) -> None:
    check_up(workspace, "dahlia", workspace.clock())
    forward(workspace, days=3)
    watch = Watch(workspace)
    watch.look()
    told = {
        sample.labels["state"]: sample.value
        for family in watch.metrics.registry.collect()
        for sample in family.samples
        if "state" in sample.labels
    }
    made = lock_made()
    assert made is not None
    assert told["checkup-age-days-dahlia"] == pytest.approx(3, abs=0.001)
    assert "checkup-age-days-coordinator" not in told, "it never was checked"
    assert told["lock-age-days"] == (workspace.clock().date() - made).days


def test_a_check_up_that_was_changed_is_told(workspace: Workspace) -> None:
    check_up(workspace, "dahlia", workspace.clock())
    look(workspace)
    flip(workspace.silo_folder("dahlia") / "checkup-last.sealed")
    assert look(workspace)["chain-or-seal-broken"].subject == "checkup"


def test_a_sound_site_tells_nothing(workspace: Workspace) -> None:
    assert look(workspace) == {}


def test_a_budget_that_ends_soon_is_told_and_one_that_lasts_is_not() -> None:
    def standing(spent: float) -> Standing:
        return Standing("total", spent, 10.0 - spent, 10.0, 1e-6, "")

    charged = [BEGAN - timedelta(days=day) for day in range(20)]
    (alarm,) = of_budgets("dahlia", [standing(6.0)], charged, BEGAN, 30)
    assert alarm.rule == "budget-burn"
    assert "20 days at the pace" in alarm.what  # 0.2 a day, 4 left
    assert list(of_budgets("dahlia", [standing(4.0)], charged, BEGAN, 30)) == []
    assert list(of_budgets("dahlia", [standing(9.0)], [], BEGAN, 30)) == []


def test_an_answer_in_time_ends_the_alarm(workspace: Workspace) -> None:
    _asked(workspace, 39)
    assert "request-due" in look(workspace)
    with workspace.silo("dahlia") as service:
        Subjects(service).carry_out("erase", [f"{who}@example.org" for who in range(3)], by="sam")
    forward(workspace, days=30)
    assert not {"request-overdue", "request-due"} & set(look(workspace))


def test_a_backup_makes_it_young_again(workspace: Workspace, tmp_path: Path) -> None:
    forward(workspace, days=BACKUP_DAYS - 1)
    back_up(workspace, "dahlia", tmp_path / "dahlia.backup", PASSPHRASE, by="sam")
    forward(workspace, days=BACKUP_DAYS - 1)
    assert "backup-overdue" not in look(workspace)
    forward(workspace, days=2)
    assert "last backed up" in look(workspace)["backup-overdue"].what


def test_the_doctor_says_so_too(workspace: Workspace) -> None:
    _asked(workspace, 46)
    _changed_model(workspace)
    done = check_up(workspace, "dahlia", workspace.clock())
    said = {one.check: (one.severity, one.what) for one in done.findings}
    assert said["requests"][0] == "high"
    assert "3 requests" in said["requests"][1]
    assert said["backups"] == ("medium", "no backup for 46 days")
    found = check_up(workspace, "coordinator", workspace.clock()).findings
    assert [one.severity for one in found if one.check == "models"] == ["critical"]


def test_a_model_kept_in_a_silo_is_looked_over_each_time(workspace: Workspace) -> None:
    folder = workspace.silo_folder("dahlia")
    plan = Plan.from_values(model_values())
    arrays = model_arrays(plan)
    assert pack(arrays)
    kept = Models(folder / "models", workspace.office("dahlia").keys)
    digest = kept.keep(KeptModel(plan, arrays, "ada@coordinator"))
    watch = Watch(workspace)
    assert "model-damaged" not in {one.rule for one in watch.look().standing}
    flip(folder / "models" / f"{digest}.sealed", 60)
    (alarm,) = [one for one in watch.look().new if one.rule == "model-damaged"]
    assert (alarm.site, alarm.subject) == ("dahlia", digest[:16])
    found = check_up(workspace, "dahlia", workspace.clock()).findings
    assert {"models", "seals"} <= {one.check for one in found if one.severity == "critical"}


def test_a_run_whose_name_is_no_text_is_told_once_a_day(workspace: Workspace) -> None:
    folder = os.fsencode(workspace.runs_folder) + b"/spring-\xff\x1b[31m"
    Path(os.fsdecode(folder)).mkdir(mode=0o700)
    with os.fdopen(os.open(folder + b"/manifest.sig", os.O_CREAT | os.O_WRONLY, 0o600), "wb"):
        pass
    (alarm,) = [one for one in Watch(workspace).look().new if one.rule == "run-damaged"]
    assert alarm.subject == "spring-\\udcff\\x1b[31m"
    again = Watch(workspace).look()
    assert [one.rule for one in again.new] == []
    assert alarm.key in {one.key for one in again.standing}
    forward(workspace, days=1)
    assert "run-damaged" in {one.rule for one in Watch(workspace).look().new}


def test_a_watch_that_goes_on_notices_a_run_that_is_changed_after_it_was_judged(
    workspace: Workspace,
) -> None:
    watch = Watch(workspace)
    assert "run-damaged" not in {one.rule for one in watch.look().standing}
    _changed_run(workspace)
    assert "run-damaged" in {one.rule for one in watch.look().new}


def test_a_registered_model_that_is_gone_is_missed(workspace: Workspace) -> None:
    shutil.rmtree(workspace.coordinator / "models" / "subject-lines" / "1")
    assert "is gone" in damaged_models(workspace.office())["subject-lines@1"]


def test_looking_over_a_frozen_model_is_not_a_use_of_it(workspace: Workspace) -> None:
    (model,) = registry_of(workspace).standings()
    office = workspace.office()
    contain(office, "model", model.registration.digest, by="sam", reason="a test")
    assert damaged_models(office) == {}
    events = [entry["body"]["event"] for entry in office.audit.entries()]
    assert not [event for event in events if "refused" in event]


def test_settings_are_read_anew_and_bad_ones_are_named(workspace: Workspace) -> None:
    write_private(workspace.path / "watch.yaml", yaml.safe_dump({"burn_days": 0}).encode())
    with pytest.raises(WorkspaceError, match="burn_days"):
        Watch(workspace)
