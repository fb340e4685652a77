"""People who sign in for real: a password, a second factor, a token signed by a real site key.

`sign_in(workspace)` is all that a test over a workspace needs; `make_session(...)` makes a person
and their session at any site whose keys a test holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from argon2.profiles import CHEAPEST

from abfed.lab.coordination import default_access
from abfed.lab.development import FILE, make_development_person
from abfed.lab.session import Session
from abfed.lab.session import sign_in as sign_in_person
from abfed.lab.workspace import Workspace
from abfed.protocol.identity import ROLES, Role
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, system_clock
from abfed.site.factors import otp_code
from abfed.site.keys import SiteKeys
from abfed.site.people import People

CHEAPEST_FOR_TESTS = CHEAPEST
"""Argon2id all the same, with 8 KiB and one pass: for tests only."""

PASSWORD = "correct horse battery staple"


def sign_in(workspace: Workspace) -> Session:
    """Sign the development person of a workspace in; made up here where there is none."""
    if not (workspace.lab / FILE).exists():
        make_development_person(workspace.lab, workspace.people)
    return workspace.sign_in_development()


def make_people(folder: Path, keys: SiteKeys, clock: Clock = system_clock) -> People:
    """The people of a site, with cheap hashes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    audit = AuditLog(folder / "audit.jsonl", keys, clock)
    return People(folder, keys, audit, clock, hashing=CHEAPEST_FOR_TESTS)


def make_session(
    people: People,
    name: str = "ada",
    roles: Iterable[Role] = ("analyst",),
    *,
    audience: Iterable[str],
) -> Session:
    """A person of a site with these roles, signed in."""
    enrolled = people.enrol(name, PASSWORD, by="test")
    for role in roles:
        people.grant(name, role, owner="test", reason="a test", lasts=timedelta(days=30))
    code = otp_code(enrolled.otp_secret, people.clock())
    return sign_in_person(people, name, PASSWORD, code, audience=tuple(audience))


def access_values(keys: bytes, site: str = "hub") -> dict[str, object]:
    """An access policy that hears a site's people in all roles, with the default table."""
    return default_access(site, keys, roles=ROLES, development=False)
