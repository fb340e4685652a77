"""One step's questions and answers: signed requests out, verified releases in.

1. Each silo gets a request of its own, signed, with the head of our audit log. But for nonce,
   time and token, the same plan, step and model give the same request, so that a silo which
   answered before answers the same again, at no charge.
2. A request is made when it's about to be sent: silos refuse old ones, and an embedded grid asks
   one silo after the other.
3. Answers are matched to silos by the message they reply to: an error reply doesn't say who sent
   it.
4. A silo that is not connected, fails, refuses, is late, isn't believed or is frozen here (S15) is
   left out of this step and recorded with the reason. It never stops the others.
5. Where exchange keys are pinned, each request travels in a box that only its silo opens, and its
   answer in one that only this request opens (see protocol/boxes.py).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, overload

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from abfed.coordinator.courier import unwrap, wrap
from abfed.coordinator.desk import Desk
from abfed.coordinator.inbox import Accepted
from abfed.coordinator.spool import Spool
from abfed.protocol.boxes import box_request, unbox_reply
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.chain import GENESIS
from abfed.protocol.errors import AbfedError, IntegrityError, Refused, RunFailed
from abfed.protocol.identity import Presented
from abfed.protocol.messages import PROTOCOL_VERSION, REFUSAL_TEXT, Refusal, Request, encode
from abfed.protocol.plan import Plan
from abfed.site.clock import stamp

ADMITTED_SECONDS = 5.0  # the person is judged anew after so long within a step

_ADVICE = {
    "untrusted": "its people pin this coordinator there: `abfed provision join`",
    "stale": "compare the clocks of both sites: they may differ by five minutes",
    "sign-in": "run `abfed login`; if that was done, ask whether the silos trust that site's word",
    "revoked": "ask the silos' security officers",
    "rights": "see `abfed access why`",
    "approval": "ask a second person for `abfed access approve`",
    "purpose": "see what it allows with `abfed silo show {silo}`, or ask its privacy officer",
    "columns": "see what it holds and allows with `abfed silo show {silo}`, or ask its people",
    "population": "see its experiments and their arms with `abfed silo show {silo}`",
    "not-for-us": "correct the silos that the plan names",
    "budget": "see `abfed ledger show`, and ask for less",
    "too-few": "ask about larger groups: fewer arms or segments, a wider population",
    "frozen": "ask the security officer; see `abfed incident show`",
    "expired": "the run that holds the answer still does; give the plan a new name to ask anew",
    "noise-once": "see what it allows with `abfed silo show {silo}`, or ask with noise: each",
    "peer": "a silo pins the others' keys in its policy, under noise_once.peers",
    "plan-epsilon": "ask for less, or ask the silos' privacy officers",
    "step-used": "a plan trains one model on the same data: give the plan a new name for another",
}

_FAILURES = {
    "UnpinnedBundle": "its executor takes another bundle: compare `abfed federation bundle` there "
    "and here; a neighbouring release is let in there with `abfed federation node --also`",
    "ConnectionRefusedError": "its silo service is not running",
    "FileNotFoundError": "its silo service is not running",
    "ConnectionResetError": "its silo service gave no answer; that silo's own log says why",
    "error 3": "its question was lost at the SuperLink",
    "error 4": "its answer was lost at the SuperLink",
    "error 5": "its node went, or hangs: the SuperLink hears no more of it",
    "error 8": "its courier was ended before it answered",
}
"""What couriers and executors tell by an exception's type, and Flower by a number, in words."""

Reason = Literal["refused", "failed", "absent", "integrity", "outlier", "not-in-run", "frozen"]


class LeftOut(NamedTuple):
    """Why a silo isn't in a step.

    Attributes:
        reason: "refused" by the silo; "failed" on the way or in the courier; "absent", so not
            connected or late; "integrity", so not believed; "outlier", so signed by
            the silo but beyond the plan's bounds; "not-in-run", so it came after the run's model
            was begun; "frozen" here, itself or its key.
        why: the refusal's code, the type of an exception, or the rule that didn't hold. After the
            code "version" stands the version that the silo speaks, after others the name of the
            plan's that they are about, such as "columns:revenue".
    """

    reason: Reason
    why: str


class Answers(NamedTuple):
    """What came of a step: every silo that was asked stands in one of the two."""

    accepted: dict[str, Accepted]
    left_out: dict[str, LeftOut]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each believed envelope, by silo."""
        return {silo: one.digest for silo, one in self.accepted.items()}

    def epochs(self) -> dict[str, str]:
        """The state of the data that each believed release was computed on."""
        return {silo: one.release.epoch for silo, one in self.accepted.items()}

    def recorded(self) -> dict[str, dict[str, str]]:
        """Who was left out and why, as journal and manifest write it."""
        return {silo: dict(one._asdict()) for silo, one in sorted(self.left_out.items())}


class Asked(NamedTuple):
    """A message that was made: whom it goes to, and what opens the answer; b"" where unsealed."""

    silo: str
    reply_key: bytes


class Requests(Sequence[Message]):
    """The messages of one step, each made when it's first looked at.

    Args:
        desk: who asks.
        step: the step of the plan.
        incoming: the model's packed arrays; b"" for the totals.
        addresses: the node of each silo that is connected.
        silos: who is to be asked.
    """

    def __init__(
        self,
        desk: Desk,
        step: str,
        incoming: bytes,
        addresses: Mapping[str, int],
        silos: Collection[str],
    ) -> None:
        self.frozen = [one for one in silos if desk.front.bars(one, desk.inbox.signer(one))]
        wanted = sorted(set(silos) - set(self.frozen))
        self.step = step
        self.incoming_digest = sha256_hex(incoming)
        self.silos = [silo for silo in wanted if silo in addresses]
        self.unconnected = [silo for silo in wanted if silo not in addresses]
        self._desk = desk
        self._incoming = incoming
        self._addresses = addresses
        self._head = desk.audit.head
        self._plan = desk.plan_text
        self._presented: tuple[float, Presented] | None = None
        self._written = {"plan": desk.plan_json}
        self._messages: dict[str, Message] = {}
        self._made: list[tuple[Message, Asked]] = []
        self._delivered: dict[str, Asked] = {}

    def __len__(self) -> int:
        """How many silos are asked."""
        return len(self.silos)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """The message to one silo, the same each time."""
        if isinstance(index, slice):
            return [self._message(silo) for silo in self.silos[index]]
        return self._message(self.silos[index])

    def asked_with(self, name: str) -> Asked | None:
        """What was asked with the message of this id; None where it isn't one of ours."""
        if name not in self._delivered:
            made, self._made = self._made, []
            for message, asked in made:  # a grid gives a message its id when it takes it
                if message.metadata.message_id:
                    self._delivered[message.metadata.message_id] = asked
                else:
                    self._made.append((message, asked))
        return self._delivered.get(name)

    def connect(self, addresses: Mapping[str, int]) -> None:
        """Learn where silos are now: one that was restarted may have come, or come back."""
        self._addresses = dict(addresses)
        self._desk.nodes.learn(self._addresses)
        now = [silo for silo in self.unconnected if silo in addresses]
        self.silos = sorted([*self.silos, *now])
        self.unconnected = [silo for silo in self.unconnected if silo not in addresses]

    def reaches(self, silo: str) -> bool:
        """Whether a silo's node was connected when last looked; it may have gone since it was."""
        return silo in self._addresses

    def deliver(self, silo: str, push: Callable[[Message], str]) -> str:
        """Make a fresh message to a silo and push it; returns its id. It is not kept."""
        message, asked = self._make(silo)
        name = push(message)
        self._delivered[name] = asked
        return name

    def _message(self, silo: str) -> Message:
        if silo not in self._messages:
            message, asked = self._make(silo)
            self._messages[silo] = message
            self._made.append((message, asked))
        return self._messages[silo]

    def _make(self, silo: str) -> tuple[Message, Asked]:
        training = self.step.startswith("train-")
        content, reply_key = self._envelope(silo), b""
        if self._desk.boxes:
            content, reply_key = box_request(self._desk.boxes[silo], content, silo=silo)
        message = Message(
            wrap(content),
            dst_node_id=self._addresses[silo],
            message_type=MessageType.TRAIN if training else MessageType.QUERY,
        )
        return message, Asked(silo, reply_key)

    def _envelope(self, silo: str) -> bytes:
        desk = self._desk
        request = Request(
            plan=self._plan,
            step=self.step,
            silo=silo,
            incoming_digest=self.incoming_digest,
            nonce=secrets.token_hex(16),
            issued_at=stamp(self._desk.clock()),
            head=self._head,
            known_head=GENESIS if desk.anchors is None else desk.anchors.newest(silo),
            presented=self._admitted(),
        )
        return desk.keys.sign("request", encode(request, self._incoming, self._written))

    def _admitted(self) -> Presented:
        """What the person shows, judged anew with each step and every `ADMITTED_SECONDS` in it.

        It names all silos, so making and judging it for each of them would cost their square.
        """
        now = time.monotonic()
        if self._presented is None or now - self._presented[0] > ADMITTED_SECONDS:
            shown = self._desk.front.admit(self._desk.plan)[0]
            self._presented = now, shown
            self._written["presented"] = canonical_bytes(shown.model_dump(mode="json"))
        return self._presented[1]


def prepare(desk: Desk, grid: Grid, step: str, incoming: bytes, silos: Collection[str]) -> Requests:
    """The messages of a step, for any grid."""
    return Requests(desk, step, incoming, desk.nodes.of(grid, silos), silos)


def judge(desk: Desk, requests: Requests, replies: Iterable[Message]) -> Answers:
    """Sort replies, one after the other as they come, into believed releases and silos left out.

    A believed release goes to disk at once: what is held in memory doesn't grow with the number of
    silos, but for names and digests.
    """
    accepted: dict[str, Accepted] = {}
    spool = Spool()
    left_out = {silo: LeftOut("absent", "not connected") for silo in requests.unconnected}
    left_out |= {silo: LeftOut("frozen", "not asked") for silo in requests.frozen}
    for reply in replies:
        question = requests.asked_with(reply.metadata.reply_to_message_id)
        if question is None or question.silo in accepted:
            continue  # an answer to nothing that we asked, or a second one
        silo = question.silo
        outcome = _judge_one(desk, requests, question, reply)
        if isinstance(outcome, Accepted):
            accepted[silo] = spool.keep(outcome)
            left_out.pop(silo, None)  # somebody else's reply in its name takes nothing from it
        else:
            left_out[silo] = outcome
    if desk.anchors is not None:
        desk.anchors.note({silo: one.release.head for silo, one in accepted.items()})
    for silo in requests.silos:
        if silo not in accepted and silo not in left_out:
            left_out[silo] = LeftOut("absent", "no answer in time")
    return Answers({silo: accepted[silo] for silo in sorted(accepted)}, left_out)


def log_left_out(desk: Desk, step: str, left_out: Mapping[str, LeftOut]) -> None:
    """Write into the audit log who is left out of a step, and why (S14 watches it)."""
    for silo, one in sorted(left_out.items()):
        desk.audit.append(
            "answer.left-out",
            plan=desk.plan.digest,
            step=step,
            silo=silo,
            reason=one.reason,
            why=one.why,
        )


def _judge_one(desk: Desk, requests: Requests, asked: Asked, reply: Message) -> Accepted | LeftOut:
    silo = asked.silo
    if desk.front.bars(silo, desk.inbox.signer(silo)):
        return LeftOut("frozen", "while it answered")
    if reply.has_error():
        reason = reply.error.reason or ""
        return LeftOut("failed", reason if reason.isidentifier() else f"error {reply.error.code}")
    try:
        envelope = unwrap(reply.content, where=f"{silo}, {requests.step}")
        if desk.boxes:
            envelope = unbox_reply(asked.reply_key, envelope, silo=silo)
        outcome = desk.inbox.accept(silo, requests.step, requests.incoming_digest, envelope)
    except IntegrityError as error:
        return LeftOut("integrity", error.what[:200])
    if isinstance(outcome, Refusal):
        if outcome.code == "damaged":  # the silo's own word, but not one of policy or budget
            return LeftOut("integrity", REFUSAL_TEXT["damaged"])
        detail = str(outcome.version) if outcome.code == "version" else outcome.about
        return LeftOut("refused", f"{outcome.code}:{detail}" if detail else outcome.code)
    return outcome


def too_few(plan: Plan, step: str, answers: Answers, least: int = 0) -> AbfedError:
    """The error for a step that fewer silos answered than the plan needs (or the step itself).

    Where every missing silo said no, the run was refused; where none was believed, integrity is at
    stake; else it failed, also where silos said that they could not. A person needs to do another
    thing in each case.
    """
    reasons = {one.reason for one in answers.left_out.values()}
    listed = "; ".join(f"{silo}: {describe(one)}" for silo, one in sorted(answers.left_out.items()))
    what = f"{len(answers.accepted)} of at least {least or plan.minimum_silos} silos answered"
    where = f"{plan.name}, {step}"
    failed = any(one.why == "failed" for one in answers.left_out.values())
    if reasons and reasons <= {"refused", "frozen"} and not failed:
        silo, first = min(answers.left_out.items())
        code = "frozen" if first.reason == "frozen" else first.why.partition(":")[0]
        if code == "approval" and answers.accepted:
            listed += f"; {len(answers.accepted)} silos answered and were charged"
            listed += ": asked again they answer the same, at no charge"
        do = _advice(plan, code).format(silo=silo)
        return Refused(what, code=code, where=where, why=listed, do=do)
    if reasons == {"integrity"}:
        do = "find out who changed the bytes underway (SuperLink, proxy, node), or whose key is "
        do += "out of date; at the brand, abfed silo verify NAME shows whether its files are whole"
        return IntegrityError(what, where=where, why=listed, do=do)
    do = "run it again once these silos answer: what was answered is not charged twice"
    if reasons == {"outlier"}:
        do = "asked again they answer the same; with another largest_update it is another plan"
    elif failed:
        do += "; at the brand: abfed silo verify NAME, and the silo's own log says what failed"
    return RunFailed(what, where=where, why=listed, do=do)


def _advice(plan: Plan, code: str) -> str:
    """What to do about a refusal; one of a wave comes most often of asking too early."""
    advice = _ADVICE.get(code, "")
    design, wave = plan.analysis.sequential, plan.analysis.wave
    if code != "too-few" or design is None or not wave:
        return advice
    one = design.waves[wave - 1]
    return (
        f"are the rows of wave {wave} ({one.name}) ingested, first sends before {one.until}? "
        "If not, ask again once they are, at a charge of its own (until then it is this no, at no "
        f"other charge); if they are, {advice}"
    )


def describe(one: LeftOut) -> str:
    """Why a silo was left out, in words."""
    if one.reason == "refused":
        code, _, detail = one.why.partition(":")
        said = f" (it is about {detail!r})" if detail else ""
        if detail and code == "version":
            said = f": version {detail}, and we speak {PROTOCOL_VERSION}; upgrade the older site"
        return f"refused ({code}): {REFUSAL_TEXT.get(code, code)}{said}"
    if one.reason == "frozen":
        return f"frozen at this coordinator, {one.why}: see `abfed incident show`"
    if one.why in _FAILURES:
        return f"{one.reason}: {_FAILURES[one.why]}"
    return f"{one.reason}: {one.why}"
