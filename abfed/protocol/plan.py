"""The plan: what is asked of the silos, as data.

A plan is YAML for people and canonical JSON for machines. Its *digest* names the question: silos
approve, charge and answer digests. How a report looks and how long a run waits are not part of the
question, so `report` and `waiting` are left out of the canonical form: a new title never costs
budget.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from abfed.protocol.analysis import Analysis
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.coherence import incoherence
from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.errors import IntegrityError, PlanError
from abfed.protocol.metrics import Guardrail, Metric
from abfed.protocol.modelling import Model, Training
from abfed.protocol.protected import RECIPIENT, ProtectedUnit
from abfed.protocol.schema import (
    OUTCOMES,
    RESERVED_COLUMNS,
    Feature,
    FiniteFloat,
    Frozen,
    Name,
)
from abfed.protocol.waiting import Waiting
from abfed.protocol.yamltext import parse_yaml

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Arm(Frozen):
    """One version of the e-mail, with the share of recipients it was planned for.

    Attributes:
        name: of the arm, as the silos' mappings call it.
        share: of recipients that it was planned for; all shares add up to 1.
        control: whether others are compared with it.
    """

    name: Name
    share: Share
    control: bool = False


class Condition(Frozen):
    """A filter on a declared column: `one_of` for categories, `at_least`/`at_most` for numbers.

    Attributes:
        column: a declared feature, or `region`.
        one_of: values of a category that count.
        at_least, at_most: bounds of a number, included.
    """

    column: Name
    one_of: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Condition:
        ranged = self.at_least is not None or self.at_most is not None
        if (self.one_of is None) == (not ranged):
            message = "give either one_of, or at_least and/or at_most"
            raise ValueError(message)
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            message = "at_least must not be above at_most"
            raise ValueError(message)
        return self


UNPROTECTED_EPSILON = 1e9
"""What stands for "no bound" in a plan without privacy; no calculation rests on it."""

LEAST_DELTA, LEAST_EPSILON, MOST_EPSILON = 1e-12, 1e-3, 50.0
"""Of a part of a plan. Within, multipliers of noise are found in seconds, from .1 to 60,000. A δ of
1e-15 is less than the accountant leaves out; e⁵⁰ to one is nothing, 1e-3 drowns thousands."""


class Split(Frozen):
    """How a plan's ε is spent on its parts; each part keeps its own ε at the plan's δ.

    Attributes:
        statistics: ε of the effects.
        training: ε of all rounds of training; 0 without a model.
        evaluation: ε of evaluating the models; 0 without a model.
    """

    statistics: Positive
    training: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    evaluation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _within_bounds(self) -> Split:
        for name in ("statistics", "training", "evaluation"):
            part = getattr(self, name)
            if part and not LEAST_EPSILON <= part <= MOST_EPSILON and part != UNPROTECTED_EPSILON:
                message = (
                    f"ε of {name} is {part:g}; it must be from {LEAST_EPSILON:g} to "
                    f"{MOST_EPSILON:g}: below, noise drowns every figure; above, nothing is kept"
                )
                raise ValueError(message)
        return self


class Privacy(Frozen):
    """The guarantee asked for: (ε, δ) for each protected unit.

    `privacy: none` in a plan asks for exact totals: for development on synthetic brands only, which
    their policies say they are; every report of it says so.

    Attributes:
        epsilon: ε of the whole plan for each recipient.
        delta: δ of each part.
        split: ε of the parts; they add up to `epsilon`.
        unit: what is protected: one recipient with all of their sends, in one silo.
        unprotected: set by `privacy: none`; never written by hand.
        noise: `each` silo noises what it releases, or noise is added `once` to the sum of all
            (docs/noise-once.md): narrower intervals, and nothing by brand.
        colluders: with noise once, how many silos may tell what they know to the coordinator.
        shares: with noise once, brands' shares of arms: `counted`, or promised to be `planned`.
    """

    epsilon: Positive
    delta: Annotated[float, Field(ge=LEAST_DELTA, le=1e-4, allow_inf_nan=False)] = 1e-6
    split: Split
    unit: ProtectedUnit = RECIPIENT
    unprotected: bool = False
    noise: Literal["each", "once"] = "each"
    colluders: Annotated[int, Field(ge=0, le=100)] = 1
    shares: Literal["counted", "planned"] = "counted"

    @model_serializer(mode="wrap")
    def _as_it_was(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what older plans don't know, so that their digests stay theirs."""
        unknown = {"noise", "colluders"} if self.noise == "each" else set()
        unknown |= {"shares"} if self.shares == "counted" else set()
        return {name: value for name, value in write(self).items() if name not in unknown}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """For editors: the text `none`, or the fields."""
        return {"anyOf": [{"const": "none"}, handler(core)]}

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        if values == "none":
            whole = {"statistics": UNPROTECTED_EPSILON}
            return {"epsilon": UNPROTECTED_EPSILON, "split": whole, "unprotected": True}
        return values

    @model_validator(mode="after")
    def _whole(self) -> Privacy:
        if self.unprotected != (self.epsilon == UNPROTECTED_EPSILON):
            message = "ask for no privacy with `privacy: none`, or give an epsilon"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> Privacy:
        total = self.split.statistics + self.split.training + self.split.evaluation
        if not math.isclose(total, self.epsilon, rel_tol=1e-9):
            message = f"split adds up to {total:g}, not to epsilon ({self.epsilon:g})"
            raise ValueError(message)
        return self


class Simulation(Frozen):
    """Marks a plan on synthetic brands only; its noise may be seeded, so it protects nobody.

    Attributes:
        seed: of the noise; a published seed undoes privacy, so nobody real may be in the data.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)]


Reader = Literal[
    "analyst", "privacy-officer", "silo-admin", "security-officer", "auditor", "service-account"
]
"""A role that a report may be for."""


class ReportSpec(Frozen):
    """How the run is shown, and to whom.

    Attributes:
        notebook: that shows it.
        title: of the page.
        audience: roles that the report is for.
    """

    notebook: Name = "ab_readout"
    title: Annotated[str, Field(max_length=120)] = ""
    audience: Annotated[tuple[Reader, ...], Field(min_length=1)] = (
        "analyst",
        "privacy-officer",
        "auditor",
    )


class Plan(Frozen):
    """What is asked, of whom, for what purpose, and at what privacy cost.

    Attributes:
        name: of the plan and of its runs; another name alone is another question.
        purpose: what the figures are for; each silo's policy lists the purposes it allows.
        experiment: the experiment whose sends are read, as the silos' mappings call it.
        silos: brands that are asked.
        minimum_silos: how many of them must answer each step.
        population: filters on declared features or `region`; all must hold.
        arms: versions of the e-mail, with planned shares; exactly one is the control.
        metrics: what is measured, with public bounds.
        primary: the metric that decides.
        guardrails: metrics that must not get worse than a margin.
        analysis: how it is read: corrections, segments, covariates, waves.
        sends_per_recipient: sends of a recipient that count; the surplus is dropped by a keyed
            random order.
        features: pre-send columns, with public bounds or categories.
        model: the engagement model to train; none where it is left out.
        training: how it is trained; the defaults where it is left out.
        privacy: ε and δ for each recipient, and how ε is split; `none` for exact totals of made-up
            brands.
        simulation: marks a plan for synthetic brands, whose noise may be seeded.
        report: how the run is shown, and to whom; not part of the question.
        waiting: how long silos have; not part of the question.
    """

    name: Name
    purpose: Name
    experiment: Name
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000)]
    minimum_silos: Annotated[int, Field(ge=1)] = 1
    population: tuple[Condition, ...] = ()
    arms: Annotated[tuple[Arm, ...], Field(min_length=2, max_length=20)]
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=20)]
    primary: Name
    guardrails: tuple[Guardrail, ...] = ()
    analysis: Analysis = Analysis()
    sends_per_recipient: Annotated[int, Field(ge=1, le=1000)] = 5
    features: Annotated[tuple[Feature, ...], Field(max_length=200)] = ()
    model: Model | None = None
    training: Training | None = None
    privacy: Privacy
    simulation: Simulation | None = None
    report: ReportSpec = ReportSpec()
    waiting: Waiting = Waiting()

    @model_validator(mode="after")
    def _coherent(self) -> Plan:
        problem = incoherence(self)
        if problem:
            raise ValueError(problem)
        return self

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a YAML file.

        Raises:
            PlanError: the file is missing or is not a plan; every problem is named.
        """
        where = str(path)
        data = read_document(path, "plan", error=PlanError)
        return cls.from_values(parse_yaml(data, where=where, error=PlanError), where=where)

    @classmethod
    def from_values(cls, values: dict[str, Any], *, where: str = "plan") -> Plan:
        """Build a plan from plain values, as YAML gives them.

        Settings of training that are left out are written out: they are part of the question, and
        other defaults give another digest.

        Raises:
            PlanError: with each problem on it.
        """
        if values.get("model") is not None:
            values = values | {"training": values.get("training") or {}}
        return parse_record(cls, values, where=where, error=PlanError)

    @classmethod
    def from_canonical(cls, data: bytes, *, where: str = "plan") -> Plan:
        """Rebuild a plan from its canonical bytes (the report settings are the defaults).

        The same bytes give the same plan, made once: each request of a run bears it, and a plan
        that names a thousand silos takes some time to check.

        Raises:
            IntegrityError: the bytes are not the canonical form of a plan.
        """
        return _from_canonical(data, where)

    def canonical_bytes(self) -> bytes:
        """The question as canonical JSON, all defaults written out.

        How it is shown (`report`) and how long silos have (`waiting`) are not part of it.
        """
        return canonical_bytes(self.model_dump(mode="json", exclude={"report", "waiting"}))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return sha256_hex(self.canonical_bytes())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; it has a digest of its own."""
        made = super().model_copy(update=update, deep=deep)
        made.__dict__.pop("digest", None)
        return made

    @property
    def noise_once(self) -> bool:
        """Whether noise is added once, to the sum of all silos."""
        return self.privacy.noise == "once"

    @property
    def first_step(self) -> Literal["totals", "keys"]:
        """What silos are asked first; a run is bound to the answers."""
        return "keys" if self.noise_once else "totals"

    @property
    def control(self) -> Arm:
        """The arm that others are compared with."""
        return next(arm for arm in self.arms if arm.control)

    @property
    def schedule(self) -> Training:
        """The training settings, defaults where the plan leaves them out."""
        return self.training or Training()

    def wave_shares(self) -> tuple[float, ...]:
        """Planned shares of the arms in the wave that is asked for."""
        design, wave = self.analysis.sequential, self.analysis.wave
        if design is not None and wave and design.waves[wave - 1].shares is not None:
            return design.waves[wave - 1].shares or ()
        return tuple(arm.share for arm in self.arms)

    def at_wave(self, wave: int) -> Plan:
        """The plan that asks for one wave of the design (0: for the design as a whole)."""
        values = self.model_dump(mode="json")
        values["analysis"]["wave"] = wave
        return Plan.from_values(values)

    def outcome_columns(self) -> tuple[str, ...]:
        """Outcome columns that the plan reads, in canonical order."""
        needed = {column for metric in self.metrics for column in metric.columns()}
        needed |= set(self.analysis.outcome_columns())
        if self.model is not None:
            needed.update(self.model.outcome_columns)
        return tuple(name for name in OUTCOMES if name in needed)

    def names(self) -> frozenset[str]:
        """All names in the plan that a silo's no may be about."""
        named = {self.purpose, self.experiment, *self.columns(), *self.silos}
        return frozenset(
            named.union((one.name for one in self.arms), (m.name for m in self.metrics))
        )

    def columns(self) -> tuple[str, ...]:
        """All columns that the plan declares beside identity and lawfulness: what policy judges."""
        filters = {condition.column for condition in self.population} - set(RESERVED_COLUMNS)
        features = tuple(feature.name for feature in self.features)
        features += tuple(text.name for text in self.model.texts) if self.model else ()
        return self.outcome_columns() + features + tuple(sorted(filters - set(features)))


@functools.lru_cache(maxsize=8)
def _from_canonical(data: bytes, where: str) -> Plan:
    """See `Plan.from_canonical`."""
    values = parse_canonical(data, where=where)
    try:
        plan = Plan.from_values(values if isinstance(values, dict) else {}, where=where)
    except PlanError as cause:
        raise IntegrityError("not a plan", where=where) from cause
    if plan.canonical_bytes() != data:
        raise IntegrityError("not the canonical form of this plan", where=where)
    return plan
