"""An interrupted round goes on where it was, for its own permit only, and takes no step twice."""

from __future__ import annotations

import dataclasses
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abfed.learning import dpsgd
from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.protocol.errors import IntegrityError
from abfed.protocol.tensors import pack
from abfed.silo.checkpoints import RoundCheckpoint
from abfed.silo.feature_cache import CacheFolder
from abfed.silo.prepared import prepare, reopen
from abfed.silo.training import compute_training
from tests.silo import made
from tests.silo.test_training import learning_plan, permit_for, prepared, sends

STEPS = 7


class Cut(BaseException):
    """As a signal would end it."""


class CutNoise(UnsafeSeededNoise):
    """Stops the round when it asks for the noise of step `at`; counts what it gave out."""

    __slots__ = ("at", "given")

    def fork(self, number: int) -> Any:
        if number == 2 * self.at + 1:
            raise Cut
        if number % 2:
            self.given.append(number // 2)
        return super().fork(number)


def cut_noise(at: int) -> CutNoise:
    noise = CutNoise(5)
    noise.at, noise.given = at, []
    return noise


@pytest.fixture
def house(tmp_path: Path):
    _, keys = made.founded(tmp_path)
    permit = permit_for(learning_plan(4, local_steps=STEPS))
    return tmp_path / "store", keys, permit, prepared(permit, sends(120))


@pytest.mark.parametrize("at", range(STEPS))
@pytest.mark.parametrize("at_once", [1, 3, 512])
def test_a_round_cut_at_any_step_ends_as_if_it_had_not_been(house, at, at_once, monkeypatch):
    folder, keys, permit, kept = house
    whole = compute_training(dataclasses.replace(permit, noise=UnsafeSeededNoise(5)), kept)
    monkeypatch.setattr(dpsgd, "STEPS_AT_ONCE", at_once)
    checkpoint = RoundCheckpoint(folder, keys, permit)
    first = cut_noise(at)
    with pytest.raises(Cut):
        compute_training(dataclasses.replace(permit, noise=first), kept, checkpoint)
    second = cut_noise(-1)
    done = compute_training(dataclasses.replace(permit, noise=second), kept, checkpoint)
    assert first.given + second.given == list(range(STEPS))  # each step is noised once
    assert pack(done.arrays) == pack(whole.arrays)


def test_what_is_kept_from_time_to_time_survives_a_kill(house, monkeypatch):
    folder, keys, permit, kept = house
    monkeypatch.setattr(dpsgd, "KEPT_EVERY", 0.0)
    checkpoint = RoundCheckpoint(folder, keys, permit)
    monkeypatch.setattr(dpsgd._Progress, "__exit__", lambda *_: None)  # a kill runs no clean-up
    with pytest.raises(Cut):
        compute_training(dataclasses.replace(permit, noise=cut_noise(4)), kept, checkpoint)
    taken, parameters = checkpoint.load()
    assert taken == 4
    assert np.isfinite(parameters).all()


class KillingNoise(UnsafeSeededNoise):
    """Ends the process where it is asked for the noise of step 4: no clean-up runs."""

    def fork(self, number: int) -> Any:
        if number == 2 * 4 + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fork(number)


@pytest.mark.parametrize("at_once", [2, 512])
def test_a_round_on_rows_on_disk_that_was_killed_ends_with_the_same_bits(
    house, at_once, monkeypatch
):
    """A child dies of SIGKILL in the middle of a sweep; this process opens what it left."""
    folder, keys, permit, in_memory = house
    caches, checkpoint = CacheFolder(folder, keys), RoundCheckpoint(folder, keys, permit)
    monkeypatch.setattr(dpsgd, "STEPS_AT_ONCE", at_once)
    monkeypatch.setattr(dpsgd, "KEPT_EVERY", 0.0)
    whole = compute_training(dataclasses.replace(permit, noise=UnsafeSeededNoise(5)), in_memory)
    prepare(permit, [made.table(sends(120))], caches, in_memory=0).close()
    child = os.fork()
    if child == 0:
        killing = dataclasses.replace(permit, noise=KillingNoise(5))
        try:
            compute_training(killing, reopen(permit, caches), checkpoint)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert checkpoint.load()[0] == 4
    with closing(reopen(permit, caches)) as kept:
        second = dataclasses.replace(permit, noise=(noise := cut_noise(-1)))
        done = compute_training(second, kept, checkpoint)
    assert noise.given == [4, 5, 6]
    assert pack(done.arrays) == pack(whole.arrays)


@pytest.mark.privacy
def test_a_cut_between_counting_and_stepping_takes_no_step_more(house, monkeypatch):
    folder, keys, permit, kept = house
    step, calls = dpsgd.Parameters.step, []

    def cut(self, direction, rate, pull):
        calls.append(1)
        step(self, direction, rate, pull)
        if len(calls) == 3:
            raise Cut

    monkeypatch.setattr(dpsgd.Parameters, "step", cut)
    checkpoint = RoundCheckpoint(folder, keys, permit)
    with pytest.raises(Cut):
        compute_training(permit, kept, checkpoint)
    compute_training(permit, kept, checkpoint)
    assert len(calls) <= STEPS


@pytest.mark.privacy
def test_it_opens_for_its_own_permit_only(house, tmp_path):
    folder, keys, permit, _ = house
    RoundCheckpoint(folder, keys, permit).save(3, np.ones(5, np.float32))
    sampled, gaussian = permit.charges
    others = [
        dataclasses.replace(permit, key="1" * 64),
        dataclasses.replace(permit, epoch="f" * 64),
        dataclasses.replace(permit, step="train-0002"),
        dataclasses.replace(
            permit, charges=(sampled.model_copy(update={"noise_multiplier": 9.0}), gaussian)
        ),
    ]
    assert all(RoundCheckpoint(folder, keys, other).load() is None for other in others)
    (path,) = folder.glob("cache-*-round")
    taken, parameters = RoundCheckpoint(folder, keys, permit).load()
    assert (taken, parameters.tolist()) == (3, [1.0] * 5)
    assert np.ones(5, np.float32).tobytes() not in path.read_bytes()
    moved = RoundCheckpoint(folder, keys, others[0])
    path.rename(moved._path)
    with pytest.raises(IntegrityError):
        moved.load()


def test_a_checkpoint_of_another_network_is_refused(house):
    folder, keys, permit, kept = house
    checkpoint = RoundCheckpoint(folder, keys, permit)
    checkpoint.save(3, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="another round"):
        compute_training(permit, kept, checkpoint)
