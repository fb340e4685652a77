"""Attempts to sign in: how many a site hears, and for how long somebody is locked out (S11).

Pure functions over the register. An attempt changes it once, whether anybody is called so or not
and locked out or not, so that how long that takes doesn't tell which.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from abfed.site.clock import moment_of, stamp
from abfed.site.people import Person, Register

FREE_FAILURES = 5
FIRST_LOCK = timedelta(seconds=30)
LONGEST_LOCK = timedelta(days=1)
WINDOW = timedelta(minutes=1)
MOST_ATTEMPTS = 30  # in a window, at a site


def is_full(register: Register, now: datetime) -> bool:
    """Whether a site has heard as many attempts of late as it hears."""
    return len(_recent(register, now)) >= MOST_ATTEMPTS


def counted(register: Register, name: str, now: datetime) -> Register:
    """The register with one attempt more, as a failure of whoever is called so.

    Of an attempt that isn't heard nothing is kept; of one at somebody who is locked out, that it
    was made: whoever goes on guessing doesn't keep them out for longer.
    """
    recent = _recent(register, now)
    if len(recent) >= MOST_ATTEMPTS:
        return register
    update: dict[str, Any] = {"attempts": (*recent, stamp(now))}
    person = register.people.get(name)
    if person is not None and not person.is_locked(now):
        update["people"] = register.people | {name: _failed(person, now)}
    return register.model_copy(update=update)


def _recent(register: Register, now: datetime) -> tuple[str, ...]:
    return tuple(at for at in register.attempts if moment_of(at) > now - WINDOW)


def _failed(person: Person, now: datetime) -> Person:
    failures, until = person.failures + 1, ""
    if failures >= FREE_FAILURES:
        doubled = min(failures - FREE_FAILURES, 20)
        until = stamp(now + min(FIRST_LOCK * 2**doubled, LONGEST_LOCK))
    return person.model_copy(update={"failures": failures, "locked_until": until})
