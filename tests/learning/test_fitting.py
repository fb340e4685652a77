"""What does not fit is said in our words before a step is taken, not by torch in a product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import summed_step, train_round
from abfed.privacy.mechanisms import SystemNoise
from abfed.protocol.modelling import Training
from abfed.protocol.schema import NumericFeature
from tests.learning.signal_rows import learning_plan, made_rows

ROWS = made_rows(learning_plan(), 60, seed=1)
WIDTH = ROWS.design.width


def perceptron(*, columns: int = WIDTH, outputs: int = 1, act: type[nn.Module] = nn.ReLU):
    return nn.Sequential(nn.Linear(columns, 3), act(), nn.Linear(3, outputs))


WRONG = {
    "two outputs": (perceptron(outputs=2), "gives 2 numbers a row, and its loss wants 1"),
    "two outputs, one by one": (perceptron(outputs=2, act=nn.GELU), r"last layer nn\.Linear\(…, 1"),
    "float64": (perceptron().double(), r"0\.weight is float64: rows are float32.*\.float\(\)"),
    "a float64 buffer": (nn.Sequential(perceptron(), nn.Module()), "1.scale is float64"),
    "other columns": (perceptron(columns=WIDTH + 1), f"a line of {WIDTH} numbers"),
    "other columns, one by one": (perceptron(columns=2, act=nn.GELU), "first layer"),
    "nothing to train": (perceptron().requires_grad_(False), "nothing to train"),
}
WRONG["a float64 buffer"][0][1].register_buffer("scale", torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_with_what_to_do(what):
    network, words = WRONG[what]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        train_round(
            network,
            ROWS,
            Training(local_steps=2),
            noise_multiplier=1.0,
            noise=SystemNoise(),
            expected_batch=6.0,
        )
    with pytest.raises(ValueError, match=words):
        summed_step(network, ROWS, Training(local_steps=1), share=1.0, noise=SystemNoise())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_whether_it_fits_does_not_depend_on_who_is_there():
    """An empty batch is refused as any other is: an error would be an answer otherwise."""
    design = Design((NumericFeature(name="age", low=0.0, high=1.0),), ("a", "b"), 0)
    nobody = RecipientRows(
        design, ROWS.features[:0, :1], ROWS.arms[:0], ROWS.labels[:0], ROWS.offsets[:1]
    )
    with pytest.raises(ValueError, match="gives 2 numbers a row"):
        summed_step(
            perceptron(columns=design.width, outputs=2),
            nobody,
            Training(local_steps=1),
            share=1.0,
            noise=SystemNoise(),
        )
