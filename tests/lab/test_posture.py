"""The security review: each control is put wrong and shows red; what wasn't checked is red too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.coordinator.house import FOLDER, Places, Settings
from abfed.coordinator.provision import Provisioner
from abfed.lab.incidents.responding import incidents_of, vendors_of
from abfed.lab.reports.report import make_report, order
from abfed.lab.reports.subjects import find_subject
from abfed.lab.sections import security
from abfed.lab.security.controls import CONTROLS
from abfed.lab.security.posture import Posture, as_values, assess, keep, newest, read_posture
from abfed.lab.upkeep.doctor import LAB, LAB_CHECKS, CheckUp, check_up
from abfed.lab.upkeep.examining import FILE_CHECKS, SITE_CHECKS
from abfed.lab.watch.watching import Watch
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.plan import Plan
from abfed.silo.models import KeptModel, Models
from abfed.silo.subjects import Subjects
from abfed.site.certificates import Authority, make_authority, make_server_certificate
from abfed.site.checkups import Checkups, Finding
from abfed.site.files import read_private, write_private
from abfed.site.people import People
from abfed.site.vendors import Vendors
from tests.examples import model_values
from tests.signing import CHEAPEST_FOR_TESTS, PASSWORD
from tests.silo.asking import model_arrays
from tests.site.test_vendors import HOOK, vendor

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
    assert "coordinator was never checked" in why(found, "S7")
    assert "nobody here is security officer" in why(found, "S4")
    page = security.every(as_values(found))
    assert page.count("<td>never checked</td>") == sum(not one.on for one in found.standings) > 5
    check_up(made, "coordinator", now())
    (late,) = assess(made, CLEAN, now() + timedelta(days=32), CONTROLS[4:5]).standings
    assert (late.on, late.state) == (f"{now():%Y-%m-%d}", "red"), late


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


def _edit(path: Path, **changes: object) -> None:
    values = yaml.safe_load(path.read_text())
    write_private(path, yaml.safe_dump(values | changes).encode())


def _policy(workspace: Workspace) -> Path:
    return workspace.silo_folder("aurora") / "policy.yaml"


def _lost_policy(workspace: Workspace) -> None:
    _policy(workspace).unlink()


def _founded(workspace: Workspace) -> Places:
    """A federation's folder, as `abfed provision` makes it."""
    places, text = Places(workspace.path / FOLDER), b"name: spring\nport: 19543\nlink_port: 19544\n"
    made = Provisioner(places.folder, workspace.keys, workspace.audit, now)
    made.found(Settings(name="spring", port=19543, link_port=19544), text)
    return places


def _foreign_certificate(workspace: Workspace) -> None:
    other = make_authority("another", now(), 30)
    _, foreign = make_server_certificate(other, ["localhost"], now(), 30)
    write_private(_founded(workspace).tls / "proxy.crt", foreign)


def _old_certificate(workspace: Workspace) -> None:
    places = _founded(workspace)
    raw = workspace.keys.unwrap(read_private(places.authority_key), name="federation authority")
    authority = Authority(raw, read_private(places.authority_certificate))
    _, old = make_server_certificate(authority, ["localhost"], now() - timedelta(days=40), 30)
    write_private(places.tls / "proxy.crt", old)


def _export_beside(workspace: Workspace) -> None:
    write_private(workspace.silo_folder("aurora") / "export.csv", b"email\n")
    checked(workspace)


def _unchecked(workspace: Workspace) -> None:
    shutil.rmtree(workspace.silo_folder("aurora") / "checkups")
    (workspace.silo_folder("aurora") / "checkup-last.sealed").unlink()


def _made_up_people_heard(workspace: Workspace) -> None:
    access = yaml.safe_load(_policy(workspace).read_text())["access"]
    _edit(_policy(workspace), access=access | {"development_people": True})
    checked(workspace)


def _changed_model(workspace: Workspace) -> None:
    folder, plan = workspace.silo_folder("aurora"), Plan.from_values(model_values())
    kept = Models(folder / "models", workspace.office("aurora").keys)
    digest = kept.keep(KeptModel(plan, model_arrays(plan), "ada@coordinator"))
    path = folder / "models" / f"{digest}.sealed"
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(bytes(data))


def _password_alone(workspace: Workspace) -> None:
    access = yaml.safe_load(_policy(workspace).read_text())["access"]
    _edit(_policy(workspace), access=access | {"factors": [["pwd"]]})


def _unreviewed(workspace: Workspace) -> None:
    workspace.office("aurora").people.reviewed(now() - timedelta(days=97))


def _unwatched(workspace: Workspace) -> None:
    """Nobody has looked for two days; a file that was touched since is no look."""
    Watch(workspace, clock=lambda: now() - timedelta(days=2)).look()
    (workspace.coordinator / "watch-told.sealed").touch()


AGREED = {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": "2999-01-01"}


def _expired_vendor(workspace: Workspace) -> None:
    yesterday = (now() - timedelta(days=1)).date().isoformat()
    office = workspace.office()
    before = Vendors(office.folder, office.keys, office.audit, lambda: now() - timedelta(days=9))
    before.put(vendor(review_by=yesterday, agreement=AGREED), by="ada@coordinator")
    before.approve("postbox", by="sam@coordinator")
    settings = {"sinks": [{"kind": "webhook", "url": HOOK}]}
    write_private(workspace.path / "watch.yaml", yaml.safe_dump(settings).encode())


def _no_standard(workspace: Workspace) -> None:
    register = vendors_of(workspace.office())
    later = (now() + timedelta(days=90)).date().isoformat()
    register.put(vendor(standards=[], review_by=later, agreement=AGREED), by="ada@coordinator")
    register.approve("postbox", by="sam@coordinator")


def _untrained(workspace: Workspace) -> None:
    access = yaml.safe_load(_policy(workspace).read_text())["access"]
    asked = [{"role": "privacy-officer", "module": "privacy-basics"}]
    _edit(_policy(workspace), access=access | {"training": asked})


def _critical(workspace: Workspace) -> None:
    (workspace.silo_folder("aurora") / "ledger.db").chmod(0o644)
    check_up(workspace, "aurora", now())
    (workspace.silo_folder("aurora") / "ledger.db").chmod(0o600)


def _nothing(workspace: Workspace) -> None:
    """What is wrong is the installation: see `lab_of`."""


WEAK = Finding(check="advisories", severity="high", what="a package has a known weakness")

WRONG: dict[str, tuple[Callable[[Workspace], None], str, str]] = {
    "S1": (_lost_policy, "red", "policy"),
    "S1b": (_late, "red", "1 request of people had to be answered"),
    "S2": (_torn_ledger, "red", "aurora"),
    "S3": (_foreign_certificate, "red", "not by this federation's authority"),
    "S4": (_wide, "red", "0755"),
    "S5": (_old_certificate, "red", "does not hold now"),
    "S6": (_export_beside, "red", "export.csv"),
    "S7": (_unchecked, "red", "aurora was never checked"),
    "S8": (_open_model, "red", "model.safetensors lies open"),
    "S9": (_made_up_people_heard, "red", "made-up people"),
    "S10": (_changed_model, "red", "aurora"),
    "S11": (_password_alone, "red", "a password alone: let in"),
    "S12": (_made_up_people_heard, "red", "made-up people"),
    "S13": (_unreviewed, "red", "97 days ago"),
    "S14": (_unwatched, "red", "looked last on"),
    "S15": (_untold, "red", "the authority was not told"),
    "S16": (_expired_vendor, "look", "is refused: vendor postbox is not usable: review overdue"),
    "S17": (_no_standard, "look", "no standard is named"),
    "S18": (_nothing, "red", "a known weakness"),
    "S19": (_critical, "red", "worst left: critical"),
    "S20": (_untrained, "look", "lack privacy-basics"),
    "S21": (_cut_log, "red", "aurora"),
    "S22": (_lost_policy, "red", "policy"),
}
"""How each control is put wrong, the state that it must show, and words that must name why."""


def test_no_control_is_without_a_way_to_break_it() -> None:
    assert list(WRONG) == [one.id for one in CONTROLS]


@pytest.mark.parametrize("control", WRONG)
def test_what_is_put_wrong_is_seen_and_named(control: str, workspace: Workspace) -> None:
    put, state, reason = WRONG[control]
    only = [one for one in CONTROLS if one.id == control]
    lab = CheckUp(LAB, LAB_CHECKS, (WEAK,) if control == "S18" else (), None)
    put(workspace)
    found = assess(workspace, lab, now(), only)
    assert states(found) == {control: state}, why(found, control)
    assert reason in why(found, control)


def test_every_check_of_the_doctor_belongs_to_a_control(workspace: Workspace) -> None:
    made = {*FILE_CHECKS, *SITE_CHECKS, "access", *LAB_CHECKS}
    assert {name for one in CONTROLS for name in one.checks} == made
    half = WEAK.model_copy(update={"check": "unfinished", "what": "silos/.x was left half made"})
    only = [one for one in CONTROLS if "unfinished" in one.checks]
    found = assess(workspace, CheckUp(LAB, LAB_CHECKS, (half,), None), now(), only)
    assert found.red == ("S6",), "what is found and in no control is seen by nobody"


def test_a_check_up_that_left_something_high_does_not_hold_unseen(workspace: Workspace) -> None:
    office = workspace.office("aurora")
    left = WEAK.model_copy(update={"check": "backups", "what": "a test"})
    checks = [*FILE_CHECKS, *SITE_CHECKS, "access"]
    Checkups(office.folder, office.keys).keep(checks, [left], office.audit, now())
    only = [one for one in CONTROLS if one.id in ("S6", "S7", "S19")]
    found = assess(workspace, CLEAN, now(), only)
    assert (found.red, states(found)["S7"], states(found)["S19"]) == (("S6",), "look", "look")
    assert "worst left: high" in why(found, "S7").partition(" | ")[0]


def test_certificates_that_hold_are_read_and_a_port_that_is_closed_is_said(
    workspace: Workspace,
) -> None:
    _founded(workspace)
    only = [one for one in CONTROLS if one.id == "S5"]
    found = assess(workspace, CLEAN, now(), only)
    assert states(found) == {"S5": "holds"}
    assert "proxy: its certificate holds until" in why(found, "S5")
    assert "nothing listens on port 19543 now" in why(found, "S5")


def test_what_grows_old_turns_red_by_itself(workspace: Workspace) -> None:
    later = assess(workspace, CLEAN, now() + timedelta(days=95))
    assert {"S7", "S13", "S14", "S19"} <= set(later.red)
    assert "95 days ago" in why(later, "S13")


def test_what_was_not_asked_of_the_installation_is_said(workspace: Workspace) -> None:
    only = [one for one in CONTROLS if one.id == "S18"]
    unasked = WEAK.model_copy(update={"severity": "medium", "what": "nothing was checked"})
    found = assess(workspace, CheckUp(LAB, LAB_CHECKS, (unasked,), None), now(), only)
    assert states(found) == {"S18": "look"}


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
    (asked,) = (one.asked for one in CONTROLS if one.id == "S1b")
    assert html.count(asked) == 2, "whoever reads what isn't so sees what was asked"
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
