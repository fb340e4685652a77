"""Drills, evidence and the commands of an incident, as a security officer uses them."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import yaml

from abfed.lab.incidents import responding
from abfed.lab.incidents.drills import SCENES, drill, read_drill
from abfed.lab.incidents.playbook import copy_playbooks, find_playbook, playbooks
from abfed.lab.incidents.responding import contain, incidents_of, verify_evidence, write_evidence
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError, IntegrityError, RunFailed
from tests.lab.test_people_commands import Desk, desk
from tests.site.test_vendors import values as vendor_values

__all__ = ["desk"]  # a fixture, used by its name

PLAYBOOKS = sorted(playbooks())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", development=True)


def test_every_shipped_playbook_can_be_drilled_and_is_owned() -> None:
    assert set(PLAYBOOKS) == set(SCENES)
    assert len(PLAYBOOKS) == 7
    for playbook in playbooks().values():
        assert {step.act for step in playbook.steps} >= {"contain", "verify", "evidence"}


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_drill_contains_proves_and_is_recorded(name: str, workspace: Workspace) -> None:
    office = workspace.office()
    path = drill(find_playbook(name), office, by="sam@coordinator")
    record = read_drill(path, office.keys.public_key)
    assert record["passed"]
    assert [one["act"] for one in record["steps"]] == [
        step.act for step in find_playbook(name).steps
    ]
    assert all(one["seconds"] >= 0 for one in record["steps"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError):
        read_drill(path, office.keys.public_key)


def test_a_drill_that_does_not_contain_fails_and_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCENES["leaked-report"], "contain", lambda _: "nothing was done")
    office = workspace.office()
    with pytest.raises(RunFailed, match="drill failed"):
        drill(find_playbook("leaked-report"), office, by="sam@coordinator")
    (path,) = (office.folder / "drills").glob("*.drill")
    assert not read_drill(path, office.keys.public_key)["passed"]


def test_a_workspace_keeps_playbooks_of_its_own(workspace: Workspace) -> None:
    assert len(copy_playbooks(workspace.path)) == 7
    assert copy_playbooks(workspace.path) == []
    path = workspace.path / "playbooks" / "leaked-report.yaml"
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"reviewed_on": "2020-01-01"}))
    assert find_playbook("leaked-report", workspace.path).due_on.year == 2020
    path.write_text(yaml.safe_dump(values | {"name": "other"}))
    with pytest.raises(InputError, match="is of playbook"):
        playbooks(workspace.path)
    with pytest.raises(InputError, match="no playbook"):
        find_playbook("fire")


def bundle(workspace: Workspace, path: Path) -> bytes:
    office = workspace.office()
    incident = incidents_of(office).open("a test", by="sam@coordinator", playbook="leaked-report")
    contain(office, "plan", "a" * 64, by="sam@coordinator", reason=incident.id)
    write_evidence(
        workspace, office, incident.id, path, sites=["coordinator"], by="sam@coordinator"
    )
    return office.keys.public_key


def test_evidence_proves_itself_and_each_change_is_found(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "evidence.zip"
    key = bundle(workspace, path)
    manifest = verify_evidence(path, key)
    assert manifest["entries"]["coordinator/audit.jsonl"] >= 3
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    written = b"".join(members.values())
    for secret in (workspace.lab / "development-person.json").read_text().split('"'):
        if len(secret) > 15:
            assert secret.encode() not in written, "a secret is in the evidence"
    for name in members:
        changed = members[name][:-1] + bytes([members[name][-1] ^ 1])
        for damaged in ({**members, name: changed}, _without(members, name)):
            other = tmp_path / "other.zip"
            with zipfile.ZipFile(other, "w") as archive:
                for each, data in damaged.items():
                    archive.writestr(each, data)
            other.chmod(0o600)
            with pytest.raises(IntegrityError):
                verify_evidence(other, key)
    with pytest.raises(IntegrityError):
        verify_evidence(path, bytes(32))


def test_evidence_is_checked_by_strangers_whatever_its_mode_and_whoever_made_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "evidence.zip"
    key = bundle(workspace, path)
    path.chmod(0o644)  # as a mail program leaves it
    assert verify_evidence(path, key)["members"]
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in (*members.items(), ("incident.json", members["incident.json"])):
            archive.writestr(name, data)
    with pytest.raises(IntegrityError, match="twice"):
        verify_evidence(twice, key)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(str(number), bytes(1 << 17))
    monkeypatch.setattr(responding, "LARGEST_EVIDENCE", 1 << 20)
    with pytest.raises(InputError, match="unpacks"):
        verify_evidence(bomb, key)
    whole = bytearray(path.read_bytes())
    start = whole.index(b"incident.json") + 20
    whole[start : start + 40] = bytes(40)
    (tmp_path / "bad.zip").write_bytes(whole)
    with pytest.raises(IntegrityError, match="changed or cut off"):
        verify_evidence(tmp_path / "bad.zip", key)
    (tmp_path / "none.zip").write_bytes(b"a letter")
    with pytest.raises(InputError, match="not a bundle"):
        verify_evidence(tmp_path / "none.zip", key)


def _without(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {each: data for each, data in members.items() if each != name}


def numbered(told: str) -> str:
    """What an incident is called in the words that opened it: it bears the year it began in."""
    (number,) = set(re.findall(r"\binc-\d{4}-001\b", told))
    return str(number)


def test_an_incident_by_its_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, capsys)
    desk.add("eve", "analyst")
    desk.add("sam", "security-officer")
    refused = desk.refused("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    assert "nobody is signed in" in refused
    desk.login("sam")
    told = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(told)
    assert "72.0 h left of 72 h" in told or "71.9" in told
    assert "Stop the person at every site" in told
    assert "on disk after" in desk.says("incident", "contain", number, "person", "eve")
    plan = "b" * 64
    desk.says("incident", "contain", number, "plan", plan)
    desk.says("incident", "note", number, "seen in tram 12")
    shown = json.loads(desk.says("incident", "show", number, "--json"))
    assert [one["kind"] for one in shown["frozen"]] == ["plan", "person"]
    assert "no incident" in desk.refused("incident", "note", number[:-1] + "2", "nothing")
    assert "can't be frozen" in desk.refused("incident", "contain", number, "cat", "tom")
    path = tmp_path / "evidence.zip"
    digest = json.loads(desk.says("incident", "evidence", number, str(path), "--json"))
    code, checked = desk.types_bare("incident", "verify", str(path), "--key", digest["key"])
    assert code == 0
    assert "is whole" in checked
    desk.says("incident", "lift", number, "plan", plan)
    desk.says("incident", "told", number, "nobody had to be: the disk is encrypted")
    closed = desk.says("incident", "close", number, "found again")
    assert "Still frozen" in closed
    assert "  person eve@coordinator at coordinator\n" in closed
    assert plan not in closed


def test_a_vendor_by_its_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, capsys)
    for name, role in (("pat", "analyst"), ("kim", "auditor"), ("sam", "security-officer")):
        desk.add(name, role)
    file = tmp_path / "postbox.yaml"
    agreed = {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": "2098-02-03"}
    days = {"review_by": "2099-01-01", "agreement": agreed, "owner": "kim"}
    file.write_text(yaml.safe_dump(vendor_values(**days)))
    desk.login("pat")
    file.write_text(yaml.safe_dump(vendor_values(**(days | {"owner": "nobody-here"}))))
    assert "is nobody of coordinator" in desk.types("vendor", "propose", str(file))[1]
    file.write_text(yaml.safe_dump(vendor_values(**days)))
    proposed = desk.says("vendor", "propose", str(file))
    assert "scores 0.75" in proposed
    (seen,) = re.findall(r"--digest ([0-9a-f]{16})", proposed)
    assert "may not vendor.approve" in desk.refused("vendor", "approve", "postbox")
    file.write_text(yaml.safe_dump(vendor_values(region="US", **days)))
    (changed,) = re.findall(r"--digest ([0-9a-f]{16})", desk.says("vendor", "propose", str(file)))
    desk.login("sam")
    shown = desk.says("vendor", "show", "postbox")
    for known in (changed, "https://hooks.example.org/abfed", "NO", "Does it test", "DPA 7"):
        assert known in shown
    approve = ["vendor", "approve", "postbox", "--digest"]
    assert "not what was looked at" in desk.refused(*approve, seen)
    told = desk.says(*approve, changed)
    assert f"the entry {changed}, until 2098-02-03" in told, "its agreement ends before its review"
    assert "webhook: https://hooks.example.org/abfed" in told
    (row,) = json.loads(desk.says("vendor", "show", "--json"))
    assert (row["standing"], row["entry"], row["until"]) == ("approved", changed, "2098-02-03")
    assert "not done" in desk.refused("vendor", "offboard", "postbox")


def test_a_person_means_the_same_one_at_every_site(desk: Desk) -> None:
    desk.add("eve", "analyst")
    opened = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(opened)
    sites = ["--at", "coordinator", "--at", "aurora"]
    told = desk.says("incident", "contain", number, "person", "eve", *sites)
    assert told.count("person eve@coordinator is frozen at") == 2
    frozen = json.loads(desk.says("incident", "show", "-s", "aurora", "--json"))["frozen"]
    assert [one["name"] for one in frozen] == ["eve@coordinator"]
    assert "nobody called 'evil'" in desk.refused(
        "incident", "contain", number, "person", "evil", *sites
    )
    assert "no vendor 'nobody'" in desk.types(
        "incident", "contain", number, "vendor", "nobody"
    )[1]  # fmt: skip


def test_a_site_that_fails_keeps_no_other_from_freezing(desk: Desk) -> None:
    desk.add("eve", "analyst")
    opened = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(opened)
    desk.says("incident", "contain", number, "silo", "aurora", "--at", "coordinator")
    code, told = desk.types(
        "incident", "contain", number, "silo", "aurora",
        "--at", "coordinator", "--at", "aurora",
    )  # fmt: skip
    assert code == 1
    assert "was not frozen at coordinator" in told
    assert "frozen at aurora" in told
    shown = json.loads(desk.says("incident", "show", "-s", "aurora", "--json"))
    assert [one["name"] for one in shown["frozen"]] == ["aurora"]


def test_a_site_where_somebody_else_acts_keeps_no_other_from_freezing(desk: Desk) -> None:
    for name, role in (("eve", "analyst"), ("sam", "security-officer")):
        desk.add(name, role)
    desk.add("max", "silo-admin", "aurora")
    desk.login("sam")
    opened = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(opened)
    words = ["incident", "contain", number, "person", "eve", "--at", "aurora"]
    assert "signed in" in desk.refused(*words), "nobody may there, and it was asked nowhere else"
    code, told = desk.types(*words, "--at", "coordinator")
    assert code == 1
    assert "was not frozen at aurora" in told
    assert "frozen at coordinator" in told
    shown = json.loads(desk.says("incident", "show", "--json"))
    assert [one["name"] for one in shown["frozen"]] == ["eve@coordinator"]


def test_what_is_frozen_still_is_told_with_its_sites(desk: Desk) -> None:
    desk.add("eve", "analyst")
    opened = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(opened)
    sites = ["--at", "coordinator", "--at", "aurora"]
    desk.says("incident", "contain", number, "person", "eve", *sites)
    for plan in ("ab" * 32, "cd" * 32):
        desk.says("incident", "contain", number, "plan", plan, *sites)
    desk.says("incident", "lift", number, "plan", "ab" * 32, "--at", "aurora")
    desk.says("incident", "lift", number, "plan", "cd" * 32, *sites)
    desk.says("access", "restore", "eve@coordinator", "-s", "coordinator")
    desk.says("incident", "told", number, "nobody: a test")
    told = desk.says("incident", "close", number, "found again").splitlines()
    assert [line for line in told if " at " in line] == [
        "  person eve@coordinator at aurora",
        f"  plan {'ab' * 32} at coordinator",
    ]


def test_what_is_frozen_is_lifted_wholly_or_not_at_all_and_also_afterwards(desk: Desk) -> None:
    opened = desk.says("incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    number = numbered(opened)
    desk.says("incident", "contain", number, "plan", "ab" * 32, "--at", "coordinator")
    lift = ["incident", "lift", number, "plan", "ab" * 32, "--at", "coordinator"]
    assert "is not frozen at aurora" in desk.refused(*lift, "--at", "aurora")
    assert json.loads(desk.says("incident", "show", "--json"))["frozen"], "nothing was lifted"
    desk.says("incident", "told", number, "nobody: a test")
    assert "Still frozen" in desk.says("incident", "close", number, "found again")
    contain = ["incident", "contain", number, "plan", "cd" * 32]
    assert "is closed" in desk.refused(*contain)
    assert len(json.loads(desk.says("incident", "show", "--json"))["frozen"]) == 1
    desk.says(*lift)
    shown = json.loads(desk.says("incident", "show", "--json"))
    assert shown["frozen"] == []
    assert shown["incidents"][0]["contained"][0]["lifted_at"]
    desk.says("incident", "evidence", number, str(desk.folder / "late.zip"))
