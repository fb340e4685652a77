"""One federated round of private training in one silo (DP-SGD; Abadi et al. 2016).

Each local step, in this order:

1. a Poisson batch of recipients at the plan's rate, drawn from the permit's noise source;
2. the sum of their clipped gradients (`abfed.learning.gradients`), in whole units of 2⁻⁴⁰ clips:
   one recipient moves it by at most 2⁴⁰ of them, exactly;
3. Gaussian noise of sd noise_multiplier × clip on each coordinate, rounded to those units and added
   as whole numbers: that is the sum with Gaussian noise, rounded, so that no floating-point sum is
   there whose low bits could tell anything (Mironov 2012);
4. the noised sum rounded to a grid that depends on that sd alone, a power of two at most 2⁻²⁰ of
   it;
5. division by the *expected* batch, which is public. The realised one is not, and an empty batch is
   a step of noise like any other;
6. a step down that gradient, parameters kept within ±`LARGEST_PARAMETER`: whether a release is
   finite must not depend on the rows, or failing would itself be an answer.

The batches of the next `steps_at_once` steps are drawn first, so that rows on disk are read in one
sweep. Each step draws from its own fork of the noise: where a round stops and goes on, and how many
batches were drawn at once, changes nothing about what a simulation computes.

The result is the difference of the parameters and nothing beside it. Neither torch's nor numpy's
global generator is used; without a noise source there is no step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from abfed.learning.batches import Batch, InMemory, TrainingRows
from abfed.learning.design_matrix import RecipientRows
from abfed.learning.fitting import check_fits, check_given, check_kept, check_number
from abfed.learning.gradients import BatchGradients
from abfed.learning.losses import LOGISTIC, Loss
from abfed.learning.networks import one_thread, parameters_of
from abfed.learning.shapes import LARGEST_PARAMETER, UNIT_BITS
from abfed.privacy.mechanisms import Noise, grid_for
from abfed.protocol.modelling import LARGEST_MULTIPLIER, Training

DRAWN_AT_ONCE = 1 << 21  # rows: they wait in memory while the data is swept
STEPS_AT_ONCE = 512
KEPT_EVERY = 5.0  # seconds: what a killed process loses


def train_round(
    network: nn.Module,
    data: RecipientRows | TrainingRows,
    settings: Training,
    *,
    noise_multiplier: float,
    noise: Noise,
    expected_batch: float,
    loss: Loss = LOGISTIC,
    checkpoint: Checkpoint | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Take `local_steps` noisy steps; the network is changed in place.

    Args:
        network: with the incoming model's parameters.
        data: recipients to train on. Rows: sensitive.
        settings: sampling rate, clip, learning rate and steps.
        noise_multiplier: noise sd over `clip`, as it was charged.
        noise: where batches and noise come from.
        expected_batch: recipients a step is expected to hold, from a noised count; at least 1.
        loss: what is made small.
        checkpoint: where an interrupted round is taken up again, if there is one.

    Returns:
        By trained parameter: new minus incoming. Released (noised).

    Raises:
        ValueError: a noise multiplier or expected batch that would leave the release unprotected,
            a network or loss that doesn't fit these rows, a network that draws random numbers of
            its own, or a checkpoint that no step of this round left.
        TypeError: something else stands in an argument's place.
    """
    check_number("noise_multiplier", noise_multiplier)
    check_number("expected_batch", expected_batch)
    if not 0 < noise_multiplier <= LARGEST_MULTIPLIER:
        message = (
            f"the noise multiplier must be positive and at most {LARGEST_MULTIPLIER:g}, "
            f"not {noise_multiplier}"
        )
        raise ValueError(message)
    if not (math.isfinite(expected_batch) and expected_batch >= 1):
        message = f"the expected batch must be at least 1, not {expected_batch}"
        raise ValueError(message)
    check_given(network, data, settings, noise, loss, checkpoint)
    rows = InMemory(data) if isinstance(data, RecipientRows) else data
    before = parameters_of(network)
    with one_thread(), torch.no_grad():
        parameters = Parameters(network)
        gradients = BatchGradients(network, loss, expected=expected_batch)
        rate = settings.learning_rate / expected_batch
        pull = settings.learning_rate * settings.proximal
        progress = _Progress(checkpoint, parameters, settings.local_steps)
        with progress:
            for step, batch in _steps(rows, settings, noise, first=progress.taken):
                if step == progress.first:
                    check_fits(network, batch, loss)
                units = gradients.clipped_units(batch, settings.clip)
                noised = noised_sum(
                    units, settings.clip, noise_multiplier, noise.fork(2 * step + 1)
                )
                progress.taken = step + 1  # first: a cut between the two lines must not add a step
                parameters.step(noised, rate, pull)
                progress.took()
        parameters.part()
    return {name: after - before[name] for name, after in parameters_of(network).items()}


def summed_step(
    network: nn.Module,
    data: RecipientRows | TrainingRows,
    settings: Training,
    *,
    share: float,
    noise: Noise,
    loss: Loss = LOGISTIC,
) -> npt.NDArray[np.int64]:
    """One step's clipped gradients summed, with this silo's share of a noise that is added once.

    By itself it isn't noised as it was charged: it leaves under masks only (`silo.together`).

    Args:
        network: with the incoming model's parameters; left as it is.
        data: recipients to train on. Rows: sensitive.
        settings: sampling rate and clip; one local step.
        share: noise sd over `clip` that this silo adds.
        noise: where the batch and the share come from.
        loss: what is made small.

    Returns:
        `(parameters,)`, in 2⁻⁴⁰ of the clip: one recipient moves it by at most 2⁴⁰, exactly.

    Raises:
        ValueError: a share that is no noise, a plan of more than one step a round, or a network
            or loss that doesn't fit these rows.
        TypeError: something else stands in an argument's place.
    """
    check_number("share", share)
    check_given(network, data, settings, noise, loss)
    if not 0 < share <= LARGEST_MULTIPLIER or settings.local_steps != 1:
        message = f"one step with a share of noise, not {settings.local_steps} with {share}"
        raise ValueError(message)
    rows = InMemory(data) if isinstance(data, RecipientRows) else data
    with one_thread(), torch.no_grad():
        gradients = BatchGradients(network, loss)
        ((_, batch),) = _steps(rows, settings, noise, first=0)
        check_fits(network, batch, loss)
        units = gradients.clipped_units(batch, settings.clip).numpy()
    drawn = noise.fork(1).integers(np.zeros_like(units), share * 2.0**UNIT_BITS)
    return np.asarray(units + drawn)


class Parameters:
    """A network's trained parameters as one vector that they share while it is trained."""

    __slots__ = ("_start", "_trained", "vector")

    def __init__(self, network: nn.Module) -> None:
        self._trained = [each for each in network.parameters() if each.requires_grad]
        self.vector = torch.cat([each.detach().flatten() for each in self._trained])
        self._start = self.vector.numpy().copy()
        parts = self.vector.split([each.numel() for each in self._trained])
        for each, part in zip(self._trained, parts, strict=True):
            each.data = part.view_as(each)

    def step(self, direction: Tensor, rate: float, pull: float = 0.0) -> None:
        """Move against a direction, the product made in float64, and by `pull` towards the start.

        The pull (FedProx) knows the incoming model and what was noised: it tells nothing more.
        """
        vector = self.vector.numpy()
        move = rate * direction.numpy()
        if pull:
            move += pull * (vector - self._start)
        with np.errstate(over="ignore"):  # beyond float32 is beyond ±LARGEST_PARAMETER
            vector -= move.astype(np.float32)
        np.minimum(vector, LARGEST_PARAMETER, out=vector)  # `np.clip` takes four times as long
        np.maximum(vector, -LARGEST_PARAMETER, out=vector)

    def part(self) -> None:
        """Give each parameter memory of its own again."""
        for each in self._trained:
            each.data = each.data.clone()


class Checkpoint(Protocol):
    """Where the parameters of a round that isn't finished are kept. They are noised, not released.

    What makes going on sound: a step's batch and noise are never kept. A round that is taken up
    again draws fresh ones for the steps still to come; a step that was cut short is drawn anew as a
    whole, and nobody saw what it had computed. Each step that counts was noised once, as it was
    charged, no more than the charged steps are taken, and one release leaves.
    """

    def load(self) -> tuple[int, npt.NDArray[np.float32]] | None:
        """How many steps were taken, and the parameters after them; None where there is nothing."""
        ...

    def save(self, taken: int, parameters: npt.NDArray[np.float32]) -> None:
        """Keep these, durably, in place of what was kept before."""
        ...


class _Progress:
    """Keeps a round's parameters from time to time, and where it is interrupted."""

    __slots__ = ("_checkpoint", "_kept", "_parameters", "_since", "first", "taken")

    def __init__(self, checkpoint: Checkpoint | None, parameters: Parameters, steps: int) -> None:
        self._checkpoint = checkpoint
        self._parameters = parameters
        self.taken = 0
        found = None if checkpoint is None else checkpoint.load()
        if found is not None:
            numbers = parameters.vector.numel()
            self.taken, kept = check_kept(found, steps=steps, numbers=numbers)
            parameters.vector.copy_(torch.from_numpy(kept))
        self._kept = self.first = self.taken
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._keep()

    def took(self) -> None:
        """A step is done: keep the parameters if it is time."""
        if time.monotonic() - self._since > KEPT_EVERY:
            self._keep()

    def _keep(self) -> None:
        if self._checkpoint is not None and self.taken > self._kept:
            self._checkpoint.save(self.taken, self._parameters.vector.numpy())
            self._kept = self.taken
        self._since = time.monotonic()


def steps_at_once(rows: int, rate: float) -> int:
    """How many steps' batches are drawn before the first is used."""
    expected = max(1.0, rows * rate)
    return max(1, min(STEPS_AT_ONCE, int(DRAWN_AT_ONCE / expected)))


def _steps(
    rows: TrainingRows, settings: Training, noise: Noise, *, first: int
) -> Iterator[tuple[int, Batch]]:
    """The number and the batch of each step from `first` on."""
    size, rate = steps_at_once(rows.rows, settings.sampling_rate), settings.sampling_rate
    for start in range(first, settings.local_steps, size):
        window = range(start, min(start + size, settings.local_steps))
        drawn = [noise.fork(2 * step).poisson_batch(rows.recipients, rate) for step in window]
        yield from zip(window, rows.batches(drawn), strict=True)
        del drawn  # before the next are drawn: two windows of picks would be in memory


def noised_sum(units: Tensor, clip: float, noise_multiplier: float, noise: Noise) -> Tensor:
    """The sum with noise of sd `noise_multiplier` clips on each coordinate, on the grid. Released.

    Args:
        units: `(parameters,)` int64, in 2⁻⁴⁰ of the clip. Sensitive.
        clip: L2 bound of what one recipient adds.
        noise_multiplier: at most `LARGEST_MULTIPLIER`.
        noise: where the noise comes from.

    Returns:
        `(parameters,)` float64, in the loss's unit.
    """
    drawn = noise.floats(units.numel(), noise_multiplier * 2.0**UNIT_BITS)
    whole = np.rint(drawn, out=drawn).astype(np.int64)  # numpy's calls take half of torch's time
    whole += units.numpy()
    drawn[:] = whole  # rounded where it exceeds 2⁵³
    grid = grid_for(noise_multiplier * clip)
    drawn *= clip * 2.0**-UNIT_BITS / grid
    np.rint(drawn, out=drawn)
    drawn *= grid
    return torch.from_numpy(drawn)
