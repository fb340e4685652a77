"""Each dangerous command refuses whoever is not signed in at the site, or may not do it there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.incidents.responding import incidents_of
from abfed.lab.models import registry_of
from abfed.lab.reports.manifest import FIELDS, FORMAT
from abfed.lab.session import Session, forget_session
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.identity import RIGHTS, ROLES, Right, Role
from abfed.site.files import write_private
from abfed.site.people import People
from abfed.site.rights import default_rules
from tests.cli.commands import FREE, GATED, HUB, SILO, all_commands
from tests.examples import plan_values
from tests.lab.example import example_values, make_run
from tests.signing import CHEAPEST_FOR_TESTS, PASSWORD, make_session


class Sites:
    """A workspace whose two sites have people, a finished run and a report of it."""

    def __init__(self, folder: Path) -> None:
        run = make_run(folder / "ws", example_values())
        self.workspace = Workspace(folder / "ws")
        registry_of(self.workspace)  # the run's model is registered when models are first looked at
        self.workspace.create_silo(SILO, synthetic=True)
        self._made: list[str] = []
        self._sessions: dict[tuple[str, Role], tuple[float, Session | None]] = {}
        for site in (HUB, SILO):
            self._people(site).enrol("ada", PASSWORD, by="test")
            self.signed_in(site, "security-officer")
            self.signed_out()
        write_private(folder / "pw", PASSWORD.encode())
        values = plan_values(silos=[SILO])
        (folder / "plan.yaml").write_text(yaml.safe_dump(values))
        (folder / "federation.yaml").write_text("name: f\n")
        manifest = dict.fromkeys(FIELDS, "") | {
            "format": FORMAT, "report": "spring", "key": "k", "audience": list(ROLES),
            "subject": {"run": run.name}, "files": {},
        }  # fmt: skip
        signed = self.workspace.keys.sign("report", canonical_bytes(manifest))
        write_private(self.workspace.reports_folder / "spring.report", signed)
        office = self.workspace.office(SILO)
        found = incidents_of(office).open("t", by="test", playbook="leaked-report")
        self.names = {
            "incident": found.id,
            "plan": folder / "plan.yaml", "mapping": folder / "plan.yaml", "silo": SILO,
            "password": folder / "pw", "out": folder / "out", "run": run.name,
            "federation": folder / "federation.yaml",
        }  # fmt: skip

    def _people(self, site: str) -> People:
        office = self.workspace.office(site)
        return People(office.folder, office.keys, office.audit, hashing=CHEAPEST_FOR_TESTS)

    def signed_in(self, site: str, role: Role) -> None:
        """Somebody at a site, with this role, is signed in, with a factor of the last minutes."""
        made, session = self._sessions.get((site, role), (0.0, None))
        if session is None or time.monotonic() - made > 100:
            audience, name = self.workspace.sites(), f"person-{len(self._made)}"
            session = make_session(self._people(site), name, (role,), audience=audience)
            self._made.append(name)
            self._sessions[site, role] = (time.monotonic(), session)
        session.keep(self.workspace.lab)

    def signed_out(self) -> None:
        """Nobody is signed in anywhere."""
        for site in (HUB, SILO):
            forget_session(self.workspace.lab, site)

    def types(self, words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        """Exit code, and what was said."""
        capsys.readouterr()
        code = main([*words.format(**self.names).split(), "-w", str(self.workspace.path)])
        told = capsys.readouterr()
        return code, told.out + told.err


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return Sites(tmp_path_factory.mktemp("sites"))


def _having(right: Right) -> set[Role]:
    return {rule.role for rule in default_rules() if rule.right == right}


def _lacking(right: Right) -> Role:
    without = set(ROLES) - _having(right) - {"service-account"}
    return min(without)


def _state(sites: Sites) -> dict[str, Any]:
    """What a dangerous act would change."""
    folders = [sites.workspace.coordinator, sites.workspace.silo_folder(SILO)]
    files = [path for one in folders for path in one.rglob("*") if path.is_file()]
    told = {"audit.jsonl", "people.sealed"}  # a refusal is logged, a sign-in is noted
    kept = [one for one in files if one.name not in told and not one.name.startswith("ledger.db")]
    return {str(path): path.read_bytes() for path in kept if path.suffix != ".lock"}


def test_every_command_says_what_it_needs() -> None:
    known = {*GATED, *FREE}
    assert set(all_commands()) == known, "say in tests/cli/commands.py which right it needs, or why"
    assert not set(GATED) & set(FREE)


@pytest.mark.parametrize("name", GATED)
def test_without_sign_in_or_right_it_is_refused(
    sites: Sites, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gated = GATED[name]
    words, right, site = gated.words, gated.right, gated.site
    sites.signed_out()
    before = _state(sites)
    code, told = sites.types(words, capsys)
    assert (code, "nobody is signed in" in told) == (3, True), told

    sites.signed_in(site, _lacking(right))
    code, told = sites.types(words, capsys)
    assert (code, f"may not {right}" in told) == (3, True), told
    assert _state(sites) == before

    # Who may is not refused for it; what else is missing here is for other tests.
    for role in sorted(_having(right) - {"service-account"}) if gated.allowed_is_tried else ():
        sites.signed_in(site, role)
        _, told = sites.types(words, capsys)
        if f"may not {right}" not in told:
            break
    refused = "nobody is signed in" in told or f"may not {right}" in told
    assert refused is not gated.allowed_is_tried, told
    sites.signed_out()


def test_a_refusal_stands_in_the_log_of_the_site(
    sites: Sites, capsys: pytest.CaptureFixture[str]
) -> None:
    sites.signed_out()
    sites.types(GATED["access revoke"].words, capsys)
    last = [entry["body"] for entry in sites.workspace.office(SILO).audit.entries()][-1]
    assert last["event"] == "act.refused"
    assert last["facts"] == {"right": "incident.contain", "code": "sign-in"}
    sites.signed_in(SILO, "auditor")
    sites.types(GATED["access revoke"].words, capsys)
    last = [entry["body"] for entry in sites.workspace.office(SILO).audit.entries()][-1]
    assert last["facts"]["code"] == "rights"
    assert last["facts"]["person"].endswith(f"@{SILO}"), "who tried is known, and found by query"
    sites.signed_out()


def test_every_right_that_people_can_have_is_asked_for_somewhere() -> None:
    asked = {one.right for one in GATED.values()}
    assert asked == set(RIGHTS)
