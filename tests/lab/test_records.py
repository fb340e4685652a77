"""Records of processing say what is enforced: change that, and they change; nothing fills a gap."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.incidents.responding import vendors_of
from abfed.lab.records.record import RECORDS, Record, records_of
from abfed.lab.workspace import Workspace
from abfed.silo.subjects import Subjects
from abfed.site.files import write_private
from abfed.site.vendors import Agreement, Question, Service, Vendor
from tests.signing import PASSWORD, sign_in
from tests.whole.story import small_plan

SILO = "aurora"
TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def brands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "ws"
    assert main(["init", "-w", str(folder)]) == 0
    assert main(["data", "synth", "--ingest", "--scale", "0.02", "-w", str(folder)]) == 0
    sign_in(Workspace(folder))
    plan = small_plan(folder / "plan.yaml")
    assert main(["run", str(plan), "-w", str(folder)]) == 0
    return folder


def records(folder: Path) -> dict[str, Record]:
    workspace = Workspace(folder)
    with workspace.silo(SILO) as service:
        made = records_of(service, workspace.office(SILO), datetime.now(UTC))
    return {one.kind: one for one in made}


def set_policy(folder: Path, **changes: Any) -> None:
    path = folder / "silos" / SILO / "policy.yaml"
    values = yaml.safe_load(path.read_text())
    write_private(path, yaml.safe_dump(values | changes).encode())


def vendor(**changes: Any) -> Vendor:
    values: dict[str, Any] = {
        "name": "postbox",
        "purpose": "sends alarms",
        "owner": "olga",
        "categories": ("contact",),
        "region": "US",
        "agreement": Agreement(
            reference="DPA 7", signed_on="2026-01-01", ends_on=f"{TODAY + timedelta(days=300)}"
        ),
        "services": (Service(kind="mail", address="mail.example.org:587"),),
        "questionnaire": (Question(text="audited?", weight=1.0, yes=True),),
        "review_by": f"{TODAY + timedelta(days=200)}",
    }
    return Vendor(**(values | changes))


def test_a_new_brand_s_gaps_are_told_and_go_once_they_are_closed(brands: Path) -> None:
    assert set(records(brands)) == set(RECORDS)
    before = records(brands)["processing"].gaps
    assert any("retention_days" in gap for gap in before)
    assert any("privacy officer" in gap for gap in before)
    set_policy(brands, retention_days=30_000)
    people = Workspace(brands).office(SILO).people
    people.enrol("olga", PASSWORD, by="test")
    people.grant("olga", "privacy-officer", owner="test", reason="t", lasts=timedelta(days=9))
    made = records(brands)["processing"]
    assert made.gaps == ()
    assert made.facts["data protection contacts"] == [f"olga@{SILO}"]
    assert made.facts["time limits for erasure"]["sends"] == "30000 days"


def test_what_was_done_and_what_is_allowed_is_what_ledger_and_policy_say(brands: Path) -> None:
    with Workspace(brands).silo(SILO) as service:
        policy, charged = service.policy(), service.ledger.reservations()
        outcomes = service.store.describe().outcomes
    facts = records(brands)["processing"].facts
    assert facts["purposes and lawful bases"] == {
        one.name: list(one.bases) for one in policy.purposes
    }
    assert (
        [one["digest"] for one in facts["what was done"]]
        == [one.plan_digest for one in charged]
        != []
    )
    assert facts["categories of data"]["outcomes"] == list(outcomes)
    kept = [one for one in policy.columns if one != "revenue"]
    set_policy(brands, columns=kept)
    necessity = records(brands)["assessment"].facts["necessity and proportionality"]
    assert "revenue" in necessity["held and usable by no plan"]
    set_policy(brands, columns=list(policy.columns))


def test_the_risk_is_what_epsilon_bounds(brands: Path) -> None:
    risks = records(brands)["assessment"].facts["risks to people"]
    # e / (1 + e) = 0.731 for ε = 1, rounded against us
    set_policy(brands, budget={"epsilon": 1.0, "delta": 1e-5}, rerun_reserve=0.0)
    said = records(brands)["assessment"].facts["risks to people"]
    assert "73.2 %" in said["to be told apart if the whole budget is spent"]
    assert said != risks


def test_a_transfer_without_a_basis_is_a_gap(brands: Path) -> None:
    office = Workspace(brands).office(SILO)
    register = vendors_of(office)
    register.put(vendor(), by=f"adam@{SILO}")
    assert records(brands)["transfers"].facts["transfers"] == [], "proposed only: not used"
    register.approve("postbox", by=f"sam@{SILO}")
    made = records(brands)["transfers"]
    assert made.facts["transfers"][0]["rests on"] == "nothing stated"
    assert any("postbox" in gap and "US" in gap for gap in made.gaps)
    register.put(vendor(transfer="standard contractual clauses, module 2"), by=f"adam@{SILO}")
    register.approve("postbox", by=f"sam@{SILO}")
    assert records(brands)["transfers"].gaps == ()
    register.put(vendor(region="DE"), by=f"adam@{SILO}")
    register.approve("postbox", by=f"sam@{SILO}")
    made = records(brands)["transfers"]
    assert (made.gaps, made.facts["transfers"][0]["rests on"]) == ((), "EEA")
    assert "vendor postbox" in records(brands)["processing"].facts["who gets what"]


def test_requests_are_counted_and_late_ones_are_a_gap_and_nobody_is_named(brands: Path) -> None:
    who = "ann@example.org"
    with Workspace(brands).silo(SILO) as service:
        subjects = Subjects(service)
        subjects.carry_out("opt-out", [who], by="t", received=datetime.now(UTC) - timedelta(2))
        subjects.receive("export", [who], received=datetime.now(UTC) - timedelta(days=70))
    made = records(brands)["notice"]
    counts = made.facts["requests"]
    assert counts["opt-out"] == {"received": 1, "complied with": 1, "median days": 2.0}
    assert counts["export"]["complied with"] == 0
    assert any("1 request of people had to be answered" in gap for gap in made.gaps)
    assert who not in json.dumps([one.facts for one in records(brands).values()])


def test_written_records_prove_themselves_and_a_changed_one_is_found(
    brands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from abfed.lab.records.files import write_records

    workspace = Workspace(brands)
    with workspace.silo(SILO) as service:
        key = service.keys.public_key.hex()
        files = write_records(
            tmp_path / "r", service, workspace.office(SILO), datetime.now(UTC), by="olga@aurora"
        )
    assert {one.suffix for one in files} == {".record", ".html"}
    page = (tmp_path / "r" / "processing.html").read_text()
    assert "Record of processing" in page
    assert "http" not in page
    file = tmp_path / "r" / "processing.record"
    capsys.readouterr()
    assert main(["records", "verify", str(file), "--key", key]) == 0
    assert "it holds" in capsys.readouterr().out
    data = file.read_bytes()
    assert b"email-optimisation" in data
    write_private(file, data.replace(b"email-optimisation", b"email-optimizatiom", 1))
    assert main(["records", "verify", str(file), "--key", key]) == 4
    assert main(["records", "verify", str(file), "--key", "zz"]) == 2


def test_whoever_has_no_right_to_it_is_refused(brands: Path, tmp_path: Path) -> None:
    where = ["-w", str(brands)]
    people = Workspace(brands).office(SILO).people
    people.grant("olga", "silo-admin", owner="test", reason="t", lasts=timedelta(days=9))
    assert main(["records", "show", SILO, *where]) == 3
    assert main(["records", "write", SILO, str(tmp_path / "r"), *where]) == 3
    assert not (tmp_path / "r").exists()
