"""`abfed people`, `access`, `login`: what a person types, from enrolment to a refusal."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from string import hexdigits
from typing import Any

import pyotp
import pytest
import yaml

from abfed.cli.main import main
from abfed.cli.people import WHITE_ON_BLACK, _qr_code
from abfed.lab.development import NAME
from abfed.lab.offices import KEY_HOLDER
from abfed.lab.session import Session
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import parse_canonical
from abfed.site.factors import otp_code
from abfed.site.files import write_private
from tests.examples import plan_values

PASSWORD = "a long enough passphrase"


class Desk:
    """A workspace with one silo, and a way to type commands."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], silo: str = "aurora"
    ) -> None:
        self.folder, self.capsys, self.workspace = folder, capsys, folder / "ws"
        write_private(folder / "pw", PASSWORD.encode())
        self.says("init", "--no-development-person")
        if silo:
            self.says("silo", "create", silo, "--synthetic")

    def types(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = main([*words, "-w", str(self.workspace)])
        told = self.capsys.readouterr()
        return code, told.out + told.err

    def types_bare(self, *words: str) -> tuple[int, str]:
        """A command that is about no workspace."""
        self.capsys.readouterr()
        code = main(list(words))
        told = self.capsys.readouterr()
        return code, told.out + told.err

    def says(self, *words: str) -> str:
        code, told = self.types(*words)
        assert code == 0, told
        return told

    def refused(self, *words: str) -> str:
        code, told = self.types(*words)
        assert code in (2, 3), told
        return told

    def add(self, name: str, role: str, site: str = "coordinator") -> None:
        files = ["--password-file", str(self.folder / "pw")]
        files += ["--secrets-file", str(self.folder / f"{name}.json")]
        self.says("people", "add", name, "--role", role, "--reason", "test", "-s", site, *files)

    def login(self, name: str, site: str = "coordinator", *, steps: int = 0) -> str:
        return self.says(
            "login", name, "-s", site, "--password-file", str(self.folder / "pw"),
            "--code", self.code(name, steps),
        )  # fmt: skip

    def code(self, name: str, steps: int = 0) -> str:
        secret = json.loads((self.folder / f"{name}.json").read_bytes())["otp_secret"]
        return otp_code(secret, datetime.now(UTC) + timedelta(seconds=30 * steps))

    def wrong_code(self, name: str) -> str:
        """One that the authenticator doesn't show about now."""
        shown = {self.code(name, steps) for steps in range(-2, 4)}
        return next(code for code in (f"{n:06}" for n in range(7)) if code not in shown)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_people_come_in_are_granted_reviewed_and_stopped(desk: Desk) -> None:
    assert desk.refused("login", "--development").count("no development person") == 1
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    told = desk.refused("run", str(plan))
    assert "run `abfed login NAME" in told
    assert "--development" not in told, "nobody was made up here"
    desk.add("sam", "security-officer", "aurora")
    # From now on somebody may manage people, so nobody comes in without them.
    files = ["--password-file", str(desk.folder / "pw")]
    add = ["people", "add", "eve", "--role", "auditor", "--reason", "x", "-s", "aurora", *files]
    told = desk.refused(*add)
    assert "nobody is signed in" in told
    assert "run `abfed login NAME --site aurora" in told
    told = desk.login("sam", "aurora")
    assert "sam@aurora (security-officer)" in told
    desk.add("olga", "privacy-officer", "aurora")
    assert "nobody changes their own rights" in desk.refused(
        "people", "grant", "sam", "auditor", "--reason", "x", "-s", "aurora"
    )
    desk.says("people", "grant", "olga", "auditor", "--reason", "x", "--days", "9", "-s", "aurora")
    desk.says("people", "attest", "olga", "privacy-basics", "-s", "aurora")
    listed = json.loads(desk.says("people", "list", "-s", "aurora", "--json"))
    assert {(row["person"], row["role"], row["owner"]) for row in listed} == {
        ("sam@aurora", "security-officer", "site-key"),
        ("olga@aurora", "privacy-officer", "sam@aurora"),
        ("olga@aurora", "auditor", "sam@aurora"),
    }
    _review(desk)
    told = desk.says("access", "revoke", "olga", "--reason", "left", "-s", "aurora")
    assert "on disk after" in told
    code, told = desk.types("access", "why", "olga", "audit.read", "-s", "aurora")
    assert (code, "stopped" in told) == (3, True)
    assert "olga@aurora" in desk.says("access", "stopped", "-s", "aurora")
    desk.says("access", "restore", "olga", "-s", "aurora")
    assert "Nobody is stopped" in desk.says("access", "stopped", "-s", "aurora")
    assert "security-officer" in desk.says("access", "show", "-s", "aurora")
    assert "Signed out" in desk.says("logout", "-s", "aurora")
    assert "nobody is signed in" in desk.refused("access", "review", "-s", "aurora")


def _review(desk: Desk) -> None:
    """The file-driven flow; olga's auditor grant expires within two weeks, so it is marked."""
    template = desk.folder / "review.yaml"
    told = desk.says("access", "review", "-s", "aurora", "--template", str(template))
    assert "1 marked of 2" in told
    values = yaml.safe_load(template.read_text())
    assert "sam" not in [row["person"] for row in values["verdicts"]], "nobody reviews their own"
    assert "keep, or revoke" in [row["decision"] for row in values["verdicts"]]
    assert desk.types("access", "review", "-s", "aurora", "--decisions", str(template))[0] == 2
    rows = values["verdicts"]
    for row in rows:
        row["decision"] = "revoke" if row["role"] == "auditor" else "keep"
    own = [{"person": "sam", "role": "security-officer", "decision": "keep"}]
    for bad in (rows[1:], rows + own):
        template.write_text(yaml.safe_dump({"verdicts": bad}))
        assert desk.types("access", "review", "-s", "aurora", "--decisions", str(template))[0] == 2
    template.write_text(yaml.safe_dump({"verdicts": rows}))
    told = desk.says("access", "review", "-s", "aurora", "--decisions", str(template))
    assert "1 kept, 1 revoked" in told
    assert "auditor" not in desk.says("people", "list", "-s", "aurora")


def test_secrets_told_once_go_over_no_file_and_nobody_comes_in_without_them(desk: Desk) -> None:
    desk.add("sam", "security-officer", "aurora")
    kept = (desk.folder / "sam.json").read_bytes()
    desk.login("sam", "aurora")
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    files = ["--password-file", str(desk.folder / "pw"), "--reason", "x", "-s", "aurora"]
    for place in (desk.folder / "sam.json", desk.folder / "nowhere" / "x.json"):
        desk.refused(
            "people", "add", "eve", "--role", "auditor", *files, "--secrets-file", str(place)
        )
        desk.refused(
            "people", "service", "bat", "--plan", str(plan), "--key", str(place),
            "--reason", "x", "-s", "aurora",
        )  # fmt: skip
    assert (desk.folder / "sam.json").read_bytes() == kept
    listed = desk.says("people", "list", "-s", "aurora")
    assert ("eve" in listed, "bat" in listed) == (False, False)


def test_the_interactive_review_asks_until_it_has_an_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add("sam", "security-officer", "aurora")
    desk.login("sam", "aurora")
    files = ["--password-file", str(desk.folder / "pw"), "--secrets-file", str(desk.folder / "o")]
    desk.says(
        "people", "add", "olga", "--role", "auditor", "--role", "silo-admin", "--reason", "both",
        "-s", "aurora", *files,
    )  # fmt: skip
    asked: list[str] = []
    answers = iter(["perhaps", "keep", "revoke"])

    def answer(text: str, **_: Any) -> str:
        asked.append(text)
        return next(answers)

    monkeypatch.setattr("typer.prompt", answer)
    told = desk.says("access", "review", "-s", "aurora")
    assert "1 kept, 1 revoked" in told
    assert len(asked) == 3
    assert told.count("over-broad") == 2  # once for each grant, above the question


def test_a_plan_runs_only_with_a_second_persons_yes(desk: Desk) -> None:
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    policy = desk.workspace / "silos" / "aurora" / "policy.yaml"
    values = yaml.safe_load(policy.read_text())
    values["access"]["four_eyes"] = {"epsilon_above": 0.5}
    write_private(policy, yaml.safe_dump(values).encode())
    assert "nobody is signed in" in desk.refused("run", str(plan))
    desk.add("ada", "analyst")
    desk.login("ada")
    assert "approval" in desk.refused("run", str(plan))
    desk.add("olga", "privacy-officer", "aurora")
    desk.login("olga", "aurora")
    approve = ["access", "approve", str(plan), "-s", "aurora"]
    assert "because ε is above 0.5" in desk.says(*approve)
    # The plan passes checks 5 and 6 now; that the silo holds no rows is for a later check.
    assert "approval" not in desk.types("run", str(plan))[1]
    assert "approval" in desk.refused("run", str(plan))  # its one run is used
    log = Workspace(desk.workspace).office("aurora").audit.entries()
    assert [entry["body"]["event"] for entry in log].count("plan.approved") == 1


def test_nobody_comes_in_by_half(desk: Desk) -> None:
    """What can't be granted is refused before anybody is enrolled: the name stays free."""
    files = ["--password-file", str(desk.folder / "pw")]
    files += ["--secrets-file", str(desk.folder / "bob.json")]
    for role, reason in (("service-account", "x"), ("analyst", " "), ("wizard", "x")):
        desk.refused("people", "add", "bob", "--role", role, "--reason", reason, *files)
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    service = ["people", "service", "bob", "--plan", str(plan), "--key", str(desk.folder / "k")]
    assert "a reason" in desk.refused(*service, "--reason", " ")
    assert not (desk.folder / "k").exists()
    assert desk.says("people", "list", "--json").strip() == "[]"
    desk.add("bob", "analyst")
    log = Workspace(desk.workspace).office("coordinator").audit.entries()
    assert [entry["body"]["event"] for entry in log][-2:] == ["people.added", "people.granted"]


def test_a_password_is_changed_and_a_lock_out_is_seen(desk: Desk) -> None:
    desk.add("ada", "analyst")
    write_private(desk.folder / "new", b"another long passphrase 8")
    files = ["--password-file", str(desk.folder / "pw")]
    change = ["people", "password", "ada", *files, "--new-password-file", str(desk.folder / "new")]
    assert "is changed" in desk.says(*change, "--code", desk.code("ada"))
    for _ in range(5):
        desk.refused("login", "ada", *files, "--code", desk.wrong_code("ada"))
    assert "locked out until" in desk.says("people", "list", "--json")


def test_a_qr_code_is_black_on_white_on_any_terminal() -> None:
    """A light terminal shows the negative of what has no colours: many readers refuse that."""
    bare = _qr_code("otpauth://totp/abfed", coloured=False).splitlines()
    drawn = _qr_code("otpauth://totp/abfed", coloured=True).splitlines()
    assert [f"{WHITE_ON_BLACK}{line}\033[0m" for line in bare] == drawn
    assert set("".join(bare)) == set("█▀▄ ")


@pytest.mark.skipif(not which("zbarimg"), reason="zbar-tools isn't installed")
def test_a_phone_reads_the_qr_code_off_the_screen(desk: Desk, tmp_path: Path) -> None:
    files = ("--password-file", str(desk.folder / "pw"))
    told = desk.says("people", "add", "ada", "--role", "analyst", "--reason", "r", *files)
    rows = [line for line in told.splitlines() if line and set(line) <= set("█▀▄ ")]
    halves = [
        bytes(255 * (block in lit) for block in row.ljust(len(rows[0])) for _ in range(8))
        for row in rows
        for lit in ("█▀", "█▄")
    ]
    size = f"P5 {len(halves[0])} {8 * len(halves)} 255\n"
    (tmp_path / "screen.pgm").write_bytes(size.encode() + b"".join(row * 8 for row in halves))
    read = ["zbarimg", "--quiet", "--raw", str(tmp_path / "screen.pgm")]
    seen = subprocess.run(read, check=True, capture_output=True, text=True).stdout.strip()
    secret = pyotp.parse_uri(seen).secret
    assert f"type its secret: {secret}" in told
    assert "ada%40coordinator" in seen
    write_private(desk.folder / "ada.json", json.dumps({"otp_secret": secret}).encode())
    desk.login("ada")


def test_a_fresh_factor_and_recovery(desk: Desk) -> None:
    desk.add("ada", "analyst")
    desk.login("ada")
    assert "not signed in" in desk.refused("login", "--fresh", "--code", desk.wrong_code("ada"))
    desk.says("login", "--fresh", "--code", desk.code("ada", 1))
    secrets = json.loads((desk.folder / "ada.json").read_bytes())
    files = ["--password-file", str(desk.folder / "pw")]
    recover = ["people", "recover", "ada", *files, "--code", secrets["recovery_codes"][0]]
    told = desk.says(*recover)
    assert "Scan this with an authenticator" in told
    assert "Recovery codes" in told
    assert "not signed in" in desk.refused(*recover)


def test_after_a_new_passphrase_it_is_told_what_to_rename(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = desk.folder / "credentials" / "coordinator.passphrase.new"
    new.parent.mkdir(mode=0o700)
    write_private(new, PASSWORD.encode())
    monkeypatch.setenv("ABFED_CREDENTIALS", str(new.parent))
    told = desk.says("keys", "rewrap", "--to", "file", "--passphrase")
    assert "Rename coordinator.passphrase.new to coordinator.passphrase now" in told
    assert "a passphrase or PIN is needed" in desk.refused("keys", "status")
    new.rename(new.with_suffix(""))
    assert "under a passphrase" in desk.says("keys", "status")


def test_a_batch_job_signs_in_with_its_key(desk: Desk) -> None:
    plan, key = desk.folder / "plan.yaml", desk.folder / "nightly.key"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    desk.says(
        "people", "service", "nightly", "--plan", str(plan), "--key", str(key), "--reason", "batch"
    )
    assert "nightly@coordinator (service-account)" in desk.says("login", "--key", str(key))
    assert "approval" not in desk.types("run", str(plan))[1]
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"], name="another")))
    assert "bound to other plans" in desk.refused("run", str(plan))


def test_a_development_person_is_heard_only_where_the_policy_says_so(
    desk: Desk, tmp_path: Path
) -> None:
    workspace = Workspace.create(tmp_path / "dev", development=True)
    session = workspace.sign_in_development()
    assert session.facts.development
    assert session.facts.factors == ("pwd", "otp")
    access = workspace.coordinator / "access.yaml"
    text = access.read_text().replace("development_people: true", "development_people: false")
    write_private(access, text.encode())
    plan = desk.folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    workspace.create_silo("aurora", synthetic=True)
    code = main(["run", str(plan), "-w", str(tmp_path / "dev")])
    assert code == 3
    assert "made up" in desk.capsys.readouterr().err
    secrets = parse_canonical((workspace.lab / "development-person.json").read_bytes(), where="x")
    password = set(secrets["password"])
    assert password <= set(hexdigits), "other letters could by chance spell the name"
    assert not set(NAME) <= set(hexdigits)
    for path in workspace.path.rglob("*"):
        if path.is_file() and path.parent != workspace.lab:
            for canary in (secrets["password"], secrets["otp_secret"], *secrets["recovery_codes"]):
                assert canary.encode() not in path.read_bytes()
    assert workspace.lab.stat().st_mode & 0o077 == 0


def test_who_holds_the_key_reviews_where_nobody_else_may(desk: Desk) -> None:
    """The last reviewer's grant ran out: a late review must not close the site for good."""
    desk.add("ada", "silo-admin")
    workspace = Workspace(desk.workspace)

    def signed_in() -> Session:
        raise AssertionError("a session is asked for")

    office = workspace.office()
    office.people.enrol("sam", PASSWORD, by="test")
    role, lasts = "security-officer", timedelta(days=90)
    office.people.grant("sam", role, owner="test", reason="reviews", lasts=lasts)
    with pytest.raises(AssertionError, match="session is asked for"):
        office.actor("access.review", signed_in)  # somebody may review: they are to sign in
    office.people.take_back("sam", role, by="test")
    assert office.managers(), "somebody may manage people, if the review weren't late"
    assert office.actor("access.review", signed_in) == KEY_HOLDER
    with pytest.raises(AssertionError, match="session is asked for"):
        office.actor("people.manage", signed_in)


def test_an_overdue_review_is_told_at_sign_in(desk: Desk) -> None:
    desk.add("ada", "analyst")
    office = Workspace(desk.workspace).office()
    office.people.reviewed(datetime.now(UTC) - timedelta(days=97))
    assert "is 7 days late" in desk.login("ada")
    log = [entry["body"]["event"] for entry in office.audit.entries()]
    assert log[-1] == "access.review-overdue"
