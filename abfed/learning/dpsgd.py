"""One federated round of private training in one silo (DP-SGD; Abadi et al. 2016).

Each local step, in this order:

1. a Poisson batch of recipients at the plan's rate, drawn from the permit's noise source;
2. the sum of their clipped gradients (`abfed.learning.gradients`);
3. Gaussian noise of sd noise_multiplier × clip on each coordinate, added in float64;
4. the noised sum rounded to a fixed grid that depends on that sd alone, a power of two at most
   2⁻²⁰ of it: what low bits of a floating-point sum could tell is gone (Mironov 2012);
5. division by the *expected* batch, which is public. The realised one is not, and an empty batch is
   a step of noise like any other;
6. a step down that gradient, parameters kept within ±`LARGEST_PARAMETER`: whether a release is
   finite must not depend on the rows, or failing would itself be an answer.

The result is the difference of the parameters and nothing beside it. Neither torch's nor numpy's
global generator is used; without a noise source there is no step.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from abfed.learning.design_matrix import RecipientRows
from abfed.learning.gradients import clipped_sum
from abfed.learning.networks import one_thread, parameters_of
from abfed.learning.shapes import LARGEST_PARAMETER
from abfed.privacy.mechanisms import Noise, grid_for
from abfed.protocol.modelling import Training


def train_round(
    network: nn.Module,
    data: RecipientRows,
    settings: Training,
    *,
    noise_multiplier: float,
    noise: Noise,
    expected_batch: float,
) -> dict[str, npt.NDArray[np.float32]]:
    """Take `local_steps` noisy steps; the network is changed in place.

    Args:
        network: with the incoming model's parameters.
        data: recipients to train on. Rows: sensitive.
        settings: sampling rate, clip, learning rate and steps.
        noise_multiplier: noise sd over `clip`, as it was charged.
        noise: where batches and noise come from.
        expected_batch: recipients a step is expected to hold, from a noised count; at least 1.

    Returns:
        By parameter: new minus incoming. Released (noised).

    Raises:
        ValueError: a noise multiplier or expected batch that would leave the release unprotected.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        message = f"the noise multiplier must be positive, not {noise_multiplier}"
        raise ValueError(message)
    if not (math.isfinite(expected_batch) and expected_batch >= 1):
        message = f"the expected batch must be at least 1, not {expected_batch}"
        raise ValueError(message)
    before = parameters_of(network)
    with one_thread():
        for _ in range(settings.local_steps):
            chosen = noise.poisson_batch(data.recipients, settings.sampling_rate)
            lines, labels, owners = (torch.from_numpy(part) for part in data.batch(chosen))
            total = clipped_sum(network, lines, labels, owners, settings.clip)
            noised = _noised(total, noise_multiplier * settings.clip, noise)
            _step(network, noised, settings.learning_rate / expected_batch)
    return {name: after - before[name] for name, after in parameters_of(network).items()}


def _noised(total: dict[str, Tensor], sigma: float, noise: Noise) -> dict[str, Tensor]:
    """The sum with noise of sd `sigma` on each coordinate, on the grid. Released."""
    grid = grid_for(sigma)
    draws = torch.from_numpy(noise.floats(sum(part.numel() for part in total.values()), sigma))
    noised, start = {}, 0
    for name, part in total.items():
        added = part + draws[start : start + part.numel()].view_as(part)
        noised[name] = torch.round(added / grid) * grid
        start += part.numel()
    return noised


def _step(network: nn.Module, direction: dict[str, Tensor], rate: float) -> None:
    """Move each parameter against its direction, the product made in float64."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.sub_((rate * direction[name]).to(parameter.dtype))
            parameter.clamp_(-LARGEST_PARAMETER, LARGEST_PARAMETER)
