"""How plans, releases and models show themselves in a notebook (`ipython` tells IPython of it)."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from abfed.lab.paper.page import STYLE, facts, pill, table
from abfed.lab.paper.vouched import vouched
from abfed.lab.views.units import NBSP, NONE

if TYPE_CHECKING:
    from abfed.coordinator.inbox import Accepted
    from abfed.protocol.messages import Charge, Release
    from abfed.protocol.modelling import Model
    from abfed.protocol.plan import Plan

_SHOWN_HEX = 16
_WHOLE = 1000  # from here on a parameter is shown without decimals


def plan_card(plan: Plan) -> str:
    """What a plan asks, of whom, and what it may cost."""
    arms = ", ".join(
        f"{escape(arm.name)} {100 * arm.share:g}\N{NO-BREAK SPACE}%"
        f"{' (control)' if arm.control else ''}"
        for arm in plan.arms
    )
    metrics = ", ".join(
        f"<strong>{escape(one.name)}</strong>" if one.name == plan.primary else escape(one.name)
        for one in plan.metrics
    )
    privacy = f"ε = {plan.privacy.epsilon:g}, δ = {plan.privacy.delta:g} for each recipient"
    if plan.privacy.unprotected:
        privacy = pill("none: exact totals, made-up people only", "no")
    pairs = [
        ("Purpose", escape(plan.purpose)),
        ("Experiment", escape(plan.experiment)),
        ("Brands", f"{escape(', '.join(plan.silos))} (at least {plan.minimum_silos})"),
        ("Arms", arms),
        ("Metrics", metrics),
        ("Privacy", privacy),
    ]
    if plan.model is not None:
        pairs.append(("Model", f"{shape_of(plan.model)}, {plan.schedule.rounds} rounds"))
    pairs.append(("Digest", _code(plan.digest)))
    kicker = "abfed plan, simulated" if plan.simulation is not None else "abfed plan"
    return _card(kicker, plan.report.title or plan.name, pairs)


def model_card(model: Model) -> str:
    """What a model predicts, and its shape."""
    pairs = [("Predicts", f"probability of {escape(model.outcome)}"), ("Shape", shape_of(model))]
    return _card("abfed model", f"Engagement model of {model.outcome}", pairs)


def shape_of(model: Model) -> str:
    """A model's shape in words."""
    if not model.hidden:
        return "logistic regression with arm interactions"
    layers = "a hidden layer" if len(model.hidden) == 1 else "hidden layers"
    return f"network with {layers} of {'-'.join(map(str, model.hidden))}"


def release_card(release: Release) -> str:
    """What a silo let out: of what kind, under which noise, charged to whom."""
    noise = ", ".join(map(setting, release.noise.items()))
    pairs = [
        ("Silo", escape(release.silo)),
        ("Step", escape(release.step)),
        ("Holds", escape(str(release.payload))),
        ("Noise", noise or "none"),
        ("Charged", "; ".join(map(charge, release.charged)) or "nothing"),
        ("Protects", escape(release.unit.sentence)),
    ]
    if release.budget is not None:
        left = max(0.0, release.budget.epsilon_total - release.budget.epsilon_spent)
        pairs.append(("Budget", f"ε {left:.2f} of {release.budget.epsilon_total:.2f} left"))
    pairs.append(("Plan’s digest", _code(release.plan_digest)))
    return _card("abfed release", f"{release.silo}: {release.step}", pairs)


def setting(pair: tuple[str, float]) -> str:
    """A public parameter of a release's noise, in words."""
    name, value = pair
    shown = f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.4g}"
    return f"{escape(name.replace('_', ' '))} {shown}"


def charge(one: Charge) -> str:
    """A privacy event in words."""
    times = f"{one.count}{NBSP}× " if one.count > 1 else ""
    sampled = f", sampled at {one.sampling_rate:.3g}" if one.sampling_rate < 1 else ""
    return f"{times}{escape(one.event)} noise, σ{NBSP}={NBSP}{one.noise_multiplier:.3g}{sampled}"


class Releases(dict[str, "Mapping[str, Accepted]"]):
    """Verified releases by silo and step, which show themselves as a table.

    Args:
        found: the releases.
        source: what the table is from (`page.table`).
    """

    def __init__(self, found: Mapping[str, Mapping[str, Accepted]], source: str) -> None:
        super().__init__(found)
        self._source = source

    def _repr_html_(self) -> str:
        head = ["Silo", "Step", "Releases", "Noise", "Budget left"]
        rows = []
        for silo, steps in self.items():
            kinds: dict[str, list[Release]] = {}
            for step, one in steps.items():
                kinds.setdefault(step.rstrip("0123456789-"), []).append(one.release)
            for kind, releases in kinds.items():
                noises = (", ".join(map(setting, one.noise.items())) for one in releases)
                noise = "; ".join(dict.fromkeys(filter(None, noises))) or "none"
                rows.append(
                    [escape(silo), escape(kind), str(len(releases)), noise, _left(releases)]
                )
        shown = table(head, rows, source=self._source, numeric=(2, 4), counts=())
        return in_card("abfed releases", "What silos let out", shown)


def _left(releases: list[Release]) -> str:
    """What the last of them left of the budget."""
    budgets = [one.budget for one in releases if one.budget is not None]
    left = [(max(0.0, one.epsilon_total - one.epsilon_spent), one) for one in budgets]
    if not left:
        return NONE
    least, budget = min(left, key=lambda one: one[0])
    return f"ε {least:.2f} of {budget.epsilon_total:.2f}".replace(" ", NBSP)


def accepted_card(accepted: Accepted) -> str:
    """A release that was verified."""
    return release_card(accepted.release)


def _code(digest: str) -> str:
    return f"<code>{escape(digest[:_SHOWN_HEX])}</code>"


def _card(kicker: str, heading: str, pairs: list[tuple[str, str]]) -> str:
    return in_card(kicker, heading, facts(pairs))


def in_card(kicker: str, heading: str, body: str) -> str:
    """What code of this package says, as a card; its small counts stay (`vouched`)."""
    card = (
        f'<div class="abfed card"><div class="kicker">{escape(kicker)}</div>'
        f"<h2>{escape(heading)}</h2>{body}</div>"
    )
    return f"<style>{STYLE}</style>{vouched(card)}"
