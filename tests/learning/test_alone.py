"""What is computed for a recipient depends on that recipient alone, bit for bit.

The model is the asker's: weights up to the bound that cancel each other blow up whatever rounding
leaves. Recipients come and go at any place; the others must not notice, in their scores, in what
they add, or in the bins that they are counted in.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from abfed.learning.batches import Batch
from abfed.learning.bookkeeping import Group, book_keeping_units
from abfed.learning.evaluation import histogram
from abfed.learning.losses import LOGISTIC, sigmoid
from abfed.learning.networks import logits
from abfed.learning.shapes import LARGEST_PARAMETER
from abfed.learning.stacks import Stack

pytestmark = pytest.mark.privacy
UNITS = 1 << 40
EXAMPLES = 20


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    """A perceptron whose weights the asker chose: ordinary, huge, and huge that cancel."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(zip(sizes, [*sizes[1:], 1], strict=True)):
        layer = nn.Linear(inputs, outputs)
        for each in layer.parameters():
            spread = 10.0 ** generator.integers(-3, 7, each.shape)
            values = generator.normal(size=each.shape) * spread
            if draw(st.booleans()):
                values = np.sign(values) * LARGEST_PARAMETER * (generator.random(each.shape) < 0.3)
            each.data = torch.from_numpy(
                np.clip(values, -LARGEST_PARAMETER, LARGEST_PARAMETER)
            ).float()
        layers += [layer] if place == len(sizes) - 1 else [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def _inputs(network: nn.Sequential) -> int:
    first = network[0]
    assert isinstance(first, nn.Linear)
    return first.in_features


def _lines(generator: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """What encoding gives, and now and then far more."""
    lines = generator.uniform(-1, 1, (rows, width)) * (generator.random((rows, width)) < 0.7)
    lines = lines.astype(np.float16).astype(np.float32)
    if generator.random() < 0.2:
        lines *= 10.0 ** generator.integers(-6, 20, (rows, 1))
    return lines.astype(np.float32)


def _exactly(stack: Stack, batch: Batch, clip: float) -> torch.Tensor:
    return book_keeping_units(stack, *batch[:3], clip, LOGISTIC)


@settings(deadline=None, max_examples=EXAMPLES)
@given(networks(), st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 5), st.data())
def test_what_a_batch_adds_is_the_sum_of_what_each_adds_alone(network, seed, people, rows, data):
    generator = np.random.default_rng(seed)
    lines = torch.from_numpy(_lines(generator, people * rows, _inputs(network)))
    labels = torch.from_numpy(generator.integers(0, 2, people * rows).astype(np.float32))
    clip = data.draw(st.sampled_from([1e-3, 0.7, 4.0, 1e4]))
    stack = Stack.of(network)

    def units(chosen: list[int]) -> torch.Tensor:
        taken = np.concatenate([np.arange(one * rows, (one + 1) * rows) for one in chosen])
        batch = Batch(lines[taken], labels[taken], (Group(rows, len(chosen)),))
        return _exactly(stack, batch, clip)

    with torch.no_grad():
        alone = [units([one]) for one in range(people)]
        order = generator.permutation(people)[: data.draw(st.integers(1, people))].tolist()
        assert torch.equal(units(order), sum(alone[one] for one in order))
    assert all(sum(v * v for v in each.tolist()) <= UNITS**2 for each in alone)


@settings(deadline=None, max_examples=EXAMPLES)
@given(networks(), st.integers(0, 2**32), st.integers(1, 40), st.data())
def test_a_score_does_not_depend_on_who_else_is_scored(network, seed, people, data):
    generator = np.random.default_rng(seed)
    lines = _lines(generator, people, _inputs(network))
    labels = generator.integers(0, 2, people)
    scores = logits(network, lines)
    order = generator.permutation(people)[: data.draw(st.integers(1, people))]
    assert np.array_equal(logits(network, lines[order]), scores[order])
    alone = np.concatenate([logits(network, line[None]) for line in lines])
    assert np.array_equal(alone, scores)
    gone = int(order[0])
    rest = np.delete(np.arange(people), gone)
    moved = histogram(scores, labels) - histogram(logits(network, lines[rest]), labels[rest])
    assert np.abs(moved).sum() == 1


def test_torchs_own_products_would_fail_it():
    """The attack itself: if torch's product ever passes, the tests above prove little."""
    generator = np.random.default_rng(0)
    noticed = 0
    for _ in range(25):
        layer, line = nn.Linear(460, 1), np.zeros((1, 460), dtype=np.float32)
        chosen = generator.permutation(460)[:3]
        layer.weight.data.zero_()[0, chosen] = torch.tensor([1e6, -1e6, 2e2])
        layer.bias.data.zero_()
        line[0, chosen] = [1e6, 1e6, 1e2]
        with torch.no_grad():
            theirs = {
                float(layer(torch.from_numpy(line.repeat(rows, 0)))[place])
                for rows in range(1, 6)
                for place in range(rows)
            }
        noticed += len(theirs) > 1
        ours = {s for rows in range(1, 6) for s in logits(layer, line.repeat(rows, 0)).tolist()}
        assert len(ours) == 1
    assert noticed > 0


def test_signals_do_not_depend_on_the_place_in_a_block():
    scores = torch.linspace(-40, 40, 1001, dtype=torch.float64)
    whole = LOGISTIC.signals(scores, torch.zeros(1001))
    for start in range(1001):
        assert LOGISTIC.signals(scores[start : start + 1], torch.zeros(1))[0] == whole[start]
    assert float((sigmoid(scores) - torch.sigmoid(scores)).abs().max()) < 2e-7
    assert float(sigmoid(torch.tensor([torch.nan], dtype=torch.float64))) == 0.5
