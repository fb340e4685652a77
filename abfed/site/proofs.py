"""Second factors, each as something that is shown once: a one-time code, or a touched hardware key.

What was shown is compared with a person's record outside any lock, and looked at again within it:
what another sign-in used meanwhile counts no more. Somebody who is not here is compared with too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from abfed.protocol.errors import Refused
from abfed.protocol.identity import Factor
from abfed.site.audit import AuditLog
from abfed.site.factors import new_otp_secret, otp_step
from abfed.site.hardware import Touch, check_touch
from abfed.site.people import Person

Second = str | Touch
"""A one-time code as it was typed, or a hardware key's touch."""


class Proof(NamedTuple):
    """A second factor that counts.

    Attributes:
        update: what the person's record says from now on.
        unused: whether it still counts by a record that was read since.
    """

    update: dict[str, Any]
    unused: Callable[[Person], bool]


def factor_of(shown: Second) -> Factor:
    """What it is called in a token."""
    return "hwk" if isinstance(shown, Touch) else "otp"


def proof_of(shown: Second, person: Person | None, now: datetime, audit: AuditLog) -> Proof | None:
    """A second factor, if it counts for this person now; None where it doesn't."""
    if isinstance(shown, Touch):
        return _by_touch(shown, person, audit)
    return _by_code(shown, person, now)


def _by_code(code: str, person: Person | None, now: datetime) -> Proof | None:
    secret = person.otp_secret if person and person.otp_secret else new_otp_secret()
    step = otp_step(secret, code, now, after=person.otp_step if person else 0)
    if person is None or step is None:
        return None
    return Proof(
        {"otp_step": step}, lambda one: one.otp_step < step and one.otp_secret == person.otp_secret
    )


def _by_touch(touch: Touch, person: Person | None, audit: AuditLog) -> Proof | None:
    keys = person.hardware if person else ()
    try:
        touched = check_touch(touch, keys)
    except Refused as cause:  # why is for the log: two keys of one counter are an incident
        audit.append(
            "sign-in.key-refused", person=person.name if person else "unknown", why=cause.why
        )
        return None
    after = tuple(touched if one.id == touched.id else one for one in keys)
    return Proof({"hardware": after}, lambda one: one.hardware == keys)
