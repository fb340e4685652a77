"""Signing in through an organisation's own OpenID Connect provider (S11).

A site that trusts a provider keeps an `openid.yaml`: the issuer, our client there, its keys
(pinned, or fetched from where the issuer says), which claim values give which roles, and which
factors the provider must have asked for. What the provider says becomes a token of the site, so
that silos judge one kind of token only. An ID token is somebody else's text until check 3 held:

 1. it has its one spelling, and is signed by an asymmetric algorithm: neither `none` nor a shared
    secret is one;
 2. by a key of the provider whose type fits that algorithm;
 3. and the signature holds;
 4. issuer and audience are exactly ours, and nobody else is a party to it;
 5. it is in date, within the tolerance, and was made just now;
 6. the provider asked for the factors that we require (`amr`);
 7. it was not used here before;
 8. its claims name a person, the same as before under this name, with at least one role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import AbfedError, InputError, Refused, WorkspaceError
from abfed.protocol.identity import At, Factor, Hex64, Role
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.clock import moment_of, stamp
from abfed.site.files import read_private
from abfed.site.idtoken import refusal, verified
from abfed.site.people import People, Person
from abfed.site.sealedfile import SealedFile
from abfed.site.signin import SESSION, Claims, SignIn
from abfed.site.vendors import Vendors, on_this_machine

FILE = "openid.yaml"
USED = "id-tokens-used.sealed"
NEWEST = timedelta(minutes=10)
"""How long ago an ID token may have been made."""

NEVER = datetime.fromtimestamp(0, UTC)
"""When a factor was given, where the provider doesn't say: too long ago for a dangerous act."""

_FACTORS: dict[str, Factor] = {"pwd": "pwd", "otp": "otp", "hwk": "hwk", "mfa": "mfa"}


class Provider(Frozen):
    """A provider that a site trusts.

    Attributes:
        issuer: its name, as its tokens spell it: an https address.
        client_id: how it knows us.
        keys: its public keys (JWK), pinned; fetched from where the issuer says where empty.
        roles: our role by value of the role claim.
        role_claim, name_claim: which claims say so.
        required_amr: factors that must all have been used.
        tolerance_seconds: how far its clock may be from ours.
        loopback: plain http to this machine is allowed, for development.
    """

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s?#]{1,200}$")]
    client_id: Annotated[str, Field(min_length=1, max_length=200)]
    keys: tuple[dict[str, str | bool | list[str]], ...] = ()
    roles: dict[str, Role]
    role_claim: str = "groups"
    name_claim: str = "preferred_username"
    required_amr: Annotated[tuple[str, ...], Field(min_length=1)]
    tolerance_seconds: Annotated[int, Field(ge=0, le=300)] = 60
    loopback: bool = False


class Used(Frozen):
    """Digests of ID tokens that were used, until when each would have counted."""

    tokens: dict[Hex64, At] = Field(default_factory=dict)


class Said(NamedTuple):
    """What a provider said about a person.

    Attributes:
        name, subject: our name for them, and a digest of the provider's.
        roles, factors: by the claims.
        signed_in_at: when they signed in there (`auth_time`); `NEVER` where it doesn't say.
    """

    name: str
    subject: str
    roles: tuple[Role, ...]
    factors: tuple[Factor, ...]
    signed_in_at: datetime


def load_provider(folder: Path) -> Provider:
    """The provider that a site trusts.

    Raises:
        WorkspaceError: it trusts none, or its file is malformed.
    """
    path = folder / FILE
    values = parse_yaml(read_private(path), where=str(path), error=WorkspaceError)
    provider = parse_record(Provider, values, where=str(path), error=WorkspaceError)
    if "service-account" in provider.roles.values():
        raise WorkspaceError("a provider names people, not service accounts", where=str(path))
    return provider


class OpenId:
    """Sign-in at a site through a provider.

    Args:
        people: the site's people.
        folder: the site's folder.
        provider: the provider.
    """

    def __init__(self, people: People, folder: Path, provider: Provider) -> None:
        self._people = people
        self._provider = provider
        self._folder = folder
        self._used = SealedFile(folder / USED, people.keys, "id-tokens-used")

    def sign_in(
        self,
        id_token: str,
        keys: Iterable[Mapping[str, Any]],
        *,
        holder: bytes,
        audience: Iterable[str],
    ) -> str:
        """A token of the site for whom the provider vouches.

        Args:
            id_token: what the provider said.
            keys: its public keys as fetched; not looked at where keys are pinned.
            holder: public key of the session.
            audience: sites that the token is for.

        Raises:
            Refused: the provider's vendor is not approved, or the ID token is not good enough; says
                which check failed, never its content.
        """
        self.require_vendor()
        try:
            said = self._check(id_token, self._provider.keys or keys)
            person = self._known(said)
        except AbfedError:
            self._people.audit.append("sign-in.failed", person="unknown", by="openid")
            raise
        self._people.audit.append("sign-in.done", person=said.name, factors=" ".join(said.factors))
        return SignIn(self._people).issue(
            Claims(
                person=said.name,
                roles=person.roles(self._people.clock()),
                attested=person.attested,
                factors=said.factors,
                holder=holder.hex(),
                audience=tuple(audience),
                signed_in_at=self._people.clock(),
                factor_at=min(said.signed_in_at, self._people.clock()),
            )
        )

    def require_vendor(self) -> None:
        """A provider elsewhere is a vendor's service (S16); this machine's is nobody's.

        Raises:
            Refused: no approved vendor has it. Asked before the provider is.
        """
        issuer = self._provider.issuer
        if not on_this_machine(urlsplit(issuer).hostname or ""):
            people = self._people
            vendors = Vendors(self._folder, people.keys, people.audit, people.clock)
            vendors.require("identity", issuer)

    def _check(self, id_token: str, keys: Iterable[Mapping[str, Any]]) -> Said:
        claims, signed = verified(id_token, keys)  # 1 to 3
        _check_parties(claims, self._provider)  # 4
        ends = _check_dates(claims, self._provider, self._people.clock())  # 5
        used = claims.get("amr")
        if not isinstance(used, list) or not set(self._provider.required_amr) <= set(
            map(str, used)
        ):
            raise refusal("the provider did not ask for the factors that are required")  # 6
        self._use_once(signed, ends)  # 7
        return _said(claims, self._provider)

    def _use_once(self, signed: str, ends: datetime) -> None:
        """Check 7, kept on disk until the ID token would have run out anyway."""
        now, digest = self._people.clock(), sha256_hex(signed.encode())
        with self._used.alone():
            values = self._used.read()
            used = Used() if values is None else parse_record(Used, values, where=USED)
            if digest in used.tokens:
                raise refusal("the ID token was used before")
            kept = {one: at for one, at in used.tokens.items() if moment_of(at) > now}
            kept[digest] = stamp(ends + timedelta(seconds=self._provider.tolerance_seconds))
            self._used.write(Used(tokens=kept).model_dump(mode="json"))

    def _known(self, said: Said) -> Person:
        """Check 8: the person's record, with the roles of now."""
        register = self._people.register().people
        same = {name for name, one in register.items() if one.subject == said.subject}
        if same - {said.name}:
            raise refusal("this person is known here under another name")
        known = register.get(said.name)
        if known is None:
            values = {"name": said.name, "kind": "provider", "subject": said.subject}
            self._people.add(parse_record(Person, values, where="openid"), by="openid")
        elif known.kind != "provider" or known.subject != said.subject:
            raise refusal("somebody else has this name here")
        elif known.stopped_at:
            raise Refused("this person was stopped", code="revoked", where=self._people.keys.site)
        for role in known.roles(self._people.clock()) if known else ():
            if role not in said.roles:
                self._people.take_back(said.name, role, by="openid")
        for role in said.roles:
            reason = f"{self._provider.role_claim} at {self._provider.issuer}"[:200]
            self._people.grant(said.name, role, owner="openid", reason=reason, lasts=SESSION)
        return self._people.person(said.name)


def _check_parties(claims: Mapping[str, Any], provider: Provider) -> None:
    if claims.get("iss") != provider.issuer:
        raise refusal("the ID token is of another issuer")
    audience = claims.get("aud")
    parties = [audience] if isinstance(audience, str) else audience
    if not isinstance(parties, list) or provider.client_id not in parties:
        raise refusal("the ID token is for somebody else")
    if len(parties) > 1 or claims.get("azp", provider.client_id) != provider.client_id:
        raise refusal("the ID token has other parties too")


def _check_dates(claims: Mapping[str, Any], provider: Provider, now: datetime) -> datetime:
    """Check 5; returns when the ID token runs out."""
    tolerance = timedelta(seconds=provider.tolerance_seconds)
    ends, made = _moment(claims.get("exp")), _moment(claims.get("iat"))
    begins = _moment(claims.get("nbf", claims.get("iat")))
    if now >= ends + tolerance:
        raise refusal("the ID token has run out")
    if max(made, begins) > now + tolerance or now - made > NEWEST + tolerance:
        raise refusal("the ID token was not made just now")
    return ends


def _said(claims: Mapping[str, Any], provider: Provider) -> Said:
    """Check 8, first half: the person and the roles that the claims name."""
    subject, name = claims.get("sub"), claims.get(provider.name_claim)
    if not isinstance(subject, str) or not subject or not isinstance(name, str):
        raise refusal("the ID token names no person")
    values = claims.get(provider.role_claim)
    listed = values if isinstance(values, list) else [values]
    roles = tuple(
        dict.fromkeys(
            provider.roles[one] for one in listed if isinstance(one, str) and one in provider.roles
        )
    )
    if not roles:
        raise refusal("the ID token gives no role here")
    factors = tuple(_FACTORS[one] for one in map(str, claims["amr"]) if one in _FACTORS)
    if not factors:
        raise refusal("the provider asked for no factor that we know")
    at = _moment(claims["auth_time"]) if "auth_time" in claims else NEVER
    try:
        called = parse_record(_Called, {"name": _lowered(name)}, where="openid").name
    except InputError as cause:
        raise refusal("the ID token names a person whom we can't call so") from cause
    return Said(called, sha256_hex(f"{provider.issuer} {subject}".encode()), roles, factors, at)


def _lowered(name: str) -> str:
    """The part before the @; of other alphabets' capitals the small letters aren't ours."""
    first = name.partition("@")[0]
    return first.lower() if first.isascii() else first


class _Called(Frozen):
    """A name that we can use."""

    name: Name


def _moment(value: Any) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal("the ID token has no dates")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as cause:
        raise refusal("the ID token has no dates") from cause
