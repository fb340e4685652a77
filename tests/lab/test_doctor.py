"""The doctor: each thing that is put wrong is found, named, and mended only where that is safe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.upkeep import doctor
from abfed.lab.upkeep.doctor import check_lab, check_up
from abfed.lab.upkeep.examining import certificates, leftovers, permissions
from abfed.lab.upkeep.supply import (
    LOCK,
    advisories,
    bill_of_materials,
    installed,
    lock_age,
    lock_drift,
    pins,
    write_bill,
)
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import IntegrityError, Refused, WorkspaceError
from abfed.site.certificates import make_authority, make_server_certificate
from abfed.site.checkups import Checkups, Finding, read_record
from abfed.site.clock import stamp
from abfed.site.files import ASIDE, write_private
from abfed.site.keys import SiteKeys
from abfed.site.ring import read_ring, write_ring
from tests.lab.test_people_commands import Desk

NOW = datetime.now(UTC)
STRAY = "bucket-0003-00000000deadbeef.parquet"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "ws")
    made.create_silo("aurora", columns=("opened", "clicked"))
    return made


def found(workspace: Workspace, site: str = "aurora", *, fix: bool = False) -> dict[str, Finding]:
    done = check_up(workspace, site, datetime.now(UTC), fix=fix)
    return {one.check: one for one in done.findings}


def test_a_new_silo_has_nothing_worse_than_policy_to_decide(workspace: Workspace) -> None:
    assert set(found(workspace)) == {"access", "policy"}
    assert {one.severity for one in found(workspace).values()} == {"low"}
    assert set(found(workspace, "coordinator")) == {"access"}


def _wide(workspace: Workspace) -> None:
    (workspace.silo_folder("aurora") / "releases").chmod(0o755)


def _aside(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / ".aside-0123"
    write_private(path, b"half")
    os.utime(path, (time.time() - 90_000,) * 2)


def _aside_folder(workspace: Workspace) -> None:
    """What a backup that was killed leaves: a copy of the ledger in a folder aside."""
    folder = workspace.silo_folder("aurora") / ".aside-backup"
    folder.mkdir(mode=0o700)
    write_private(folder / "ledger.db", b"half")
    os.utime(folder, (time.time() - 90_000,) * 2)


def _export(workspace: Workspace) -> None:
    write_private(workspace.silo_folder("aurora") / "export.csv", b"email\n")


def _stray(workspace: Workspace) -> None:
    """What a killed erasure leaves: the bucket as it was before, rows of who was erased in it."""
    write_private(workspace.silo_folder("aurora") / "store" / STRAY, b"sealed rows")


def _foreign(workspace: Workspace) -> None:
    write_private(workspace.silo_folder("aurora") / "store" / "copy.bin", b"rows")


def _torn_seal(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / "ledger.db"
    path.write_bytes(path.read_bytes()[:100])


def _changed_log(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"silo.created", b"silo.founded", 1))


def _old_key(workspace: Workspace) -> None:
    folder = workspace.silo_folder("aurora") / "keys"
    ring = read_ring(folder)
    long_ago = stamp(datetime.now(UTC) - timedelta(days=400))
    held = ring.current.model_copy(update={"made_at": long_ago})
    marker = SiteKeys.open(folder).ring_marker
    write_ring(folder, ring.model_copy(update={"current": held}), marker)


def _loose_policy(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / "policy.yaml"
    values = yaml.safe_load(path.read_text())
    values["per_plan"] = dict(values["budget"])
    write_private(path, yaml.safe_dump(values).encode())


def _no_policy(workspace: Workspace) -> None:
    write_private(workspace.silo_folder("aurora") / "policy.yaml", b"silo: [")


def _link(workspace: Workspace) -> None:
    (workspace.silo_folder("aurora") / "elsewhere").symlink_to("/tmp")


def _lost(workspace: Workspace) -> None:
    shutil.rmtree(workspace.silo_folder("aurora"))


WRONG: dict[str, tuple[Callable[[Workspace], None], str, str]] = {
    "a folder open to others": (_wide, "permissions", "critical"),
    "a silo that is lost": (_lost, "seals", "critical"),
    "a link": (_link, "permissions", "high"),
    "a file a crash left": (_aside, "leftovers", "low"),
    "a folder a crash left": (_aside_folder, "leftovers", "low"),
    "an export beside the store": (_export, "leftovers", "high"),
    "a file of a state that is gone": (_stray, "strays", "medium"),
    "a file among the rows that nobody knows": (_foreign, "strays", "high"),
    "a ledger with other bytes": (_torn_seal, "seals", "critical"),
    "a log with another word": (_changed_log, "seals", "critical"),
    "an old key": (_old_key, "keys", "medium"),
    "one plan may spend all": (_loose_policy, "policy", "high"),
    "a policy that is none": (_no_policy, "policy", "critical"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_wrong_is_found_and_on_record(what: str, workspace: Workspace) -> None:
    put, check, severity = WRONG[what]
    put(workspace)
    done = check_up(workspace, "aurora", datetime.now(UTC))
    worst = [one for one in done.findings if one.check == check]
    assert worst, done.findings
    assert worst[0].severity == severity
    if done.record is not None:
        office = workspace.office("aurora")
        record = read_record(done.record, office.keys.public_key)
        assert check in {one["check"] for one in record["findings"]}


def test_a_check_that_cannot_be_made_is_a_finding(workspace: Workspace) -> None:
    write_private(workspace.silo_folder("aurora") / "subjects.sealed", b"no register of requests")
    told = found(workspace)["requests"]
    assert (told.severity, "could not be checked" in told.what) == ("high", True), told


def test_fix_mends_what_is_safe_and_nothing_else(workspace: Workspace) -> None:
    _wide(workspace)
    _aside(workspace)
    _aside_folder(workspace)
    _export(workspace)
    done = check_up(workspace, "aurora", datetime.now(UTC), fix=True)
    state = {(one.check, one.severity): one.fixed for one in done.findings}
    assert state[("permissions", "critical")]
    assert state[("leftovers", "low")]
    assert not state[("leftovers", "high")]
    assert (workspace.silo_folder("aurora") / "export.csv").exists()
    assert not (workspace.silo_folder("aurora") / ".aside-0123").exists()
    assert not (workspace.silo_folder("aurora") / ".aside-backup").exists()
    assert (workspace.silo_folder("aurora") / "releases").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_change_left_in_a_store_goes_and_nothing_else_does(
    workspace: Workspace,
) -> None:
    store = workspace.silo_folder("aurora") / "store"
    kept = {path.name for path in store.iterdir()}
    _stray(workspace)
    _foreign(workspace)
    with (store / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a writer is at work: its files are its own
        assert STRAY not in found(workspace, fix=True)["strays"].what
        assert (store / STRAY).exists()
    done = check_up(workspace, "aurora", NOW, fix=True)
    state = {one.what.split()[0]: one.fixed for one in done.findings if one.check == "strays"}
    assert state == {f"store/{STRAY}": True, "store/copy.bin": False}
    assert {path.name for path in store.iterdir()} == kept | {"copy.bin"}


def test_what_a_site_at_work_renames_meanwhile_is_no_defect(tmp_path: Path) -> None:
    aside = tmp_path / f"{ASIDE}0a1b"
    for looked_at in (permissions(tmp_path), leftovers(tmp_path, datetime.now(UTC))):
        for name in ("a.csv", "b.csv", aside.name):
            (tmp_path / name).touch(mode=0o666)
        tmp_path.chmod(0o777)
        first = next(looked_at)  # all was listed
        (tmp_path / "b.csv").unlink()
        aside.unlink(missing_ok=True)
        found = [first, *looked_at]
        assert not any("b.csv" in one.what for one in found)


def test_a_certificate_that_runs_out_is_told_whatever_its_mode(workspace: Workspace) -> None:
    now = datetime.now(UTC)
    authority = make_authority("north", now, 365)
    _, soon = make_server_certificate(authority, ["localhost"], now, 10)
    key, gone = make_server_certificate(authority, ["localhost"], now - timedelta(days=40), 30)
    tls = workspace.path / "federation" / "tls"
    tls.mkdir(parents=True, mode=0o700)
    files = {"soon.crt": soon, "gone.crt": gone, "key.pem": key, "long.pem": authority.certificate}
    for name, pem in files.items():
        (tls / name).write_bytes(pem)
        (tls / name).chmod(0o644)
    found = {one.what.split()[0]: one.severity for one in certificates(workspace.office(), now)}
    assert found == {"soon.crt": "medium", "gone.crt": "high"}
    assert list(certificates(workspace.office("aurora"), now)) == []  # none of its own


def test_a_file_left_aside_among_keys_is_named_at_once_and_overwritten(
    workspace: Workspace,
) -> None:
    folder = workspace.silo_folder("aurora") / "keys"
    path, kept = folder / ".aside-0123456789abcdef", folder.parent.parent / "kept"
    write_private(path, b"k" * 32)
    kept.hardlink_to(path)
    done = check_up(workspace, "aurora", datetime.now(UTC), fix=True)
    (named,) = [one for one in done.findings if one.check == "leftovers"]
    assert (named.severity, named.fixed) == ("medium", True)
    assert "keys/.aside-0123456789abcdef" in named.what
    assert not path.exists()
    assert kept.read_bytes() != b"k" * 32


def test_a_record_that_was_changed_is_found_out(workspace: Workspace) -> None:
    done = check_up(workspace, "aurora", datetime.now(UTC))
    assert done.record is not None
    office = workspace.office("aurora")
    checkups = Checkups(office.folder, office.keys)
    assert checkups.records()[0]["worst"] == "low"
    data = done.record.read_bytes()
    done.record.write_bytes(data.replace(b'"worst":"low"', b'"worst":"lot"', 1))  # still a record
    assert done.record.read_bytes() != data
    with pytest.raises(IntegrityError):
        checkups.records()


def test_a_policy_can_ask_for_a_check_up_before_anything_is_answered(workspace: Workspace) -> None:
    office = workspace.office("aurora")
    checkups = Checkups(office.folder, office.keys)
    checkups.require(None, NOW)
    with pytest.raises(Refused, match="too old"):
        checkups.require(7, NOW)
    checkups.keep(["seals"], [], office.audit, NOW)
    checkups.require(7, NOW + timedelta(days=6))
    with pytest.raises(Refused, match="too old"):
        checkups.require(7, NOW + timedelta(days=8))
    with pytest.raises(Refused, match="in the future"):  # a clock that was set back
        checkups.require(7, NOW - timedelta(days=30))
    worst = Finding(check="seals", severity="critical", what="a test")
    checkups.keep(["seals"], [worst], office.audit, NOW)
    with pytest.raises(Refused, match="critical"):
        checkups.require(7, NOW)
    checkups.keep(["seals"], [worst.model_copy(update={"fixed": True})], office.audit, NOW)
    checkups.require(7, NOW)


def test_the_bill_names_what_is_installed(tmp_path: Path) -> None:
    bill = json.loads(bill_of_materials())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {one["name"]: one["version"] for one in bill["components"]}
    assert named["flwr"] == installed()["flwr"]
    assert "torch" in named
    assert write_bill(tmp_path / "bill.json") == len(named)
    with pytest.raises(WorkspaceError, match="already"):
        write_bill(tmp_path / "bill.json")


def test_drift_from_the_lock_is_named(tmp_path: Path) -> None:
    assert pins()["flwr"] == "1.41.0"
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.read_text().replace("flwr==1.41.0", "flwr==1.40.0"))
    (one,) = lock_drift(lock)
    assert "flwr 1.41.0 (lock: 1.40.0)" in one.what
    (one,) = lock_drift(tmp_path / "none")
    assert "without requirements.lock" in one.what


def test_an_old_lock_is_told() -> None:
    assert list(lock_age(date(2026, 12, 1))) == []
    (one,) = lock_age(date(2028, 12, 1))
    assert one.severity == "medium"


def test_advisories_that_cannot_be_asked_are_never_clean(tmp_path: Path) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    (one,) = advisories(executable=str(silent))
    assert "NOT checked" in one.what
    weak = tmp_path / "weak"
    report = {
        "dependencies": [
            {
                "name": "oldlib",
                "version": "1.0",
                "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}],
            }
        ]
    }
    weak.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(report))})\n")
    weak.chmod(0o755)
    (one,) = advisories(executable=str(weak))
    assert one.severity == "high"
    assert "CVE-1" in one.what
    assert "1.1" in one.fix
    skipped = {"dependencies": [{"name": "oldlib", "skip_reason": "not found"}]}
    weak.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(skipped))})\n")
    (one,) = advisories(executable=str(weak))
    assert "1 of 1 packages were NOT checked" in one.what


def test_a_silo_that_was_left_half_put_back_is_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "advisories", list)
    half = workspace.path / "silos" / ".aurora.restoring"
    half.mkdir(mode=0o700, parents=True)
    now = datetime.now(UTC)
    asked = lambda at: [one.what for one in check_lab(workspace.path, at).findings]  # noqa: E731
    assert not any("half made" in one for one in asked(now)), "it may still be going on"
    assert any(".aurora.restoring" in one for one in asked(now + timedelta(hours=2)))
    assert half.exists()


def test_the_lab_is_checked_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abfed.lab.upkeep.doctor.advisories", lambda: iter(()))
    later = NOW + timedelta(days=800)
    checks = [one.check for one in check_lab(workspace.path, later).findings]
    assert checks.count("playbooks") == 7
    assert "lock-age" in checks


def test_the_command_ends_with_five_where_something_bad_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, capsys)
    code, _ = desk.types("doctor", "--at", "aurora", "--at", "coordinator")
    assert code == 0
    (desk.workspace / "silos" / "aurora" / "releases").chmod(0o750)
    code, told = desk.types("doctor", "--at", "aurora")
    assert code == 5
    assert "mode 0750" in told
    code, told = desk.types("doctor", "--at", "aurora", "--fix", "--json")
    assert code == 0
    (one,) = json.loads(told)
    assert one["worst"] in ("none", "low")
    (desk.workspace / "coordinator" / "keys" / "site.json").chmod(0o644)
    assert main(["doctor", "-w", str(desk.workspace), "--at", "coordinator"]) == 4
    assert main(["doctor", "-w", str(desk.workspace), "--at", "coordinator", "--fix"]) == 0
    assert "no severity" in desk.refused("doctor", "--fail-on", "awful")


def test_verifying_all_silos_goes_on_past_one_that_is_lost_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.create(tmp_path / "ws", development=False)
    for name in ("aurora", "borealis"):
        workspace.create_silo(name, columns=("clicked",))
    verify = ["silo", "verify", "-w", str(workspace.path), "--json"]
    assert main(verify) == 0
    shutil.rmtree(workspace.silo_folder("aurora"))
    capsys.readouterr()
    assert main(verify) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["broken"] == ["aurora"]
    assert "its folder is gone" in told["silos"]["aurora"][0]["what"]
    assert len(told["silos"]["borealis"]) > 5, "the other was checked all the same"
    assert main(["silo", "verify", "nobody", "-w", str(workspace.path)]) == 2
