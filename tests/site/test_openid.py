"""OpenID Connect against a provider process on loopback: what is believed and what not (S11)."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from abfed.protocol.errors import AbfedError, InputError, Refused, RunFailed
from abfed.site.access import Place, judge_token
from abfed.site.certificates import make_authority, make_server_certificate
from abfed.site.device import Answered, Shown, ask_by_device
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.site.openid import FILE, OpenId, Provider, load_provider
from abfed.site.people import People
from abfed.site.reviews import lines
from abfed.site.rights import AccessPolicy, Identity, Reviews
from abfed.site.vendors import Vendors
from tests.signing import PASSWORD, make_people
from tests.site.provider import CLIENT
from tests.site.test_vendors import vendor


class Running:
    """The provider's process, and what its next token is to look like."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.issuer = folder, f"http://127.0.0.1:{port}"

    def next(self, **wanted: Any) -> None:
        (self.folder / "next.json").write_text(json.dumps(wanted))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("provider")
    (folder / "next.json").write_text("{}")
    script = Path(__file__).with_name("provider.py")
    process = subprocess.Popen([sys.executable, str(script), str(folder)])
    try:
        for _ in range(600):
            if (folder / "port").exists():
                break
            assert process.poll() is None, "the provider died"
            time.sleep(0.1)
        yield Running(folder, int((folder / "port").read_text()))
    finally:
        process.kill()
        process.wait(timeout=30)


class Site:
    """A site that trusts the provider."""

    def __init__(self, folder: Path, running: Running) -> None:
        self.folder, self.running = folder / "hub", running
        self.keys = SiteKeys.create(folder / "keys", site="hub")
        self.people: People = make_people(self.folder, self.keys)
        self.waited: list[float] = []
        self.shown: list[Shown] = []
        running.next()

    def provider(self, **changes: Any) -> Provider:
        values: dict[str, Any] = {
            "issuer": self.running.issuer,
            "client_id": CLIENT,
            "roles": {"analysts": "analyst", "officers": "privacy-officer"},
            "required_amr": ("mfa",),
            "loopback": True,
        }
        return Provider(**(values | changes))

    def ask(self, **changes: Any) -> Answered:
        return ask_by_device(self.provider(**changes), self.shown.append, self.waited.append)

    def sign_in(self, answered: Answered | None = None, **changes: Any) -> str:
        answered = answered or self.ask(**changes)
        return OpenId(self.people, self.folder, self.provider(**changes)).sign_in(
            answered.id_token, answered.keys, holder=bytes(32), audience=("hub",)
        )

    def refusal(self, **wanted: Any) -> Refused:
        self.running.next(**wanted)
        with pytest.raises(Refused) as caught:
            self.sign_in()
        return caught.value


@pytest.fixture
def site(tmp_path: Path, running: Running) -> Site:
    return Site(tmp_path, running)


@pytest.mark.parametrize("make", ["", "es256"])
def test_the_device_flow_signs_in(site: Site, make: str) -> None:
    site.running.next(make=make, answers=["authorization_pending", "slow_down"])
    text = site.sign_in()
    heard = (Identity(site="hub", public_key=site.keys.public_key.hex(), roles=("analyst",)),)
    place = Place("hub", AccessPolicy(identities=heard), site.people.clock())
    token = judge_token(text, place)
    assert (token.who, token.roles, token.factors) == ("nora@hub", ("analyst",), ("pwd", "mfa"))
    assert site.shown == [Shown(f"{site.running.issuer}/activate", "WDJB-MJHT")]
    assert site.waited == [1.0, 1.0, 6.0]  # slow_down adds five seconds


def test_a_provider_may_be_certified_by_the_brands_own_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that this machine trusts, as for webhooks; and by nobody who is not."""
    now = datetime.now(UTC)
    authority = make_authority("brand", now, 2)
    (tmp_path / "tls.pem").write_bytes(
        b"".join(make_server_certificate(authority, ["127.0.0.1"], now, 1))
    )
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")

    class Says(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n{"issuer": "https://another.example"}')

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Says) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        issuer = f"https://127.0.0.1:{server.server_port}"
        provider = Provider(issuer=issuer, client_id="a", roles={}, required_amr=("mfa",))
        with pytest.raises(RunFailed, match="can't be reached by TLS"):
            ask_by_device(provider, lambda _: None, lambda _: None)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(Refused, match="another issuer answers there"):
            ask_by_device(provider, lambda _: None, lambda _: None)
        server.shutdown()


def test_pinned_keys_are_not_fetched(site: Site) -> None:
    keys = tuple(httpx.get(f"{site.running.issuer}/keys").json()["keys"])
    answered = site.ask(keys=keys)
    assert answered.keys == ()
    assert site.sign_in(answered, keys=keys)
    stranger = ({**keys[0], "n": keys[0]["n"][:-4] + "AAAA"},)
    with pytest.raises(Refused, match="signature does not hold"):
        site.sign_in(site.ask(keys=stranger), keys=stranger)


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "alg none": ({"make": "none"}, "algorithm"),
    "key confusion": ({"make": "confused"}, "algorithm"),
    "a stranger's key": ({"make": "stranger"}, "signature does not hold"),
    "its own key": ({"make": "own-jwk"}, "signature does not hold"),
    "no key named": ({"make": "no-kid"}, "names no key"),
    "a key of another type": ({"make": "wrong-kid"}, "names no key"),
    "changed": ({"make": "changed"}, "signature does not hold"),
    "another issuer": ({"claims": {"iss": "https://evil.example"}}, "another issuer"),
    "no issuer": ({"claims": {"iss": None}}, "another issuer"),
    "another audience": ({"claims": {"aud": "other"}}, "somebody else"),
    "no audience": ({"claims": {"aud": None}}, "somebody else"),
    "two audiences": ({"claims": {"aud": [CLIENT, "other"]}}, "other parties"),
    "another party": ({"claims": {"azp": "other"}}, "other parties"),
    "expired": ({"shift": {"exp": -61}}, "run out"),
    "no expiry": ({"claims": {"exp": None}}, "no dates"),
    "odd expiry": ({"claims": {"exp": "never"}}, "no dates"),
    "endless expiry": ({"claims": {"exp": 1e300}}, "no dates"),
    "old": ({"shift": {"iat": -700}}, "just now"),
    "from the future": ({"shift": {"iat": 120}}, "just now"),
    "not yet": ({"shift": {"nbf": 120}}, "just now"),
    "no factors": ({"claims": {"amr": None}}, "factors"),
    "too few factors": ({"claims": {"amr": ["pwd"]}}, "factors"),
    "factors as text": ({"claims": {"amr": "mfa"}}, "factors"),
    "no role": ({"claims": {"groups": ["canteen"]}}, "no role"),
    "no subject": ({"claims": {"sub": None}}, "no person"),
    "an odd name": ({"claims": {"preferred_username": "../ada"}}, "call so"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_believed(site: Site, name: str) -> None:
    wanted, why = HOSTILE[name]
    refused = site.refusal(**wanted)
    assert why in refused.what
    assert refused.code == "sign-in"
    assert site.people.names() == ()
    events = [entry["body"]["event"] for entry in site.people.audit.entries()]
    assert events == ["sign-in.failed"]


def test_clocks_may_differ_by_the_tolerance(site: Site) -> None:
    site.running.next(shift={"exp": -50})
    assert site.sign_in()
    site.running.next(shift={"iat": 50})
    assert site.sign_in()


def test_a_token_is_good_once_also_after_a_restart(site: Site) -> None:
    answered = site.ask()
    site.sign_in(answered)
    with pytest.raises(Refused, match="used before"):
        site.sign_in(answered)


def test_roles_follow_the_claims_and_end_with_the_session(site: Site) -> None:
    site.running.next(claims={"groups": ["analysts", "officers"]})
    site.sign_in()
    assert set(site.people.person("nora").roles(site.people.clock())) == {
        "analyst",
        "privacy-officer",
    }
    site.running.next(claims={"groups": "officers"})
    site.sign_in()
    assert site.people.person("nora").roles(site.people.clock()) == ("privacy-officer",)


def test_a_review_asks_of_a_providers_people_what_there_is_to_decide(site: Site) -> None:
    """What claims give ends with each session: that is no news. Duties and idleness are."""
    site.running.next(claims={"groups": ["analysts", "officers"]})
    site.sign_in()
    people, now = site.people.register().people.values(), site.people.clock()
    for days, marks in ((0, {"over-broad"}), (1, {"over-broad"}), (46, {"over-broad", "unused"})):
        found = lines(people, Reviews(), now + timedelta(days=days))
        assert {mark for line in found for mark in line.marks} == marks, days


def test_a_name_belongs_to_whom_it_was_given_first(site: Site) -> None:
    site.people.enrol("nora", PASSWORD, by="test")
    assert "has this name" in site.refusal().what


def test_another_subject_does_not_take_a_name_over(site: Site) -> None:
    site.sign_in()
    assert "has this name" in site.refusal(claims={"sub": "9999"}).what


def test_a_stopped_person_stays_out(site: Site) -> None:
    site.sign_in()
    site.people.stop("nora", by="test")
    assert site.refusal().code == "revoked"


def test_the_provider_may_say_no_or_talk_nonsense(site: Site, tmp_path: Path) -> None:
    site.running.next(answers=["access_denied"])
    with pytest.raises(Refused, match="refused there"):
        site.ask()
    site.running.next(answers=["authorization_pending"] * 99)
    with pytest.raises(Refused, match="in time"):
        site.ask()
    site.running.next(issuer="https://evil.example")
    with pytest.raises(Refused, match="another issuer"):
        site.ask()
    site.running.next(huge=True)
    with pytest.raises(RunFailed):
        site.ask()
    site.running.next(device="http://192.0.2.1/device")
    with pytest.raises(InputError, match="not https"):
        site.ask()
    site.running.next()
    with pytest.raises(RunFailed):
        site.ask(client_id="unknown")
    with pytest.raises(RunFailed):
        site.ask(issuer="http://127.0.0.1:1")
    with pytest.raises(InputError, match="not https"):
        site.ask(loopback=False)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "." * 99, "e30.e30.", "x" * 20_000])
def test_odd_tokens_raise_our_own_error(site: Site, text: str) -> None:
    with pytest.raises(Refused):
        site.sign_in(Answered(text, ()))
    header = jwt.utils.base64url_encode(b'{"alg":"RS256","kid":["r1"]}').decode()
    with pytest.raises(Refused):
        site.sign_in(Answered(f"{header}.e30.{text}", ()))


def test_nothing_of_the_token_is_shown_or_kept(site: Site) -> None:
    answered = site.ask()
    canary = answered.id_token.split(".")[2]
    assert canary not in repr(answered)
    site.sign_in(answered)
    try:
        site.sign_in(answered)
    except AbfedError:
        assert canary not in traceback.format_exc()
    for path in site.folder.rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes()


def test_the_provider_is_a_file_of_the_site(site: Site) -> None:
    values = site.provider().model_dump(mode="json")
    write_private(site.folder / FILE, json.dumps(values).encode())
    assert load_provider(site.folder) == site.provider()
    for changes in ({"roles": {"x": "service-account"}}, {"required_amr": []}, {"other": 1}):
        write_private(site.folder / FILE, json.dumps(values | changes).encode())
        with pytest.raises(InputError):
            load_provider(site.folder)
    (site.folder / FILE).unlink()
    with pytest.raises(InputError):
        load_provider(site.folder)


def test_a_provider_elsewhere_takes_an_approved_vendor(site: Site) -> None:
    answered = site.ask()
    elsewhere = {"issuer": "https://id.example.org", "loopback": False}
    with pytest.raises(Refused) as caught:
        site.sign_in(answered, **elsewhere)
    assert caught.value.code == "vendor"
    vendors = Vendors(site.folder, site.people.keys, site.people.audit)
    services = [{"kind": "identity", "address": "https://id.example.org"}]
    agreement = {"reference": "DPA", "signed_on": "2026-01-01", "ends_on": "2099-01-01"}
    entry = vendor(services=services, review_by="2099-01-01", agreement=agreement)
    vendors.put(entry, by="pat@hub")
    vendors.approve("postbox", by="sam@hub")
    with pytest.raises(Refused) as caught:  # now it is the token that isn't the provider's
        site.sign_in(answered, **elsewhere)
    assert caught.value.code == "sign-in"
