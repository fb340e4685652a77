"""How a plan is to be read, declared before anything is released.

Whatever decides what is released (shares of the budget, segments, covariates, waves) or what counts
as a finding (correction, spending, priors) is part of the question and of its digest: it can't be
chosen after the figures are seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from abfed.protocol.metrics import Count, Mean, Metric, Proportion, Ratio
from abfed.protocol.schema import Feature, FiniteFloat, Frozen, Name, NumericFeature

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BudgetShare = Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
Correction = Literal["holm", "hochberg", "benjamini-hochberg"]
Spending = Literal["obrien-fleming", "pocock", "always-valid"]
OrphanRule = Literal["open", "ignore", "keep"]

SHARE_TOLERANCE = 1e-6
"""How far planned shares may be from summing to one."""

MOST_CELLS = 64
"""Of one segmentation: each cell is a share of the recipients, with the noise of all."""

MOST_ASIDE = 0.8
"""Share of the statistics' budget that may go to anything but the metrics themselves."""


class Segment(Frozen):
    """Disjoint groups of recipients by a pre-send feature: its own release, on its own budget.

    Attributes:
        name: of the segmentation.
        feature: a declared feature: a category's values are the cells, and one for all others.
        edges: of a numeric feature: cells reach from edge to edge and beyond the outer ones.
        share: of the statistics' budget (of its squared sensitivity) that goes to this release.
        poststratify: read effects as the mean over cells, weighted by their sizes in all arms.
    """

    name: Name
    feature: Name
    edges: (
        Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MOST_CELLS - 2)] | None
    ) = None
    share: BudgetShare = 0.2
    poststratify: bool = False

    @model_validator(mode="after")
    def _rising(self) -> Segment:
        if self.edges and any(after <= before for before, after in pairwise(self.edges)):
            message = "edges must rise"
            raise ValueError(message)
        return self


class Adjustment(Frozen):
    """Variance reduction by a pre-send covariate (CUPED; Deng et al. 2013).

    Attributes:
        metric: a proportion, mean or count.
        covariate: a numeric feature; its declared bounds are the ones it is clipped to.
        use: `auto` decides from what the plan expects, before anything is released.
        mean, sd: expected of the covariate; where left out, the middle of its bounds and a quarter
            of their distance.
    """

    metric: Name
    covariate: Name
    use: Literal["auto", "yes", "no"] = "auto"
    mean: FiniteFloat | None = None
    sd: Positive | None = None


class Expected(Frozen):
    """What the planner believes of a metric, from earlier experiments; never from this one's data.

    Attributes:
        metric: one of the metrics.
        mean: of a recipient under the control, in the metric's unit.
        sd: of a recipient; a proportion needs none.
        lift: relative change worth finding.
        r_squared: share of its variance that the covariate of its adjustment explains.
        denominator: of a ratio: sends that count below the line, as a share of the most that may.
    """

    metric: Name
    mean: FiniteFloat
    sd: Positive | None = None
    lift: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.05
    r_squared: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    denominator: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0


class MetricBudget(Frozen):
    """A metric's part of the budget.

    Attributes:
        metric: one of the metrics.
        share: relative to the other metrics' (1 where left out); `abfed design` finds those of
            least total width.
        priority: how much this metric's width counts there.
    """

    metric: Name
    share: Positive = 1.0
    priority: Positive = 1.0


class Prior(Frozen):
    """A normal prior on each arm's effect on a metric, in its unit (or of the relative lift).

    Attributes:
        metric: one of the metrics.
        mean: of the effect.
        sd: of the effect.
    """

    metric: Name
    mean: FiniteFloat = 0.0
    sd: Positive


class Wave(Frozen):
    """Recipients whose first send was before `until`, and in no earlier wave.

    Attributes:
        name: of the wave.
        until: the day (UTC) at whose start the wave is over.
        shares: planned shares in the order of the arms, where they aren't the plan's (an allocation
            that follows from the waves before).
    """

    name: Name
    until: date
    shares: tuple[Positive, ...] | None = None


class Sequential(Frozen):
    """Looks that are planned: one after each wave of sends.

    Attributes:
        waves: in the order in which they end.
        spending: how α is spent over the looks.
    """

    waves: Annotated[tuple[Wave, ...], Field(min_length=2, max_length=52)]
    spending: Spending = "obrien-fleming"


class Analysis(Frozen):
    """How a plan is read.

    Attributes:
        correction: over arms × metrics of a scope, and over the cells of each segmentation.
        power: to be reached at the expected lift.
        recipients: expected in a brand.
        expected: what is believed of each metric.
        budget: how it is split over metrics; equally where left out.
        adjust: covariates.
        segments: groups of recipients.
        balance: features that arms are compared on, as a check of the randomisation.
        balance_share: of the budget for that.
        clicks_without_opens: the rule for a click on a send that wasn't opened (images off): it
            counts as an open, or not as a click, or as it stands; such recipients are counted.
        orphans_share: of the budget for counting them.
        priors: for the Bayesian read-out.
        sequential: planned looks; a plan without is read once.
        wave: which wave this plan asks for, from 1; 0 for the design as a whole.
    """

    correction: Correction = "holm"
    power: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.8
    recipients: Annotated[int, Field(ge=1)] | None = None
    expected: tuple[Expected, ...] = ()
    budget: tuple[MetricBudget, ...] = ()
    adjust: tuple[Adjustment, ...] = ()
    segments: Annotated[tuple[Segment, ...], Field(max_length=8)] = ()
    balance: tuple[Name, ...] = ()
    balance_share: BudgetShare = 0.05
    clicks_without_opens: OrphanRule | None = None
    orphans_share: BudgetShare = 0.02
    priors: tuple[Prior, ...] = ()
    sequential: Sequential | None = None
    wave: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _waves(self) -> Analysis:
        waves = self.sequential.waves if self.sequential else ()
        if self.wave > len(waves):
            message = f"wave ({self.wave}) is not one of the {len(waves)} waves"
            raise ValueError(message)
        if any(after.until <= before.until for before, after in pairwise(waves)):
            message = "sequential.waves: each must end after the one before"
            raise ValueError(message)
        return self

    @property
    def metrics_share(self) -> float:
        """Share of the statistics' budget that is left for the metrics themselves."""
        aside = sum(segment.share for segment in self.segments)
        aside += self.balance_share if self.balance else 0.0
        aside += self.orphans_share if self.clicks_without_opens else 0.0
        return 1.0 - aside

    def outcome_columns(self) -> tuple[str, ...]:
        """Outcomes that are read beside those of the metrics."""
        return ("opened", "clicked") if self.clicks_without_opens else ()

    def expects(self, metric: str) -> Expected | None:
        """What is believed of a metric."""
        return next((one for one in self.expected if one.metric == metric), None)

    def budget_of(self, metric: str) -> MetricBudget:
        """A metric's part of the budget."""
        found = (one for one in self.budget if one.metric == metric)
        return next(found, MetricBudget(metric=metric))

    def adjustment(self, metric: str) -> Adjustment | None:
        """The covariate declared for a metric."""
        return next((one for one in self.adjust if one.metric == metric), None)


def problem_of(
    analysis: Analysis,
    metrics: tuple[Metric, ...],
    features: tuple[Feature, ...],
    arms: tuple[str, ...],
) -> str:
    """What doesn't fit the rest of the plan; empty where all does."""
    return next(_problems(analysis, metrics, {one.name: one for one in features}, arms), "")


def _problems(
    analysis: Analysis,
    metrics: tuple[Metric, ...],
    features: Mapping[str, Feature],
    arms: tuple[str, ...],
) -> Iterator[str]:
    named = {
        "expected": [one.metric for one in analysis.expected],
        "budget": [one.metric for one in analysis.budget],
        "adjust": [one.metric for one in analysis.adjust],
        "priors": [one.metric for one in analysis.priors],
    }
    for place, names in named.items():
        for name in names:
            if name not in {metric.name for metric in metrics}:
                yield f"analysis.{place}: {name!r} is not one of the metrics"
            if names.count(name) > 1:
                yield f"analysis.{place}: {name!r} stands twice"
    yield from _expected_problems(analysis, metrics)
    yield from _covariate_problems(analysis, metrics, features)
    yield from _segment_problems(analysis, features)
    for wave in analysis.sequential.waves if analysis.sequential else ():
        if wave.shares is not None and (
            len(wave.shares) != len(arms) or abs(sum(wave.shares) - 1) > SHARE_TOLERANCE
        ):
            yield f"analysis.sequential: wave {wave.name!r} must give each arm a share; sum 1"


def _expected_problems(analysis: Analysis, metrics: tuple[Metric, ...]) -> Iterator[str]:
    """Whatever follows from what is expected (also what is released) takes a mean that can be."""
    for metric in metrics:
        known = analysis.expects(metric.name)
        if known is None:
            continue
        if isinstance(metric, Proportion | Ratio) and not 0 < known.mean < 1:
            yield f"analysis.expected: the mean of {metric.name!r} lies between 0 and 1"
        if isinstance(metric, Mean) and not metric.low <= known.mean <= metric.high:
            yield f"analysis.expected: the mean of {metric.name!r} lies outside its bounds"
        if isinstance(metric, Count) and not 0 <= known.mean <= metric.most:
            yield f"analysis.expected: the mean of {metric.name!r} lies outside 0 to its most"


def _covariate_problems(
    analysis: Analysis, metrics: tuple[Metric, ...], features: Mapping[str, Feature]
) -> Iterator[str]:
    adjustable = {one.name for one in metrics if isinstance(one, Proportion | Mean | Count)}
    for adjustment in analysis.adjust:
        if adjustment.metric not in adjustable:
            yield f"analysis.adjust: {adjustment.metric!r} must be a proportion, mean or count"
        if not isinstance(features.get(adjustment.covariate), NumericFeature):
            yield f"analysis.adjust: {adjustment.covariate!r} is not a declared numeric feature"
    for feature in analysis.balance:
        if feature not in features or analysis.balance.count(feature) > 1:
            yield f"analysis.balance: {feature!r} is not a declared feature, or stands twice"


def _segment_problems(analysis: Analysis, features: Mapping[str, Feature]) -> Iterator[str]:
    names = [segment.name for segment in analysis.segments]
    for segment in analysis.segments:
        feature = features.get(segment.feature)
        if names.count(segment.name) > 1:
            yield f"analysis.segments: {segment.name!r} stands twice"
        if feature is None:
            yield f"analysis.segments: {segment.feature!r} is not a declared feature"
        elif (feature.kind == "numeric") != (segment.edges is not None):
            asks = "needs edges" if feature.kind == "numeric" else "has values, not edges"
            yield f"analysis.segments: {segment.feature!r} {asks}"
    strata = [segment for segment in analysis.segments if segment.poststratify]
    if len(strata) > 1:
        yield "analysis.segments: post-stratify by one segmentation at most"
    if strata and any(one.use != "no" for one in analysis.adjust):
        yield "analysis: use a covariate or post-stratification, not both"
    if analysis.metrics_share < 1 - MOST_ASIDE:
        yield (
            f"analysis: segments and checks take {1 - analysis.metrics_share:.0%} of the budget; "
            f"leave at least {1 - MOST_ASIDE:.0%} to the metrics"
        )
