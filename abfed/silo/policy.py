"""A silo's policy: what it allows, as data that its own people write. Whatever is not here is a no.

A missing, empty or unreadable policy allows nothing. The policy is read again for each request, so
that a change takes effect at the next message.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from abfed.privacy.once import LARGEST_SHARE
from abfed.protocol.canonical import digest
from abfed.protocol.declared import parse_record
from abfed.protocol.envelope import key_id
from abfed.protocol.errors import InputError, Refused, WorkspaceError
from abfed.protocol.metrics import Mean
from abfed.protocol.plan import Plan
from abfed.protocol.schema import LAWFUL_BASES, FiniteFloat, Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.budgets import Budget, Budgets, PeriodBudget, PurposeBudget
from abfed.site.files import read_private
from abfed.site.rights import AccessPolicy

Basis = Literal[LAWFUL_BASES]  # type: ignore[valid-type]


class Purpose(Frozen):
    """A purpose that plans may state, and the lawful bases under which rows may serve it (S1).

    Attributes:
        name: as plans state it.
        bases: lawful bases under which rows may serve it; all others are never read for it.
    """

    name: Name
    bases: Annotated[tuple[Basis, ...], Field(min_length=1)]


class AmountBound(Frozen):
    """The largest bound that a plan may put on a recipient's total of an amount.

    Attributes:
        column: the amount.
        high: the largest bound.
    """

    column: Name
    high: FiniteFloat


class DeclaredSize(Frozen):
    """How many recipients an arm was sent to, as the silo's people state it: not a count of rows.

    Write what is public anyway, or rounded down: a plan learns whether it is below the minimum.

    Attributes:
        experiment: which experiment.
        arm: which arm.
        recipients: how many, as stated.
    """

    experiment: Name
    arm: Name
    recipients: Annotated[int, Field(ge=0)]


class Coordinator(Frozen):
    """A coordinator whose requests are heard, by its pinned Ed25519 key (hex).

    Attributes:
        name: what it is called here.
        public_key: 64 hex digits, compared by phone.
    """

    name: Name
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Peer(Frozen):
    """Another silo, by its pinned Ed25519 signing key (hex).

    Attributes:
        name: the silo, as plans call it.
        public_key: 64 hex digits, compared by phone: a coordinator that could put a key of its own
            in its place would see this silo's sums.
    """

    name: Name
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class NoiseOnce(Frozen):
    """Whether this silo adds its noise together with others, and what it asks of that.

    Attributes:
        allowed: whether it does so at all.
        peers: the other silos that it does so with; all that a plan names must be here.
        colluders: how many of them may tell what they know to the coordinator, by this silo's fear:
            a plan that covers fewer is refused.
        least_share: the least noise that this silo adds, over the largest influence of one
            recipient: what is left to its recipients if everybody else colludes.
    """

    allowed: bool = False
    peers: tuple[Peer, ...] = ()
    colluders: Annotated[int, Field(ge=0)] = 1
    least_share: Annotated[float, Field(gt=0, le=LARGEST_SHARE, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _are_others(self) -> NoiseOnce:
        for what in ("name", "public_key"):
            if len({getattr(one, what) for one in self.peers}) != len(self.peers):
                raise ValueError(f"noise_once.peers: a {what} stands twice: one silo isn't two")
        return self


class Policy(Frozen):
    """What a silo allows.

    Attributes:
        silo: whose policy it is.
        synthetic: the brand is made up: simulation plans, whose noise may be seeded, are allowed
            here and nowhere else.
        coordinators: who may ask; nobody where empty.
        purposes: what for.
        columns: outcomes and features that plans may use.
        largest_amounts: limits on declared bounds of amounts.
        budget: for all plans and people together, for ever.
        per_plan: for one plan.
        per_purpose: for all plans of one purpose, within `budget`, for ever.
        per_period: for all plans of one period, within `budget`; see `PeriodBudget` for what
            renewal means.
        rerun_reserve: ε of `budget` that is kept for plans asked again after an erasure.
        minimum_recipients: in each arm and cell, by noised count; 0 for no minimum.
        declared_sizes: of arms, where the silo's people state them.
        keep_releases_days: how long a release is kept and given again, from when it was made;
            afterwards the same request is refused, never noised anew.
        retention_days: how long a send is kept; `abfed silo purge` removes older ones, and where
            that is more than a day late, the next request does. Kept for ever where left out.
        retrain_after_erasure: whether an erasure queues the plans whose models knew the person.
        checkup_within_days: how old the silo's last check-up (`abfed doctor`) may be for it to
            answer, and that it left nothing critical; not asked for where left out (S7).
        show_budget: whether a release says how much was spent and is left.
        access: which people may do what; nobody anything where it is left out (S12).
        noise_once: whether noise is added together with other silos; not where it is left out.
    """

    silo: Name
    synthetic: bool = False
    coordinators: tuple[Coordinator, ...] = ()
    purposes: tuple[Purpose, ...] = ()
    columns: tuple[Name, ...] = ()
    largest_amounts: tuple[AmountBound, ...] = ()
    budget: Budget
    per_plan: Budget
    per_purpose: tuple[PurposeBudget, ...] = ()
    per_period: PeriodBudget | None = None
    rerun_reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    minimum_recipients: Annotated[int, Field(ge=0)] = 0
    declared_sizes: tuple[DeclaredSize, ...] = ()
    keep_releases_days: Annotated[int, Field(ge=1, le=36_500)] = 730
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    retrain_after_erasure: bool = False
    checkup_within_days: Annotated[int, Field(ge=1, le=366)] | None = None
    show_budget: bool = False
    access: AccessPolicy = AccessPolicy()
    noise_once: NoiseOnce | None = None

    @model_validator(mode="after")
    def _budgets_fit(self) -> Policy:
        known = [purpose.name for purpose in self.purposes]
        named = [one.purpose for one in self.per_purpose]
        if unknown := [name for name in named if name not in known]:
            message = f"per_purpose: {unknown[0]!r} is not one of the purposes"
            raise ValueError(message)
        if len(set(named)) != len(named):
            raise ValueError("per_purpose: a purpose stands twice")
        if self.rerun_reserve >= self.budget.epsilon:
            raise ValueError("rerun_reserve: must be below the budget's epsilon")
        return self

    @property
    def budgets(self) -> Budgets:
        """All that bounds what may be spent."""
        return Budgets(
            total=self.budget,
            purposes=self.per_purpose,
            period=self.per_period,
            rerun_reserve=self.rerun_reserve,
        )

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy from its private YAML file.

        Raises:
            InputError: it is missing or malformed.
            IntegrityError: others can write or read it.
        """
        try:
            data = read_private(path)
        except WorkspaceError as cause:
            raise InputError(
                "this silo has no policy, so it allows nothing",
                where=str(path),
                do="write one, or run `abfed silo create`",
            ) from cause
        return cls.parse(data, where=str(path))

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Policy:
        """Read a policy from YAML.

        Raises:
            InputError: it is malformed.
        """
        return _parsed(data, where)

    @property
    def version(self) -> str:
        """The digest that approvals are bound to."""
        values = self.model_dump(mode="json")
        if self.noise_once is None:  # so that approvals of before it was there stay bound
            del values["noise_once"]
        return digest(values)

    def trusted_keys(self) -> dict[str, bytes]:
        """Pinned public keys of coordinators, by key id."""
        keys = [bytes.fromhex(one.public_key) for one in self.coordinators]
        return {key_id(key): key for key in keys}

    def lawful_bases(self, plan: Plan) -> tuple[str, ...]:
        """The bases under which rows may serve the plan's purpose.

        Raises:
            Refused: the purpose is not allowed.
        """
        for purpose in self.purposes:
            if purpose.name == plan.purpose:
                return tuple(purpose.bases)
        allowed = ", ".join(purpose.name for purpose in self.purposes) or "none"
        raise Refused(
            f"purpose {plan.purpose!r} is not allowed",
            code="purpose",
            where=self.silo,
            about=plan.purpose,
            why=f"this silo allows: {allowed}",
            do="ask the silo's privacy officer, or state another purpose if it is the true one",
        )

    def peers(self, plan: Plan) -> dict[str, bytes]:
        """Pinned public keys of the other silos of a plan with noise once; none for other plans.

        Raises:
            Refused: the policy doesn't allow it, fears more colluders, or pins no key of one.
        """
        if not plan.noise_once:
            return {}
        allowed = self.noise_once
        if allowed is None or not allowed.allowed:
            raise Refused(
                "noise once is not allowed",
                code="noise-once",
                where=self.silo,
                do="ask the silo's privacy officer, or ask with noise: each",
            )
        if plan.privacy.colluders < allowed.colluders:
            raise Refused(
                f"the plan covers {plan.privacy.colluders} colluding silos",
                code="noise-once",
                where=self.silo,
                why=f"this silo fears {allowed.colluders}",
                do=f"set privacy.colluders to {allowed.colluders}, or ask its privacy officer",
            )
        pinned = {one.name: bytes.fromhex(one.public_key) for one in allowed.peers}
        others = [silo for silo in sorted(plan.silos) if silo != self.silo]
        for silo in others:
            if silo not in pinned:
                raise Refused(
                    f"the key of {silo!r} is not pinned",
                    code="peer",
                    where=self.silo,
                    about=silo,
                    do="compare fingerprints with that silo and write its key under "
                    "noise_once.peers, or leave it out of the plan",
                )
        return {silo: pinned[silo] for silo in others}

    def check_columns(self, plan: Plan) -> None:
        """Refuse columns and bounds that are not allowed.

        Raises:
            Refused: a column, or a bound, that the policy does not list.
        """
        for column in plan.columns():
            if column not in self.columns:
                raise Refused(
                    f"column {column!r} is not allowed",
                    code="columns",
                    where=self.silo,
                    about=column,
                )
        limits = {bound.column: bound.high for bound in self.largest_amounts}
        for metric in plan.metrics:
            if not isinstance(metric, Mean):
                continue
            limit = limits.get(metric.column)
            if limit is not None and max(abs(metric.low), abs(metric.high)) > limit:
                raise Refused(
                    f"the bound of {metric.name!r} is above {limit:g}",
                    code="columns",
                    where=self.silo,
                    about=metric.name,
                )

    def check_plan_budget(self, plan: Plan) -> None:
        """Refuse a plan that alone asks for too much.

        Raises:
            Refused: more ε or δ than one plan may have.
        """
        asked, allowed = plan.privacy, self.per_plan
        if asked.unprotected and self.synthetic:
            return  # nobody is there to be protected
        if asked.epsilon > allowed.epsilon or asked.delta > allowed.delta:
            raise Refused(
                f"one plan may ask for ε ≤ {allowed.epsilon:g} and δ ≤ {allowed.delta:g}",
                code="plan-epsilon",
                where=self.silo,
                why=f"the plan asks for ε = {asked.epsilon:g}, δ = {asked.delta:g}",
                do="ask for less, or ask the silo's privacy officer",
            )


@functools.lru_cache(maxsize=64)
def _parsed(data: bytes, where: str) -> Policy:
    """The policy of these bytes. It's read for each request; the same bytes say the same."""
    return parse_record(Policy, parse_yaml(data, where=where), where=where)
