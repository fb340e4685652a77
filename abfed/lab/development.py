"""The development person: made up, with a real password and a real second factor.

`abfed init` makes one, so that the embedded demo signs in as people do: nothing is skipped or
weakened. What differs is where the secrets lie: in a private file of the lab instead of a head and
a phone. So tokens of this person say so, and a site hears them only where its policy says
`development_people: true`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from abfed.lab.session import DEVELOPMENT_FILE, Session, sign_in
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import Refused, WorkspaceError
from abfed.protocol.schema import Frozen, Name
from abfed.site.factors import STEP_SECONDS, TOLERANCE_STEPS, otp_code
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.people import People

FILE = DEVELOPMENT_FILE
NAME = "dev"
GRANT = timedelta(days=30)
MOST_STEPS_WAITED = 4  # two minutes; more is a clock that was set back, not a hurry


class DevelopmentPerson(Frozen):
    """What the made-up person knows and has."""

    name: Name
    site: Name
    password: str = Field(repr=False)
    otp_secret: str = Field(repr=False)
    recovery_codes: tuple[str, ...] = Field(repr=False)
    used_step: int = 0


def make_development_person(folder: Path, people: People) -> DevelopmentPerson:
    """Enrol the development person at a site, as an analyst, and keep their secrets in the lab."""
    # Hexadecimal digits can't spell the name, which a password mustn't hold
    password = secrets.token_hex(24)
    enrolled = people.enrol(NAME, password, by="abfed init", development=True)
    people.grant(NAME, "analyst", owner="abfed init", reason="to try abfed out", lasts=GRANT)
    person = DevelopmentPerson(
        name=NAME,
        site=people.keys.site,
        password=password,
        otp_secret=enrolled.otp_secret,
        recovery_codes=enrolled.recovery_codes,
    )
    make_private_folder(folder)
    _keep(folder, person)
    return person


def sign_in_development(
    folder: Path,
    people: People,
    *,
    audience: Sequence[str],
    wait: Callable[[float], None] = time.sleep,
) -> Session:
    """Sign the development person in, by password and one-time code like everybody.

    A code counts once: where the codes of this half minute are used up, the next is waited for.

    Raises:
        WorkspaceError: this workspace has no development person.
        Refused: the sign-in was refused, or the code to wait for is far off.
    """
    path = folder / FILE
    if not path.exists():
        raise WorkspaceError(
            "this workspace has no development person",
            where=str(path),
            do="sign in as yourself: `abfed login NAME`",
        )
    values = parse_canonical(read_private(path), where=str(path))
    person = parse_record(DevelopmentPerson, values, where=str(path))
    now = people.clock()
    step = int(now.timestamp()) // STEP_SECONDS
    asked = max(step, person.used_step + 1)
    early = asked - step - TOLERANCE_STEPS
    if early > MOST_STEPS_WAITED:
        raise Refused(
            "a code of the future was used here: the clock was set back",
            code="sign-in",
            do=f"set the clock right, or sign in as yourself: `abfed login NAME` ({path})",
        )
    if early > 0:
        wait(early * STEP_SECONDS - now.timestamp() % STEP_SECONDS)
    _keep(folder, person.model_copy(update={"used_step": asked}))
    code = otp_code(person.otp_secret, now + timedelta(seconds=(asked - step) * STEP_SECONDS))
    return sign_in(people, person.name, person.password, code, audience=audience)


def _keep(folder: Path, person: DevelopmentPerson) -> None:
    write_private(folder / FILE, canonical_bytes(person.model_dump(mode="json")))
