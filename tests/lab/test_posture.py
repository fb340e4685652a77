"""The security review: each control is put wrong and shows red; what wasn't checked is red too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abfed.cli.main import main
from abfed.lab.controls import CONTROLS
from abfed.lab.doctor import LAB, LAB_CHECKS, CheckUp, check_up
from abfed.lab.posture import Posture, assess, keep, newest, read_posture
from abfed.lab.reports import make_report, order
from abfed.lab.responding import incidents_of
from abfed.lab.subjects import find_subject
from abfed.lab.watching import Watch
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.silo.subjects import Subjects
from abfed.site.checkups import Finding
from abfed.site.files import write_private
from abfed.site.people import People
from tests.signing import CHEAPEST_FOR_TESTS, PASSWORD

ROOT = Path(__file__).resolve().parents[2]
CLEAN = CheckUp(LAB, LAB_CHECKS, (), None)


def now() -> datetime:
    return datetime.now(UTC)


def checked(workspace: Workspace) -> None:
    for site in ("coordinator", "aurora"):
        check_up(workspace, site, now())


def states(posture: Posture) -> dict[str, str]:
    return {one.id: one.state for one in posture.standings}


def why(posture: Posture, control: str) -> str:
    return " | ".join(next(one for one in posture.standings if one.id == control).evidence)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites that were looked after: people, a check-up, a watch."""
    made = Workspace.create(tmp_path_factory.mktemp("kept") / "ws")
    made.create_silo("aurora", columns=("opened", "clicked"))
    for site in ("coordinator", "aurora"):
        office = made.office(site)
        people = People(office.folder, office.keys, office.audit, hashing=CHEAPEST_FOR_TESTS)
        people.enrol("sam", PASSWORD, by="test")
        for role in ("security-officer", "privacy-officer", "auditor"):
            lasts = timedelta(days=100)
            people.grant("sam", role, owner="test", reason="a test", lasts=lasts)
    checked(made)
    Watch(made).look()
    return made.path


@pytest.fixture
def workspace(kept: Path, tmp_path: Path) -> Workspace:
    """A copy that a test may put wrong."""
    shutil.copytree(kept, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


def test_what_was_never_checked_is_red(tmp_path: Path) -> None:
    made = Workspace.create(tmp_path / "ws")
    found = assess(made, CLEAN, now())
    assert {"S2", "S4", "S7", "S14", "S19"} <= set(found.red)
    assert "never checked" in why(found, "S7")
    assert "nobody here is security officer" in why(found, "S4")


def test_sites_that_are_looked_after_have_no_red(workspace: Workspace) -> None:
    found = assess(workspace, CLEAN, now())
    assert found.red == ()
    assert len(found.standings) == len(CONTROLS) == 23
    owner = next(one.owner for one in found.standings if one.id == "S22")
    assert owner == "sam@coordinator, sam@aurora"
    assert all(one.evidence and one.on for one in found.standings)


def _wide(workspace: Workspace) -> None:
    (workspace.silo_folder("aurora") / "releases").chmod(0o755)
    checked(workspace)


def _late(workspace: Workspace) -> None:
    with workspace.silo("aurora") as service:
        Subjects(service).receive("erase", ["x@example.org"], received=now() - timedelta(days=60))


def _open_model(workspace: Workspace) -> None:
    write_private(workspace.runs_folder / "model.safetensors", b"open")


def _untold(workspace: Workspace) -> None:
    incidents_of(workspace.office("aurora")).open(
        "a laptop is gone", by="sam@aurora", playbook="stolen-laptop",
        known_at=now() - timedelta(hours=80),
    )  # fmt: skip


def _cut_log(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[2:]]))


def _torn_ledger(workspace: Workspace) -> None:
    path = workspace.silo_folder("aurora") / "ledger.db"
    path.write_bytes(path.read_bytes()[:100])
    checked(workspace)


WRONG: dict[str, tuple[Callable[[Workspace], None], str]] = {
    "S4": (_wide, "0755"),
    "S1b": (_late, "1 requests of people are past their day"),
    "S8": (_open_model, "model.safetensors lies open"),
    "S15": (_untold, "the authority was not told"),
    "S21": (_cut_log, "aurora"),
    "S2": (_torn_ledger, "aurora"),
}


@pytest.mark.parametrize("control", WRONG)
def test_what_is_put_wrong_is_red_and_named(control: str, workspace: Workspace) -> None:
    put, reason = WRONG[control]
    put(workspace)
    found = assess(workspace, CLEAN, now())
    assert control in found.red, states(found)
    assert reason in why(found, control)


def test_what_grows_old_turns_red_by_itself(workspace: Workspace) -> None:
    later = assess(workspace, CLEAN, now() + timedelta(days=95))
    assert {"S7", "S13", "S14", "S19"} <= set(later.red)
    assert "95 days ago" in why(later, "S13")


def test_the_installation_counts(workspace: Workspace) -> None:
    weak = Finding(check="advisories", severity="high", what="a package has a known weakness")
    found = assess(workspace, CheckUp(LAB, LAB_CHECKS, (weak,), None), now())
    assert found.red == ("S18",)
    unasked = weak.model_copy(update={"severity": "medium", "what": "nothing was checked"})
    found = assess(workspace, CheckUp(LAB, LAB_CHECKS, (unasked,), None), now())
    assert states(found)["S18"] == "look"


def test_it_is_kept_signed_and_its_page_says_what_is_not_so(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no review"):
        newest(workspace)
    _late(workspace)
    path = keep(workspace, assess(workspace, CLEAN, now()), by="sam@coordinator")
    assert newest(workspace) == path
    made = make_report(order(find_subject(workspace, "security")))
    assert made.failure is None, made.failure
    (html,) = (data.decode() for name, data in made.files.items() if name.endswith(".html"))
    assert "1 of 23 controls do not hold: S1b." in html
    assert html.count("NOT SO") == 2, "on top, and in the table of all"
    assert html.count("<h1>") == 1
    assert "sam@aurora" in html
    again = make_report(order(find_subject(workspace, "security")))
    assert again.files == made.files
    data = path.read_bytes()
    write_private(path, data.replace(b'"state":"red"', b'"state":"holds"', 1))
    with pytest.raises(IntegrityError):
        read_posture(path, workspace.keys.public_key)
    with pytest.raises(IntegrityError):
        find_subject(workspace, "security")


def test_the_page_of_controls_is_what_the_tool_writes() -> None:
    done = subprocess.run(
        [sys.executable, "tools/controls.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_ends_with_five_where_something_is_not_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asks the installation too, which asks for advisories where that can be asked."""
    where = ["-w", str(tmp_path / "ws")]
    assert main(["init", *where]) == 0
    capsys.readouterr()
    assert main(["review", "--json", *where]) == 5
    told = json.loads(capsys.readouterr().out)
    assert "S7" in told["red"]
    assert main(["report", "security", *where]) == 0
    assert main(["report", "verify", next((tmp_path / "ws" / "reports").glob("*.html")).stem,
                 *where]) == 0  # fmt: skip
