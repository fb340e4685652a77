"""The table of rights: every role × right × relation, at submit and at the silo (S12)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from abfed.coordinator.front import Front
from abfed.lab.session import Session
from abfed.protocol.errors import Refused
from abfed.protocol.identity import (
    DANGEROUS,
    RELATIONS,
    RIGHTS,
    ROLES,
    Attested,
    Presented,
    Relation,
    Right,
    Role,
    Token,
)
from abfed.silo.access import Access
from abfed.silo.policy import Policy
from abfed.site.access import Barred
from abfed.site.clock import stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.site.rights import (
    AccessPolicy,
    Asked,
    Identity,
    Reviews,
    Rule,
    Training,
    decide,
    default_rules,
)
from tests.examples import make_plan
from tests.signing import make_people, make_session
from tests.silo.asking import policy_values

NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
STANDINGS: tuple[Relation, ...] = RELATIONS
"""How somebody may stand to what is asked; "anyone" stands for no relation at all."""

DEFAULT: dict[Role, set[Right]] = {
    "analyst": {"plan.submit", "run.read", "model.score", "model.export"},
    "privacy-officer": {
        "plan.approve", "run.read", "subject.export", "subject.erase", "budget.raise",
        "policy.change", "audit.read",
    },
    "silo-admin": {"data.ingest", "keys.rotate", "people.manage", "model.score", "model.delete"},
    "security-officer": {
        "access.review", "audit.read", "incident.contain", "freeze.lift", "vendor.approve",
        "people.manage",
    },
    "auditor": {"run.read", "audit.read"},
    "service-account": {"plan.submit"},
}  # fmt: skip
"""What a new site allows, spelled out a second time on purpose."""


def token(role: Role, **changes: Any) -> Token:
    at = stamp(NOW)
    values: dict[str, Any] = {
        "id": "0" * 32, "person": "ada", "site": "hub", "roles": (role,), "factors": ("pwd", "otp"),
        "audience": ("hub", "aurora"), "holder": "0" * 64, "signed_in_at": at, "factor_at": at,
        "issued_at": at, "expires_at": stamp(NOW + timedelta(minutes=10)), "reviewed_at": at,
    }  # fmt: skip
    return Token(**(values | changes))


def policy(*rules: Rule, **changes: Any) -> AccessPolicy:
    heard = tuple(Identity(site=s, public_key="0" * 64, roles=ROLES) for s in ("hub", "aurora"))
    return AccessPolicy(identities=heard, rights=rules, **changes)


@pytest.mark.parametrize("site", ["hub", "aurora"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_rule_gives_its_cell_and_no_other(site: str, relation: Relation) -> None:
    """One rule at a time, at submit (hub) and at the silo (aurora); 41,472 questions in all."""
    asked_cells = 0
    for role in ROLES:
        for right in RIGHTS:
            rule = Rule(role=role, right=right, relation=relation, people=("eve@hub", "ada@hub"))
            table = policy(rule)
            for having in ROLES:
                for standing in STANDINGS:
                    home = site if standing == "own-site" else "elsewhere"
                    name = "ada" if standing == "named" else "bob"
                    home = "hub" if standing == "named" else home
                    held = token(having, person=name, site=home)
                    heard = table.model_copy(
                        update={
                            "identities": (Identity(site=home, public_key="0" * 64, roles=ROLES),)
                        }
                    )
                    submitter = held.who if standing == "submitter" else "carol@hub"
                    stands = {
                        "anyone": True,
                        "own-site": home == site,
                        "submitter": standing == "submitter",
                        "named": standing == "named",
                    }[relation]
                    own_plan = right == "plan.approve" and standing == "submitter"
                    expected = having == role and stands and not own_plan
                    found = decide(heard, held, Asked(right, site, submitter, NOW))
                    assert found.allowed == expected, (role, right, having, standing)
                    other = RIGHTS[(RIGHTS.index(right) + 1) % len(RIGHTS)]
                    assert not decide(heard, held, Asked(other, site, submitter, NOW)).allowed
                    asked_cells += 1
    assert asked_cells == 6 * len(RIGHTS) * 6 * 4


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("right", RIGHTS)
def test_what_a_new_site_allows(role: Role, right: Right) -> None:
    table = policy(*default_rules())
    held = token(role, person="ada", site="aurora")
    submitter = "eve@hub" if right == "plan.approve" else held.who
    found = decide(table, held, Asked(right, "aurora", submitter, NOW))
    assert found.allowed == (right in DEFAULT[role]), found.steps


def test_no_table_allows_nothing() -> None:
    for role in ROLES:
        for right in RIGHTS:
            for standing in ("ada@hub", "", "eve@hub"):
                asked = Asked(right, "hub", standing, NOW)
                assert not decide(policy(), token(role, site="hub"), asked).allowed
                assert not decide(AccessPolicy(), token(role, site="hub"), asked).allowed


@pytest.mark.parametrize("right", sorted(DANGEROUS))
def test_a_dangerous_right_needs_a_fresh_factor(right: Right) -> None:
    table = policy(Rule(role="silo-admin", right=right))
    for minutes, allowed in ((0, True), (5, True), (5.1, False), (60, False)):
        held = token("silo-admin", factor_at=stamp(NOW - timedelta(minutes=minutes)))
        assert decide(table, held, Asked(right, "hub", "", NOW)).allowed == allowed


def test_a_role_without_its_training_is_off() -> None:
    table = policy(
        Rule(role="analyst", right="plan.submit"),
        training=(Training(role="analyst", module="privacy-basics"),),
    )
    asked = Asked("plan.submit", "hub", "", NOW)
    for until, allowed in ((None, False), (-1, False), (1, True)):
        attested = (
            ()
            if until is None
            else (Attested(module="privacy-basics", until=stamp(NOW + timedelta(days=until))),)
        )
        found = decide(table, token("analyst", attested=attested), asked)
        assert found.allowed == allowed
        assert allowed or "training 'privacy-basics'" in found.steps[0]
    other = Attested(module="first-aid", until=stamp(NOW + timedelta(days=1)))
    assert not decide(table, token("analyst", attested=(other,)), asked).allowed


def test_a_site_gives_only_the_roles_it_may() -> None:
    table = AccessPolicy(
        identities=(Identity(site="hub", public_key="0" * 64, roles=("analyst",)),),
        rights=(
            Rule(role="auditor", right="audit.read"),
            Rule(role="analyst", right="plan.submit"),
        ),
    )
    held = token("auditor", roles=("auditor", "analyst"))
    assert not decide(table, held, Asked("audit.read", "hub", "", NOW)).allowed
    assert decide(table, held, Asked("plan.submit", "hub", "", NOW)).allowed


def test_a_service_account_has_no_other_role() -> None:
    table = policy(Rule(role="analyst", right="plan.submit"))
    held = token("analyst", roles=("analyst", "service-account"))
    assert not decide(table, held, Asked("plan.submit", "hub", "", NOW)).allowed


@pytest.mark.parametrize(
    ("days", "allowed", "word"),
    [(89, True, ""), (91, True, "alert"), (104, True, "alert"), (105, False, "no: hub is")],
)
def test_an_overdue_review_alerts_then_blocks(days: int, allowed: bool, word: str) -> None:
    table = policy(
        Rule(role="security-officer", right="audit.read"),
        Rule(role="security-officer", right="access.review"),
        reviews=Reviews(every_days=90, grace_days=14),
    )
    held = token("security-officer", reviewed_at=stamp(NOW - timedelta(days=days)))
    found = decide(table, held, Asked("audit.read", "hub", "", NOW))
    assert found.allowed == allowed
    assert word in found.steps[0]
    assert decide(table, held, Asked("access.review", "hub", "", NOW)).allowed  # the way out


class Both:
    """A person of the hub before the coordinator's front, and before a silo."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.hub = SiteKeys.create(folder / "hub", site="hub")
        self.silo = SiteKeys.create(folder / "silo", site="aurora")
        self.plan = make_plan()

    def session(self, role: Role) -> Session:
        people = make_people(self.folder / role, self.hub)
        kind: tuple[Role, ...] = () if role == "service-account" else (role,)
        return make_session(people, roles=kind, audience=("hub", "aurora"))

    def allowed(self, shown: Presented, rules: tuple[Rule, ...]) -> tuple[bool, bool]:
        """Whether the plan passes at submit, and at the silo."""
        heard = (Identity(site="hub", public_key=self.hub.public_key.hex(), roles=ROLES),)
        access = AccessPolicy(identities=heard, rights=rules)
        front = Front("hub", lambda _: shown, lambda: access, Barred)
        values = policy_values(self.hub.public_key)
        silo_policy = Policy.model_validate_json(
            json.dumps(values | {"access": access.model_dump(mode="json")})
        )
        silo = Access(self.silo, self.folder, system_clock)
        return (
            _passes(lambda: front.admit(self.plan)),
            _passes(lambda: silo.judge(shown, self.plan, silo_policy, "e" * 64)),
        )


def _passes(ask: Any) -> bool:
    try:
        ask()
    except Refused as refused:
        if refused.code != "rights":
            raise
        return False
    return True


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("both"))


@pytest.mark.parametrize("having", [role for role in ROLES if role != "service-account"])
def test_submit_and_silo_judge_real_tokens_alike(both: Both, having: Role) -> None:
    """Every cell again with signed tokens and real sign-ins; other rights never let a plan in."""
    session = both.session(having).present(both.plan)
    for role in ROLES:
        for right in RIGHTS:
            for relation in RELATIONS:
                rule = Rule(role=role, right=right, relation=relation, people=("ada@hub",))
                fits = (role, right) == (having, "plan.submit")
                here = fits and relation in ("anyone", "submitter", "named")
                own = fits and relation == "own-site"
                found = both.allowed(session, (rule,))
                assert found == (here or own, here), (role, right, relation)
