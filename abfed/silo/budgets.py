"""Budgets: how much a silo's recipients may lose, in all and by purpose and time.

All are bounds on the privacy loss of *each recipient*, over every plan, person and name, and over
every state of the data. They are bound to the silo's people: a new dataset, view, experiment or
plan name draws on the same ones.

* `total` is for ever. It is the promise; nothing renews it but a person who raises it.
* `purposes`: part of the total that one purpose may use, for ever.
* `period`: part of the total that one period may use. At the start of the next one this bound, and
  only this one, is free again: *renewal forgets nothing*. Somebody who stays in the data for k
  periods may lose what k periods allow, and never more than the total.
* `rerun_reserve`: ε of the total that is kept for asking a plan again after an erasure. Other
  questions are judged as if the total were smaller by it. Such a re-run answers to the total only:
  a brand that erased somebody must be able to replace what it published, in any period.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import Field, field_validator

from abfed.privacy.accounting import Curve
from abfed.privacy.filtering import Filter
from abfed.protocol.schema import Frozen, Name
from abfed.site.clock import stamp

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SmallDelta = Annotated[float, Field(gt=0, le=1e-4, allow_inf_nan=False)]
"""As in plans: a δ that is not small is no promise (with δ = .5 one answer may give everything)."""

FOR_EVER = "never renews"


class Budget(Frozen):
    """A bound on privacy loss for each recipient.

    Attributes:
        epsilon: ε.
        delta: δ.
    """

    epsilon: Positive
    delta: SmallDelta

    @property
    def filter(self) -> Filter:
        """The filter that keeps it."""
        return Filter(self.epsilon, self.delta)


class PurposeBudget(Frozen):
    """What one purpose may use of the total, for ever.

    Attributes:
        purpose: one of the policy's purposes.
        epsilon: ε.
        delta: δ.
    """

    purpose: Name
    epsilon: Positive
    delta: SmallDelta


class PeriodBudget(Frozen):
    """What one period may use of the total.

    Attributes:
        epsilon: ε of one period.
        delta: δ of one period.
        days: length of a period.
        starts: first day of a period (`YYYY-MM-DD`, UTC); periods follow, and go before, without
            a gap: a policy whose first day is yet to come is bound by its periods today.
    """

    days: Annotated[int, Field(ge=1, le=3660)]
    starts: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    epsilon: Positive
    delta: SmallDelta

    @field_validator("starts")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        date.fromisoformat(value)
        return value

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Start and end of the period that `now` is in; periods reach back before the first day."""
        first = datetime.fromisoformat(self.starts).replace(tzinfo=UTC)
        number = (now - first) // timedelta(days=self.days)
        start = first + number * timedelta(days=self.days)
        return start, start + timedelta(days=self.days)


class Scope(NamedTuple):
    """One budget that a question answers to.

    Attributes:
        name: which one.
        budget: its filter.
        spent: the curve of what counts against it.
        renews: when it is free again, in words.
    """

    name: str
    budget: Filter
    spent: Curve
    renews: str


class Spending(NamedTuple):
    """Curves of what was charged, as budgets ask for them.

    Attributes:
        total: everything.
        of_purpose: by purpose.
        since: charged at or after a moment (a stamp).
    """

    total: Curve
    of_purpose: Callable[[str], Curve]
    since: Callable[[str], Curve]


class Budgets(Frozen):
    """All budgets of a silo. See the module."""

    total: Budget
    purposes: tuple[PurposeBudget, ...] = ()
    period: PeriodBudget | None = None
    rerun_reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def scopes(
        self, spending: Spending, *, purpose: str | None, now: datetime, rerun: bool = False
    ) -> tuple[Scope, ...]:
        """The budgets that a question answers to, with what is spent of each.

        Args:
            spending: what was charged so far.
            purpose: of the question; None for all purposes, to show them.
            now: by the silo's clock.
            rerun: the question is a plan asked again after an erasure.
        """
        if rerun:
            return (Scope("total", self.total.filter, spending.total, FOR_EVER),)
        usable = Filter(self.total.epsilon, self.total.delta, kept=self.rerun_reserve)
        kept = f"; {self.rerun_reserve:g} more kept for re-runs" if self.rerun_reserve else ""
        scopes = [Scope("total", usable, spending.total, FOR_EVER + kept)]
        for one in self.purposes:
            if purpose in (None, one.purpose):
                bound = Filter(one.epsilon, one.delta)
                spent = spending.of_purpose(one.purpose)
                scopes.append(Scope(f"purpose {one.purpose}", bound, spent, FOR_EVER))
        if self.period is not None:
            start, end = self.period.window(now)
            scopes.append(
                Scope(
                    f"period from {start:%Y-%m-%d}",
                    Filter(self.period.epsilon, self.period.delta),
                    spending.since(stamp(start)),
                    f"{end:%Y-%m-%d}, within the total; what was spent stays spent there",
                )
            )
        return tuple(scopes)


class Standing(NamedTuple):
    """How one budget stands.

    Attributes:
        scope: which one.
        spent, left, budget: ε as the budget's filter counts it; spent + left = budget.
        delta: at this δ.
        renews: when it is free again.
    """

    scope: str
    spent: float
    left: float
    budget: float
    delta: float
    renews: str

    @classmethod
    def of(cls, scope: Scope) -> Standing:
        """How a scope stands."""
        bound = scope.budget.usable
        spent = min(scope.budget.spent(scope.spent), bound) if bound else 0.0
        return cls(scope.name, spent, bound - spent, bound, scope.budget.delta, scope.renews)


class Forecast(NamedTuple):
    """What a question would do to one budget.

    Attributes:
        scope: which one.
        left: ε now.
        cost: ε that the question takes, as the filter counts it: questions together cost less than
            their sum, so the first costs most.
        left_after: ε afterwards; below zero where it doesn't fit.
        more: how many questions like it fit in all, this one included.
        fits: whether it would be admitted.
    """

    scope: str
    left: float
    cost: float
    left_after: float
    more: int
    fits: bool

    @classmethod
    def of(cls, scope: Scope, asked: Curve) -> Forecast:
        """What the curve would do to a scope."""
        before = scope.budget.spent(scope.spent)
        after = scope.budget.spent(scope.spent + asked)
        bound = scope.budget.usable
        return cls(
            scope.name,
            bound - before,
            after - before,
            bound - after,
            scope.budget.more(scope.spent, asked),
            scope.budget.admits(scope.spent, asked),
        )
