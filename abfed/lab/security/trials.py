"""Trials: what must be refused is asked, and what must not be read is offered (S1, S9, S11, S12).

A review that repeats what a policy says shows that somebody wrote it. So the policy as it stands is
put over throw-away sites with keys, people and rows that are made up, and asked for what it doesn't
allow, through the code that answers real requests. A trial says what was tried and whether it ended
as it must. No real row, key or log is touched, and everything is gone with the folder.

What is changed in the copy, and so not tried here: who is heard (people made up for the trial), the
noise (made-up people are counted exactly), smallest cells, and check-ups.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from abfed.lab.intake import ingest_export
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import Refused
from abfed.protocol.identity import (
    DANGEROUS,
    RIGHTS,
    ROLES,
    Attested,
    Factor,
    Right,
    Role,
    Token,
    as_text,
    content_of,
)
from abfed.protocol.plan import Plan
from abfed.protocol.schema import BINARY_OUTCOMES, LAWFUL_BASES
from abfed.silo.policy import Policy
from abfed.silo.subjects import Subjects
from abfed.site.access import Place, judge_token, require
from abfed.site.clock import Clock, stamp
from abfed.site.files import make_private_folder, write_private
from abfed.site.keys import SiteKeys
from abfed.site.rights import AccessPolicy, Identity, Rule
from abfed.site.signin import TOKEN_LIFE

HOME = "trial"
NOBODYS_PURPOSE = "something-nobody-allowed"
EACH = 6
"""Made-up people in each group."""


class Trial(NamedTuple):
    """Something that was tried.

    Attributes:
        what: in words, with what came of it.
        as_must: whether it ended as it must.
    """

    what: str
    as_must: bool


class Rights(NamedTuple):
    """What came of asking for every right in every role.

    Attributes:
        allowed: pairs that were let in.
        asked: how many pairs were asked.
        wrong: what did not end as it must.
    """

    allowed: tuple[tuple[Role, Right], ...]
    asked: int
    wrong: tuple[str, ...]


def try_rows(policy: Policy, clock: Clock) -> Iterator[Trial]:
    """Offer a silo with this policy people whom it must not read, and ask for what it forbids.

    Args:
        policy: the silo's, as it stands.
        clock: where the time comes from.

    Raises:
        AbfedError: the trial itself could not be made.
    """
    outcome = next((one for one in BINARY_OUTCOMES if one in policy.columns), None)
    if outcome is None or not policy.purposes:
        said = "the policy allows no purpose, or no yes-or-no outcome, so this could not be tried"
        yield Trial(said, as_must=not policy.purposes)
        return
    other = next((one for one in BINARY_OUTCOMES if one not in policy.columns), None)
    with tempfile.TemporaryDirectory(prefix="abfed-trial-") as folder:
        ground = _ground(Path(folder) / "ws", policy, (outcome, other), clock)
        for purpose in policy.purposes:
            wanted = EACH * len(purpose.bases)
            read = _counted(ground, _plan(policy.silo, purpose.name, outcome))
            others = _offered(policy, clock()) - wanted
            said = (
                f"{policy.silo}, asked for {purpose.name}: of {wanted} made-up people who may be "
                f"read and {others} who may not, {read} were read"
            )
            yield Trial(said, as_must=read == wanted)
        yield _refused(
            ground, _plan(policy.silo, NOBODYS_PURPOSE, outcome), "purpose", "another purpose"
        )
        if other is not None:
            plan = _plan(policy.silo, policy.purposes[0].name, other)
            yield _refused(ground, plan, "columns", f"the column {other}")


def try_factors(site: str, policy: AccessPolicy, now: datetime) -> Iterator[Trial]:
    """Show a site with this policy tokens that are not good enough."""
    with tempfile.TemporaryDirectory(prefix="abfed-trial-") as folder:
        keys, place = _copied(Path(folder), site, policy, now)
        stranger = SiteKeys.create(Path(folder) / "stranger", site=HOME)
        enough = [one for one in policy.factors if one != ("swk",)]
        cases: dict[str, str] = {
            "a password alone": _token(keys, place, factors=("pwd",)),
            "a code alone": _token(keys, place, factors=("otp",)),
            "a bare key": _token(keys, place, factors=("swk",)),
        }
        if enough:
            good = enough[0]
            cases |= {
                "a token of yesterday": _token(keys, place, factors=good, age=timedelta(days=1)),
                "a token for elsewhere": _token(keys, place, factors=good, audience="elsewhere"),
                "a token that nobody here signed": _token(stranger, place, factors=good),
            }
        for what, token in cases.items():
            yield _judged(what, token, place, allowed=False)
        for one in enough:
            token = _token(keys, place, factors=one)
            yield _judged(" + ".join(one), token, place, allowed=True)


def try_rights(site: str, policy: AccessPolicy, now: datetime) -> Rights:
    """Ask for every right in every role, by people who stand to it as closely as anybody can."""
    place, allowed, wrong = _heard(site, policy, now), [], []
    ruled = {(rule.role, rule.right) for rule in policy.rights}
    trained = {one.role for one in policy.training}
    for role in ROLES:
        for right in RIGHTS:
            if not _may(place, role, right):
                continue
            allowed.append((role, right))
            if (role, right) not in ruled:
                wrong.append(f"{role} may {right}, and no rule says so")
            if right in DANGEROUS and _may(place, role, right, fresh=False):
                wrong.append(f"{role} may {right} on an old second factor")
            if role in trained and _may(place, role, right, trained=False):
                wrong.append(f"{role} may {right} without the training that is asked for")
    return Rights(tuple(allowed), len(ROLES) * len(RIGHTS), tuple(wrong))


def _ground(
    folder: Path, policy: Policy, outcomes: tuple[str, str | None], clock: Clock
) -> Workspace:
    """A workspace with a silo of this policy, and people of each kind in it."""
    workspace = Workspace.create(folder, development=True, clock=clock)
    asked = tuple(one for one in outcomes if one is not None)
    home = workspace.create_silo(policy.silo, columns=asked, synthetic=True)
    workspace.sign_in_development()
    path = home / "policy.yaml"
    founded = Policy.load(path)
    may_ask = Rule(role="analyst", right="plan.submit")
    heard = founded.access.model_copy(update={"rights": (may_ask,)})
    copied = policy.model_copy(
        update={
            "synthetic": True,
            "coordinators": founded.coordinators,
            "access": heard,
            "minimum_recipients": 0,
            "declared_sizes": (),
            "checkup_within_days": None,
        }
    )
    write_private(path, yaml.safe_dump(copied.model_dump(mode="json")).encode())
    export, mapping = _people(folder / "data", policy, asked, clock())
    ingest_export(workspace, policy.silo, export, mapping)
    with workspace.silo(policy.silo) as service:
        subjects = Subjects(service)
        subjects.carry_out("erase", [f"erased-{n}" for n in range(EACH)], by=HOME)
        subjects.carry_out("restrict", [f"restricted-{n}" for n in range(EACH)], by=HOME)
        subjects.carry_out("opt-out", [f"objected-{n}" for n in range(EACH)], by=HOME)
    return workspace


def _groups(policy: Policy, now: datetime) -> dict[str, tuple[str, str, datetime]]:
    """Groups of made-up people: basis, opted out in the export, sent at."""
    sent, basis = now - timedelta(days=1), policy.purposes[0].bases[0]
    groups = {one: (one, "no", sent) for one in LAWFUL_BASES}
    for name in ("erased", "restricted", "objected"):
        groups[name] = (basis, "no", sent)
    groups["opted-out"] = (basis, "yes", sent)
    if policy.retention_days is not None:
        groups["too-old"] = (basis, "no", now - timedelta(days=policy.retention_days + 7))
    return groups


def _offered(policy: Policy, now: datetime) -> int:
    return EACH * len(_groups(policy, now))


def _people(
    folder: Path, policy: Policy, outcomes: tuple[str, ...], now: datetime
) -> tuple[Path, Path]:
    """Their export and its mapping."""
    lines = ["who,arm,at,did,basis,out"]
    for group, (basis, out, sent) in _groups(policy, now).items():
        for number in range(EACH):
            arm = ("a", "b")[number % 2]
            lines.append(f"{group}-{number},{arm},{sent:%Y-%m-%dT%H:%M:%S}Z,no,{basis},{out}")
    mapping: dict[str, Any] = {
        "experiment": {"constant": HOME},
        "recipient": {"columns": ["who"]},
        "arm": {"column": "arm", "values": {"a": "a", "b": "b"}},
        "sent_at": {"column": "at"},
        "outcomes": {one: {"column": "did", "yes": ["yes"], "no": ["no"]} for one in outcomes},
        "basis": {"column": "basis", "values": {one: one for one in LAWFUL_BASES}},
        "opted_out": {"column": "out", "yes": ["yes"], "no": ["no"]},
        "region": {"constant": "EU"},
    }
    make_private_folder(folder)
    export, file = folder / "people.csv", folder / "mapping.yaml"
    write_private(export, ("\n".join(lines) + "\n").encode())
    write_private(file, yaml.safe_dump(mapping).encode())
    return export, file


def _plan(silo: str, purpose: str, outcome: str) -> Plan:
    return Plan.from_values(
        {
            "name": HOME,
            "purpose": purpose,
            "experiment": HOME,
            "silos": [silo],
            "minimum_silos": 1,
            "arms": [
                {"name": "a", "share": 0.5, "control": True},
                {"name": "b", "share": 0.5},
            ],
            "metrics": [{"name": "did", "kind": "proportion", "column": outcome}],
            "primary": "did",
            "privacy": "none",
        }
    )


def _counted(ground: Workspace, plan: Plan) -> int:
    """How many people the silo counted for a plan, exactly."""
    (totals,) = ground.run(plan).totals.values()
    counts, _ = totals.counts()
    return round(float(counts.sum()))


def _refused(ground: Workspace, plan: Plan, code: str, what: str) -> Trial:
    try:
        ground.run(plan)
    except Refused as refused:
        said = f"{plan.silos[0]}, asked for {what}: refused ({refused.code})"
        return Trial(said, as_must=refused.code == code)
    return Trial(f"{plan.silos[0]}, asked for {what}: answered", as_must=False)


def _copied(folder: Path, site: str, policy: AccessPolicy, now: datetime) -> tuple[SiteKeys, Place]:
    """A site whose people are heard, and the place that judges them by this policy."""
    keys = SiteKeys.create(folder / "keys", site=HOME)
    own = Identity(site=HOME, public_key=keys.public_key.hex(), roles=ROLES)
    return keys, Place(site, policy.model_copy(update={"identities": (own,)}), now)


def _token(
    keys: SiteKeys,
    place: Place,
    *,
    factors: tuple[Factor, ...],
    age: timedelta = timedelta(),
    audience: str = "",
) -> str:
    token = _made(place, factors=factors, roles=("analyst",), age=age, audience=audience)
    return as_text(keys.sign("token", content_of(token)))


def _made(
    place: Place,
    *,
    factors: tuple[Factor, ...],
    roles: tuple[Role, ...],
    age: timedelta = timedelta(),
    audience: str = "",
    fresh: bool = True,
    trained: bool = True,
    home: str = HOME,
) -> Token:
    begins = place.now - age
    modules = {one.module for one in place.policy.training} if trained else ()
    ever = "9999-01-01T00:00:00.000000Z"
    return Token(
        id=secrets.token_hex(16),
        person=HOME,
        site=home,
        roles=roles,
        factors=factors,
        attested=tuple(Attested(module=one, until=ever) for one in modules),
        audience=(audience or place.site,),
        holder="0" * 64,
        signed_in_at=stamp(begins),
        factor_at=stamp(begins if fresh else begins - timedelta(hours=2)),
        issued_at=stamp(begins),
        expires_at=stamp(begins + TOKEN_LIFE),
        reviewed_at=stamp(begins),
    )


def _heard(site: str, policy: AccessPolicy, now: datetime) -> Place:
    """A site that takes its own word on people, with this policy."""
    own = Identity(site=site, public_key="0" * 64, roles=ROLES)
    return Place(site, policy.model_copy(update={"identities": (own,)}), now)


def _may(
    place: Place, role: Role, right: Right, *, fresh: bool = True, trained: bool = True
) -> bool:
    """Whether a role is let do something; also where a rule names a person, as that person."""
    token = _made(
        place, factors=("pwd", "otp"), roles=(role,), fresh=fresh, trained=trained, home=place.site
    )
    names = {who for rule in place.policy.rights if rule.right == right for who in rule.people}
    own = [one.partition("@")[0] for one in names if one.endswith(f"@{place.site}")]
    for person in (HOME, *sorted(own)):
        one = token.model_copy(update={"person": person})
        with suppress(Refused):
            require(one, right, place, submitter="" if right == "plan.approve" else one.who)
            return True
    return False


def _judged(what: str, token: str, place: Place, *, allowed: bool) -> Trial:
    try:
        judge_token(token, place)
    except Refused as refused:
        return Trial(f"{what}: refused, {refused.what}", as_must=not allowed)
    return Trial(f"{what}: let in", as_must=allowed)
