"""Judging a request: the first eleven of the gate's checks, in the gate's order.

Nothing here spends, computes or writes. A request is text of somebody else's until its signature
held (check 1), and a question that this silo may answer once all eleven did. `abfed.silo.gate`
lists them and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abfed.learning.shapes import LARGEST_PARAMETER, model_shapes, names_of
from abfed.privacy.charges import plan_charges
from abfed.privacy.once import MODEL, carried_with, role_of
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import AbfedError, InputError, IntegrityError, PlanError, Refused
from abfed.protocol.messages import PROTOCOL_VERSION, Request, decode, release_key
from abfed.protocol.plan import Plan
from abfed.protocol.relayed import unpack_lists
from abfed.protocol.tensors import unpack
from abfed.silo.access import Access
from abfed.silo.disclosure import check_declared_sizes
from abfed.silo.permit import Holdings
from abfed.silo.policy import Policy
from abfed.site.access import Asker
from abfed.site.audit import AuditLog
from abfed.site.checkups import Checkups
from abfed.site.clock import Clock, moment_of, stamp
from abfed.site.freezes import Freezes
from abfed.site.keys import SiteKeys
from abfed.site.vendors import Vendors, key_service

FRESHNESS = timedelta(seconds=300)
"""How far a request's time may be from the silo's clock, either way."""


class Judged(NamedTuple):
    """A request that passed checks 1 to 11."""

    request: Request
    asker: Asker
    plan: Plan
    bases: tuple[str, ...]
    incoming: dict[str, npt.NDArray[Any]]
    key: str
    heard: str = ""
    relayed: bytes = b""


class Judge:
    """Judges requests for one silo.

    Args:
        keys: the silo's keys.
        policy_path: the policy, read again for each request.
        audit: the silo's log, which must hold what it showed before.
        clock: where the time comes from.
    """

    def __init__(self, keys: SiteKeys, policy_path: Path, audit: AuditLog, clock: Clock) -> None:
        self._keys = keys
        self._audit = audit
        self._policy_path = policy_path
        self._clock = clock
        self._access = Access(keys, policy_path.parent, clock)
        self._checkups = Checkups(policy_path.parent, keys)
        self._freezes = Freezes(policy_path.parent, keys, clock)
        self._vendors = Vendors(policy_path.parent, keys, audit, clock)
        self._seen: dict[str, str] = {}

    def policy(self) -> Policy:
        """The policy as it is now.

        Raises:
            Refused: there is none that holds, so nothing is allowed.
        """
        try:
            policy = Policy.load(self._policy_path)
        except InputError as cause:
            raise Refused(cause.what, code="policy", where=cause.where, do=cause.do) from cause
        if policy.silo != self._keys.site:
            raise Refused(f"the policy is of {policy.silo!r}", code="policy")
        return policy

    def judge(self, envelope: bytes, policy: Policy, holdings: Holdings) -> Judged:
        """Checks 1 to 11.

        Raises:
            Refused: with the code of the check that said no.
        """
        request, arrays, signer = self._read(envelope, policy)
        self._freezes.check({"silo": self._keys.site, "key": signer})  # 4
        if not self._audit.knows(request.known_head):
            raise Refused("the log lacks a head that the coordinator saw", code="rolled-back")
        judged = self._may_ask(request, arrays, policy, holdings)
        return judged._replace(heard=f"{signer}:{request.head}")

    def check_frozen(self, plans: Iterable[str], models: Iterable[str]) -> None:
        """Refuse a silo, plan or model that is frozen because of an incident (S15).

        Args:
            plans: digests of a plan.
            models: digests of a model, as a registry and as a silo name it.

        Raises:
            Refused: one of them is.
        """
        self._freezes.check({"silo": self._keys.site})
        for plan in plans:
            self._freezes.check({"plan": plan})
        for model in models:
            self._freezes.check({"model": model})

    def _incoming(self, plan: Plan, step: str, arrays: bytes) -> dict[str, npt.NDArray[Any]]:
        """The model that came with a request, checked, and not frozen by either of its names."""
        incoming = _incoming(plan, step, arrays)
        if incoming and any(one.kind == "model" for one in self._freezes.list()):
            self.check_frozen((), names_of(incoming))
        return incoming

    def _check_key_service(self) -> None:
        """Refuse while this silo's keys lie with a vendor who may not be used now (S16)."""
        address = key_service(self._keys.kms)
        if not address:
            return
        try:
            self._vendors.require("keys", address)
        except Refused as cause:
            raise Refused(cause.what, code="frozen", do=cause.do) from cause

    def claimed(self, envelope: bytes) -> Request | None:
        """The request that is refused, where its signature held."""
        try:
            trusted = self.policy().trusted_keys()
            opened = open_envelope(envelope, trusted, kind="request", where="request")
            header = decode("request", opened.content, where="request").header
        except AbfedError:
            return None  # nothing of unverified bytes is repeated, not even in a log
        return header if isinstance(header, Request) else None

    def _read(self, envelope: bytes, policy: Policy) -> tuple[Request, bytes, str]:
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
            ahead = moment_of(request.issued_at) - now
        except ValueError as cause:  # such as a 13th month
            raise Refused("the request has no time", code="stale") from cause
        if abs(ahead) > FRESHNESS:
            why = f"its time is {ahead.total_seconds() / 60:+.1f} minutes from this site's"
            raise Refused("the request is not fresh", code="stale", why=why)
        if request.nonce in self._seen:
            raise Refused("the request is not fresh", code="stale", why="it was seen before")
        horizon = stamp(now - 2 * FRESHNESS)
        self._seen = {nonce: at for nonce, at in self._seen.items() if at > horizon}
        self._seen[request.nonce] = request.issued_at
        return request, decoded.arrays, opened.key_id

    def _may_ask(
        self, request: Request, arrays: bytes, policy: Policy, holdings: Holdings
    ) -> Judged:
        try:
            plan = Plan.from_canonical(request.plan.encode(), where="request")
        except IntegrityError as cause:
            raise Refused("the request holds no valid plan", code="version") from cause
        silo = self._keys.site
        if request.silo != silo or silo not in plan.silos:  # 4
            raise Refused("the plan does not name this silo", code="not-for-us")
        self._freezes.check({"plan": plan.digest})
        self._checkups.require(policy.checkup_within_days, self._clock())
        self._check_key_service()
        asker = self._access.judge(request.presented, plan, policy, holdings.epoch)  # 5, 6
        self._freezes.check({"key": asker.signer})
        made_up_only = plan.simulation is not None or plan.privacy.unprotected
        if made_up_only and not policy.synthetic:  # 7
            raise Refused("this silo holds real people", code="simulation")
        bases = policy.lawful_bases(plan)  # 8
        policy.check_columns(plan)  # 9
        policy.peers(plan)
        _check_holdings(plan, holdings)
        check_declared_sizes(policy, plan)
        policy.check_plan_budget(plan)  # 10
        try:  # 11; costs are counted last: a plan that asks for too much may be slow to count
            steps = plan_charges(plan)
        except PlanError as cause:
            raise Refused("the plan costs more than it says", code="version") from cause
        if plan.analysis.sequential is not None and not plan.analysis.wave:
            raise Refused("a plan with waves asks for one of them", code="order")
        if request.step not in steps:
            raise Refused("the plan has no such step", code="order")
        key = release_key(plan.digest, holdings.epoch, request.step, request.incoming_digest)
        if plan.noise_once and role_of(request.step):
            # other silos' envelopes: read by `silo.together`, under the permit
            incoming = self._carried(plan, request, arrays)
            return Judged(request, asker, plan, bases, incoming, key, relayed=arrays)
        incoming = self._incoming(plan, request.step, arrays)
        return Judged(request, asker, plan, bases, incoming, key)

    def _carried(self, plan: Plan, request: Request, arrays: bytes) -> dict[str, npt.NDArray[Any]]:
        """The model that travels among lists of envelopes; nothing where none does."""
        lists = carried_with(request.step)
        if MODEL not in lists:
            return {}
        try:
            carried = unpack_lists(arrays, lists, where="request")[MODEL]
        except IntegrityError as cause:
            raise Refused(cause.what, code="version") from cause
        if set(carried) != {MODEL}:
            raise Refused("there is no one model among the lists", code="version")
        return self._incoming(plan, request.step, carried[MODEL])


def _incoming(plan: Plan, step: str, arrays: bytes) -> dict[str, npt.NDArray[Any]]:
    """The model that came with a request, checked."""
    expected = {} if step == "totals" else model_shapes(plan)
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
            raise Refused(f"outcome {column!r} is not held here", code="columns", about=column)
    for text in plan.model.texts if plan.model else ():
        if holdings.features.get(text.name) != "category":
            raise Refused(f"text {text.name!r} is not held", code="columns", about=text.name)
    for feature in plan.features:
        if holdings.features.get(feature.name) != feature.kind:
            raise Refused(
                f"{feature.kind} feature {feature.name!r} is not held",
                code="columns",
                about=feature.name,
            )
    arms = holdings.experiments.get(plan.experiment)
    if arms is None:
        raise Refused(
            f"experiment {plan.experiment!r} is not held here",
            code="population",
            about=plan.experiment,
        )
    unknown = [arm.name for arm in plan.arms if arm.name not in arms]
    if unknown:
        raise Refused(
            f"arm {unknown[0]!r} is not in this experiment", code="population", about=unknown[0]
        )
