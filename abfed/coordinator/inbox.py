"""The inbox: what is believed of what silos answer. Logic only; it opens and writes nothing.

An answer is believed if all of this holds, checked in this order:

1. It is no larger than the largest answer to its step.
2. It is signed by the pinned key of the silo that was asked: the key of one silo can't answer for
   another, and nothing of an envelope is read before its signature holds.
3. It is a release or a refusal of our version of the protocol, made by that silo.
4. It answers this plan, this step and this incoming model: an answer to anything else, such as one
   that is played again from an earlier round, is not an answer.
5. Its payload is the kind that the step asks for.
6. It says it is simulated if, and only if, the plan is a simulation.
7. It was computed on the state of the data that the run is bound to: a silo's data can't change
   between the totals and the last round.
8. Its arrays are the expected ones: names, types, shapes, and every number finite.
9. An honest silo can have said it (`abfed.coordinator.plausible`).

A refusal is believed after 4; one that says the silo speaks another version may be in that version.
Anything else raises `IntegrityError`; no rule can be waived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from abfed.coordinator.plausible import check_said
from abfed.learning.shapes import as_given, release_shapes, summed_shapes
from abfed.privacy.once import role_of
from abfed.protocol import tensors
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import MAX_HEAD, key_id, open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import (
    MAX_HEADER,
    PROTOCOL_VERSION,
    READ_VERSIONS,
    Refusal,
    Release,
    Request,
    decode,
    payload_of,
    release_key,
)
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape

UNCHARGED = ("shares", "answered", "opening")
"""Payloads of noise once that hold nothing of the data."""

Shapes = Callable[[str], Mapping[str, Shape]]
"""What the arrays of a step's release look like."""

_SLACK = 65_536  # bytes for magic, lengths and the arrays' own header, per array 256 more


class Accepted:
    """A release that was believed.

    Args:
        release: its header.
        arrays: its noised arrays by name. Released.
        envelope: the bytes as they came, for keeping.
    """

    __slots__ = ("_arrays", "_envelope", "digest", "release")

    def __init__(
        self, release: Release, arrays: Mapping[str, npt.NDArray[Any]], envelope: bytes
    ) -> None:
        self.release = release
        self.digest = sha256_hex(envelope)
        self._arrays = arrays
        self._envelope = envelope

    def __repr__(self) -> str:
        """Whose it is, and of which step."""
        return f"Accepted({self.release.silo!r}, {self.release.step!r})"

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Its noised arrays by name. Released."""
        return self._arrays

    @property
    def envelope(self) -> bytes:
        """The bytes as they came."""
        return self._envelope


def expected_shapes(plan: Plan, step: str) -> Mapping[str, Shape]:
    """What the arrays of a step's release look like; both sides derive it from the plan."""
    if plan.noise_once and role_of(step):
        from abfed.stats.once import once_shapes  # noqa: PLC0415 - brings scipy

        return summed_shapes(plan) if step.startswith("train-") else once_shapes(plan, step)
    if step == "totals":
        from abfed.stats.totals import Layout  # noqa: PLC0415 - brings scipy

        return {"totals": Shape("int64", Layout.of(plan).shape)}
    return release_shapes(plan, step)


class Inbox:
    """Judges answers to one plan.

    Args:
        trusted: pinned public key (32 raw bytes) of each silo; an empty mapping believes nobody.
        plan: what was asked.
        shapes: expected arrays of a step's release.
    """

    def __init__(self, trusted: Mapping[str, bytes], plan: Plan, shapes: Shapes) -> None:
        self._trusted = dict(trusted)
        self._plan = plan
        self._digest = plan.digest
        self._shapes = shapes
        self._epochs: dict[str, str] = {}

    def signer(self, silo: str) -> str:
        """The name of the key that a silo's answers must be signed by."""
        return key_id(self._trusted[silo])

    def bind(self, epochs: Mapping[str, str]) -> None:
        """Bind the run to the state of each silo's data, as its totals named it.

        Raises:
            IntegrityError: the run is bound to another state already.
        """
        for silo, epoch in epochs.items():
            if self._epochs.setdefault(silo, epoch) != epoch:
                raise IntegrityError("the silo's data changed within the run", where=silo)

    def accept(
        self, silo: str, step: str, incoming_digest: str, envelope: bytes
    ) -> Accepted | Refusal:
        """Judge one answer.

        Args:
            silo: who was asked.
            step: which step it was asked for.
            incoming_digest: digest of the arrays that went with the request.
            envelope: the answer, unverified.

        Raises:
            IntegrityError: the first rule that doesn't hold.
        """
        where = f"{silo}, {step}"
        expected = self._shapes(step)
        _check_size(envelope, expected, where)
        kind, content = self._open(silo, envelope, where)
        header, arrays = decode(kind, content, where=where)
        if isinstance(header, Request):
            raise IntegrityError("a request is not an answer", where=where)
        another = header.version not in READ_VERSIONS
        if another and not (isinstance(header, Refusal) and header.code == "version"):
            raise IntegrityError(
                "it speaks another version of the protocol",
                where=where,
                why=f"version {header.version}, and we speak {PROTOCOL_VERSION}",
                do="read it with the abfed that it was made with, or upgrade the older site",
            )
        if header.silo != silo:
            raise IntegrityError("it was made by another silo", where=where)
        if isinstance(header, Refusal):
            self._check_refusal(header, step, where)
            return header
        self._check_question(header, step, incoming_digest, where)
        self._check_origin(header, silo, step, where)
        self._check_claims(header, where)
        unpacked = tensors.unpack(arrays, as_given(expected, header.version), where=where)
        check_said(self._plan, header, unpacked, where)
        return Accepted(header, unpacked, envelope)

    def _open(self, silo: str, envelope: bytes, where: str) -> tuple[str, bytes]:
        """Kind and content, signed by this silo's own key."""
        public_key = self._trusted.get(silo)
        if public_key is None:
            raise IntegrityError("no key is pinned for this silo", where=where)
        opened = open_envelope(envelope, {key_id(public_key): public_key}, where=where)
        if opened.kind not in ("release", "refusal"):
            raise IntegrityError(f"a {opened.kind} is not an answer", where=where)
        return opened.kind, opened.content

    def _check_refusal(self, refusal: Refusal, step: str, where: str) -> None:
        """A silo that couldn't read the request can't name what it refuses, and leaves it empty."""
        if refusal.plan_digest not in ("", self._digest) or refusal.step not in ("", step):
            raise IntegrityError("it refuses something else", where=where)
        if refusal.about and refusal.about not in self._plan.names():
            raise IntegrityError("it refuses a name that the plan doesn't hold", where=where)

    def _check_question(
        self, release: Release, step: str, incoming_digest: str, where: str
    ) -> None:
        if release.plan_digest != self._digest:
            raise IntegrityError("it answers another plan", where=where)
        if release.step != step:
            raise IntegrityError("it answers another step", where=where)
        if release.incoming_digest != incoming_digest:
            raise IntegrityError("it answers for another model", where=where)

    def _check_claims(self, release: Release, where: str) -> None:
        question = (self._digest, release.epoch, release.step, release.incoming_digest)
        if release.key != release_key(*question):
            raise IntegrityError("its key is not that of the question", where=where)
        claimed = release.noise.get("noise_multiplier")
        if self._plan.privacy.unprotected:  # asked for without noise, of made-up people
            if claimed != 0.0 or release.charged:
                raise IntegrityError("it was asked for without noise", where=where)
            return
        uncharged = payload_of(release.step) in UNCHARGED or release.step.startswith("keys-")
        if uncharged:  # nobody's data are in it
            if claimed is not None or release.charged:
                raise IntegrityError("there is nothing to noise or to charge", where=where)
            return
        if not release.charged or claimed != release.charged[0].noise_multiplier:
            raise IntegrityError("its noise is not what it says was charged", where=where)

    def _check_origin(self, release: Release, silo: str, step: str, where: str) -> None:
        if release.payload != payload_of(step):
            raise IntegrityError("its payload is not what the step asks for", where=where)
        if release.simulated != (self._plan.simulation is not None):
            raise IntegrityError(
                "it is simulated and the plan is not, or the other way round", where=where
            )
        bound = self._epochs.get(silo)
        if bound is None and step != self._plan.first_step:
            raise IntegrityError("the run has no totals of this silo", where=where)
        if bound is not None and release.epoch != bound:
            raise IntegrityError("the silo's data changed within the run", where=where)


def _check_size(envelope: bytes, expected: Mapping[str, Shape], where: str) -> None:
    size = sum(
        int(np.prod(shape.shape)) * np.dtype(shape.dtype).itemsize + 256
        for shape in expected.values()
    )
    if len(envelope) > size + MAX_HEADER + MAX_HEAD + _SLACK:
        raise IntegrityError("it is larger than any answer to this step", where=where)
