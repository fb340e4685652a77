"""Approvals on their way: from the second person's desk to the run that they allow.

An approval is no secret and protects itself by its signature, so it lies in the lab in the open;
the silo that it is for decides whether it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from abfed.lab.session import Session
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError
from abfed.protocol.identity import Countersigned
from abfed.protocol.plan import Plan
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.foureyes import Question, reasons

if TYPE_CHECKING:  # whoever signs in, or stops a run, waits for no library of learning
    from abfed.silo.service import SiloService

FOLDER = "approvals"


class Given(NamedTuple):
    """An approval that was given.

    Attributes:
        file: where it lies.
        who: who gave it.
        why: why the silo asks for one.
        question: what it is bound to.
    """

    file: Path
    who: str
    why: tuple[str, ...]
    question: Question


def give_approval(
    lab: Path, service: SiloService, session: Session, plan: Plan, *, runs: int, days: int
) -> Given:
    """Countersign a plan for a silo, by somebody of that silo who is signed in with a fresh factor.

    Raises:
        InputError: the silo needs no approval for this plan, or not for so long.
        Refused: this person may not.
    """
    session.require("plan.approve", service.place())
    policy = service.policy()
    four_eyes = policy.access.four_eyes
    why = reasons(four_eyes, plan)
    if not why:
        raise InputError(f"{policy.silo} needs no approval for this plan", where=plan.name)
    if days > four_eyes.days:
        raise InputError(f"an approval lasts at most {four_eyes.days} days here", where=plan.name)
    question = Question(plan.digest, service.holdings().epoch, policy.version)
    given = session.approve(question, policy.silo, runs=runs, lasts=timedelta(days=days))
    service.audit.append("plan.approved", plan=plan.digest, person=session.who, runs=runs)
    return Given(keep_approval(lab, plan.digest, policy.silo, given), session.who, why, question)


def keep_approval(lab: Path, about: str, site: str, given: Countersigned) -> Path:
    """Put an approval where who asks finds it.

    Args:
        lab: the lab's folder.
        about: the plan's digest, or the registration of a model that may be taken out.
        site: which it is for.
        given: the approval.
    """
    folder = lab / FOLDER / about
    make_private_folder(folder)
    content = canonical_bytes(given.model_dump(mode="json"))
    file = folder / f"{site}-{sha256_hex(content)[:16]}.approval"
    write_private(file, content)
    return file


def approvals_of(lab: Path, about: str) -> Iterator[Countersigned]:
    """The approvals that lie here for a plan or a model, newest first; sixteen at most count."""
    files = sorted(
        (lab / FOLDER / about).glob("*.approval"), key=lambda file: -file.stat().st_mtime_ns
    )
    for file in files[:16]:
        values = parse_canonical(read_private(file), where=str(file))
        yield parse_record(Countersigned, values, where=str(file))
