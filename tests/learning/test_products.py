"""Which library makes a layer's products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abfed.learning import products
from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group
from abfed.learning.gradients import StackSums
from abfed.learning.losses import LOGISTIC
from abfed.learning.networks import one_thread
from abfed.learning.products import (
    ALONE,
    has_small_kernels,
    is_turned,
    laid,
    pair_products,
    piece_alone,
    product,
    wild,
)
from abfed.learning.stacks import Stack
from abfed.learning.steady import is_steady_layer, stride_of
from abfed.learning.steady_passes import sizes_for


def _made(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    dice = torch.Generator().manual_seed(rows)
    values = torch.zeros(rows, stride_of(inputs))[:, :inputs].copy_(wild((rows, inputs), dice))
    weight = wild((inputs, outputs), dice)
    found = product(values, laid(weight), torch.full((rows, stride_of(outputs)), 7.0)[:, :outputs])
    return found, values.double() @ weight.double(), values.abs() @ weight.abs()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(1, 5), (25, 64), (65, 32), (33, 1), (257, 128), (128, 257), (25, 7), (3_000, 9), (5_000, 1),
     (700, 521)],
)  # fmt: skip
def test_a_product_is_what_it_is_called(inputs, outputs):
    with one_thread():
        found, exact, most = _made(192, inputs, outputs)
    assert bool(((found - exact).abs() <= 1.01 * inputs * 2.0**-24 * most).all())


def test_pieces_stay_on_the_thread_that_asks():
    for inputs, outputs in ((25, 64), (257, 128), (1_025, 1_024), (3_000, 9), (24, 300)):
        width, rows = piece_alone(inputs, outputs)
        assert rows * inputs * width <= ALONE
        assert width == 0 or outputs % width == 0 == 64 % rows


@pytest.mark.parametrize("small", [True, False])
def test_pairs_are_made_by_the_library_that_is_quick_at_them(small, monkeypatch):
    lines = torch.zeros(25, 48)[:, :33].copy_(wild((25, 33), torch.Generator().manual_seed(3)))
    matmul, asked = np.matmul, []

    def watched(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        asked.append(a.shape)
        return matmul(a, b, out=out)

    monkeypatch.setattr(products, "has_small_kernels", lambda: small)
    monkeypatch.setattr(np, "matmul", watched)
    found = pair_products(lines[:24], 4, torch.zeros(6, 20)).view(6, 5, 4)[:, :4]
    assert bool(asked) is small
    people = lines[:24].double().view(6, 4, 33)
    assert torch.allclose(found.double(), people @ people.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.privacy
@pytest.mark.parametrize("outputs", [5, 32])
def test_where_lines_of_numpys_pieces_differ_torch_makes_the_products(outputs, monkeypatch):
    network = nn.Sequential(nn.Linear(24, outputs), nn.ReLU(), nn.Linear(outputs, 1))
    dice = torch.Generator().manual_seed(9)
    for each in network.parameters():
        each.data = torch.randn(each.shape, generator=dice)
    stack = Stack.of(network)
    assert stack is not None
    batch = Batch(torch.randn(300, 24, generator=dice), torch.ones(300), (Group(1, 300),))
    matmul, asked = np.matmul, []

    def elsewhere(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        asked.append(a.shape)
        found = matmul(a, b, out=out)
        if a.ndim == 2:  # pieces that are looked at: the last line's numbers are added backwards
            found[-1] = matmul(a[-1, ::-1].copy(), b[::-1].copy())
        return found

    def forget() -> None:
        for each in (has_small_kernels, piece_alone, is_steady_layer):
            each.cache_clear()

    with one_thread(), torch.no_grad():
        usual = StackSums(stack, LOGISTIC, 300.0).units(batch, 0.7).double()
        forget()
        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", elsewhere)
            assert piece_alone(25, outputs) == (0, 0)
            assert is_turned(25, outputs) == (outputs == 5)
            assert sizes_for(stack, 300.0)
            asked.clear()
            found = StackSums(stack, LOGISTIC, 300.0).units(batch, 0.7).double()
        forget()
    assert not asked
    assert float((found - usual).norm()) < 1e-4 * float(usual.norm())
