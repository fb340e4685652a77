"""Request, release, refusal: the only three things that cross a silo's wall.

Content is a canonical JSON header and, behind it, arrays. Headers are frozen records resolved
through the closed table below; there is no class path, no pickle and no free-form field. Rows have
no encoding here at all.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from abfed.protocol.canonical import canonical_bytes, digest, sha256_hex
from abfed.protocol.chain import GENESIS
from abfed.protocol.declared import parse_canonical_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import Presented
from abfed.protocol.protected import RECIPIENT, ProtectedUnit
from abfed.protocol.schema import FiniteFloat, Frozen, Name

PROTOCOL_VERSION = 5
"""Raised when a site of the version before couldn't understand a message."""

READ_VERSIONS = frozenset({4, PROTOCOL_VERSION})
"""Of releases: what was given before an upgrade is read, and given again, after it. In 4 histograms
of scores had fewer bins (`learning.shapes.as_given`)."""

MAX_HEADER = 1_048_576  # bytes
_LENGTH = struct.Struct(">I")

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Payload = Literal["totals", "training", "evaluation", "keys", "shares", "answered", "opening"]
Step = Annotated[
    str,
    Field(
        pattern=r"^(totals|train-[0-9]{4}|evaluate|(keys|shares|answered|opening)(-[0-9]{4})?)$",
        max_length=16,
    ),
]
Timestamp = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"),
]

RefusalCode = Literal[
    "untrusted",
    "policy",
    "version",
    "not-for-us",
    "stale",
    "sign-in",
    "revoked",
    "frozen",
    "checkup",
    "rolled-back",
    "rights",
    "approval",
    "purpose",
    "columns",
    "simulation",
    "plan-epsilon",
    "budget",
    "step-used",
    "order",
    "population",
    "too-few",
    "noise-once",
    "peer",
    "expired",
    "damaged",
    "failed",
]
REFUSAL_TEXT: dict[str, str] = {
    "untrusted": "the request is not signed by a coordinator that this silo trusts",
    "policy": "this silo has no policy that allows requests",
    "version": "this site speaks another version of the protocol",
    "not-for-us": "the plan does not name this silo",
    "stale": "by this site's clock the request is over five minutes old or ahead, or it was seen",
    "sign-in": "nobody whom this silo knows is signed in and asks this plan",
    "revoked": "this person's access was revoked here",
    "frozen": "this silo, or something that the request rests on, is frozen here",
    "checkup": "this silo was not checked in time, or its last check-up left something critical",
    "rolled-back": "this silo's log lacks what it showed before: an old backup was put back",
    "rights": "this person has no right here to ask this plan",
    "approval": "this plan needs the approval of a second person here",
    "purpose": "the plan's purpose is not allowed here",
    "columns": "the plan asks for columns or bounds that are not available or not allowed here",
    "simulation": "simulation plans, and plans without privacy, run on synthetic brands only",
    "plan-epsilon": "the plan asks for more ε or δ than one plan may have here",
    "budget": "the budget does not cover this plan",
    "step-used": "this step was already answered for another model",
    "order": "this step needs an earlier one first",
    "population": "this silo holds no such experiment, or not these arms",
    "too-few": "an arm or cell of this plan holds too few recipients, by noised or declared counts",
    "noise-once": "this silo's policy doesn't allow this plan's noise once, or asks for more cover",
    "peer": "a silo's key isn't pinned here, or what came in its name wasn't signed by that key",
    "expired": "this was answered, and the answer is no longer kept; it is not noised anew",
    "damaged": "something that this silo keeps was changed or is missing; its own people must look",
    "failed": "the silo could not compute this step, or its gate held the result to be wrong; "
    "its own log says which",
}
"""All that a refusal tells an asker. Fixed texts: nothing of the data can ride along."""


EMPTY_DIGEST = sha256_hex(b"")
"""The incoming digest of a request that comes without a model."""


_PAYLOADS: dict[str, Payload] = {
    "totals": "totals",
    "evaluate": "evaluation",
    "keys": "keys",
    "shares": "shares",
    "answered": "answered",
    "opening": "opening",
}


def payload_of(step: str) -> Payload:
    """The kind of release that answers a step."""
    if step.startswith("train-"):
        return "training"
    return _PAYLOADS[step.partition("-")[0]]


def release_key(plan_digest: str, epoch: str, step: str, incoming_digest: str) -> str:
    """The idempotency key of a release: one question, on one state of the data, about one model."""
    return digest([plan_digest, epoch, step, incoming_digest])


class Request(Frozen):
    """What a coordinator asks of one silo.

    Attributes:
        plan: the plan's canonical JSON, as text.
        step: which step of the plan.
        silo: whom it is for.
        incoming_digest: SHA-256 of the arrays that come with it (the model), of b"" without.
        nonce: 128 random bits, so that a replay is seen.
        issued_at: by the sender's clock, UTC.
        head: head of the sender's audit log.
        known_head: newest head of the silo's log that the sender saw; `GENESIS` for none. A silo
            whose log lacks it was rolled back.
        presented: who asks: token, submission and approvals.
    """

    version: int = PROTOCOL_VERSION
    plan: Annotated[str, Field(max_length=MAX_HEADER)]
    step: Step
    silo: Name
    incoming_digest: Hex64
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    issued_at: Timestamp
    head: Hex64
    known_head: Hex64 = GENESIS
    presented: Presented


class Charge(Frozen):
    """One privacy event, as the ledger stores it: what happened, not what it costs.

    Attributes:
        event: "gaussian", or "sampled-gaussian" for Poisson subsampling.
        noise_multiplier: noise standard deviation over L2 sensitivity.
        sampling_rate: chance of a recipient to be in a step (1 for "gaussian").
        count: how many times it happened.
    """

    event: Literal["gaussian", "sampled-gaussian"]
    noise_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sampling_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    count: Annotated[int, Field(ge=1)] = 1


class BudgetView(Frozen):
    """What the silo's policy lets an asker see of its budget."""

    epsilon_run: FiniteFloat
    epsilon_spent: FiniteFloat
    epsilon_total: FiniteFloat
    delta: FiniteFloat


class Release(Frozen):
    """What a silo answers: noised, charged, signed.

    Attributes:
        payload: which kind of arrays come with it.
        key: idempotency key: SHA-256 of plan digest, data epoch, step and incoming digest.
        epoch: name of the state of the data it was computed on.
        unit: what the guarantee protects.
        noise: public parameters of the noise, by name (see the payload's own module).
        charged: the privacy events of this step.
        budget: where the silo's policy shows it.
        head: head of the silo's audit log when it was made.
    """

    version: int = PROTOCOL_VERSION
    payload: Payload
    silo: Name
    plan_digest: Hex64
    step: Step
    incoming_digest: Hex64
    key: Hex64
    epoch: Hex64
    unit: ProtectedUnit = RECIPIENT
    simulated: bool = False
    noise: dict[str, FiniteFloat]
    charged: tuple[Charge, ...]
    budget: BudgetView | None
    made_at: Timestamp
    head: Hex64
    arrays_digest: Hex64


class Refusal(Frozen):
    """A silo's no. It carries a code from a closed table, and nothing of the data.

    Attributes:
        about: which of the plan's own names it concerns, such as a column; empty where none. Left
            out of the bytes then, so that every version of the protocol can read "version".
    """

    version: int = PROTOCOL_VERSION
    silo: Name
    plan_digest: Hex64 | Literal[""]
    step: Step | Literal[""]
    code: RefusalCode
    about: Name | Literal[""] = ""
    head: Hex64


class Decoded(NamedTuple):
    """A header and the arrays' bytes behind it."""

    header: Request | Release | Refusal
    arrays: bytes


_TABLE: dict[str, type[Request | Release | Refusal]] = {
    "request": Request,
    "release": Release,
    "refusal": Refusal,
}


def encode(
    header: Request | Release | Refusal,
    arrays: bytes = b"",
    written: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """Content for an envelope: header length, header, arrays.

    Args:
        header: what is said.
        arrays: that go with it.
        written: canonical JSON of fields that are the same in many headers, made once.
    """
    values = header.model_dump(mode="json", exclude=set(written))
    if isinstance(header, Refusal) and not header.about:
        del values["about"]
    if written:
        fields = {name: canonical_bytes(value) for name, value in values.items()} | dict(written)
        pairs = (b'"%s":%s' % (name.encode(), fields[name]) for name in sorted(fields))
        head = b"{" + b",".join(pairs) + b"}"
    else:
        head = canonical_bytes(values)
    return _LENGTH.pack(len(head)) + head + arrays


def decode(kind: str, content: bytes, *, where: str) -> Decoded:
    """Read content whose signature held.

    Raises:
        IntegrityError: not the encoding of a message of this kind.
    """
    if len(content) < _LENGTH.size or kind not in _TABLE:
        raise IntegrityError("not a message", where=where)
    (length,) = _LENGTH.unpack(content[: _LENGTH.size])
    end = _LENGTH.size + length
    if length > MAX_HEADER or len(content) < end:
        raise IntegrityError("the message is cut short", where=where)
    arrays = content[end:]
    try:
        header = parse_canonical_record(_TABLE[kind], content[_LENGTH.size : end], where=where)
    except InputError as cause:
        raise IntegrityError(f"not a {kind}: {cause.what}", where=where) from cause
    claimed = {
        "request": getattr(header, "incoming_digest", ""),
        "release": getattr(header, "arrays_digest", ""),
        "refusal": sha256_hex(b""),
    }[kind]
    if sha256_hex(arrays) != claimed:
        raise IntegrityError("the arrays are not those of the header", where=where)
    return Decoded(header, arrays)
