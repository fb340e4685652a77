"""What does not fit is said in our words before a step is taken, not by torch in a product."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from abfed.learning.design_matrix import Design, RecipientRows
from abfed.learning.dpsgd import summed_step, train_round
from abfed.learning.heads import Heads
from abfed.learning.losses import LOGISTIC, HeadsLoss, LogisticLoss
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
    "not finite": (perceptron(), r"2\.bias holds a number that is not finite"),
}
WRONG["a float64 buffer"][0][1].register_buffer("scale", torch.ones(1, dtype=torch.float64))
torch.nn.init.constant_(WRONG["not finite"][0][2].bias, float("nan"))


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
    after = network.state_dict()
    assert all(after[name].equal(value) or value.isnan().any() for name, value in before.items())


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


GIVEN = {"network": perceptron(), "data": ROWS, "settings": Training(local_steps=1)}
OTHERS = [
    ({"network": 3}, "network must be a torch.nn.Module, not int"),
    ({"network": nn.Linear}, "network must be a torch.nn.Module, not the class Linear"),
    ({"data": 3}, "data must be RecipientRows or TrainingRows, not int"),
    ({"data": ROWS.features}, "data must be RecipientRows or TrainingRows, not ndarray"),
    ({"settings": {"local_steps": 1}}, "settings must be .*Training, not dict"),
    ({"noise": None}, "noise must be a source of noise, .* not NoneType"),
    ({"loss": "logistic"}, "loss must be a loss, as LOGISTIC .* not str"),
    ({"loss": LogisticLoss}, "loss must be .* not the class LogisticLoss"),
    ({"loss": nn.BCEWithLogitsLoss()}, "loss must be .* not BCEWithLogitsLoss"),
]


def refused(kind: type[Exception], changes: dict[str, object], words: str) -> None:
    given = GIVEN | {"noise": SystemNoise()} | changes
    with pytest.raises(kind, match=words):
        train_round(**given, noise_multiplier=1.0, expected_batch=6.0)
    with pytest.raises(kind, match=words):
        summed_step(**given, share=1.0)


@pytest.mark.parametrize(("changes", "words"), OTHERS)
def test_something_else_in_its_place_is_named(changes, words):
    refused(TypeError, changes, words)


class Telling(LogisticLoss):
    """A loss of one's own that tells something else."""

    def __init__(self, side: str, told: object) -> None:
        object.__setattr__(self, "side", side)
        object.__setattr__(self, "told", told)

    def _tell(self, side: str, scores, labels) -> object:
        if side != self.side:
            return getattr(LOGISTIC, side)(scores, labels)
        return self.told(scores) if callable(self.told) else self.told

    def total(self, scores, labels):
        return self._tell("total", scores, labels)

    def signals(self, scores, labels):
        return self._tell("signals", scores, labels)


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            Telling("total", 1.0),
            r"total\(scores, labels\) must be a tensor of shape \(\), not .*float",
        ),
        (Telling("total", lambda scores: scores), r"total.* of shape \(\), not shape \(1, 1\)"),
        (Telling("signals", None), r"signals.* a tensor of shape \(1, 1\), not .*NoneType"),
        (
            Telling("signals", lambda scores: scores.nothing),
            "signals.* in an error: .*nothing",
        ),
        (HeadsLoss(Heads(outcomes=("a", "b"))), "rows have 1 labels each, and the loss reads 2"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_before_a_step(loss, words, act):
    refused(ValueError, {"loss": loss, "network": perceptron(act=act)}, words)


@pytest.mark.parametrize("amount", ["1.0", None, True, np.ones(1)])
def test_what_is_no_number_is_named(amount):
    given = GIVEN | {"noise": SystemNoise()}
    with pytest.raises(TypeError, match="noise_multiplier must be a number, not "):
        train_round(**given, noise_multiplier=amount, expected_batch=6.0)
    with pytest.raises(TypeError, match="expected_batch must be a number, not "):
        train_round(**given, noise_multiplier=1.0, expected_batch=amount)
    with pytest.raises(TypeError, match="share must be a number, not "):
        summed_step(**given, share=amount)


class Holding:
    """A checkpoint that holds this."""

    def __init__(self, found: object) -> None:
        self.found = found

    def load(self) -> object:
        return self.found

    def save(self, taken: int, parameters: object) -> None:
        raise AssertionError(taken)


NUMBERS = sum(each.numel() for each in GIVEN["network"].parameters())


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("1", "checkpoint must be None or a Checkpoint"),
        (Holding, "checkpoint must be .* not the class Holding"),
        (Holding(3), r"its load\(\) gives no number of steps"),
        (Holding((1, None)), r"its load\(\) gives no number of steps"),
        (Holding(("1", np.zeros(NUMBERS))), r"its load\(\) gives no number of steps"),
        (Holding((0, np.zeros(NUMBERS, dtype=object))), r"its load\(\) gives no number of steps"),
        (Holding((2, np.zeros(NUMBERS))), "2 steps were taken, and the round has 1"),
        (Holding((-1, np.zeros(NUMBERS))), "-1 steps were taken"),
        (Holding((0, np.zeros(NUMBERS + 1))), f"parameters, and {NUMBERS} are trained"),
        (Holding((0, np.full(NUMBERS, np.nan))), "a number that is not finite"),
    ],
)
def test_a_checkpoint_that_is_none_or_damaged_is_refused(kept, words):
    given = GIVEN | {"noise": SystemNoise(), "checkpoint": kept}
    before = [each.clone() for each in GIVEN["network"].parameters()]
    with pytest.raises((TypeError, ValueError), match=words):
        train_round(**given, noise_multiplier=1.0, expected_batch=6.0)
    assert all(map(torch.equal, before, GIVEN["network"].parameters()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ROWS.labels[:-5]}, f"features have the shape .* {len(ROWS.labels) - 5} labels"),
        ({"features": ROWS.features[:, :1]}, "one column for each of design.feature_names"),
        ({"arms": ROWS.arms[1:]}, "arms have the shape"),
        ({"arms": ROWS.arms + np.int8(9)}, "an arm's code is not the place"),
        ({"arms": ROWS.arms - np.int8(9)}, "an arm's code is not the place"),
        ({"offsets": ROWS.offsets[:-1]}, "offsets must go up from 0"),
        ({"offsets": ROWS.offsets[::-1]}, "offsets must go up from 0"),
        ({"offsets": np.array([0, ROWS.rows + 1, ROWS.rows])}, "offsets must go up from 0"),
    ],
)
def test_rows_that_do_not_agree_are_refused(changes, words):
    refused(ValueError, {"data": dataclasses.replace(ROWS, **changes)}, words)
