"""An ID token whose signature holds: checks 1 to 3 of `abfed.site.openid`.

It is somebody else's text, and is read in one way only: three parts in plain base64url, each in its
one spelling, so that a token that was used can't come again in other letters; JSON objects in which
no name stands twice, so that nobody else reads other claims than we do. What a header says about
where a key is (`jku`, `x5u`, `jwk`, `x5c`) is not looked at; what it says must be understood
(`crit`) is not understood.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jwt

from abfed.protocol.errors import Refused

ALGORITHMS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Algorithms that are accepted, and the type of key that each takes."""

LONGEST_ID_TOKEN = 16_384  # characters
_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Verified(NamedTuple):
    """What is signed.

    Attributes:
        claims: what it says.
        signed: the text that the signature is over. It stands for the token: of one elliptic
            signature anybody can make a second that holds as well.
    """

    claims: dict[str, Any]
    signed: str


def verified(id_token: str, keys: Iterable[Mapping[str, Any]]) -> Verified:
    """An ID token, if its signature holds.

    Args:
        id_token: as the provider gave it.
        keys: the provider's public keys (JWK).

    Raises:
        Refused: says which check failed, never the token's content.
    """
    if len(id_token) > LONGEST_ID_TOKEN:
        raise refusal("the ID token is too large")
    if not _PARTS.fullmatch(id_token):
        raise refusal("not an ID token")
    head, body, signature = id_token.split(".")
    _decoded(signature)  # in its one spelling
    header = _object(_decoded(head))
    algorithm, name = header.get("alg"), header.get("kid")
    kind = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
    if kind is None:  # 1
        raise refusal("the ID token is not signed by an algorithm that is accepted")
    if "crit" in header or "b64" in header or str(header.get("typ", "JWT")).upper() != "JWT":
        raise refusal("the token is of another kind than an ID token")
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and key.get("kid") == name
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
    ]
    if not isinstance(name, str) or len(fitting) != 1:  # 2
        raise refusal("the ID token names no key of the provider's")
    try:  # 3
        key = jwt.PyJWK(dict(fitting[0]), algorithm=algorithm)
        checked_by_hand = dict.fromkeys(
            ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss"), False
        )
        jwt.decode(
            id_token,
            key,
            algorithms=[str(algorithm)],
            options=checked_by_hand,  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError) as cause:
        raise refusal("the ID token's signature does not hold") from cause
    return Verified(_object(_decoded(body)), f"{head}.{body}")


def refusal(what: str) -> Refused:
    """A no to an ID token."""
    return Refused(what, code="sign-in", do="sign in at the provider again, or ask its people")


def _decoded(part: str) -> bytes:
    """A part's bytes, from their one spelling in base64url."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError) as cause:
        raise refusal("not an ID token") from cause
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise refusal("not an ID token")
    return data


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object in which no name stands twice, at no depth."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as cause:
        raise refusal("not an ID token") from cause
    if not isinstance(value, dict):
        raise refusal("not an ID token")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise refusal("the ID token says something twice")
    return found


def _no_number(_: str) -> None:
    raise refusal("not an ID token")
