"""This silo's part in a sum that is noised once: keys, shares, a masked value, an opening.

A plan has one such sum for its totals, and one for each round of training: five steps each, with
keys of their own, so that what is opened of one says nothing of another.

What other silos said comes through the coordinator, who is not trusted with it:

1. Each envelope is verified against the key that this silo's own policy pins, and must be a release
   of that silo for this plan and the step it is said to be of. Its own must be the one it made.
2. A silo answers a step for one list only: the ledger gives a step to one key, and the list's
   digest is in the key. What is built on a list (shares on keys, masked values on shares) names its
   digest, so that all who build on it saw the same, or the sum doesn't open.
3. It masks towards every silo whose shares it has; these are at least as many as must be in the
   sum. Its mask's seed and agreement key are made from its root for one plan on one state of the
   data: the ledger lets them hide one value only.
4. It says whose masked values it saw (`answered`) once, for at least as many as must be in the sum.
   It gives shares when `needed` silos said the same: two such groups have an honest silo in common,
   so there is one list in the world, and nobody gets both kinds of share of a silo.
5. Which share it gave for whom is settled in the ledger before it leaves, as any release: asked
   again, after a crash too, it gives the same again or nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from abfed.privacy.once import (
    AGREED,
    OWN,
    SEALED_BYTES,
    SHARE_BYTES,
    UNKNOWN,
    bound_to,
    carried_with,
    mask_context,
    needed,
    place_of,
    sealing_context,
    step_of,
    sum_of,
)
from abfed.privacy.secure_sum import Words, agreed_seed, masked, shared_out
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import IntegrityError, Refused
from abfed.protocol.messages import READ_VERSIONS, Release, decode, release_key
from abfed.protocol.relayed import pack_lists, unpack_lists
from abfed.protocol.sealing import seal, unseal
from abfed.protocol.tensors import Arrays, unpack
from abfed.silo.permit import Computed, Permit
from abfed.silo.recipients import Recipients
from abfed.silo.releasing import expected_shapes
from abfed.site.keys import SiteKeys
from abfed.stats.encoding import SCALE, Integers
from abfed.stats.once import weights_of

Bytes = npt.NDArray[np.uint8]


class Heard(NamedTuple):
    """What another silo released, its signature checked."""

    header: Release
    arrays: Arrays


def count_arms(permit: Permit, tables: Iterable[pa.Table]) -> Integers:
    """Recipients in each arm. Sensitive."""
    names = tuple(arm.name for arm in permit.plan.arms)
    counts = np.zeros(len(names), dtype=np.int64)
    for table in tables:
        if table.num_rows:
            arms = Recipients(table, permit.plan).arms(names)
            counts += np.bincount(arms, minlength=len(names))[: len(names)]
    return counts


class Party:
    """This silo in one sum.

    Args:
        permit: for one step of a plan with noise once.
        keys: the silo's.

    Raises:
        Refused: a list isn't what it must be, or names a silo whose key isn't pinned.
    """

    def __init__(self, permit: Permit, keys: SiteKeys) -> None:
        self._permit = permit
        self._plan = permit.plan
        self._site = keys.site
        self._number = sum_of(permit.step)
        question = f"{permit.plan.digest}:{permit.epoch}:{step_of('masked', self._number)}"
        self._mask_key, self._share_key = (
            X25519PrivateKey.from_private_bytes(keys.derive(f"noise-once:{use}:{question}"))
            for use in ("masks", "shares")
        )
        self._own_seed = keys.derive(f"noise-once:own:{question}")
        self._trusted = {**permit.peers, keys.site: keys.public_key}
        self._lists = self._read_lists()

    def announce(self, counts: Integers | None = None) -> Computed:
        """Step `keys`: public keys for this sum only; before the totals also counts by arm.

        Args:
            counts: recipients by arm, not noised yet; of the totals only. Sensitive.
        """
        rows = [
            self._mask_key.public_key().public_bytes_raw(),
            self._share_key.public_key().public_bytes_raw(),
            bound_to(self._own_seed),
        ]
        public = np.stack([_bytes(row) for row in rows])
        if counts is None:
            return Computed("keys", {"keys": public}, {})
        sigma = self._permit.charge("gaussian").noise_multiplier
        noised = self._permit.noise.integers(counts * SCALE, sigma * SCALE)
        said = {"noise_multiplier": sigma, "scale": float(SCALE)}
        return Computed("keys", {"counts": noised, "keys": public}, said)

    def share_out(self) -> Computed:
        """Step `shares`: both secrets in shares, each sealed to its holder."""
        heard = self._heard("keys")
        self._enough(heard)
        many = needed(len(heard), self._plan.privacy.colluders)
        silos = sorted(self._plan.silos)
        secrets_ = (self._own_seed, self._mask_key.private_bytes_raw())
        own, agreed = (shared_out(one, len(silos), many) for one in secrets_)
        sealed = np.zeros((len(silos), SEALED_BYTES), dtype=np.uint8)
        for place, silo in enumerate(silos):
            plain = own[place].value.to_bytes(SHARE_BYTES, "big")
            plain += agreed[place].value.to_bytes(SHARE_BYTES, "big")
            if silo in heard:
                blob = seal(self._seal_key(heard, silo), plain, name=f"{self._site}>{silo}")
            else:
                blob = secrets.token_bytes(SEALED_BYTES)
            sealed[place] = _bytes(blob)
        return Computed("shares", {"shares": sealed}, {})

    def weights(self) -> Integers:
        """What this silo multiplies its recipients of each arm with."""
        keys, sharing = self._heard("keys"), self._sharing()
        counts = {silo: keys[silo].arrays["counts"] for silo in sharing}
        return weights_of(self._plan, counts)[self._site]

    def mask(self, computed: Computed) -> Computed:
        """Steps `totals` and `train-…`: noised sums under the masks towards all who shared."""
        keys, sharing = self._heard("keys"), self._sharing()
        context = mask_context(self._plan.digest, self._number)
        seeds = {
            silo: self._agreed(self._mask_key, keys[silo].arrays["keys"][0], context, silo)
            for silo in sharing
            if silo != self._site
        }
        hidden: Words = masked(computed.arrays["masked"], self._site, seeds, self._own_seed)
        arrays = {**computed.arrays, "masked": hidden.view(np.int64)}
        return Computed(computed.payload, arrays, computed.noise)

    def confirm(self) -> Computed:
        """Step `answered`: whose masked values were seen."""
        heard = self._heard("masked")
        own = self._own("masked")
        for silo, one in heard.items():
            if one.header.incoming_digest != own.incoming_digest:
                raise _another(silo)
        self._enough(heard)
        flags = np.array([silo in heard for silo in sorted(self._plan.silos)], dtype=np.uint8)
        return Computed("answered", {"answered": flags}, {})

    def open(self) -> Computed:
        """Step `opening`: a share of one secret of each who shared, by whether they answered."""
        own = self._own("answered")
        keys, sharing, said = self._heard("keys"), self._sharing(), self._heard("answered")
        for silo, one in said.items():
            if one.header.incoming_digest != own.incoming_digest or silo not in keys:
                raise _another(silo)
        if self._site not in said:
            raise Refused("this silo isn't among those", code="peer", about=self._site)
        many = needed(len(keys), self._plan.privacy.colluders)
        if len(said) < many:
            raise Refused(f"{len(said)} of {many} silos say who answered", code="order")
        flags = said[self._site].arrays["answered"]
        kinds = np.full(len(flags), UNKNOWN, dtype=np.uint8)
        shares = np.zeros((len(flags), SHARE_BYTES), dtype=np.uint8)
        here = place_of(self._plan, self._site) - 1
        for silo, one in sharing.items():
            place = place_of(self._plan, silo) - 1
            sealed = one.arrays["shares"][here].tobytes()
            try:
                plain = unseal(self._seal_key(keys, silo), sealed, name=f"{silo}>{self._site}")
            except IntegrityError:
                continue  # it gave us none; others may hold enough
            kinds[place] = OWN if flags[place] else AGREED
            part = plain[:SHARE_BYTES] if flags[place] else plain[SHARE_BYTES:]
            shares[place] = _bytes(part)
        return Computed("opening", {"kinds": kinds, "shares": shares}, {})

    def _seal_key(self, keys: Mapping[str, Heard], silo: str) -> bytes:
        """What seals shares between this silo and another, either way; to itself as well."""
        context = sealing_context(self._plan.digest, self._number)
        return self._agreed(self._share_key, keys[silo].arrays["keys"][1], context, silo)

    def _agreed(self, own: X25519PrivateKey, public: Bytes, context: bytes, silo: str) -> bytes:
        """What this silo and another agree on.

        Raises:
            Refused: with such a key nothing is secret.
        """
        try:
            return agreed_seed(own, public.tobytes(), context, (self._site, silo))
        except ValueError as cause:
            raise Refused("nothing is secret with its key", code="peer", about=silo) from cause

    def _sharing(self) -> dict[str, Heard]:
        """Who gave shares on the same keys as this silo."""
        own, heard = self._own("shares"), self._heard("shares")
        if sha256_hex(pack_lists({"keys": self._lists["keys"]})) != own.incoming_digest:
            raise Refused("these aren't the keys that shares were given for", code="peer")
        for silo, one in heard.items():
            if one.header.incoming_digest != own.incoming_digest:
                raise _another(silo)
        self._enough(heard)
        return heard

    def _enough(self, silos: Collection[str]) -> None:
        """Refuse a list of fewer than must be in the sum, or without this silo.

        Raises:
            Refused: it is.
        """
        if self._site not in silos:
            raise Refused("this silo isn't among those", code="peer", about=self._site)
        if len(silos) < self._plan.minimum_silos:
            raise Refused(f"only {len(silos)} silos are left", code="order")

    def _own(self, role: str) -> Release:
        """What this silo answered before."""
        content = open_envelope(
            self._permit.before[role],
            {key_id(self._trusted[self._site]): self._trusted[self._site]},
            kind="release",
            where="own release",
        ).content
        header = decode("release", content, where="own release").header
        if not isinstance(header, Release):
            raise IntegrityError("an own release is of another kind", where=role)
        return header

    def _read_lists(self) -> dict[str, dict[str, bytes]]:
        wanted = carried_with(self._permit.step)
        if not wanted:
            return {}
        try:
            return unpack_lists(self._permit.relayed, wanted, where="request")
        except IntegrityError as cause:
            raise Refused(cause.what, code="version") from cause

    def _heard(self, role: str) -> dict[str, Heard]:
        """The releases of a list, each verified.

        Raises:
            Refused: one isn't by the pinned key of its silo, or not of this plan and step.
        """
        found: dict[str, Heard] = {}
        for silo, envelope in self._lists[role].items():
            if silo not in self._trusted or silo not in self._plan.silos:
                raise Refused("a silo whose key isn't pinned", code="peer")
            if silo == self._site and envelope != self._permit.before[role]:
                raise Refused("not what this silo answered", code="peer", about=silo)
            found[silo] = self._verified(silo, step_of(role, self._number), envelope)
        return found

    def _verified(self, silo: str, step: str, envelope: bytes) -> Heard:
        """One silo's release of this plan and step."""
        public = self._trusted[silo]
        where = f"{silo}, {step}"
        try:
            opened = open_envelope(envelope, {key_id(public): public}, kind="release", where=where)
            decoded = decode("release", opened.content, where=where)
            arrays = unpack(decoded.arrays, expected_shapes(self._plan, step), where=where)
        except IntegrityError as cause:
            raise Refused(cause.what, code="peer", about=silo) from cause
        header = decoded.header
        digest = self._plan.digest
        if (
            not isinstance(header, Release)
            or header.version not in READ_VERSIONS
            or header.silo != silo
            or (header.plan_digest, header.step) != (digest, step)
            or header.key != release_key(digest, header.epoch, step, header.incoming_digest)
        ):
            raise Refused("it is of another question", code="peer", about=silo)
        return Heard(header, arrays)


def _another(silo: str) -> Refused:
    return Refused("it answered for another list", code="peer", about=silo)


def _bytes(raw: bytes) -> Bytes:
    return np.frombuffer(raw, dtype=np.uint8)
