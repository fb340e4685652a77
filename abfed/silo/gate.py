"""The gate: the only way out of a silo.

A request is judged in this order, and the first no ends it:

 1. its signature is by a coordinator whose key the policy pins (S6);
 2. it is a request, in this version of the protocol;
 3. it is fresh, and was not seen before;
 4. it is for this silo, and its plan names this silo; the silo's log holds what the coordinator
    saw of it; neither silo nor plan, model or key is frozen because of an incident (S15), nor is
    the silo's check-up overdue where the policy asks for one (S7);
 5. a person asks it, signed in at a site whose word counts here, by enough factors (S11), whose
    role has the right to (S12) and whose training is in date (S20), and who was not stopped;
 6. a second person approved it, where the policy asks for that;
 7. a simulation plan, or one without privacy, asks a synthetic brand;
 8. the purpose is allowed (S1);
 9. columns, bounds, experiment and arms are allowed and here, and no arm was declared too small;
10. the plan alone asks for no more than one plan may;
11. the step is one of the plan's, the model that comes with it too, and the totals come first;
12. answered already under the same key: the same release again, at no charge, or the same no where
    it was withheld or is no longer kept;
13. the rows are whole: every file is what the sealed store says (for totals, which come first);
14. the budget covers it: reserved, durably;
15. the step is given to this key, durably. Only now there is a permit.

What was computed is released in this order: it is of the kind, shapes and noise that were reserved,
and finite; totals whose noised counts are below the minimum are withheld for good; it is logged,
signed, sealed on disk, settled; then it leaves. A crash at any point
leaves the charge and gives nothing away; the next attempt completes under the same charge.

The gate judges values. It cannot fetch rows; that they are whole it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from abfed.privacy.charges import plan_charges, plan_epsilon
from abfed.privacy.mechanisms import SystemNoise
from abfed.privacy.once import role_of, steps_of, sum_of
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import (
    EMPTY_DIGEST,
    BudgetView,
    Refusal,
    Release,
    Request,
    decode,
    encode,
    release_key,
)
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import pack, unpack
from abfed.silo.adding import noise_for, once_of, share_for
from abfed.silo.disclosure import too_few, too_few_counted
from abfed.silo.entries import Given
from abfed.silo.judging import Judge, Judged
from abfed.silo.ledger import Ledger
from abfed.silo.models import KeptModel
from abfed.silo.permit import Computed, Holdings, Permit
from abfed.silo.policy import Policy
from abfed.silo.releases import Releases
from abfed.silo.releasing import check_computed, expected_shapes
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.stats.totals import Layout

SCORE = "score"
"""The step of a permit under which nothing leaves."""


class Answered(NamedTuple):
    """A request that was answered before: the same release again."""

    envelope: bytes


class Gate:
    """A silo's gate.

    Args:
        keys: the silo's keys.
        policy_path: the policy, read again for each request.
        ledger, releases, audit: what the gate keeps.
        clock: where the time comes from.
    """

    def __init__(
        self,
        keys: SiteKeys,
        policy_path: Path,
        *,
        ledger: Ledger,
        releases: Releases,
        audit: AuditLog,
        clock: Clock = system_clock,
    ) -> None:
        self._keys = keys
        self._judge = Judge(keys, policy_path, audit, clock)
        self._ledger = ledger
        self._releases = releases
        self._audit = audit
        self._clock = clock

    def admit(
        self, envelope: bytes, holdings: Holdings, whole: Callable[[], None] = lambda: None
    ) -> Permit | Answered:
        """Judge a request, reserve its charge, and hand out a permit.

        Args:
            envelope: the request.
            holdings: what the silo holds.
            whole: raises an IntegrityError where the rows aren't what they were; asked before
                anything is charged for them.

        Raises:
            Refused: with the code of the check that said no.
            IntegrityError: something of the silo itself is damaged.
        """
        policy = self._judge.policy()
        judged = self._judge.judge(envelope, policy, holdings)
        self._expire(policy)
        given = self._ledger.given(judged.key)
        if given is None:
            if judged.request.step in {"totals", "keys"}:
                whole()  # 13
            return self._reserve(judged, policy, holdings)
        if given.state != "kept":  # 12
            raise _gone(given)
        self._audit.append(
            "release.again",
            key=judged.key,
            digest=given.digest,
            person=judged.asker.who,
            heard=judged.heard,
        )
        return Answered(self._releases.again(judged.key, given.digest))

    def admit_own(self, model: KeptModel, purpose: str, epoch: str, person: str) -> Permit:
        """Let the silo's own people score with a model that is kept here (S9).

        Their right to was judged before. Judged here: that neither the silo nor plan or model is
        frozen, and that purpose and columns are allowed. Nothing is charged, because under this
        permit nothing leaves: `release` refuses it.

        Raises:
            Refused: with the code of what said no; it is in the log.
        """
        plan = model.plan.model_copy(update={"purpose": purpose})
        facts = {"plan": model.plan.digest, "model": model.digest, "purpose": purpose}
        try:
            policy = self._judge.policy()
            self._judge.check_frozen((plan.digest, model.plan.digest), model.names)
            bases = policy.lawful_bases(plan)
            policy.check_columns(plan)
        except Refused as refused:
            self._audit.append("model.refused", code=refused.code, person=person, **facts)
            raise
        self._audit.append("model.scored", person=person, **facts)
        return Permit(
            plan=model.plan,
            step=SCORE,
            key="",
            epoch=epoch,
            charges=(),
            noise=SystemNoise(),
            lawful_bases=bases,
            holdout_key=self._keys.derive(f"holdout:{plan.experiment}"),
            person=person,
        )

    def release(self, permit: Permit, computed: Computed) -> bytes:
        """Check what was computed, settle it and sign it.

        Raises:
            WrongResult: it is not what the permit was given for.
            IntegrityError: it was computed for the silo itself, or something kept is damaged.
        """
        if permit.step == SCORE or not permit.key:
            raise IntegrityError("what was computed for the silo itself never leaves")
        check_computed(permit, computed)
        if permit.step == permit.plan.first_step:
            self._withhold_few(permit, computed)
        arrays = pack(computed.arrays)
        head = self._audit.append(
            "release.made",
            key=permit.key,
            plan=permit.plan.digest,
            step=permit.step,
            heard=permit.heard,
            ledger=self._ledger.head,
        )
        header = self._header(permit, computed, arrays, head)
        envelope = self._keys.sign("release", encode(header, arrays))
        made = self._releases.keep(permit.key, envelope)
        try:
            first = self._ledger.settle(permit.key, made)
        except Refused:  # another model took the step meanwhile: this one never leaves
            self._releases.drop(permit.key, made)
            raise
        if first != made:
            self._releases.drop(permit.key, made)
            return self._releases.again(permit.key, first)
        # Before it leaves: a ledger that forgets it is known by this line.
        self._audit.append("release.settled", key=permit.key, ledger=self._ledger.head)
        return envelope

    def _withhold_few(self, permit: Permit, computed: Computed) -> None:
        """Totals about too few recipients never leave, by their own noised counts."""
        policy, plan, arrays = self._judge.policy(), permit.plan, computed.arrays
        few = too_few_counted if plan.noise_once else too_few
        if few(policy, plan, arrays["counts" if plan.noise_once else "totals"]):
            self._ledger.withhold(permit.key)
            self._audit.append(
                "release.withheld",
                key=permit.key,
                plan=permit.plan.digest,
                step=permit.step,
                ledger=self._ledger.head,
            )
            raise Refused("an arm or cell counts too few recipients, with noise", code="too-few")

    def _expire(self, policy: Policy) -> None:
        """Let go of releases that the policy keeps no longer: the ledger says so first."""
        oldest = self._clock() - timedelta(days=policy.keep_releases_days)
        for key, made in self._ledger.kept_before(stamp(oldest)):
            self._ledger.expire(key)
            self._releases.drop(key, made)
            self._audit.append("release.expired", key=key, digest=made, ledger=self._ledger.head)

    def refuse(self, refused: Refused, envelope: bytes) -> bytes:
        """A signed refusal: the code, and which of the plan's own names it is about."""
        request = self._judge.claimed(envelope)
        head = self._audit.append(
            "request.refused",
            code=refused.code,
            step=request.step if request else "",
            plan=_plan_digest(request),
            **({"why": refused.why} if refused.code == "stale" and refused.why else {}),
        )
        refusal = Refusal.model_validate(
            {
                "silo": self._keys.site,
                "plan_digest": _plan_digest(request),
                "step": request.step if request else "",
                "code": refused.code,
                "about": refused.about,
                "head": head,
            }
        )
        return self._keys.sign("refusal", encode(refusal))

    def _reserve(self, judged: Judged, policy: Policy, holdings: Holdings) -> Permit:
        request, plan = judged.request, judged.plan
        expected = None
        before = self._before(plan, request.step, holdings.epoch)
        if not plan.noise_once and request.step != "totals":
            # 11, continued: the totals say how many recipients to expect
            expected = self._expected_recipients(plan, holdings.epoch)
        steps = plan_charges(plan)
        charged = self._ledger.reserve(  # 14
            plan_digest=plan.digest,
            plan_name=plan.name,
            purpose=plan.purpose,
            epoch=holdings.epoch,
            steps=steps,
            budgets=policy.budgets,
            erasures=holdings.erasures,
            once=once_of(plan, policy),
        )
        if charged:
            self._audit.append(
                "budget.reserved",
                plan=plan.digest,
                name=plan.name,
                person=judged.asker.who,
                approved_by=" ".join(judged.asker.approvers),
                ledger=self._ledger.head,
            )
        self._ledger.begin(  # 15
            plan_digest=plan.digest, epoch=holdings.epoch, step=request.step, key=judged.key
        )
        return Permit(
            plan=plan,
            step=request.step,
            key=judged.key,
            epoch=holdings.epoch,
            charges=steps[request.step],
            noise=noise_for(plan, request),
            lawful_bases=judged.bases,
            holdout_key=self._keys.derive(f"holdout:{plan.experiment}"),
            incoming=judged.incoming,
            expected_recipients=expected,
            relayed=judged.relayed,
            before=before,
            peers=policy.peers(plan),
            share=share_for(plan, policy, request.step),
            incoming_digest=request.incoming_digest,
            person=judged.asker.who,
            heard=judged.heard,
        )

    def _before(self, plan: Plan, step: str, epoch: str) -> dict[str, bytes]:
        """What this silo released for the earlier steps of the same sum, by role; noise once only.

        The counts, which come first of all, are asked for too: where they were withheld, nothing
        that follows is answered.
        """
        found: dict[str, bytes] = {}
        if not plan.noise_once:
            return found
        same = steps_of(sum_of(step)) if role_of(step) else ()
        for earlier in dict.fromkeys((plan.first_step, *same, step)):
            if earlier == step:
                break
            answered = self._ledger.answered(plan_digest=plan.digest, epoch=epoch, step=earlier)
            if answered is None:
                raise Refused(f"the {earlier} come first", code="order")
            key, given = answered
            if given.state != "kept":
                raise _gone(given)
            if earlier in same:
                found[role_of(earlier)] = self._releases.again(key, given.digest)
        return found

    def _expected_recipients(self, plan: Plan, epoch: str) -> float:
        """The noised count of recipients, from this plan's own totals release."""
        key = release_key(plan.digest, epoch, "totals", EMPTY_DIGEST)
        given = self._ledger.given(key)
        if given is None:
            raise Refused("the totals come first", code="order")
        if given.state != "kept":
            raise _gone(given)
        envelope = self._releases.again(key, given.digest)
        trusted = {self._keys.key_id: self._keys.public_key}
        opened = open_envelope(envelope, trusted, kind="release", where="own totals release")
        arrays = decode("release", opened.content, where="own totals release").arrays
        totals = unpack(arrays, expected_shapes(plan, "totals"), where="own totals release")
        return max(1.0, Layout.of(plan).recipients(totals["totals"]))

    def _header(self, permit: Permit, computed: Computed, arrays: bytes, head: str) -> Release:
        plan = permit.plan
        return Release(
            payload=computed.payload,
            silo=self._keys.site,
            plan_digest=plan.digest,
            step=permit.step,
            incoming_digest=permit.incoming_digest,
            key=permit.key,
            epoch=permit.epoch,
            simulated=plan.simulation is not None,
            noise={name: float(value) for name, value in computed.noise.items()},
            charged=permit.charges,
            budget=self._budget_view(plan),
            made_at=stamp(self._clock()),
            head=head,
            arrays_digest=sha256_hex(arrays),
        )

    def _budget_view(self, plan: Plan) -> BudgetView | None:
        policy = self._judge.policy()
        if not policy.show_budget:
            return None
        return BudgetView(
            epsilon_run=min(plan_epsilon(plan), plan.privacy.epsilon),
            epsilon_spent=self._ledger.spent(policy.budget),
            epsilon_total=policy.budget.epsilon,
            delta=policy.budget.delta,
        )


def _gone(given: Given) -> Refused:
    """The no for an answer that never left, or is no longer kept."""
    if given.state == "withheld":
        return Refused("the totals of this plan were withheld", code="too-few")
    return Refused("the release is no longer kept", code="expired")


def _plan_digest(request: Request | None) -> str:
    return sha256_hex(request.plan.encode()) if request else ""
