"""What a run would wait for: silos that ask for a second person, and what the others spend.

Silos are asked at the same time, so the others answer, and are charged, while one of them still
waits for an approval. Nothing is lost by it: asked again they give the same answers at no charge.
But where enough of them answer, the run goes on without the one that waits. Both are told before
anything is asked. It is known for silos of this machine; others judge by themselves, and are named
in the run's outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from abfed.lab.approvals import approvals_of
from abfed.privacy.charges import plan_epsilon
from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from abfed.silo.policy import Policy
from abfed.site.foureyes import Approvals, Question, reasons

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace


class Awaited(NamedTuple):
    """What is known before a plan is asked.

    Attributes:
        waiting: silos that would refuse it for want of an approval, and why they ask for one.
        others: silos that would be asked all the same.
        goes_on: whether those are enough for a run without the ones that wait.
        epsilon: what each recipient of the others will have been charged by then, at `delta`: a
            silo charges the whole plan before it answers the first step.
    """

    waiting: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]
    goes_on: bool
    epsilon: float
    delta: float

    def lines(self) -> Iterator[str]:
        """In words; nothing where nobody is waited for."""
        for silo, why in self.waiting.items():
            yield f"{silo} waits for a second person ({' and '.join(why)}): abfed access approve"
        if not self.waiting or not self.others:
            return
        named = ", ".join(self.others)
        spent = f"ε = {self.epsilon:.3f} at δ = {self.delta:g}"
        if self.goes_on:
            yield f"The run goes on without: {named} will have spent {spent}."
            yield "To have all in one run, stop here and have it approved first."
        else:
            yield f"Meanwhile {named} will have been charged {spent}, the whole plan."
            yield "Once it is approved, ask again: they answer the same, at no further charge."


def awaited(workspace: Workspace, plan: Plan) -> Awaited:
    """Which silos of this machine a plan would wait for. Asks nobody and charges nothing.

    Args:
        workspace: where the silos and the approvals are.
        plan: what is to be asked.
    """
    try:
        submitters = workspace.session().facts.behind
    except Refused:  # looked at before signing in
        submitters = ("",)
    waiting: dict[str, tuple[str, ...]] = {}
    for name in sorted(set(plan.silos) & set(workspace.silos_here)):
        why = reasons(
            Policy.load(workspace.silo_folder(name) / "policy.yaml").access.four_eyes, plan
        )
        if why and _lacks(workspace, name, plan, submitters):
            waiting[name] = why
    others = tuple(name for name in sorted(plan.silos) if name not in waiting)
    goes_on = len(others) >= plan.minimum_silos
    return Awaited(waiting, others, goes_on, plan_epsilon(plan), plan.privacy.delta)


def _lacks(workspace: Workspace, silo: str, plan: Plan, submitters: tuple[str, ...]) -> bool:
    with workspace.silo(silo) as service:
        question = Question(plan.digest, service.holdings().epoch, service.policy().version)
        approvals = Approvals(workspace.silo_folder(silo), service.keys)
        shown = list(approvals_of(workspace.lab, plan.digest))
        return approvals.lacking(shown, question, submitters, service.place()) > 0
