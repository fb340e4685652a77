"""What every way to a clipped sum must do, whatever the network. Inherited by each way's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group
from abfed.learning.gradients import in_losses_unit
from abfed.learning.losses import LOGISTIC, Loss

WIDTH = 7
CLIP = 0.7
Way = Callable[[nn.Module, Batch, float, Loss], Tensor]  # int64, in 2⁻⁴⁰ of the clip
UNITS = 1 << 40  # of a clip

STACKED: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "identity": nn.Identity,
}
"""Activations that a stack may hold."""

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "elu": lambda: nn.ELU(0.7),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.8),
    "falling": lambda: nn.LeakyReLU(-0.2),
}
"""Activations that only the general way takes."""


def _frozen() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, 1))
    network[0].requires_grad_(False)
    return network


SHAPES: dict[str, Callable[[], nn.Module]] = {
    "logistic": lambda: nn.Sequential(nn.Linear(WIDTH, 1)),
    "three-outcomes": lambda: nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, 3)),
    "no-bias": lambda: nn.Sequential(nn.Linear(WIDTH, 6, bias=False), nn.ReLU(), nn.Linear(6, 1)),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(WIDTH, 6), nn.LeakyReLU()),
        nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
        nn.Linear(4, 1),
    ),
    "wide": lambda: nn.Sequential(
        nn.Linear(WIDTH, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 1)
    ),
    "frozen": _frozen,
    "embedding": lambda: nn.Sequential(nn.Embedding(9, 5), nn.LeakyReLU(), nn.Linear(5, 1)),
    "embeddings": lambda: nn.Sequential(
        nn.Embedding(9, 5), nn.Flatten(), nn.Linear(15, 4), nn.ReLU(), nn.Linear(4, 1)
    ),
}


class _Convolved(nn.Module):
    """A convolution along the features, normalised by group."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4)
        self.output = nn.Linear(4 * (WIDTH - 2), 1)

    def forward(self, lines: Tensor) -> Tensor:
        found = torch.tanh(self.norm(self.convolution(lines[:, None])))
        return self.output(found.flatten(1))


class _Recurrent(nn.Module):
    """One of Opacus's own recurrent layers over the features, one by one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        from opacus import layers

        self.recurrent = getattr(layers, kind)(1, 4, batch_first=True)
        self.output = nn.Linear(4, 1)

    def forward(self, lines: Tensor) -> Tensor:
        return self.output(self.recurrent(lines[..., None])[0][:, -1])


GENERAL: dict[str, Callable[[], nn.Module]] = {
    "layer-norm": lambda: nn.Sequential(
        nn.Linear(WIDTH, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 1)
    ),
    "convolution": _Convolved,
    "gru": lambda: _Recurrent("DPGRU"),
    "lstm": lambda: _Recurrent("DPLSTM"),
}
"""Layers that only the general way takes."""


def network_of(name: str) -> nn.Module:
    """A network with parameters of its own; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if name in SHAPES | GENERAL:
            return (SHAPES | GENERAL)[name]()
        layers = [nn.Linear(WIDTH, 6), nn.Linear(6, 5), nn.Linear(5, 1)]
    made = (STACKED | OTHERS)[name]
    first, second = made(), made()
    return nn.Sequential(layers[0], first, layers[1], second, layers[2])


def batch_of(network: nn.Module, groups: tuple[Group, ...], *, seed: int = 3) -> Batch:
    """Rows that suit the network's first layer."""
    generator = np.random.default_rng(seed)
    rows = sum(group.rows * group.recipients for group in groups)
    first = next(each for each in network.modules() if not isinstance(each, nn.Sequential))
    if isinstance(first, nn.Embedding):
        shape = (rows, 3) if isinstance(network[1], nn.Flatten) else (rows,)
        lines = torch.from_numpy(generator.integers(0, 9, shape))
    else:
        lines = torch.from_numpy(generator.normal(0, 2, (rows, WIDTH)).astype(np.float32))
    outcomes = [each for each in network.modules() if isinstance(each, nn.Linear)][-1].out_features
    labels = generator.integers(0, 2, (rows, outcomes)).astype(np.float32)
    return Batch(lines, torch.from_numpy(labels), groups)


def spans(groups: tuple[Group, ...]) -> list[slice]:
    """Each recipient's rows."""
    counts = [group.rows for group in groups for _ in range(group.recipients)]
    ends = np.cumsum(counts)
    return [slice(end - count, end) for end, count in zip(ends.tolist(), counts, strict=True)]


def gradient_of(network: nn.Module, lines: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the rows' summed loss, in float64, by plain autograd."""
    trained = [each for each in network.parameters() if each.requires_grad]
    network.zero_grad()
    LOGISTIC.total(network(lines), labels).backward()
    found = torch.cat([each.grad.flatten().double() for each in trained])
    network.zero_grad()
    return found


def expected_sum(network: nn.Module, batch: Batch, clip: float) -> Tensor:
    """The definition, recipient by recipient."""
    total = 0.0
    for rows in spans(batch.groups):
        gradient = gradient_of(network, batch.lines[rows], batch.labels[rows])
        total = total + gradient * min(1.0, clip / float(gradient.norm()))
    return total


def opacus_sum(
    network: nn.Module, batch: Batch, clip: float, *, in_one_sample: bool = False
) -> Tensor:
    """The sum that Opacus's own optimizer makes of Opacus's own gradients.

    Args:
        network: any that Opacus takes.
        batch: one group only where a recipient is to be one sample.
        clip: L2 bound of a recipient.
        in_one_sample: hand Opacus a recipient's rows as one sample of k; else each row is one, and
            a recipient's are added before the optimizer clips.
    """
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(network, loss_reduction="sum")
    trained = [each for each in wrapped.parameters() if each.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    lines, owners = batch.lines, [span.stop - span.start for span in spans(batch.groups)]
    if in_one_sample:
        lines = lines.unflatten(0, (len(owners), -1))
    if lines.is_floating_point():
        lines = lines.clone().requires_grad_()
    LOGISTIC.total(wrapped(lines), batch.labels).backward()
    if not in_one_sample:
        for each in trained:
            parts = each.grad_sample.split(owners)
            each.grad_sample = torch.stack([part.sum(0) for part in parts])
    optimizer.clip_and_accumulate()
    found = torch.cat([each.summed_grad.flatten().double() for each in trained])
    wrapped.cleanup()
    network.zero_grad()
    return found


def distance(ours: Tensor, theirs: Tensor) -> float:
    """How far apart, relative to the second."""
    return float((ours - theirs).norm() / theirs.norm())


def squared_norm(units: Tensor) -> int:
    """Of whole numbers, exactly."""
    return sum(value * value for value in units.tolist())


class ClippedSums:
    """The suite. `way` makes the sum; `groups` are the numbers of rows that it takes."""

    way: ClassVar[Any]
    groups: ClassVar[dict[str, tuple[Group, ...]]] = {
        "one": (Group(1, 60),),
        "four": (Group(4, 20),),
        "sixteen": (Group(16, 8),),
        "ragged": (Group(1, 9), Group(2, 7), Group(5, 4), Group(31, 2)),
    }
    tolerance = 1e-5
    unlike = 0
    """Units by which a sum may be off what each recipient adds."""

    def units_of(self, network: nn.Module, batch: Batch, clip: float = CLIP) -> Tensor:
        return type(self).way(network, batch, clip, LOGISTIC)

    def sum_of(self, network: nn.Module, batch: Batch, clip: float = CLIP) -> Tensor:
        return in_losses_unit(self.units_of(network, batch, clip), clip)

    def each_size(self) -> list[tuple[Group, ...]]:
        return list(self.groups.values())

    @pytest.mark.parametrize("name", [*STACKED, *SHAPES])
    def test_it_is_the_sum_of_clipped_gradients(self, name):
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, groups)
            assert (
                distance(self.sum_of(network, batch), expected_sum(network, batch, CLIP))
                < self.tolerance
            )

    @pytest.mark.parametrize("name", [*STACKED, *SHAPES])
    def test_it_is_the_sum_that_opacus_makes(self, name):
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, groups)
            theirs = opacus_sum(network, batch, CLIP)
            assert distance(self.sum_of(network, batch), theirs) < self.tolerance

    @pytest.mark.parametrize("name", ["logistic", "relu", "leaky", "wide"])
    def test_it_is_the_sum_that_opacus_makes_of_samples_of_many_rows(self, name):
        network = network_of(name)
        for groups in self.each_size():
            if len(groups) == 1:
                batch = batch_of(network, groups)
                theirs = opacus_sum(network, batch, CLIP, in_one_sample=True)
                assert distance(self.sum_of(network, batch), theirs) < self.tolerance

    def test_within_the_bound_nothing_is_changed(self):
        network = network_of("relu")
        for groups in self.each_size():
            batch = batch_of(network, groups)
            whole = gradient_of(network, batch.lines, batch.labels)
            assert distance(self.sum_of(network, batch, 100.0), whole) < 1e-4

    @pytest.mark.privacy
    @pytest.mark.parametrize("scale", [1.0, 1e4, 1e12, 1e30])
    @pytest.mark.parametrize("name", ["logistic", "relu", "wide", "embeddings"])
    def test_a_recipient_moves_the_sum_by_at_most_the_clip(self, name, scale):
        """In whole numbers: not by a unit more, and whatever others are in the batch."""
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, (*groups, Group(groups[-1].rows, 1)))
            mine = spans(batch.groups)[-1]
            if batch.lines.is_floating_point():
                batch.lines[mine] *= scale
            others = Batch(batch.lines[: mine.start], batch.labels[: mine.start], groups)
            moved = self.units_of(network, batch) - self.units_of(network, others)
            alone = Batch(batch.lines[mine], batch.labels[mine], (Group(groups[-1].rows, 1),))
            assert int((moved - self.units_of(network, alone)).abs().max()) <= self.unlike
            assert squared_norm(moved) <= UNITS**2
            assert scale > 1 or squared_norm(moved) > 0

    @pytest.mark.privacy
    @pytest.mark.parametrize("name", ["logistic", "relu", "wide"])
    def test_rows_that_cancel_each_other_hide_nothing(self, name):
        """Two nearly opposite rows: their norm is what rounding leaves of a difference."""
        network = network_of(name)
        for groups in self.each_size():
            rows = groups[-1].rows
            if rows % 2:
                continue
            batch = batch_of(network, (Group(rows, 1),))
            batch.lines[:] = 3e3 * batch.lines[:1]
            batch.lines[1:] += 1e-3
            batch.labels[::2] = 1.0 - batch.labels[1::2]
            assert squared_norm(self.units_of(network, batch, 1e-3)) <= UNITS**2

    @pytest.mark.privacy
    @pytest.mark.parametrize("name", ["logistic", "relu", "embeddings"])
    def test_a_recipient_whose_gradient_is_not_finite_adds_nothing(self, name):
        network = network_of(name)
        for groups in self.each_size():
            batch = batch_of(network, (*groups, Group(groups[-1].rows, 1)))
            mine = spans(batch.groups)[-1]
            if batch.lines.is_floating_point():
                batch.lines[mine.start] = torch.nan
            else:
                with torch.no_grad():
                    network[0].weight[8] = torch.inf
                batch.lines[batch.lines == 8] = 7
                batch.lines[mine.start] = 8
            others = Batch(batch.lines[: mine.start], batch.labels[: mine.start], groups)
            found, without = self.units_of(network, batch), self.units_of(network, others)
            assert bool(without.any())
            assert bool((found == without).all())

    def test_an_empty_batch_sums_to_zero(self):
        network = network_of("relu")
        batch = batch_of(network, (Group(1, 1),))
        none = self.sum_of(network, Batch(batch.lines[:0], batch.labels[:0], ()))
        assert none.shape == (sum(each.numel() for each in network.parameters()),)
        assert not none.any()

    def test_network_rows_and_generators_are_left_as_they_were(self):
        network = network_of("relu")
        batch = batch_of(network, self.each_size()[0])
        state = {name: value.clone() for name, value in network.state_dict().items()}
        lines, labels = batch.lines.clone(), batch.labels.clone()
        generator = torch.get_rng_state()
        self.sum_of(network, batch)
        assert list(network.state_dict()) == list(state)
        assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)
        assert all(each.grad is None for each in network.parameters())
        assert not any(hasattr(each, "grad_sample") for each in network.parameters())
        assert torch.equal(batch.lines, lines)
        assert torch.equal(batch.labels, labels)
        assert torch.equal(torch.get_rng_state(), generator)
