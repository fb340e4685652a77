"""Who may do what (S12): a table of role × right × relation, as a site's policy file holds it.

Nothing is allowed that no rule allows; a missing table allows nothing. Four things no table can
change: nobody approves their own plan, nor that of somebody of the same name at another site, who
may be they; a dangerous right asks for a fresh second factor; a service
account has no other role beside that one; a role whose training has run out gives no right (S20).

Pure functions over records: the same ones judge at submit and again inside each silo.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import Field

from abfed.protocol.identity import (
    DANGEROUS,
    ROLES,
    Factor,
    Hex64,
    Relation,
    Right,
    Role,
    Token,
)
from abfed.protocol.schema import Frozen, Name
from abfed.site.clock import moment_of

FRESH_FACTOR = timedelta(minutes=5)
"""How old the second factor may be for a dangerous right."""

Who = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,47}@[a-z][a-z0-9_-]{0,47}$")]
"""A person with the site whose word it is, as `ada@coordinator`."""


class Identity(Frozen):
    """A site whose word on people counts, by its pinned Ed25519 key (hex), and for which roles.

    Attributes:
        site: what it calls itself.
        public_key: 64 hex digits of its signing key.
        roles: that its people may have here.
    """

    site: Name
    public_key: Hex64
    roles: tuple[Role, ...]


class Rule(Frozen):
    """One line of the table: who has this role may do this, if they stand so to it.

    Attributes:
        role: who has it.
        right: what they may do.
        relation: how they must stand to it: anyone, of its own site, its submitter, or named.
        people: by name, where the relation is `named`.
    """

    role: Role
    right: Right
    relation: Relation = "anyone"
    people: tuple[Who, ...] = ()


class Training(Frozen):
    """A training module without which a role gives no right.

    Attributes:
        role: that needs it.
        module: of training whose attestation must be in date.
    """

    role: Role
    module: Name


class FourEyes(Frozen):
    """Which plans need a second person. What is left out asks for none.

    Attributes:
        epsilon_above: plans that ask for more ε.
        settled_purposes: purposes that need none; any other that the policy allows does.
        settled_columns: columns that need none; any other that the policy allows does.
        model_export: whether taking a model out needs one.
        approvers: how many people must have approved.
        days: how long an approval may last.
    """

    epsilon_above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    settled_purposes: tuple[Name, ...] | None = None
    settled_columns: tuple[Name, ...] | None = None
    model_export: bool = False
    approvers: Annotated[int, Field(ge=1, le=5)] = 1
    days: Annotated[int, Field(ge=1, le=366)] = 30


class Reviews(Frozen):
    """How often a site must review who may do what (S13).

    Attributes:
        every_days: an alert from then on.
        grace_days: so much later, people of that site have no right but to review.
    """

    every_days: Annotated[int, Field(ge=1, le=366)] = 90
    grace_days: Annotated[int, Field(ge=0, le=90)] = 14


class AccessPolicy(Frozen):
    """What a site's policy says about people.

    Attributes:
        identities: whose sign-ins count.
        rights: the table.
        factors: sets of factors of which one must have been used.
        session_hours: how long after signing in a session counts.
        training: what roles require.
        development_people: whether people count who were made up for trying abfed out.
        four_eyes: what needs a second person.
        reviews: how often sites must review who may do what, for their people to count here.
    """

    identities: tuple[Identity, ...] = ()
    rights: tuple[Rule, ...] = ()
    factors: tuple[tuple[Factor, ...], ...] = (("pwd", "otp"), ("pwd", "hwk"), ("mfa",), ("swk",))
    session_hours: Annotated[int, Field(ge=1, le=24)] = 8
    training: tuple[Training, ...] = ()
    development_people: bool = False
    four_eyes: FourEyes = FourEyes()
    reviews: Reviews = Reviews()


class Decision(NamedTuple):
    """Yes or no, and each step that led there, in words."""

    allowed: bool
    steps: tuple[str, ...]


class Asked(NamedTuple):
    """What is decided about.

    Attributes:
        right: what somebody wants to do.
        site: where.
        submitter: whose plan, run or model it is; empty where nobody's.
        now: when.
    """

    right: Right
    site: str
    submitter: str
    now: datetime


def decide(policy: AccessPolicy, token: Token, asked: Asked) -> Decision:
    """Whether the holder of a token, verified already, has a right; and why."""
    steps: list[str] = []
    if asked.right != "access.review" and _overdue(policy.reviews, token, asked.now, steps):
        return Decision(allowed=False, steps=tuple(steps))
    roles = usable_roles(policy, token, asked.now, steps)
    if asked.right == "plan.approve" and token.person == asked.submitter.partition("@")[0]:
        same = "" if token.who == asked.submitter else f", and {asked.submitter} has the same name"
        steps.append(f"no: nobody approves their own plan{same}")
        return Decision(allowed=False, steps=tuple(steps))
    rule = _first(policy.rights, roles, token, asked)
    if rule is None:
        steps.append(f"no: no rule gives {asked.right} to {_listed(roles)} at {asked.site}")
        return Decision(allowed=False, steps=tuple(steps))
    steps.append(f"yes: {rule.role} may {rule.right} ({rule.relation})")
    if asked.right in DANGEROUS and asked.now - moment_of(token.factor_at) > FRESH_FACTOR:
        minutes = int(FRESH_FACTOR.total_seconds() // 60)
        steps.append(f"no: {asked.right} needs a second factor of the last {minutes} minutes")
        return Decision(allowed=False, steps=tuple(steps))
    return Decision(allowed=True, steps=tuple(steps))


def usable_roles(
    policy: AccessPolicy, token: Token, now: datetime, steps: list[str]
) -> tuple[Role, ...]:
    """The roles of a token that count here; why others don't is appended to `steps`."""
    vouched = {role for one in policy.identities if one.site == token.site for role in one.roles}
    valid = {one.module for one in token.attested if moment_of(one.until) > now}
    roles: list[Role] = []
    for role in ROLES:
        if role not in token.roles:
            continue
        missing = [
            one.module for one in policy.training if one.role == role and one.module not in valid
        ]
        if role not in vouched:
            steps.append(f"{role} is not a role that {token.site} may give here")
        elif missing:
            steps.append(f"{role} is off: training {missing[0]!r} is missing or has run out")
        elif role != "service-account" and "service-account" in token.roles:
            steps.append(f"{role} is off: a service account has no other role")
        else:
            roles.append(role)
    return tuple(roles)


def _overdue(reviews: Reviews, token: Token, now: datetime, steps: list[str]) -> bool:
    """Whether the person's site is so late with its review that its people have no rights."""
    late = now - moment_of(token.reviewed_at) - timedelta(days=reviews.every_days)
    if late <= timedelta():
        return False
    blocked = late > timedelta(days=reviews.grace_days)
    state = "no" if blocked else "alert"
    steps.append(f"{state}: {token.site} is {late.days} days late with its access review")
    return blocked


def _first(rules: Iterable[Rule], roles: Iterable[Role], token: Token, asked: Asked) -> Rule | None:
    usable = set(roles)
    for rule in rules:
        if rule.right == asked.right and rule.role in usable and _stands(rule, token, asked):
            return rule
    return None


def _stands(rule: Rule, token: Token, asked: Asked) -> bool:
    """Whether the person stands to what is asked as the rule says."""
    if rule.relation == "own-site":
        return token.site == asked.site
    if rule.relation == "submitter":
        return bool(asked.submitter) and token.who == asked.submitter
    if rule.relation == "named":
        return token.who in rule.people
    return True


def _listed(roles: Iterable[str]) -> str:
    return ", ".join(roles) or "nobody"


def default_rules() -> tuple[Rule, ...]:
    """The table that a new site starts with; its people edit it."""
    own: dict[Role, tuple[Right, ...]] = {
        "privacy-officer": (
            "plan.approve",
            "subject.export",
            "subject.erase",
            "budget.raise",
            "policy.change",
            "audit.read",
        ),
        "silo-admin": ("data.ingest", "keys.rotate", "people.manage"),
        "security-officer": (
            "access.review",
            "audit.read",
            "incident.contain",
            "freeze.lift",
            "vendor.approve",
            "people.manage",
        ),
        "auditor": ("audit.read",),
    }
    rules = [
        Rule(role="analyst", right="plan.submit"),
        Rule(role="service-account", right="plan.submit"),
        Rule(role="analyst", right="run.read", relation="submitter"),
        Rule(role="privacy-officer", right="run.read"),
        Rule(role="auditor", right="run.read"),
        Rule(role="analyst", right="model.score", relation="submitter"),
        Rule(role="silo-admin", right="model.score", relation="own-site"),
        Rule(role="analyst", right="model.export", relation="submitter"),
        Rule(role="silo-admin", right="model.delete", relation="own-site"),
    ]
    rules += [
        Rule(role=role, right=right, relation="own-site")
        for role, rights in own.items()
        for right in rights
    ]
    return tuple(rules)
