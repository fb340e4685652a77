"""The device-code flow (RFC 8628): a terminal or notebook signs in through a browser elsewhere.

We ask the provider for a code, the person types it at the provider's page, and we ask again and
again until the provider says yes or no. No redirect is followed, no answer above a bound is read,
and every address must be https, or on this machine where the provider is marked for development.
Nothing of an answer is repeated in an error.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from abfed.protocol.errors import InputError, Refused, RunFailed
from abfed.site.openid import Provider

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DISCOVERY = "/.well-known/openid-configuration"
LARGEST_ANSWER = 262_144  # bytes
SECONDS = 10.0  # for one answer
LONGEST_WAIT = 900.0  # seconds for the person to type the code
SLOWER = 5.0  # seconds that RFC 8628 adds at `slow_down`


class Shown(NamedTuple):
    """What the person needs: where to go, and what to type there."""

    address: str
    code: str


class Answered(NamedTuple):
    """What came of it: the ID token, and the provider's keys (JWK)."""

    id_token: str
    keys: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        """Nothing of the token."""
        return f"Answered(keys={len(self.keys)})"


def ask_by_device(
    provider: Provider, show: Callable[[Shown], None], wait: Callable[[float], None]
) -> Answered:
    """Let a person sign in at the provider, and bring what it says about them.

    Args:
        provider: the provider.
        show: tells the person where to go.
        wait: lets seconds pass.

    Raises:
        RunFailed: the provider does not answer, or not as OpenID Connect has it.
        Refused: the person said no, or took too long.
    """
    trusted = ssl.create_default_context()  # the machine's authorities, a brand's own among them
    with httpx.Client(
        timeout=SECONDS, follow_redirects=False, trust_env=False, verify=trusted
    ) as client:
        found = _get(client, provider, provider.issuer.rstrip("/") + DISCOVERY)
        if found.get("issuer") != provider.issuer:
            raise Refused("another issuer answers there", code="sign-in", where=provider.issuer)
        begun = _post(
            client,
            provider,
            str(found.get("device_authorization_endpoint")),
            {"client_id": provider.client_id, "scope": "openid profile"},
        )
        address, code = begun.get("verification_uri"), begun.get("user_code")
        device = begun.get("device_code")
        if not (isinstance(address, str) and isinstance(code, str) and isinstance(device, str)):
            raise _odd(provider)
        show(Shown(address, code))
        asked = {"client_id": provider.client_id, "grant_type": GRANT, "device_code": device}
        token = _poll(client, provider, str(found.get("token_endpoint")), asked, begun, wait)
        keys: tuple[dict[str, Any], ...] = ()
        if not provider.keys:
            listed = _get(client, provider, str(found.get("jwks_uri"))).get("keys")
            if not isinstance(listed, list):
                raise _odd(provider)
            keys = tuple(one for one in listed if isinstance(one, dict))
        return Answered(token, keys)


def _poll(
    client: httpx.Client,
    provider: Provider,
    address: str,
    asked: Mapping[str, str],
    begun: Mapping[str, Any],
    wait: Callable[[float], None],
) -> str:
    """Ask for the token until the person has typed the code."""
    pause = max(1.0, min(60.0, _seconds(begun.get("interval"), 5.0)))
    left = min(LONGEST_WAIT, _seconds(begun.get("expires_in"), LONGEST_WAIT))
    while left > 0:
        wait(pause)
        left -= pause
        answer = _post(client, provider, address, asked, errors=True)
        error = answer.get("error")
        if error == "slow_down":
            pause += SLOWER
        elif error is None:
            token = answer.get("id_token")
            if not isinstance(token, str):
                raise _odd(provider)
            return token
        elif error != "authorization_pending":
            raise Refused("the sign-in was refused there", code="sign-in", where=provider.issuer)
    raise Refused("nobody signed in in time", code="sign-in", where=provider.issuer)


def _seconds(value: Any, otherwise: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and value >= 0 else otherwise


def _get(client: httpx.Client, provider: Provider, address: str) -> dict[str, Any]:
    return _read(client, provider, httpx.Request("GET", _allowed(provider, address)))


def _post(
    client: httpx.Client,
    provider: Provider,
    address: str,
    values: Mapping[str, str],
    *,
    errors: bool = False,
) -> dict[str, Any]:
    request = httpx.Request("POST", _allowed(provider, address), data=dict(values))
    return _read(client, provider, request, errors=errors)


def _read(
    client: httpx.Client, provider: Provider, request: httpx.Request, *, errors: bool = False
) -> dict[str, Any]:
    """An answer of the provider: a JSON object of bounded size."""
    try:
        request.headers["Accept-Encoding"] = "identity"
        response = client.send(request, stream=True)
        try:
            body = b""
            for part in response.iter_raw():  # nothing is unpacked: a little could become a lot
                body += part
                if len(body) > LARGEST_ANSWER:
                    raise _odd(provider)
        finally:
            response.close()
        found = httpx.Response(response.status_code, content=body)
        values = found.json()
    except httpx.NetworkError as cause:
        raise RunFailed(
            "the provider can't be reached by TLS",
            where=provider.issuer,
            why="nobody answers there, or with a certificate of no authority that is trusted here",
            do="see that it answers from here, and that this machine trusts who certified it",
        ) from cause
    except (httpx.HTTPError, ValueError, RecursionError) as cause:
        raise _odd(provider) from cause
    expected = (200, 400, 401, 428) if errors else (200,)
    if found.status_code not in expected or not isinstance(values, dict):
        raise _odd(provider)
    if found.status_code != 200 and "error" not in values:
        raise _odd(provider)
    return values


def _allowed(provider: Provider, address: str) -> str:
    """An address that may be asked.

    Raises:
        InputError: it is not https, nor on this machine where that is allowed.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return address
    if provider.loopback and parts.scheme == "http" and _is_here(parts.hostname or ""):
        return address
    raise InputError(
        "the provider's address is not https", where=provider.issuer, do="see docs/people.md"
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _odd(provider: Provider) -> RunFailed:
    return RunFailed("the provider does not answer as OpenID Connect has it", where=provider.issuer)
