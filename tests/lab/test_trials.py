"""Trials: what they try is what the code does, so a code that is broken on purpose is seen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from abfed.lab.coordination import default_access
from abfed.lab.incidents.responding import contain, vendors_of
from abfed.lab.security import trials
from abfed.lab.security.trials import try_factors, try_rights, try_rows
from abfed.lab.security.uses import offboard, services_in_use, try_register, unusable
from abfed.lab.workspace import Workspace
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError
from abfed.protocol.identity import ROLES
from abfed.silo import store
from abfed.silo.policy import Policy
from abfed.site import rights
from abfed.site.clock import system_clock
from abfed.site.files import write_private
from abfed.site.rights import AccessPolicy
from abfed.site.vendors import CHECKLIST
from tests.silo.asking import SetClock, policy_values
from tests.site.test_vendors import HOOK, vendor

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = bytes(32)


def policy(**changes: object) -> Policy:
    return parse_record(Policy, policy_values(KEY, **changes), where="policy")


def access(**changes: object) -> AccessPolicy:
    values = default_access("hub", KEY, roles=ROLES, development=False) | changes
    return parse_record(AccessPolicy, values, where="access")


def test_only_lawful_people_are_read_and_nothing_else_is_answered() -> None:
    tried = list(try_rows(policy(retention_days=90), system_clock))
    assert all(one.as_must for one in tried), tried
    assert "of 6 made-up people who may be read and 60 who may not, 6 were read" in tried[0].what
    assert [one.what.rpartition("(")[2] for one in tried[1:]] == ["purpose)", "columns)"]


@pytest.mark.privacy
def test_a_filter_that_lets_somebody_through_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own filter, broken on purpose: every basis is taken."""
    whole = store.select

    def lax(rows: pa.Table, plan: object, bases: object, *rest: object) -> pa.Table:
        del bases
        return whole(rows, plan, ("consent", "contract"), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "select", lax)
    first, *_ = try_rows(policy(), system_clock)
    assert not first.as_must
    assert "12 were read" in first.what


def test_a_policy_that_takes_a_password_alone_is_seen() -> None:
    good = list(try_factors("aurora", access(), NOW))
    assert all(one.as_must for one in good), good
    assert sum("refused" in one.what for one in good) == 6
    weak = list(try_factors("aurora", access(factors=[["pwd"]]), NOW))
    assert "a password alone: let in" in [one.what for one in weak if not one.as_must]


def test_every_pair_is_asked_and_a_judge_that_is_broken_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = access(training=[{"role": "auditor", "module": "privacy-basics"}])
    tried = try_rights("aurora", table, NOW)
    assert tried.wrong == ()
    assert set(tried.allowed) == {(rule.role, rule.right) for rule in table.rights}
    monkeypatch.setattr(rights, "DANGEROUS", frozenset())
    assert any("old second factor" in one for one in try_rights("aurora", table, NOW).wrong)
    monkeypatch.setattr(rights, "usable_roles", lambda _policy, token, _now, _steps: token.roles)
    assert any("without the training" in one for one in try_rights("aurora", table, NOW).wrong)


def test_a_rule_for_a_named_person_is_tried_as_that_person() -> None:
    rule = {"role": "auditor", "right": "model.export", "relation": "named",
            "people": ["tess@aurora"]}  # fmt: skip
    tried = try_rights("aurora", access(rights=[rule]), NOW)
    assert tried.allowed == (("auditor", "model.export"),)


def test_nothing_of_a_trial_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.tempfile, "tempdir", str(tmp_path))
    list(try_factors("aurora", access(), NOW))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "ws", clock=SetClock(NOW))
    register = vendors_of(made.office())
    register.put(vendor(), by="ada@coordinator")
    register.approve("postbox", by="sam@coordinator")
    text = f"sinks: [{{kind: webhook, url: '{HOOK}'}}]\n"
    write_private(made.path / "watch.yaml", text.encode())
    return made


def test_the_register_is_asked_and_left_as_it_is(workspace: Workspace) -> None:
    office = workspace.office()
    before = office.audit.verify()
    register = (office.folder / "vendors.sealed").read_bytes()
    assert [one.as_must for one in try_register(office, NOW)] == [True, True]
    assert unusable(office, "webhook", HOOK, NOW) == ""
    assert "review overdue" in unusable(office, "webhook", HOOK, NOW.replace(month=7))
    assert office.audit.verify() == before
    contain(office, "vendor", "postbox", by="sam@coordinator", reason="a test")
    assert "frozen" in unusable(office, "webhook", HOOK, NOW)
    assert (office.folder / "vendors.sealed").read_bytes() == register


def test_a_vendor_that_is_still_configured_is_not_let_go(workspace: Workspace) -> None:
    done = dict.fromkeys(CHECKLIST, "ticket 12")
    assert [(one.kind, one.where) for one in services_in_use(workspace, workspace.office())] == [
        ("webhook", "watch.yaml")
    ]
    with pytest.raises(InputError, match=r"watch\.yaml still names"):
        offboard(workspace, "coordinator", "postbox", done, by="sam@coordinator")
    (workspace.path / "watch.yaml").unlink()
    assert offboard(workspace, "coordinator", "postbox", done, by="sam@coordinator").offboarded
