"""Where noise comes from. Production noise takes no seed: there is nothing to pass one to.

`SystemNoise` draws from the operating system: integers through OpenDP's exact discrete Gaussian
(Canonne, Kamath and Steinke 2020), which leaves floating-point attacks (Mironov 2012) nothing to
hold; floats, of which training needs millions, from AES-256 in counter mode under a fresh system
key, through Box and Muller (1958) in float64. Neither numpy's nor torch's generators are touched.

`UnsafeSeededNoise` is for simulation plans on synthetic brands. It protects nobody.
"""

from __future__ import annotations

import copy
import functools
import math
import secrets
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import opendp.prelude as dp
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from opendp.mod import enable_features
from scipy import stats

enable_features("contrib")

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_MAGNITUDE = 1 << 53  # fixed-point values stay where float64 is exact
_RARE = 1 / 64  # below it a subset is drawn, else everybody for themselves
_FEW = 0.1  # share of those who are in: `_held`
_SMALL = 2.0**-12  # below it a uniform's last bit is more than 2⁻⁴¹ of it
_BLOCK = 1 << 16  # floats drawn at a time: 512 KiB of key stream stays in cache
_FROM_ZERO = modes.CTR(bytes(16))  # a key is used once
_PEOPLE = 1 << 18  # who are drawn for at a time, a byte each


class Noise(Protocol):
    """A source of noise and of random batches."""

    def integers(self, values: Integers, scale: float) -> Integers:
        """Values plus discrete Gaussian noise of this scale (in integer units), each its own."""
        ...

    def floats(self, count: int, sigma: float) -> Floats:
        """`count` draws from a normal distribution with mean 0 and standard deviation `sigma`."""
        ...

    def poisson_batch(self, population: int, rate: float) -> Integers:
        """Sorted indices of a Poisson sample: each of `population` is in it with chance `rate`."""
        ...

    def fork(self, number: int) -> Noise:
        """A source for one numbered part of the work, apart from those of other numbers.

        A simulation that resumes at a part draws there what it would have drawn; real noise is
        fresh whatever the number.
        """
        ...


def grid_for(sigma: float) -> float:
    """The grid that noised float sums are rounded to: the power of two at or below sigma·2⁻²⁰.

    Rounding after the noise is post-processing; a grid that depends on sigma alone hides the
    low bits of the sum's floating-point representation.
    """
    return float(2.0 ** math.floor(math.log2(sigma) - 20))


class SystemNoise:
    """Noise from the operating system's generator. Takes no seed."""

    __slots__ = ()

    def integers(self, values: Integers, scale: float) -> Integers:
        """See `Noise.integers`. Exact: no floating-point number is involved in the sampling."""
        _check_integers(values, scale)
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
        add_noise = space >> dp.m.then_gaussian(scale=float(scale))
        noised = add_noise(values.ravel().tolist())
        return np.asarray(noised, dtype=np.int64).reshape(values.shape)

    def floats(self, count: int, sigma: float) -> Floats:
        """See `Noise.floats`."""
        _check_positive(sigma, "sigma")
        stream = _KeyStream()
        out = np.empty(count, dtype=np.float64)
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            out[start : start + size] = _box_muller(stream, size)
        out *= sigma
        return out

    def poisson_batch(self, population: int, rate: float) -> Integers:
        """See `Noise.poisson_batch`.

        Where few are expected, one draw for the size, then a uniform subset of that size; else a
        draw for each.
        """
        stream = _KeyStream()
        if rate >= _RARE:
            return _each(stream, population, rate)
        first, cumulative = _binomial(population, rate)
        size = first + int(np.searchsorted(cumulative, stream.uniforms(1)[0]))
        return _distinct(stream, population, min(size, population))

    def fork(self, number: int) -> SystemNoise:  # noqa: ARG002 - see `Noise.fork`
        """See `Noise.fork`: the operating system has nothing to part."""
        return self


class UnsafeSeededNoise:
    """Reproducible noise for simulation plans on synthetic brands. It protects nobody.

    Args:
        seed: any whole number at or above zero.
    """

    __slots__ = ("_generator", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def fork(self, number: int) -> Self:
        """See `Noise.fork`: the same seed and number give the same source."""
        part = copy.copy(self)
        words = np.random.SeedSequence(self._seed, spawn_key=(number,))
        part._seed = int.from_bytes(words.generate_state(4).tobytes(), "little")  # noqa: SLF001
        part._generator = np.random.Generator(np.random.PCG64(words))  # noqa: SLF001
        return part

    def integers(self, values: Integers, scale: float) -> Integers:
        """See `Noise.integers`: a rounded normal, which has no privacy proof and needs none."""
        _check_integers(values, scale)
        draws = np.rint(self._generator.normal(0.0, scale, size=values.shape))
        return values + draws.astype(np.int64)

    def floats(self, count: int, sigma: float) -> Floats:
        """See `Noise.floats`."""
        _check_positive(sigma, "sigma")
        return self._generator.normal(0.0, 1.0, size=count) * sigma

    def poisson_batch(self, population: int, rate: float) -> Integers:
        """See `Noise.poisson_batch`."""
        size = int(self._generator.binomial(population, rate))
        chosen = self._generator.choice(population, size=size, replace=False, shuffle=False)
        return np.sort(chosen.astype(np.int64))


class _KeyStream:
    """AES-256-CTR over zeros under a key of its own, which is never kept or shown."""

    __slots__ = ("_encryptor",)

    def __init__(self) -> None:
        cipher = Cipher(algorithms.AES(secrets.token_bytes(32)), _FROM_ZERO)
        self._encryptor = cipher.encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """`count` uniform 64-bit words."""
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype=np.uint64)

    def octets(self, count: int) -> npt.NDArray[np.uint8]:
        """`count` uniform bytes."""
        return np.frombuffer(self._encryptor.update(bytes(count)), dtype=np.uint8)

    def uniforms(self, count: int) -> Floats:
        """`count` uniforms on (0, 1] with 53 bits each."""
        found = (self.words(count) >> np.uint64(11)).astype(np.float64)
        found += 1.0
        found *= 2.0**-53
        return found


def _box_muller(stream: _KeyStream, count: int) -> Floats:
    """Standard normals from pairs of uniforms.

    A radius comes from the logarithm of a uniform, whose 53 bits leave gaps between the largest
    radii, wider than the grid that noised sums are rounded to. Small uniforms therefore get 53 more
    bits. The largest value is then √(2·106·ln 2) ≈ 12.1; the tail beyond holds 1e-33 of the mass.
    Cosine and sine come from the tangent t of half the angle, as (1 - t²) / (1 + t²) and
    2t / (1 + t²), within a few roundings of 1: numpy's own take five times as long.
    """
    pairs = (count + 1) // 2
    uniforms = stream.uniforms(2 * pairs)
    radius, angle = uniforms[:pairs], uniforms[pairs:]
    small = (radius <= _SMALL).nonzero()[0]
    if small.size:  # down by up to one step, so that they stay above 0
        radius[small] -= 2.0**-53 * (1.0 - stream.uniforms(small.size))
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle -= 0.5
    angle *= np.pi
    np.tan(angle, out=angle)
    out = np.empty(2 * pairs, dtype=np.float64)
    across, along = out[:pairs], out[pairs:]
    np.multiply(angle, angle, out=across)
    np.add(across, 1.0, out=along)
    radius /= along
    np.multiply(angle, radius, out=along)
    along *= 2.0
    np.subtract(1.0, across, out=across)
    across *= radius
    return out[:count]


def _each(stream: _KeyStream, population: int, rate: float) -> Integers:
    """Who of `range(population)` is in, each by a uniform of their own below the rate; sorted.

    A byte is enough to tell, but where it is the rate's own first byte: then 53 bits more are
    compared with what is left of the rate.
    """
    first = math.floor(rate * 256.0)
    rest = rate * 256.0 - first
    found = []
    for start in range(0, population, _PEOPLE):
        count = min(_PEOPLE, population - start)
        drawn = stream.octets(count)
        inside = np.zeros(count + -count % 8, dtype=bool)  # whole words: `_held`
        np.less(drawn, first, out=inside[:count])
        if rest:
            open_still = (drawn == first).nonzero()[0]
            inside[open_still] = stream.uniforms(open_still.size) <= rest
        here = _held(inside) if rate <= _FEW else inside.nonzero()[0]
        found.append(here + start if start else here)
    if len(found) == 1:
        return found[0]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _held(inside: npt.NDArray[np.bool_]) -> Integers:
    """Places that are true, ascending, in half of numpy's time where they are few.

    numpy jumps from one to the next if they are at most a tenth (`_FEW`), and a jump that can't be
    foreseen takes 14 ns. Words of eight that hold any are more: then it looks at each in turn.

    Args:
        inside: as many as fill such words.
    """
    words = inside.view(np.uint64)
    some = (words != 0).nonzero()[0]
    within = words.take(some).view(bool).nonzero()[0]
    places: Integers = some.take(within >> 3)
    places <<= 3
    places += within & 7
    return places


@functools.lru_cache(maxsize=8)
def _binomial(population: int, rate: float) -> tuple[int, Floats]:
    """The binomial's cumulative probabilities where they differ from 0 and 1 in 53 bits.

    Returns:
        The first count, and the probability of at most that count, of at most one more, and so on.
    """
    sd = math.sqrt(population * rate * (1 - rate))
    reach = 9.0 * sd + 40.0  # beyond it less than 2⁻⁵⁴, by Bernstein's inequality
    first = max(0, math.floor(population * rate - reach))
    last = min(population, math.ceil(population * rate + reach))
    return first, stats.binom.cdf(np.arange(first, last + 1), population, rate)


def _distinct(stream: _KeyStream, population: int, size: int) -> Integers:
    """A uniform subset of `size` of `range(population)`, sorted.

    Draws until enough differ. Never more are drawn than are missing, so none is left out again: the
    subset is the first `size` different values of one long sequence. Where more than half is asked
    for, the rest is drawn and left out.
    """
    if 2 * size > population:
        left_out = _distinct(stream, population, population - size)
        kept = np.ones(population, dtype=bool)
        kept[left_out] = False
        return np.flatnonzero(kept).astype(np.int64)
    drawn = np.empty(0, dtype=np.int64)
    while drawn.size < size:
        drawn = np.concatenate([drawn, _places(stream, population, size - drawn.size)])
        drawn.sort()
        again = drawn[1:] == drawn[:-1]
        if again.any():
            drawn = drawn[np.flatnonzero(np.append(True, ~again))]
    return drawn


def _places(stream: _KeyStream, population: int, count: int) -> Integers:
    """Uniform places in `range(population)`, each on its own."""
    uniforms = stream.uniforms(count)
    uniforms *= population
    return np.ceil(uniforms, out=uniforms).astype(np.int64) - 1


def _check_integers(values: Integers, scale: float) -> None:
    """Refuse what fixed point can't hold.

    Raises:
        ValueError: not 64-bit integers, too large, or a scale that is not positive.
    """
    if values.dtype != np.int64:
        message = f"values must be int64, not {values.dtype}"
        raise ValueError(message)
    _check_positive(scale, "scale")
    # Both ends by themselves: the absolute value of the smallest int64 is negative.
    if values.size and (values.max() > MAX_MAGNITUDE or values.min() < -MAX_MAGNITUDE):
        message = "values are too large for fixed point"
        raise ValueError(message)


def _check_positive(scale: float, name: str) -> None:
    """Refuse noise that isn't any.

    Raises:
        ValueError: zero, negative, NaN or infinite.
    """
    if not (math.isfinite(scale) and scale > 0):
        message = f"{name} must be positive and finite, not {scale}"
        raise ValueError(message)
