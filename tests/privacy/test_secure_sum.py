"""Noise once: the sum comes out, whoever drops out, and parts are indistinguishable from noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from abfed.privacy.mechanisms import SystemNoise
from abfed.privacy.secure_sum import (
    Share,
    agreed_seed,
    mask_of,
    masked,
    opened_sum,
    put_together,
    share_of,
    shared_out,
    sigma_left,
    sum_excess,
)

SILOS = ("aurora", "borealis", "corvid", "delta")
SURE = 1e-7  # chance that right bytes or right noise fail a test of theirs
CONTEXT = b"plan totals"


class Round:
    """Four silos that agreed on seeds and masked their values."""

    def __init__(self, values):
        keys = {name: X25519PrivateKey.generate() for name in SILOS}
        public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
        self.values = dict(zip(SILOS, values, strict=True))
        self.seeds = {
            name: {
                other: agreed_seed(keys[name], public[other], CONTEXT, (name, other))
                for other in SILOS
                if other != name
            }
            for name in SILOS
        }
        self.own = {name: bytes([place]) * 32 for place, name in enumerate(SILOS)}
        self.hidden = {
            name: masked(self.values[name], name, self.seeds[name], self.own[name])
            for name in SILOS
        }

    def total(self, answered):
        gone = set(SILOS) - set(answered)
        return opened_sum(
            {name: self.hidden[name] for name in answered},
            {name: self.own[name] for name in answered},
            {one: {name: self.seeds[one][name] for name in answered} for one in gone},
        )


@given(st.lists(st.integers(-(2**50), 2**50), min_size=12, max_size=12))
def test_the_sum_of_all_and_of_any_who_answered_comes_out(numbers):
    values = np.array(numbers, dtype=np.int64).reshape(4, 3)
    round_ = Round(values)
    for count in (2, 3, 4):
        for answered in itertools.combinations(SILOS, count):
            wanted = sum(round_.values[name] for name in answered)
            assert (round_.total(answered) == wanted).all()


def test_two_silos_agree_and_other_questions_have_other_seeds():
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    publics = [key.public_key().public_bytes_raw() for key in (one, other)]
    here = agreed_seed(one, publics[1], CONTEXT, ("a", "b"))
    assert here == agreed_seed(other, publics[0], CONTEXT, ("b", "a"))
    assert here != agreed_seed(one, publics[1], b"plan train-0001", ("a", "b"))
    with pytest.raises(ValueError):
        agreed_seed(one, bytes(32), CONTEXT, ("a", "b"))


@pytest.mark.privacy
def test_what_one_silo_sends_is_indistinguishable_from_noise():
    """Whatever the values: bytes are uniform, and tell nothing about them (100,000 words)."""
    zeros = np.zeros(100_000, dtype=np.int64)
    for values in (zeros, np.full_like(zeros, 12_345), np.arange(100_000, dtype=np.int64)):
        hidden = Round([values, zeros, zeros, zeros]).hidden["aurora"]
        counted = np.bincount(hidden.view(np.uint8), minlength=256)
        assert stats.chisquare(counted).pvalue > SURE
        moved = np.corrcoef(hidden.astype(np.float64)[1:], values[1:] + np.arange(99_999) % 7)[0, 1]
        assert abs(moved) < 0.02


@pytest.mark.privacy
def test_without_one_mask_nothing_is_opened():
    """All but two silos collude and know every seed but one: the rest is still uniform."""
    zeros = np.zeros(100_000, dtype=np.int64)
    round_ = Round([np.full_like(zeros, 7), zeros, zeros, zeros])
    left = round_.hidden["aurora"] - mask_of(round_.own["aurora"], zeros.size)
    for other in ("corvid", "delta"):
        left = left - mask_of(round_.seeds["aurora"][other], zeros.size)
    assert stats.chisquare(np.bincount(left.view(np.uint8), minlength=256)).pvalue > SURE
    whole = left - mask_of(round_.seeds["aurora"]["borealis"], zeros.size)
    assert (whole.view(np.int64) == 7).all()  # with the last one it is all there


@given(st.binary(min_size=32, max_size=32), st.integers(2, 6), st.data())
def test_enough_shares_give_the_secret_back_and_fewer_are_refused(secret, needed, data):
    holders = data.draw(st.integers(needed, 9))
    shares = shared_out(secret, holders, needed)
    some = data.draw(st.permutations(shares))
    assert put_together(some[:needed], needed, secret.__eq__) == secret
    assert put_together(some, needed, secret.__eq__) == secret
    with pytest.raises(ValueError, match="too few"):
        put_together(some[: needed - 1], needed, secret.__eq__)


@pytest.mark.privacy
def test_fewer_shares_say_nothing():
    """One share of two secrets, over and over: the same distribution of its low byte."""
    for secret in (bytes(32), b"\xff" * 32):
        low = [shared_out(secret, 3, 2)[0].value & 255 for _ in range(4000)]
        assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > SURE


@pytest.mark.parametrize("liars", [(), (0,), (3,), (2, 5)])
def test_wrong_shares_stop_nothing_where_enough_are_right(liars):
    secret, shares = b"s" * 32, list(shared_out(b"s" * 32, 7, 4))
    for liar in liars:
        shares[liar] = Share(shares[liar].at, shares[liar].value + 1)
    assert put_together(shares, 4, secret.__eq__) == secret
    with pytest.raises(ValueError, match="bound to"):
        put_together(
            [Share(one.at, one.value + (one.at > 3) * one.at**9) for one in shares],
            4,
            secret.__eq__,
        )


@pytest.mark.privacy
def test_seeds_of_other_silos_open_nothing():
    round_ = Round(np.ones((4, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="seeds"):
        opened_sum(round_.hidden, dict(list(round_.own.items())[:3]), {})


@pytest.mark.parametrize(("silos", "tolerated"), [(4, 0), (4, 1), (10, 3)])
def test_the_noise_of_the_others_is_what_was_asked_for(silos, tolerated):
    share = share_of(100.0, silos, tolerated)
    assert sigma_left(share, silos, tolerated) == pytest.approx(100.0)
    if tolerated == 1:  # k/(k-1) in variance
        assert sigma_left(share, silos, 0) ** 2 == pytest.approx(100.0**2 * silos / (silos - 1))
    with pytest.raises(ValueError, match="tolerated"):
        share_of(1.0, silos, silos)


@pytest.mark.privacy
def test_a_sum_of_shares_has_the_noise_of_one():
    noise, zeros = SystemNoise(), np.zeros(16_000, dtype=np.int64)
    share = share_of(40.0, 4, 1)
    total = sum(noise.integers(zeros, share) for _ in range(3))  # one dropped out
    whole = total + np.random.default_rng(1).uniform(-0.5, 0.5, zeros.size)
    assert stats.kstest(whole, stats.norm(0, 40.0).cdf).pvalue > SURE
    assert sum_excess(share, 4) < 1e-100
    assert sum_excess(0.5, 4) > 0.01  # noise of less than a unit would not add up like that
