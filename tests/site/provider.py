"""An OpenID Connect provider as a process of its own: real HTTP, real keys, real signatures.

    python provider.py FOLDER

It serves discovery, keys, device authorization and tokens on a port of 127.0.0.1 that it writes to
FOLDER/port. What the next token looks like stands in FOLDER/next.json: `claims` to change, and
`make` for how it is signed, right or wrong.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CLIENT = "abfed-at-aurora"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ROTATED = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public_keys(*, rotated: bool = False) -> list[dict[str, Any]]:
    first = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
    second = jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)
    if rotated:
        first = jwt.algorithms.RSAAlgorithm.to_jwk(ROTATED.public_key(), as_dict=True)
    name = "r2" if rotated else "r1"
    return [
        {"kty": "RSA", "n": first["n"], "e": first["e"], "kid": name, "use": "sig"},
        {key: second[key] for key in ("kty", "crv", "x", "y")} | {"kid": "e1", "alg": "ES256"},
    ]


def hs256(claims: dict[str, Any], secret: bytes) -> str:
    """Key confusion by hand: PyJWT itself refuses to use a public key as a secret."""
    head = _b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "r1"}).encode())
    body = _b64(json.dumps(claims).encode())
    signature = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{_b64(signature)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(head: str, body: str, key: rsa.RSAPrivateKey = RSA_KEY) -> str:
    """RS256 over any two texts, whether a library would write them or not."""
    said = f"{_b64(head.encode())}.{_b64(body.encode())}"
    signature = key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{said}.{_b64(signature)}"


def signed(claims: dict[str, Any], make: str) -> str:  # noqa: PLR0911 - a table of ways
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if make == "none":
        return jwt.encode(claims, None, algorithm="none", headers={"kid": "r1"})
    if make == "confused":
        return hs256(claims, pem)
    if make == "stranger":
        return jwt.encode(claims, STRANGER, algorithm="RS256", headers={"kid": "r1"})
    if make == "no-kid":
        return jwt.encode(claims, RSA_KEY, algorithm="RS256")
    if make == "wrong-kid":
        return jwt.encode(claims, RSA_KEY, algorithm="RS256", headers={"kid": "e1"})
    if make == "changed":
        head, _, signature = jwt.encode(
            claims, RSA_KEY, algorithm="RS256", headers={"kid": "r1"}
        ).split(".")
        other = _b64(json.dumps(claims | {"groups": ["officers"]}).encode())
        return f"{head}.{other}.{signature}"
    if make == "own-jwk":  # the token brings its own key along
        jwk = jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)
        head = {"kid": "r1", "jwk": {key: jwk[key] for key in ("kty", "n", "e")}}
        return jwt.encode(claims, STRANGER, algorithm="RS256", headers=head)
    if make == "rotated":
        return jwt.encode(claims, ROTATED, algorithm="RS256", headers={"kid": "r2"})
    if make == "es256":
        return jwt.encode(claims, EC_KEY, algorithm="ES256", headers={"kid": "e1"})
    return jwt.encode(claims, RSA_KEY, algorithm="RS256", headers={"kid": "r1"})


class Handler(BaseHTTPRequestHandler):
    folder: Path
    asked: dict[str, int] = {}

    def do_GET(self) -> None:
        issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        wanted = self.next()
        if self.path == "/.well-known/openid-configuration":
            self.say(
                {
                    "issuer": wanted.get("issuer", issuer),
                    "device_authorization_endpoint": wanted.get("device", f"{issuer}/device"),
                    "token_endpoint": f"{issuer}/token",
                    "jwks_uri": f"{issuer}/keys",
                }
            )
        elif self.path == "/keys":
            keys = public_keys(rotated=wanted.get("make") == "rotated")
            self.say({"keys": keys} if not wanted.get("huge") else {"keys": "k" * 400_000})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        size = int(self.headers.get("Content-Length", "0"))
        values = {key: one[0] for key, one in parse_qs(self.rfile.read(size).decode()).items()}
        if values.get("client_id") != CLIENT:
            self.say({"error": "invalid_client"}, 401)
        elif self.path == "/device":
            self.asked["polls"] = 0
            self.say(
                {
                    "device_code": "d" * 40,
                    "user_code": "WDJB-MJHT",
                    "verification_uri": f"{issuer}/activate",
                    "expires_in": 60,
                    "interval": 1,
                }
            )
        else:
            self.token(values, issuer)

    def token(self, values: dict[str, str], issuer: str) -> None:
        wanted = self.next()
        answers = wanted.get("answers", ["authorization_pending"])
        polls = self.asked["polls"]
        self.asked["polls"] = polls + 1
        if values.get("device_code") != "d" * 40:
            self.say({"error": "invalid_grant"}, 400)
        elif polls < len(answers):
            self.say({"error": answers[polls]}, 400)
        else:
            now = int(time.time())
            claims = {
                "iss": issuer, "aud": CLIENT, "sub": "1234", "exp": now + 300, "iat": now,
                "auth_time": now, "amr": ["pwd", "mfa"], "preferred_username": "nora@corp.example",
                "groups": ["analysts", "canteen"], "jti": str(time.time_ns()),
            }  # fmt: skip
            claims |= wanted.get("claims", {})
            for name, seconds in wanted.get("shift", {}).items():
                claims[name] = now + seconds
            kept = {name: value for name, value in claims.items() if value is not None}
            text = ""
            if "head" in wanted or "twice" in wanted:
                head = json.dumps({"alg": "RS256", "kid": "r1", **wanted.get("head", {})})
                body = json.dumps(kept)[:-1] + wanted.get("twice", "") + "}"
                text = by_hand(head, body, STRANGER if wanted.get("make") else RSA_KEY)
            text = text or signed(kept, wanted.get("make", ""))
            self.say({"id_token": text, "token_type": "Bearer"})

    def next(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "next.json").read_text()))

    def say(self, values: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    aside = Handler.folder / "port.aside"
    aside.write_text(str(server.server_address[1]))
    aside.rename(Handler.folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
