"""Grants: a role that was given to a person, by whom, why and until when (S13).

A grant has an owner, a reason and an end at most a year away; there are no others. A service
account has the role service-account and no other, and nobody else has that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from abfed.protocol.errors import InputError
from abfed.protocol.identity import ROLES, At, Role
from abfed.protocol.schema import Frozen
from abfed.site.clock import stamp

LONGEST_GRANT = timedelta(days=366)

Kind = Literal["person", "service", "provider"]
"""A person, a service account, or a person of a provider's."""


class Grant(Frozen):
    """A role that was given to a person: by whom, why, until when."""

    role: Role
    owner: str
    reason: str
    granted_at: At
    expires_at: At
    used_at: At | Literal[""] = ""


def parse_role(text: str) -> Role:
    """A role by its name.

    Raises:
        InputError: there is no such role.
    """
    for role in ROLES:
        if role == text:
            return role
    raise InputError(f"there is no role {text!r}", do=f"one of {', '.join(ROLES)}")


def new_grant(role: Role, *, owner: str, reason: str, lasts: timedelta, now: datetime) -> Grant:
    """A grant from now on.

    Raises:
        InputError: no reason, no owner, or too long.
    """
    if not reason.strip() or not owner.strip():
        raise InputError("a grant needs an owner and a reason", where=role)
    if not timedelta() < lasts <= LONGEST_GRANT:
        raise InputError(f"a grant lasts at most {LONGEST_GRANT.days} days", where=role)
    return Grant(
        role=role,
        owner=owner,
        reason=reason,
        granted_at=stamp(now),
        expires_at=stamp(now + lasts),
    )


def used(grants: Iterable[Grant], now: datetime) -> tuple[Grant, ...]:
    """Grants, as used by a sign-in now."""
    return tuple(one.model_copy(update={"used_at": stamp(now)}) for one in grants)


def check_fits(kind: Kind, role: Role, *, name: str) -> None:
    """Refuse a role that somebody of this kind can't have.

    Raises:
        InputError: a service account with another role, or anybody else with that one.
    """
    if (kind == "service") != (role == "service-account"):
        does = "make one with `abfed people service`" if kind == "person" else ""
        raise InputError(f"a {kind} can't have the role {role!r}", where=name, do=does)
