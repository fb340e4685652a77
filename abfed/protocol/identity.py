"""Who asks, as statements that one site signs and another checks (S11, S12).

Three statements, each a frozen record in an envelope of its own kind:

- a *token*: a site says who a person is, in which roles, by which factors, for how long, and which
  key the person's session holds. It is no bearer's token: alone it lets nobody do anything.
- a *submission*: the session's key signs which plan is asked of whom. Who copies a token and a
  submission can ask that plan only, of those silos only, until it ends; and the plan is answered
  the same again, at no charge.
- an *approval*: the key of another person's session countersigns a plan on a state of the data
  under a policy, for a number of runs and a time (four eyes).

The words below are closed: an unknown role, right or relation is refused wherever it is read.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.declared import parse_canonical_record
from abfed.protocol.envelope import Kind, open_envelope
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.schema import Frozen, Name

Role = Literal[
    "analyst", "privacy-officer", "silo-admin", "security-officer", "auditor", "service-account"
]
Right = Literal[
    "plan.submit",
    "plan.approve",
    "run.read",
    "model.score",
    "model.export",
    "model.delete",
    "data.ingest",
    "subject.export",
    "subject.erase",
    "budget.raise",
    "policy.change",
    "keys.rotate",
    "people.manage",
    "access.review",
    "audit.read",
    "incident.contain",
    "freeze.lift",
    "vendor.approve",
]
Relation = Literal["own-site", "submitter", "named", "anyone"]
"""How a person stands to what is asked: of the site itself, the one who submitted it, one whom the
rule names, or anybody with the role."""

ROLES: tuple[Role, ...] = get_args(Role)
RIGHTS: tuple[Right, ...] = get_args(Right)
RELATIONS: tuple[Relation, ...] = get_args(Relation)

DANGEROUS: frozenset[Right] = frozenset(
    {
        "plan.approve",
        "model.export",
        "model.delete",
        "subject.erase",
        "budget.raise",
        "policy.change",
        "keys.rotate",
        "people.manage",
        "freeze.lift",
    }
)
"""Rights that ask for a fresh second factor."""

Factor = Literal["pwd", "otp", "hwk", "swk", "mfa"]
"""Authentication methods by their names in RFC 8176; `swk` is a service account's own key."""

MAX_STATEMENT = 262_144  # characters of an envelope in base64; a submission names its sites

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
At = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"),
]
"""A moment as `site.clock.stamp` writes it. Digits are 0 to 9: `\\d` takes others too."""
Maker = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]{0,47}@[a-z][a-z0-9_-]{0,47})?$")]
"""Who made a service account, with their site; empty where nobody did."""
Statement = Annotated[str, Field(max_length=MAX_STATEMENT)]
"""An envelope in base64, as requests carry it. Records that hold one never show it."""


class Attested(Frozen):
    """A training module that a person has passed, and until when it counts (S20)."""

    module: Name
    until: At


class Hours(Frozen):
    """When a service account may work: days of the week (0 is Monday) and hours, in UTC."""

    days: Annotated[tuple[Annotated[int, Field(ge=0, le=6)], ...], Field(min_length=1)]
    start: Annotated[int, Field(ge=0, le=23)]
    end: Annotated[int, Field(ge=1, le=24)]


class Token(Frozen):
    """A site's word on who holds a session.

    Attributes:
        id: 128 random bits.
        person, site: who, and the site whose word it is.
        roles: those whose grants, and training where required, hold now.
        factors: how the person proved it (`amr`).
        attested: training that was passed.
        audience: sites that it is meant for.
        holder: public key (hex) of the session.
        signed_in_at: when the person signed in.
        factor_at: when a second factor was last given.
        issued_at, expires_at: how long the token counts.
        plans: digests of the only plans that it is good for; any where empty.
        hours: the only hours that it is good for; any where it has none.
        development: the person was made up for trying abfed out, and their secrets lie in a file.
        reviewed_at: when the site last reviewed who may do what.
        made_by: of a service account, the person who made it: its plans are as good as theirs.
    """

    version: Literal[1] = 1
    id: Hex32
    person: Name
    site: Name
    roles: tuple[Role, ...]
    factors: Annotated[tuple[Factor, ...], Field(min_length=1)]
    attested: tuple[Attested, ...] = ()
    audience: Annotated[tuple[Name, ...], Field(min_length=1)]
    holder: Hex64
    signed_in_at: At
    factor_at: At
    issued_at: At
    expires_at: At
    plans: tuple[Hex64, ...] = ()
    hours: Hours | None = None
    development: bool = False
    reviewed_at: At
    made_by: Maker = ""

    @property
    def who(self) -> str:
        """The person, with the site whose word it is."""
        return f"{self.person}@{self.site}"

    @property
    def behind(self) -> tuple[str, ...]:
        """Whose plans this session's are: its own, and whoever made the account."""
        return (self.who, self.made_by) if self.made_by else (self.who,)


class Submission(Frozen):
    """A session's word that it submits this plan at these sites: a coordinator and silos."""

    version: Literal[1] = 1
    plan: Hex64
    sites: Annotated[tuple[Name, ...], Field(min_length=1)]
    issued_at: At
    expires_at: At


class Approval(Frozen):
    """A second person's word that a plan may run.

    Attributes:
        plan: digest of the plan.
        silo: where it counts.
        epoch: the state of the data that it counts for.
        policy: digest of the access policy that it was given under.
        runs: how many runs it is good for.
    """

    version: Literal[1] = 1
    id: Hex32
    plan: Hex64
    silo: Name
    epoch: Hex64
    policy: Hex64
    runs: Annotated[int, Field(ge=1, le=1000)]
    issued_at: At
    expires_at: At


class KeyProof(Frozen):
    """A service account's word that a session is its own, signed with the account's key."""

    version: Literal[1] = 1
    name: Name
    site: Name
    holder: Hex64
    issued_at: At


class Countersigned(Frozen):
    """An approval, and the token of the session that signed it."""

    token: Statement = Field(repr=False)
    approval: Statement = Field(repr=False)


class Presented(Frozen):
    """What a person shows with a request: envelopes in base64."""

    token: Statement = Field(repr=False)
    submission: Statement = Field(repr=False)
    approvals: tuple[Countersigned, ...] = Field(default=(), max_length=16, repr=False)


Said = TypeVar("Said", Token, Submission, Approval, KeyProof)


def content_of(statement: Token | Submission | Approval | KeyProof) -> bytes:
    """The bytes of a statement that are signed; people's tokens are as before `made_by` was."""
    nobody = isinstance(statement, Token) and not statement.made_by
    content = statement.model_dump(mode="json", exclude={"made_by"} if nobody else None)
    return canonical_bytes(content)


def as_text(envelope: bytes) -> str:
    """An envelope in base64, to stand in a JSON header."""
    return base64.b64encode(envelope).decode()


def as_envelope(text: str, *, where: str) -> bytes:
    """An envelope from its one spelling in base64.

    Raises:
        IntegrityError: not base64, or another spelling.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise IntegrityError("not an envelope in base64", where=where) from cause
    if as_text(data) != text:
        raise IntegrityError("not an envelope in base64", where=where)
    return data


def read_statement(
    record: type[Said], kind: Kind, text: str, trusted: Mapping[str, bytes], *, where: str
) -> tuple[Said, str]:
    """Open a statement against pinned keys.

    Returns:
        The statement, and the id of the key that signed it.

    Raises:
        IntegrityError: malformed, changed, or signed by a key that is not trusted.
    """
    return _read(record, kind, text, tuple(sorted(trusted.items())), where)


@functools.lru_cache(maxsize=8)
def _read(
    record: type[Said], kind: Kind, text: str, trusted: tuple[tuple[str, bytes], ...], where: str
) -> tuple[Said, str]:
    """See `read_statement`: the same text under the same keys says the same, and is read once.

    A statement names all sites, and each step shows it to several judges.
    """
    opened = open_envelope(as_envelope(text, where=where), dict(trusted), kind=kind, where=where)
    try:
        return parse_canonical_record(record, opened.content, where=where), opened.key_id
    except InputError as cause:
        raise IntegrityError(f"not a {kind}", where=where) from cause
