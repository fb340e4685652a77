"""The permit: what the gate hands out once a request is judged and its charge is durable.

Whatever computes on rows takes a permit and reads only what the permit's plan declares. Only the
gate makes one (`abfed.silo.gate`), after the charge is on disk; so there is no computation for
others that was not paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from abfed.privacy.mechanisms import Noise
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import EMPTY_DIGEST, Charge, Payload
from abfed.protocol.plan import Plan


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a silo holds, in names that its own people declared. No figure of it comes from a row.

    Attributes:
        epoch: the state of the data, hex.
        experiments: declared arms by experiment.
        outcomes: outcome columns.
        features: kind ("numeric" or "category") by feature.
        erasures: how many erasures changed the data so far.
    """

    epoch: str
    experiments: Mapping[str, tuple[str, ...]]
    outcomes: tuple[str, ...]
    features: Mapping[str, str]
    erasures: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to compute one step of one plan on one state of the data.

    Attributes:
        plan: the plan, as judged.
        step: the step of the plan.
        key: idempotency key of the release to come, hex.
        epoch: the state of the data that it is for, hex.
        charges: the privacy events that were reserved for this step.
        noise: where the noise comes from.
        lawful_bases: bases that the silo's policy accepts for the plan's purpose.
        holdout_key: secret of the silo that decides who is kept for evaluation.
        incoming: the model's arrays, by name; empty for totals. Released, not sensitive.
        expected_recipients: noised count of recipients from this plan's own totals release;
            None for totals. Released, not sensitive.
        relayed: what came with the request of other silos' envelopes, unverified; noise once only.
        before: this silo's own releases of the plan's earlier steps, by step; noise once only.
        peers: pinned public keys of the plan's other silos; noise once only.
        share: the noise multiplier that this silo adds to sums over all silos; 0 for noise each.
        incoming_digest: of what came with the request, hex.
        person: who asked, with the site whose word it is.
        heard: who asked, by key id, and the head of their audit log: kept in ours (S21).
    """

    plan: Plan
    step: str
    key: str
    epoch: str
    charges: tuple[Charge, ...]
    noise: Noise
    lawful_bases: tuple[str, ...]
    holdout_key: bytes = field(repr=False)
    incoming: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    expected_recipients: float | None = None
    relayed: bytes = field(default=b"", repr=False)
    before: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    peers: Mapping[str, bytes] = field(default_factory=dict)
    share: float = 0.0
    incoming_digest: str = EMPTY_DIGEST
    person: str = ""
    heard: str = ""

    def charge(self, event: Literal["gaussian", "sampled-gaussian"]) -> Charge:
        """The one charge of this kind that was reserved.

        Raises:
            IntegrityError: there is none, or more than one.
        """
        charges = [charge for charge in self.charges if charge.event == event]
        if len(charges) != 1:
            raise IntegrityError(f"the permit holds no single {event} charge", where=self.step)
        return charges[0]


@dataclass(frozen=True, slots=True)
class Computed:
    """What a computation hands back to the gate: noised already, not yet released.

    Attributes:
        payload: the kind of release it becomes.
        arrays: noised arrays by name.
        noise: public parameters of the noise, by name.
    """

    payload: Payload
    arrays: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    noise: Mapping[str, float]
