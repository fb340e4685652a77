"""What a person knows and has: passwords, one-time codes, recovery codes (S11).

Passwords are hashed with Argon2id under the second parameter set that RFC 9106 recommends: 64 MiB,
three passes, four lanes (the first asks for 2 GiB at each sign-in). One-time codes follow RFC 6238:
SHA-1, six digits, 30 s, one step of tolerance either way, each code once. Whatever is compared with
a secret is compared in a time that does not depend on it.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import unicodedata
from datetime import datetime

import pyotp
from argon2 import Parameters, PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from abfed.protocol.errors import InputError

RFC_9106: Parameters = RFC_9106_LOW_MEMORY
"""The "second recommended option" of RFC 9106, section 4."""

SHORTEST_PASSWORD = 12  # characters; NIST SP 800-63B asks for 8 beside a second factor
LONGEST_PASSWORD = 256  # characters; Argon2 takes more, a form should not
FEWEST_DIFFERENT = 5  # characters
STEP_SECONDS = 30
TOLERANCE_STEPS = 1
RECOVERY_CODES = 10
RECOVERY_BYTES = 10  # 80 bits


def check_password(password: str, name: str) -> None:
    """Refuse a password that is too easy to guess.

    Raises:
        InputError: says what is wrong with it, never the password.
    """
    problem = ""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        problem = f"it must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
    elif len(set(password)) < FEWEST_DIFFERENT:
        problem = f"it must have at least {FEWEST_DIFFERENT} different characters"
    elif name in password.lower():
        problem = "it must not hold the person's name"
    if problem:
        raise InputError("the password can't be used", why=problem, do="choose another")


def hash_password(password: str, parameters: Parameters = RFC_9106) -> str:
    """The Argon2id hash of a password, with its parameters and salt."""
    return PasswordHasher.from_parameters(parameters).hash(_plain(password))


def password_fits(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed."""
    try:
        return PasswordHasher().verify(hashed, _plain(password))
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(hashed: str, parameters: Parameters = RFC_9106) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return PasswordHasher.from_parameters(parameters).check_needs_rehash(hashed)


def new_otp_secret() -> str:
    """160 random bits in base32, as RFC 4226 recommends."""
    return pyotp.random_base32(32)


def otp_uri(secret: str, who: str) -> str:
    """What the QR code at enrolment says to an authenticator."""
    return pyotp.TOTP(secret).provisioning_uri(name=who, issuer_name="abfed")


def otp_code(secret: str, now: datetime) -> str:
    """The code that an authenticator shows."""
    return pyotp.TOTP(secret).at(now)


def otp_step(secret: str, code: str, now: datetime, *, after: int) -> int | None:
    """The time step that a code belongs to, if it counts now and was not used before.

    Args:
        secret: the person's secret.
        code: what was typed; blanks are forgiven.
        now: by the site's clock.
        after: the last step of which a code was used.
    """
    typed = "".join(code.split()).encode()
    step = int(now.timestamp()) // STEP_SECONDS
    otp = pyotp.TOTP(secret)
    found = None
    for candidate in range(step - TOLERANCE_STEPS, step + TOLERANCE_STEPS + 1):
        right = hmac.compare_digest(otp.at(candidate * STEP_SECONDS).encode(), typed)
        if right and candidate > after and found is None:  # no early end: each takes as long
            found = candidate
    return found


def new_recovery_codes() -> tuple[str, ...]:
    """Codes that are shown once, to enrol a new authenticator when the old one is lost."""
    return tuple(_grouped(secrets.token_bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES))


def recovery_digest(key: bytes, code: str) -> str:
    """What is kept of a recovery code: its HMAC-SHA256 under a key of the site, hex."""
    plain = "".join(code.split()).replace("-", "").lower()
    return hmac.digest(key, plain.encode(), "sha256").hex()


def _grouped(raw: bytes) -> str:
    text = base64.b32encode(raw).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _plain(password: str) -> str:
    """One spelling for one password, whatever keyboard typed it (NIST SP 800-63B, NFKC)."""
    return unicodedata.normalize("NFKC", password)
