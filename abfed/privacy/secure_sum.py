"""Sums over silos of which nobody sees a part: masks, and noise that is added once (SecAgg+).

Pure functions: no network, no clock, no file. They are the arithmetic of "noise once" (Bonawitz et
al. 2017; Bell et al. 2020; Kairouz, Liu and Steinke 2021). `silo.together` is a silo's part in
it, `coordinator.together` the coordinator's; docs/noise-once.md says what is promised.

1. Values are whole numbers modulo 2⁶⁴, so a mask that is uniform hides them perfectly.
2. Each two silos agree on a seed: X25519, then HKDF-SHA256 over plan, step and both names. One adds
   the mask, the other subtracts it. Each silo adds a mask of its own besides.
3. Seeds are shared by Shamir among all silos. Of a silo that answered, its own mask is opened; of
   one that dropped out, what it agreed on with those who answered. Never both of one silo: both
   together open its value. The silo's ledger sees to that.
4. Each silo's noise is `share_of` what the sum needs, for as many silos as must answer and aren't
   colluding. The guarantee is that of the noise of the others: `sigma_left`.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

SEED_BYTES = 32
PRIME = 2**521 - 1
"""A Mersenne prime above all seeds: the field of the shares."""

TRIED = 2_000
"""Sets of shares of one secret, at most, where some are wrong."""


class Share(NamedTuple):
    """A point of a secret's polynomial: says nothing by itself."""

    at: int
    value: int


def agreed_seed(own: X25519PrivateKey, other: bytes, context: bytes, names: Iterable[str]) -> bytes:
    """The seed that two silos share for one question.

    Args:
        own: this silo's key, for this question only.
        other: the other silo's public key, 32 bytes, whose origin was verified.
        context: plan digest and step.
        names: of both silos, in any order.

    Raises:
        ValueError: the other key is one with which nothing is secret.
    """
    shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    info = b"abfed.noise-once.1\0" + context + b"\0" + "\0".join(sorted(names)).encode()
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=None, info=info).derive(shared)


def agreeable(public: bytes) -> bool:
    """Whether something secret can be agreed on with a key: not with a point of small order.

    Such a point gives every private key the same (RFC 7748, section 6.1).
    """
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def mask_of(seed: bytes, count: int) -> Words:
    """`count` uniform words from a seed: AES-256-CTR. A seed makes one mask only."""
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8").astype(np.uint64)


def masked(values: Integers, name: str, seeds: Mapping[str, bytes], own_seed: bytes) -> Words:
    """Noised values under all masks: uniform to whoever lacks one seed.

    Args:
        values: noised already; modulo 2⁶⁴.
        name: this silo.
        seeds: agreed with each other silo, by name.
        own_seed: of its own mask.
    """
    hidden = values.astype(np.int64).ravel().view(np.uint64) + mask_of(own_seed, values.size)
    for other, seed in seeds.items():
        mask = mask_of(seed, values.size)
        hidden = hidden + mask if name < other else hidden - mask
    return hidden.reshape(values.shape)


def opened_sum(
    answers: Mapping[str, Words],
    own_seeds: Mapping[str, bytes],
    dropped: Mapping[str, Mapping[str, bytes]],
) -> Integers:
    """The sum of the values of those who answered.

    Args:
        answers: masked values by silo.
        own_seeds: of each silo that answered.
        dropped: for each silo that didn't, its seeds with those who did.

    Raises:
        ValueError: a seed is missing, or of somebody else.
    """
    missing = any(set(seeds) != set(answers) for seeds in dropped.values())
    if set(own_seeds) != set(answers) or set(dropped) & set(answers) or missing:
        message = "the seeds aren't those of the silos that answered"
        raise ValueError(message)
    first = next(iter(answers.values()))
    total = np.zeros(first.size, dtype=np.uint64)
    for name, hidden in answers.items():
        total += hidden.ravel() - mask_of(own_seeds[name], first.size)
    for gone, seeds in dropped.items():
        for name, seed in seeds.items():  # what `name` put on for `gone` is taken off
            mask = mask_of(seed, first.size)
            total = total - mask if name < gone else total + mask
    return total.view(np.int64).reshape(first.shape)


def shared_out(secret: bytes, holders: int, needed: int) -> tuple[Share, ...]:
    """A secret in shares of which `needed` give it back, and fewer say nothing (Shamir 1979).

    Raises:
        ValueError: fewer than two are needed, more than there are, or no secret of 32 bytes.
    """
    if not 2 <= needed <= holders or len(secret) != SEED_BYTES:
        message = "a secret of 32 bytes needs two or more shares, and no more than there are"
        raise ValueError(message)
    factors = [int.from_bytes(secret, "big")]
    factors += [secrets.randbelow(PRIME) for _ in range(needed - 1)]
    return tuple(Share(at, _at(factors, at)) for at in range(1, holders + 1))


def put_together(shares: Collection[Share], needed: int, fits: Callable[[bytes], bool]) -> bytes:
    """The secret of these shares, some of which may be wrong.

    Sets of `needed` shares are tried until one gives what its owner was bound to: neighbours first,
    which finds any one liar at once, then any others, `TRIED` at most.

    Args:
        shares: of one secret, as their holders say.
        needed: how many give it.
        fits: whether a secret is the one.

    Raises:
        ValueError: there are too few, or none of the sets that were tried gives it.
    """
    points = sorted(set(shares))
    if len(points) < needed or len({one.at for one in points}) != len(points):
        message = "too few shares, or two of one holder"
        raise ValueError(message)
    around = ((points * 2)[first : first + needed] for first in range(len(points)))
    tried = itertools.chain(around, itertools.combinations(points, needed))
    for used in itertools.islice(tried, TRIED):
        value = _through(used, 0)
        if value.bit_length() <= 8 * SEED_BYTES:
            secret = value.to_bytes(SEED_BYTES, "big")
            if fits(secret):
                return secret
    message = "the shares aren't of what it was bound to"
    raise ValueError(message)


def share_of(sigma: float, silos: int, tolerated: int) -> float:
    """Each silo's noise, so that the sum of all but `tolerated` silos has `sigma`.

    With one of k tolerated the sum of all has k/(k−1) times the variance that is needed.

    Raises:
        ValueError: nobody's noise would be left.
    """
    if not 0 <= tolerated < silos:
        message = f"{tolerated} of {silos} silos can't be tolerated"
        raise ValueError(message)
    return sigma / math.sqrt(silos - tolerated)


def sigma_left(share: float, answered: int, colluding: int) -> float:
    """The noise that `colluding` silos of those that answered can't take out of the sum."""
    return share * math.sqrt(max(0, answered - colluding))


def sum_excess(share: float, silos: int) -> float:
    """How far a sum of discrete Gaussians is from one in max divergence, at most.

    10 Σ exp(−2π² s² j/(j+1)) over j = 1 … silos − 1, for shares of s whole units (Kairouz, Liu and
    Steinke 2021, Theorem 1, as its τ for one coordinate). Below 10⁻¹⁰⁰ from s = 5 on.
    """
    return 10.0 * sum(
        math.exp(-2.0 * (math.pi * share) ** 2 * j / (j + 1)) for j in range(1, silos)
    )


def _at(factors: list[int], place: int) -> int:
    value = 0
    for factor in reversed(factors):
        value = (value * place + factor) % PRIME
    return value


def _through(points: Sequence[Share], place: int) -> int:
    """The polynomial through these points, at a place (Lagrange)."""
    value = 0
    for one in points:
        above, below = 1, 1
        for other in points:
            if other.at != one.at:
                above = above * (place - other.at) % PRIME
                below = below * (one.at - other.at) % PRIME
        value += one.value * above * pow(below, -1, PRIME)
    return value % PRIME
