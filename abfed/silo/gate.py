"""The gate: the only way out of a silo.

A request is judged in this order, and the first no ends it:

 1. its signature is by a coordinator whose key the policy pins (S6);
 2. it is a request, in this version of the protocol;
 3. it is fresh, and was not seen before;
 4. it is for this silo, and its plan names this silo;
 5. a simulation plan asks a synthetic brand;
 6. the purpose is allowed (S1);
 7. columns, bounds, experiment and arms are allowed and here;
 8. the plan alone asks for no more than one plan may;
 9. the step is one of the plan's, the model that comes with it too, and the totals come first;
10. answered already under the same key: the same release again, at no charge;
11. the budget covers it: reserved, durably;
12. the step is given to this key, durably. Only now there is a permit.

What was computed is released in this order: it is of the kind, shapes and noise that were reserved,
and finite; it is logged, signed, sealed on disk, settled; then it leaves. A crash at any point
leaves the charge and gives nothing away; the next attempt completes under the same charge.

The gate judges values. It cannot fetch rows.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.learning.shapes import LARGEST_PARAMETER, model_shapes, release_shapes
from abfed.privacy.charges import plan_charges, plan_epsilon
from abfed.privacy.mechanisms import Noise, SystemNoise, UnsafeSeededNoise
from abfed.protocol.canonical import digest, sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import AbfedError, InputError, IntegrityError, PlanError, Refused
from abfed.protocol.messages import (
    EMPTY_DIGEST,
    PROTOCOL_VERSION,
    BudgetView,
    Refusal,
    Release,
    Request,
    decode,
    encode,
    payload_of,
    release_key,
)
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape, pack, shapes_of, unpack
from abfed.silo.ledger import Ledger
from abfed.silo.permit import Computed, Holdings, Permit
from abfed.silo.policy import Policy
from abfed.silo.releases import Releases
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, moment_of, stamp, system_clock
from abfed.site.keys import SiteKeys
from abfed.stats.totals import Layout

FRESHNESS = timedelta(seconds=300)
"""How far a request's time may be from the silo's clock, either way."""


class Judged(NamedTuple):
    """A request that passed checks 1 to 9."""

    request: Request
    plan: Plan
    bases: tuple[str, ...]
    incoming: dict[str, npt.NDArray[Any]]
    key: str


class Answered(NamedTuple):
    """A request that was answered before: the same release again."""

    envelope: bytes


def expected_shapes(plan: Plan, step: str) -> dict[str, Shape]:
    """What the arrays that answer a step must look like."""
    if step == "totals":
        return {"totals": Shape("int64", Layout.of(plan).shape)}
    return release_shapes(plan, step)


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
        self._policy_path = policy_path
        self._ledger = ledger
        self._releases = releases
        self._audit = audit
        self._clock = clock
        self._seen: dict[str, str] = {}

    def admit(self, envelope: bytes, holdings: Holdings) -> Permit | Answered:
        """Judge a request, reserve its charge, and hand out a permit.

        Raises:
            Refused: with the code of the check that said no.
            IntegrityError: something of the silo itself is damaged.
        """
        policy = self._policy()
        request, arrays = self._read(envelope, policy)
        judged = self._judge(request, arrays, policy, holdings)
        given = self._ledger.released(judged.key)
        if given is not None:  # 10
            self._audit.append("release.again", key=judged.key, digest=given)
            return Answered(self._releases.again(judged.key, given))
        return self._reserve(judged, policy, holdings)

    def release(self, permit: Permit, computed: Computed) -> bytes:
        """Check what was computed, settle it and sign it.

        Raises:
            IntegrityError: it is not what the permit was given for.
        """
        expected = expected_shapes(permit.plan, permit.step)
        if computed.payload != payload_of(permit.step) or shapes_of(computed.arrays) != expected:
            raise IntegrityError("the result is not of the reserved kind", where=permit.step)
        if not all(np.isfinite(array).all() for array in computed.arrays.values()):
            raise IntegrityError("the result is not finite", where=permit.step)
        _check_noise(permit, computed)
        arrays = pack(computed.arrays)
        head = self._audit.append(
            "release.made",
            key=permit.key,
            plan=permit.plan.digest,
            step=permit.step,
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
        return envelope

    def refuse(self, refused: Refused, envelope: bytes) -> bytes:
        """A signed refusal: the code and nothing else."""
        request = self._claimed(envelope)
        head = self._audit.append(
            "request.refused",
            code=refused.code,
            step=request.step if request else "",
            plan=_plan_digest(request),
        )
        refusal = Refusal.model_validate(
            {
                "silo": self._keys.site,
                "plan_digest": _plan_digest(request),
                "step": request.step if request else "",
                "code": refused.code,
                "head": head,
            }
        )
        return self._keys.sign("refusal", encode(refusal))

    def _policy(self) -> Policy:
        try:
            policy = Policy.load(self._policy_path)
        except InputError as cause:
            raise Refused(cause.what, code="policy", where=cause.where, do=cause.do) from cause
        if policy.silo != self._keys.site:
            raise Refused(f"the policy is of {policy.silo!r}", code="policy")
        return policy

    def _read(self, envelope: bytes, policy: Policy) -> tuple[Request, bytes]:
        try:  # 1
            opened = open_envelope(envelope, policy.trusted_keys(), kind="request", where="request")
        except IntegrityError as cause:
            raise Refused(cause.what, code="untrusted") from cause
        try:  # 2
            decoded = decode("request", opened.content, where="request")
        except IntegrityError as cause:
            raise Refused(cause.what, code="version") from cause
        request = decoded.header
        if not isinstance(request, Request) or request.version != PROTOCOL_VERSION:
            raise Refused("another version of the protocol", code="version")
        now = self._clock()  # 3
        try:
            age = abs(now - moment_of(request.issued_at))
        except ValueError as cause:  # such as a 13th month
            raise Refused("the request has no time", code="stale") from cause
        if age > FRESHNESS or request.nonce in self._seen:
            raise Refused("the request is not fresh", code="stale")
        horizon = stamp(now - 2 * FRESHNESS)
        self._seen = {nonce: at for nonce, at in self._seen.items() if at > horizon}
        self._seen[request.nonce] = request.issued_at
        return request, decoded.arrays

    def _judge(self, request: Request, arrays: bytes, policy: Policy, holdings: Holdings) -> Judged:
        try:
            plan = Plan.from_canonical(request.plan.encode(), where="request")
        except IntegrityError as cause:
            raise Refused("the request holds no valid plan", code="version") from cause
        silo = self._keys.site
        if request.silo != silo or silo not in plan.silos:  # 4
            raise Refused("the plan does not name this silo", code="not-for-us")
        if plan.simulation is not None and not policy.synthetic:  # 5
            raise Refused("this silo holds real people", code="simulation")
        bases = policy.lawful_bases(plan)  # 6
        policy.check_columns(plan)  # 7
        _check_holdings(plan, holdings)
        policy.check_plan_budget(plan)  # 8
        try:  # 9; costs are counted last: a plan that asks for too much may be slow to count
            steps = plan_charges(plan)
        except PlanError as cause:
            raise Refused("the plan costs more than it says", code="version") from cause
        if request.step not in steps:
            raise Refused("the plan has no such step", code="order")
        incoming = _incoming(plan, request, arrays)
        key = release_key(plan.digest, holdings.epoch, request.step, request.incoming_digest)
        return Judged(request, plan, bases, incoming, key)

    def _reserve(self, judged: Judged, policy: Policy, holdings: Holdings) -> Permit:
        request, plan = judged.request, judged.plan
        expected = None
        if request.step != "totals":  # 9, continued: the totals say how many recipients to expect
            expected = self._expected_recipients(plan, holdings.epoch)
        steps = plan_charges(plan)
        charged = self._ledger.reserve(  # 11
            plan_digest=plan.digest,
            plan_name=plan.name,
            purpose=plan.purpose,
            epoch=holdings.epoch,
            steps=steps,
            budget=policy.budget,
        )
        if charged:
            self._audit.append(
                "budget.reserved", plan=plan.digest, name=plan.name, ledger=self._ledger.head
            )
        self._ledger.begin(  # 12
            plan_digest=plan.digest, epoch=holdings.epoch, step=request.step, key=judged.key
        )
        return Permit(
            plan=plan,
            step=request.step,
            key=judged.key,
            epoch=holdings.epoch,
            charges=steps[request.step],
            noise=_noise(plan, request),
            lawful_bases=judged.bases,
            holdout_key=self._keys.derive(f"holdout:{plan.experiment}"),
            incoming=judged.incoming,
            expected_recipients=expected,
        )

    def _expected_recipients(self, plan: Plan, epoch: str) -> float:
        """The noised count of recipients, from this plan's own totals release."""
        key = release_key(plan.digest, epoch, "totals", EMPTY_DIGEST)
        given = self._ledger.released(key)
        if given is None:
            raise Refused("the totals come first", code="order")
        envelope = self._releases.again(key, given)
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
            incoming_digest=sha256_hex(pack(permit.incoming)),
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
        policy = self._policy()
        if not policy.show_budget:
            return None
        return BudgetView(
            epsilon_run=plan_epsilon(plan),
            epsilon_spent=self._ledger.spent_epsilon(policy.budget.delta),
            epsilon_total=policy.budget.epsilon,
            delta=policy.budget.delta,
        )

    def _claimed(self, envelope: bytes) -> Request | None:
        """The request that is refused, where its signature held."""
        try:
            trusted = self._policy().trusted_keys()
            opened = open_envelope(envelope, trusted, kind="request", where="request")
            header = decode("request", opened.content, where="request").header
        except AbfedError:
            return None  # nothing of unverified bytes is repeated, not even in a log
        return header if isinstance(header, Request) else None


def _plan_digest(request: Request | None) -> str:
    return sha256_hex(request.plan.encode()) if request else ""


def _incoming(plan: Plan, request: Request, arrays: bytes) -> dict[str, npt.NDArray[Any]]:
    """The model that came with a request, checked."""
    expected = {} if request.step == "totals" else model_shapes(plan)
    try:
        incoming = unpack(arrays, expected, where="request")
    except IntegrityError as cause:
        raise Refused("the model is not the plan's", code="version") from cause
    if any(np.abs(array).max(initial=0.0) > LARGEST_PARAMETER for array in incoming.values()):
        raise Refused("the model has parameters out of bounds", code="version")
    return incoming


def _check_holdings(plan: Plan, holdings: Holdings) -> None:
    """Refuse what isn't here, by the names that the silo's own people declared."""
    for column in plan.outcome_columns():
        if column not in holdings.outcomes:
            raise Refused(f"outcome {column!r} is not held here", code="columns")
    for feature in plan.features:
        if holdings.features.get(feature.name) != feature.kind:
            raise Refused(f"{feature.kind} feature {feature.name!r} is not held", code="columns")
    arms = holdings.experiments.get(plan.experiment)
    if arms is None:
        raise Refused(f"experiment {plan.experiment!r} is not held here", code="population")
    unknown = [arm.name for arm in plan.arms if arm.name not in arms]
    if unknown:
        raise Refused(f"arm {unknown[0]!r} is not in this experiment", code="population")


def _check_noise(permit: Permit, computed: Computed) -> None:
    """Refuse a result whose noise, sampling or steps aren't those that were reserved."""
    first = permit.charges[0]
    reserved = {"noise_multiplier": first.noise_multiplier}
    if computed.payload == "training":
        reserved["sampling_rate"] = first.sampling_rate
        reserved["steps"] = float(first.count)
        reserved["evaluation_noise_multiplier"] = permit.charge("gaussian").noise_multiplier
    if any(computed.noise.get(name) != value for name, value in reserved.items()):
        raise IntegrityError("the noise is not what was reserved", where=permit.step)


def _noise(plan: Plan, request: Request) -> Noise:
    """The operating system's noise; seeded only for a simulation, which check 5 let in."""
    if plan.simulation is None:
        return SystemNoise()
    asked = [plan.simulation.seed, plan.digest, request.silo, request.step]
    return UnsafeSeededNoise(int(digest([*asked, request.incoming_digest])[:32], 16))
