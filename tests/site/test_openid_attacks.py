"""OpenID Connect, attacked: spellings, headers, claims that a careless reader believes (S11)."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from abfed.protocol.errors import Refused, RunFailed
from abfed.protocol.identity import Token, as_envelope
from abfed.site.access import Place
from abfed.site.clock import moment_of
from abfed.site.device import Answered, ask_by_device
from abfed.site.rights import AccessPolicy, Asked, Identity, default_rules
from abfed.site.rights import decide as decided
from abfed.site.signin import SignIn
from tests.site.test_openid import Site, running, site

__all__ = ["running", "site"]  # fixtures

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def spellings(id_token: str) -> Iterator[str]:
    """The same token in other letters: none changes what is signed, nor the signature's bytes."""
    head, body, signature = id_token.split(".")
    last = ALPHABET.index(signature[-1])
    yield f"{head}.{body}.{signature[:-1]}{ALPHABET[last ^ 1]}"  # bits that base64 leaves over
    yield f"{head}.{body}.{signature}="
    yield f"{head}.{body}.{signature}=="
    yield f"{head}.{body}.{signature[:9]}\n{signature[9:]}"
    yield f"{head}.{body}.{signature[:9]}!{signature[9:]}"
    yield f"{id_token}\n"
    yield f" {id_token}"


def test_a_used_token_in_another_spelling_is_used(site: Site) -> None:
    answered = site.ask()
    site.sign_in(answered)
    for other in spellings(answered.id_token):
        with pytest.raises(Refused):
            site.sign_in(Answered(other, answered.keys))


def test_the_other_signature_of_a_curve_is_the_same_token(site: Site) -> None:
    """Whoever knows (r, s) knows (r, n - s), which holds as well."""
    site.running.next(make="es256")
    answered = site.ask()
    site.sign_in(answered)
    head, body, signature = answered.id_token.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    text = base64.urlsafe_b64encode(other).rstrip(b"=").decode()
    with pytest.raises(Refused, match="used before"):
        site.sign_in(Answered(f"{head}.{body}.{text}", answered.keys))


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "an extension that we must know": ({"head": {"crit": ["x"], "x": 1}}, ""),
    "another kind of token": ({"head": {"typ": "at+jwt"}}, "kind"),
    "a logout token": ({"head": {"typ": "logout+jwt"}}, "kind"),
    "a list as the algorithm": ({"head": {"alg": ["RS256"]}}, ""),
    "a lower-case algorithm": ({"head": {"alg": "rs256"}}, "algorithm"),
    "none in capitals": ({"head": {"alg": "NONE"}}, "algorithm"),
    "a list as the key's name": ({"head": {"kid": ["r1"]}}, ""),
    "a path as the key's name": ({"head": {"kid": "../../keys/r1"}}, "names no key"),
    "an empty name of a key": ({"head": {"kid": ""}}, "names no key"),
    "a claim twice": ({"twice": ', "sub": "9999"'}, "twice"),
    "the roles twice": ({"twice": ', "groups": ["officers"]'}, "twice"),
    "twice, deep inside": ({"twice": ', "x": {"amr": 1, "amr": 2}'}, "twice"),
    "factors twice": ({"twice": ', "amr": ["mfa"]', "claims": {"amr": ["pwd"]}}, "twice"),
    "no number": ({"twice": ', "x": NaN'}, ""),
    "factors in a list in a list": ({"claims": {"amr": [["mfa"]]}}, "factors"),
    "an expiry that is true": ({"claims": {"exp": True}}, "no dates"),
    "an expiry as text": ({"claims": {"exp": "9999999999"}}, "no dates"),
    "an issuer with a slash": ({"claims": {"iss": "http://127.0.0.1/"}}, "another issuer"),
    "a list of issuers": ({"claims": {"iss": ["x"]}, "head": {}}, "another issuer"),
    "an audience twice": ({"claims": {"aud": ["abfed-at-aurora"] * 2}}, "other parties"),
    "a name that small letters make ours": ({"claims": {"preferred_username": "\u212aate"}}, "so"),
    "a second line in the name": ({"claims": {"preferred_username": "nora\n"}}, "so"),
    "a role of the service's": ({"claims": {"groups": [["analysts"]]}}, "no role"),
    "a deep one": ({"twice": ', "x": ' + "[" * 5000 + "]" * 5000}, ""),
    "a large one": ({"claims": {"x": "x" * 20_000}}, "too large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_careless_reader_believes(site: Site, name: str) -> None:
    wanted, why = HOSTILE[name]
    refused = site.refusal(**wanted)
    assert why in refused.what
    assert refused.code == "sign-in"
    assert site.people.names() == ()


def test_a_deep_header_is_our_own_error(site: Site) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 6000 + b"]" * 6000).rstrip(b"=").decode()
    for text in (f"{deep}.e30.AAAA", f"e30.{deep}.AAAA"):
        with pytest.raises(Refused):
            site.sign_in(Answered(text[:16_000], ()))


@contextmanager
def listening(answer: bytes = b"{}", **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that notes who asks."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=30)


@pytest.mark.parametrize("where", ["jku", "x5u"])
def test_a_token_says_nowhere_where_its_key_is(site: Site, where: str) -> None:
    with listening() as (address, asked):
        refused = site.refusal(make="stranger", head={where: f"{address}/keys"})
        assert "signature does not hold" in refused.what
        assert asked == []


def test_keys_that_the_provider_changed_count_at_once_and_the_old_no_more(site: Site) -> None:
    before = site.ask()
    site.running.next(make="rotated")
    after = site.ask()
    assert site.sign_in(after)
    with pytest.raises(Refused, match="names no key"):  # signed by a key that is gone
        site.sign_in(Answered(before.id_token, after.keys))
    pinned = tuple(before.keys)
    site.running.next(make="rotated")
    with pytest.raises(Refused, match="names no key"):  # pinned keys change by our own hand only
        site.sign_in(site.ask(keys=pinned), keys=pinned)


def test_two_keys_of_one_name_are_none(site: Site) -> None:
    answered = site.ask()
    with pytest.raises(Refused, match="names no key"):
        site.sign_in(Answered(answered.id_token, (*answered.keys, *answered.keys)))


def test_another_name_at_the_provider_makes_no_second_person(site: Site) -> None:
    """Else one person would be two: one who asks and one who approves, or one who isn't stopped."""
    site.sign_in()
    other = {"preferred_username": "nora2@corp.example"}
    assert "under another name" in site.refusal(claims=other).what
    site.people.stop("nora", by="test")
    assert "under another name" in site.refusal(claims=other).what
    site.people.leave("nora", by="test")
    assert "under another name" in site.refusal(claims=other).what
    assert site.people.names() == ("nora",)


def facts(text: str) -> Token:
    content = as_envelope(text, where="test")
    start = content.index(b'{"attested"')
    return Token.model_validate_json(content[start : content.rindex(b"}") + 1])


@pytest.mark.parametrize(
    ("wanted", "fresh"),
    [
        ({}, True),
        ({"shift": {"auth_time": -299}}, True),
        ({"shift": {"auth_time": -400}}, False),
        ({"shift": {"auth_time": 50}}, True),
        ({"claims": {"auth_time": None}}, False),  # nobody says when the factor was given
    ],
)
def test_a_factor_is_as_fresh_as_the_provider_says_and_no_fresher(
    site: Site, wanted: dict[str, Any], fresh: bool
) -> None:
    site.running.next(**(wanted | {"claims": {"groups": "officers"} | wanted.get("claims", {})}))
    text = site.sign_in()
    token = facts(text)
    now = site.people.clock()
    assert moment_of(token.factor_at) <= now, "never later than it was heard"
    heard = (Identity(site="hub", public_key=site.keys.public_key.hex(), roles=token.roles),)
    policy = AccessPolicy(identities=heard, rights=default_rules())
    place = Place("hub", policy, now)
    asked = Asked("plan.approve", place.site, "ada@hub", now)
    assert decided(policy, token, asked).allowed is fresh
    with pytest.raises(Refused, match="their provider's"):  # and no code of ours makes it fresher
        SignIn(site.people).fresh_factor(text, "000000")
    assert site.people.person("nora").failures == 0
    later = asked._replace(now=now + timedelta(minutes=5, seconds=2))
    assert not decided(policy, token, later).allowed


def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(site: Site) -> None:
    bomb = gzip.compress(json.dumps({"issuer": "x" * 50_000_000}).encode())
    with listening(bomb, Content_Encoding="gzip") as (address, asked), pytest.raises(RunFailed):
        ask_by_device(site.provider(issuer=address), site.shown.append, site.waited.append)
    assert asked
