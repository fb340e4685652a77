"""Acts that change something say in JSON what they changed, for batch jobs that go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.site.vendors import CHECKLIST
from tests.lab.test_people_commands import Desk
from tests.site.test_vendors import values as vendor_values


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def told(desk: Desk, *words: str) -> Any:
    return json.loads(desk.says(*words, "--json"))


def test_an_incident_s_notes_notices_and_end(desk: Desk) -> None:
    opened = told(desk, "incident", "open", "a laptop is gone", "--playbook", "stolen-laptop")
    name = opened["id"]
    assert told(desk, "incident", "note", name, "seen in tram 12")["notes"][-1]["text"] == (
        "seen in tram 12"
    )
    notice = told(desk, "incident", "told", name, "the authority", "--reference", "A-1")
    assert notice["notices"][-1]["reference"] == "A-1"
    assert notice["clock"].startswith("told 0")
    closed = told(desk, "incident", "close", name, "found again")
    assert (closed["id"], bool(closed["closed_at"])) == (name, True)


def test_a_vendor_s_end(desk: Desk) -> None:
    file = desk.folder / "vendor.yaml"
    values = vendor_values(owner="sam")
    file.write_text(yaml.safe_dump(values))
    # The holder of the site's key founds: a person proposes only once somebody is signed in.
    desk.add("sam", "security-officer")
    desk.login("sam")
    assert told(desk, "vendor", "propose", str(file))["vendor"]["name"] == values["name"]
    done = [word for item in CHECKLIST for word in ("--done", f"{item}=ticket 12")]
    gone = told(desk, "vendor", "offboard", str(values["name"]), *done)
    assert set(gone["offboarded"].values()) == {"ticket 12"}
    assert len(gone["offboarded"]) == len(CHECKLIST)


def test_requests_that_are_written_down(desk: Desk) -> None:
    (one,) = told(desk, "silo", "subject", "receive", "aurora", "erase", "a@example.org")
    assert (one["act"], one["done_at"], len(one["receipt"])) == ("erase", "", 32)
    assert "who" not in one, "a digest of the pseudonym is not for the log of a batch job"


def test_a_recovery_keeps_its_secrets_out_of_the_json(desk: Desk) -> None:
    desk.add("ada", "analyst")
    code = json.loads((desk.folder / "ada.json").read_bytes())["recovery_codes"][0]
    kept = desk.folder / "new.json"
    files = ["--password-file", str(desk.folder / "pw"), "--secrets-file", str(kept)]
    answer = told(desk, "people", "recover", "ada", *files, "--code", code)
    assert answer == {"person": "ada@coordinator", "recovered": True}
    assert "otp_secret" in json.loads(kept.read_bytes())
