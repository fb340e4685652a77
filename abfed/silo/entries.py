"""What the entries of a ledger add up to. No file, no clock: entries in, sums out.

1. An entry of an unknown kind is an error: a ledger that isn't understood allows nothing.
2. Sums only grow, but for charges that are returned; then they are summed again from all that is
   left, never subtracted, so that no rounding can work against the recipients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from abfed.privacy.accounting import Curve, merged
from abfed.protocol.chain import GENESIS, head_of
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Charge
from abfed.silo.budgets import Spending

Steps = Mapping[str, tuple[Charge, ...]]
Question = tuple[str, str]
"""Plan digest and data epoch: what is charged once."""


class Once(NamedTuple):
    """What a charge counts on where noise is added together with other silos.

    Attributes:
        colluders: how many of the others may tell what they added: no more, or it costs more.
        shares: noise multiplier that was charged, and what this silo itself adds of it.
    """

    colluders: int
    shares: tuple[tuple[float, float], ...]

    @property
    def plain(self) -> list[Any]:
        """As an entry says it."""
        return [self.colluders, [list(pair) for pair in self.shares]]

    @classmethod
    def read(cls, told: Any) -> Once | None:
        """What an entry says; entries of before it was told say nothing."""
        if told is None:
            return None
        colluders, shares = told
        return cls(int(colluders), tuple((float(whole), float(own)) for whole, own in shares))

    def least(self, other: Once | None) -> Once:
        """Both, of one plan: the smaller share of each, whichever it was computed with."""
        before = dict(other.shares) if other is not None else {}
        shares = ((whole, min(own, before.get(whole, own))) for whole, own in self.shares)
        return Once(self.colluders, tuple(shares))

    def alone(self, charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
        """The events of these charges where all other silos tell what they added."""
        own = dict(self.shares)
        return tuple(
            one.model_copy(update={"noise_multiplier": own.get(sigma, sigma)})
            for one in charges
            for sigma in (one.noise_multiplier,)
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """A plan's charge on one state of the data.

    Attributes:
        charges: events that count, those returned left out.
        erasures: how many erasures the silo had carried out by then.
        returned: steps whose charge was given back.
        once: what the charge counts on, with noise once.
    """

    plan_digest: str
    plan_name: str
    purpose: str
    epoch: str
    at: str
    charges: tuple[Charge, ...]
    erasures: int = 0
    returned: tuple[str, ...] = ()
    once: Once | None = None

    @property
    def exact(self) -> bool:
        """Whether it answers without noise (`privacy: none`): nothing was ever charged for it."""
        return not self.charges and not self.returned

    @property
    def alone(self) -> tuple[Charge, ...]:
        """The events that count where all other silos tell what they added to a sum."""
        return self.charges if self.once is None else self.once.alone(self.charges)


@dataclass(frozen=True, slots=True)
class Given:
    """What became of a key.

    Attributes:
        digest: of the release; empty where it was withheld.
        at: when.
        state: "kept", "withheld" (never left) or "expired" (left once, no longer kept).
    """

    digest: str
    at: str
    state: str = "kept"


@dataclass
class Books:
    """What the entries add up to.

    Attributes:
        curve_of: the Rényi curve of charges; the ledger passes one that remembers.
        latest: when the latest charge was made (a stamp); empty before the first.
    """

    curve_of: Callable[[tuple[Charge, ...]], Curve] = Curve.of
    count: int = 0
    head: str = GENESIS
    heads: set[str] = field(default_factory=lambda: {GENESIS})
    latest: str = ""
    spent: Curve = field(default_factory=Curve)
    reservations: dict[Question, Reservation] = field(default_factory=dict)
    begun: dict[tuple[str, str, str], str] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    given: dict[str, Given] = field(default_factory=dict)
    _purposes: dict[str, Curve] = field(default_factory=dict)
    _since: tuple[str, int, Curve] = ("", 0, Curve())

    def apply(self, entry: dict[str, Any]) -> None:
        """Take one entry in.

        Raises:
            IntegrityError: it is of no known kind.
        """
        body = entry["body"]
        kinds = {
            "reserve": self._reserve,
            "begin": self._begin,
            "release": self._release,
            "withhold": self._withhold,
            "expire": self._expire,
            "return": self._return,
        }
        take = kinds.get(body["what"])
        if take is None:
            raise IntegrityError("an entry of the ledger is of no known kind")
        take(body)
        self.count += 1
        self.head = head_of(entry)
        self.heads.add(self.head)

    def dump(self) -> dict[str, Any]:
        """All of it as plain values, to begin from another time."""
        return {
            "count": self.count,
            "head": self.head,
            "heads": sorted(self.heads),
            "spent": self.spent.values,
            "purposes": {name: curve.values for name, curve in self._purposes.items()},
            "reservations": [
                asdict(one)
                | {"charges": [charge.model_dump() for charge in one.charges]}
                | {"once": one.once.plain if one.once is not None else None}
                for one in self.reservations.values()
            ],
            "begun": [[*step, key] for step, key in self.begun.items()],
            "given": [[key, one.digest, one.at, one.state] for key, one in self.given.items()],
        }

    def load(self, values: dict[str, Any]) -> None:
        """Begin from what `dump` gave."""
        self.count, self.head = values["count"], values["head"]
        self.heads = set(values["heads"])
        self.spent = Curve(tuple(values["spent"]))
        self._purposes = {name: Curve(tuple(part)) for name, part in values["purposes"].items()}
        for one in values["reservations"]:
            charges = tuple(Charge(**charge) for charge in one.pop("charges"))
            once = Once.read(one.pop("once", None))
            told = {"charges": charges, "returned": tuple(one["returned"]), "once": once}
            kept = Reservation(**one | told)
            self.reservations[(kept.plan_digest, kept.epoch)] = kept
            self.latest = max(self.latest, kept.at)
        self.begun = {(plan, epoch, step): key for plan, epoch, step, key in values["begun"]}
        self.holders = set(self.begun.values())
        self.given = {key: Given(*given) for key, *given in values["given"]}

    @property
    def spending(self) -> Spending:
        """The sums that budgets ask for."""
        return Spending(self.spent, lambda name: self._purposes.get(name, Curve()), self.since)

    def since(self, moment: str) -> Curve:
        """The curve of all that was reserved at or after a stamp."""
        start, seen, curve = self._since
        if start != moment:
            seen, curve = 0, Curve()
        for number, one in enumerate(self.reservations.values()):
            if number >= seen and one.at >= moment:
                curve = curve + self.curve_of(one.charges)
        self._since = (moment, len(self.reservations), curve)
        return curve

    def is_rerun(self, plan_digest: str, epoch: str, erasures: int) -> bool:
        """Whether a plan was charged before, on data from which people were erased since.

        One erasure is followed by one re-run: what was charged after it doesn't count as before.
        """
        before = [
            one.erasures
            for one in self.reservations.values()
            if one.plan_digest == plan_digest and one.epoch != epoch
        ]
        return bool(before) and max(before) < erasures

    def unreleased(self, question: Question, steps: Steps) -> tuple[str, ...]:
        """Steps of a reservation that nothing was ever released for, and that still are charged."""
        back = set(self.reservations[question].returned)
        return tuple(
            step
            for step in steps
            if step not in back and self.begun.get((*question, step)) not in self.given
        )

    def releases_of(self, question: Question) -> dict[str, str]:
        """Digests of the releases that left for a plan on a state of the data, by step."""
        keys = {step: key for (*asked, step), key in self.begun.items() if tuple(asked) == question}
        given = {step: self.given[key] for step, key in keys.items() if key in self.given}
        return {step: one.digest for step, one in given.items() if one.state != "withheld"}

    def _reserve(self, body: dict[str, Any]) -> None:
        charges = tuple(Charge(**charge) for charge in body["charges"])
        names = ("plan_digest", "plan_name", "purpose", "epoch", "at")
        kept = {name: str(body[name]) for name in names}
        question = (kept["plan_digest"], kept["epoch"])
        self.latest = max(self.latest, kept["at"])
        before = self.reservations.get(question)
        if before is not None:  # steps that were given back are charged again
            again = tuple(step for step in before.returned if step not in body["steps"])
            whole = merged((*before.charges, *charges))
            told = Once.read(body.get("once"))
            once = before.once if told is None else told.least(before.once)
            self.reservations[question] = replace(
                before, charges=whole, returned=again, at=kept["at"], once=once
            )
            self._sum_again()
            return
        one = Reservation(
            plan_digest=kept["plan_digest"],
            plan_name=kept["plan_name"],
            purpose=kept["purpose"],
            epoch=kept["epoch"],
            at=kept["at"],
            charges=charges,
            erasures=int(body.get("erasures", 0)),
            once=Once.read(body.get("once")),
        )
        self.reservations[question] = one
        curve = self.curve_of(charges)
        self.spent = self.spent + curve
        self._purposes[one.purpose] = self._purposes.get(one.purpose, Curve()) + curve

    def _begin(self, body: dict[str, Any]) -> None:
        step = (body["plan_digest"], body["epoch"], body["step"])
        self.holders.discard(self.begun.get(step, ""))
        self.begun[step] = body["key"]
        self.holders.add(body["key"])

    def _release(self, body: dict[str, Any]) -> None:
        self.given[body["key"]] = Given(body["digest"], body["at"])

    def _withhold(self, body: dict[str, Any]) -> None:
        self.given[body["key"]] = Given("", body["at"], "withheld")

    def _expire(self, body: dict[str, Any]) -> None:
        self.given[body["key"]] = replace(self.given[body["key"]], state="expired")

    def _return(self, body: dict[str, Any]) -> None:
        question = (body["plan_digest"], body["epoch"])
        before = self.reservations[question]
        charges = tuple(Charge(**charge) for charge in body["left"])
        steps = tuple(body["steps"])
        self.reservations[question] = replace(
            before, charges=charges, returned=(*before.returned, *steps)
        )
        for step in steps:
            self.holders.discard(self.begun.pop((*question, step), ""))
        self._sum_again()

    def _sum_again(self) -> None:
        self.spent, self._purposes, self._since = Curve(), {}, ("", 0, Curve())
        for one in self.reservations.values():
            curve = self.curve_of(one.charges)
            self.spent = self.spent + curve
            self._purposes[one.purpose] = self._purposes.get(one.purpose, Curve()) + curve


def events_of(steps: Steps) -> tuple[Charge, ...]:
    """The events of steps, equal ones counted together."""
    return merged(charge for step in steps.values() for charge in step)


def dumped(charges: tuple[Charge, ...]) -> list[dict[str, Any]]:
    """Events as an entry says them."""
    return [charge.model_dump(mode="json") for charge in charges]
