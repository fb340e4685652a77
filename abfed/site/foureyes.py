"""Four eyes: which plans need a second person, and whether one has said yes (S12).

An approval is bound to the plan's digest, the state of the data and the version of the silo's
policy: whatever of the three changes, it is void. It runs out, it is good for so many runs (each
submission of the plan is one), and it never counts for a plan of the approver's own, nor of a
service account that they made. In this order:

 1. the approver's token is by a site whose word on people counts;
 2. the approval is signed by the key that this token names;
 3. when it was made, the token held and its person had the right, with a fresh factor; they are not
    the one who asks, and were not stopped since; and no role that gave it was taken back since;
 4. it is for this plan, this silo, this state of the data and this policy, and in date;
 5. its runs are not used up.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.envelope import key_id
from abfed.protocol.errors import AbfedError, IntegrityError, Refused
from abfed.protocol.identity import (
    Approval,
    Countersigned,
    Hex32,
    Hex64,
    Presented,
    Token,
    read_statement,
)
from abfed.protocol.plan import Plan
from abfed.protocol.schema import Frozen
from abfed.site.access import TOLERANCE, Asker, Place, check_token, open_token, require
from abfed.site.clock import moment_of
from abfed.site.keys import SiteKeys
from abfed.site.people import read_register, register_file
from abfed.site.rights import FourEyes
from abfed.site.sealedfile import SealedFile

FILE = "approvals-used.sealed"
Names = tuple[str, ...]


class Question(NamedTuple):
    """What needs approval.

    Attributes:
        plan: the plan's digest.
        epoch: the state of the data.
        policy: the version of the silo's policy.
    """

    plan: str
    epoch: str
    policy: str


class Uses(Frozen):
    """Which submissions used an approval, by the approval's id."""

    runs: Annotated[dict[Hex32, tuple[Hex64, ...]], Field(default_factory=dict)]


def reasons(asked: FourEyes, plan: Plan) -> tuple[str, ...]:
    """Why a plan needs a second person here; nothing where it needs none."""
    found: list[str] = []
    if asked.epsilon_above is not None and plan.privacy.epsilon > asked.epsilon_above:
        found.append(f"ε is above {asked.epsilon_above:g}")
    if asked.settled_purposes is not None and plan.purpose not in asked.settled_purposes:
        found.append(f"the purpose {plan.purpose!r} is new")
    if asked.settled_columns is not None:
        new = [name for name in plan.columns() if name not in asked.settled_columns]
        found += [f"the column {new[0]!r} is new"] if new else []
    return tuple(found)


class Approvals:
    """Judges approvals at a site, and counts their runs.

    Args:
        folder: the site's folder.
        keys: the site's keys.
    """

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._file = SealedFile(folder / FILE, keys, "approvals-used")
        self._people = register_file(folder, keys)

    def judge(
        self, presented: Presented, question: Question, asker: Asker, place: Place
    ) -> tuple[str, ...]:
        """The people whose approvals count, each once; the run is counted on each.

        Args:
            presented: what came with the request; its submission is the run.
            question: what is asked.
            asker: who asks.
            place: where, and when.

        Raises:
            Refused: too few approvals count; says what is wrong with the last.
        """
        run, asked = sha256_hex(presented.submission.encode()), place.policy.four_eyes
        found, problem = self._good_ones(presented.approvals, question, asker.token.behind, place)
        good = {who: self._usable(given, run) for who, given in found.items()}
        if len(good) < asked.approvers:
            raise Refused(
                f"{len(good)} of {asked.approvers} approvals count",
                code="approval",
                where=place.site,
                why=problem,
                do="ask a second person of that site for `abfed access approve`",
            )
        self._count(tuple(good.values())[: asked.approvers], run, place.site)
        return tuple(good)[: asked.approvers]

    def lacking(
        self, shown: Iterable[Countersigned], question: Question, submitters: Names, place: Place
    ) -> int:
        """How many people have yet to approve before a new run would be let in; counts nothing."""
        found, _ = self._good_ones(shown, question, submitters, place)
        left = [who for who, given in found.items() if any(self.used(a.id) < a.runs for a in given)]
        return max(0, place.policy.four_eyes.approvers - len(left))

    def used(self, approval: str) -> int:
        """How many runs of an approval are used."""
        return len(self._read().runs.get(approval, ()))

    def _good_ones(
        self, shown: Iterable[Countersigned], question: Question, submitters: Names, place: Place
    ) -> tuple[dict[str, list[Approval]], str]:
        """The approvals that count, by person; and what is wrong with the last other."""
        good: dict[str, list[Approval]] = {}
        problem = "there is none"
        for one in shown:
            try:
                token, approval = self._judge_one(one, question, submitters, place)
            except AbfedError as cause:
                problem = cause.what
                continue
            good.setdefault(token.who, []).append(approval)
        return good, problem

    def _judge_one(
        self, shown: Countersigned, question: Question, submitters: Names, place: Place
    ) -> tuple[Token, Approval]:
        token, _ = open_token(shown.token, place)  # 1
        holder = bytes.fromhex(token.holder)
        trusted = {key_id(holder): holder}
        approval, _ = read_statement(  # 2
            Approval, "approval", shown.approval, trusted, where="approval"
        )
        try:
            made, ends = moment_of(approval.issued_at), moment_of(approval.expires_at)
        except ValueError as cause:
            raise IntegrityError("the approval has no time", where=place.site) from cause
        then = place._replace(now=made)
        check_token(token, then)  # 3
        for submitter in submitters:  # 3
            require(self._as_now(token, place), "plan.approve", then, submitter=submitter)
        bound = Question(approval.plan, approval.epoch, approval.policy)
        if approval.silo != place.site or bound != question:  # 4
            raise Refused(
                "it is for another plan, data or policy", code="approval", where=place.site
            )
        longest = timedelta(days=place.policy.four_eyes.days)
        if ends - made > longest or not made - TOLERANCE <= place.now < ends:
            raise Refused("it has run out, or lasts too long", code="approval", where=place.site)
        return token, approval

    def _as_now(self, token: Token, place: Place) -> Token:
        """A token without the roles that our own people had then, and that were taken back since.

        A grant that only ran out is no such one. Of other sites' people we have that word alone.
        """
        if token.site != place.site:
            return token
        person = read_register(self._people).people.get(token.person)
        kept = {one.role for one in person.grants} if person is not None else set()
        return token.model_copy(update={"roles": tuple(r for r in token.roles if r in kept)})

    def _usable(self, given: list[Approval], run: str) -> Approval:
        """Of a person's approvals the one that counts this run already, or has runs left."""
        uses = self._read().runs
        already = [one for one in given if run in uses.get(one.id, ())]
        left = [one for one in given if len(uses.get(one.id, ())) < one.runs]
        return [*already, *left, *given][0]

    def _count(self, approvals: tuple[Approval, ...], run: str, site: str) -> None:
        with self._file.alone():
            uses = dict(self._read().runs)
            for approval in approvals:
                before = uses.get(approval.id, ())
                if run in before:
                    continue
                if len(before) >= approval.runs:  # 5
                    raise Refused("the approval's runs are used up", code="approval", where=site)
                uses[approval.id] = (*before, run)
            self._file.write(Uses(runs=uses).model_dump(mode="json"))

    def _read(self) -> Uses:
        values = self._file.read()
        return Uses(runs={}) if values is None else parse_record(Uses, values, where=FILE)
