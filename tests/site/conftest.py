"""One-time codes that don't depend on luck."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest


@pytest.fixture(autouse=True)
def known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Authenticators get secrets that follow from their order, each another.

    A code has six digits: of secrets that are drawn, one in 300,000 shows `000000` about now, or
    what it showed a minute ago, and a test that holds these for wrong fails.
    """
    made = (hashlib.sha1(str(n).encode(), usedforsecurity=False) for n in itertools.count())
    secrets = (base64.b32encode(one.digest()).decode() for one in made)
    monkeypatch.setattr("pyotp.random_base32", lambda _: next(secrets))
