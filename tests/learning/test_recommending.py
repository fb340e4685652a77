"""What is recommended, how much is explored, and a brand's own head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from abfed.learning.counterfactual import chances, uplifts
from abfed.learning.networks import network_for
from abfed.learning.personal import PULL, with_own_head
from abfed.learning.recommending import FLOOR, HALVED_BY, recommend
from abfed.learning.shapes import initial_arrays
from tests.examples import make_model_plan
from tests.learning.signal_rows import made_rows


def drawn(chances, explore=0.1, seed=1):
    random = np.random.default_rng(seed)
    return recommend(np.asarray(chances), 0, explore, random.random)


def test_the_best_arm_is_recommended_with_what_it_adds():
    found = drawn([[0.1, 0.3, 0.2], [0.4, 0.1, 0.1]])
    assert found.best.tolist() == [1, 0]
    assert found.uplift.tolist() == pytest.approx([0.2, 0.0])


def test_a_clear_lead_is_explored_less_and_everybody_a_little():
    lead = HALVED_BY
    found = drawn([[0.1, 0.1], [0.1, 0.1 + lead], [0.1, 0.9]], explore=0.2)
    assert found.explore == pytest.approx([0.2, 0.1, 0.2 * FLOOR])


def test_the_chance_of_what_is_sent_is_the_one_it_is_drawn_with():
    rows = 60_000
    found = drawn(np.tile([0.1, 0.1, 0.15], (rows, 1)), explore=0.9)
    for arm in range(3):
        here = found.send == arm
        assert here.mean() == pytest.approx(found.chance[here][0], abs=0.01)
    assert np.mean(1 / found.chance) == pytest.approx(3, rel=0.03)  # Σ over arms of p · 1/p


def test_without_exploration_the_best_arm_is_sent():
    found = drawn(np.random.default_rng(2).random((500, 4)), explore=0.0)
    assert (found.send == found.best).all()
    assert (found.chance == 1.0).all()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_brands_own_head_fits_it_better_and_a_small_brand_stays_near(hidden):
    random = np.random.default_rng(4)
    torch.manual_seed(1)
    below = [nn.Linear(3, 8), nn.ReLU()] if hidden else []
    make = lambda: nn.Sequential(*below, nn.Linear(8 if hidden else 3, 1))  # noqa: E731
    many = random.normal(size=(20_000, 3)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(many @ np.array([1.0, -2.0, 0.5]) - 1)))
    labels = (random.random(len(many)) < truth).astype(np.float32)

    def loss(network):
        with torch.no_grad():
            scores = network(torch.from_numpy(many)).squeeze(1).numpy()
        return float(np.mean(np.logaddexp(0, scores) - labels * scores))

    common = make()
    before, state = loss(common), {k: v.clone() for k, v in common.state_dict().items()}
    with_own_head(
        common, lambda: zip(np.split(many, [5000]), np.split(labels, [5000]), strict=True)
    )
    assert loss(common) < 0.9 * before
    in_pieces = [each.clone() for each in common.parameters()]
    common.load_state_dict(state)
    with_own_head(common, lambda: [(many, labels)])
    for one, other in zip(common.parameters(), in_pieces, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    common.load_state_dict(state)
    with_own_head(common, lambda: [(many[:5], labels[:5])])
    moved = max(float((common.state_dict()[k] - state[k]).abs().max()) for k in state)
    assert moved < 5 * 10 / PULL


@pytest.mark.parametrize(
    "model",
    [{"learner": "t"}, {"learner": "t", "hidden": [8]}, {"learner": "x"},
     {"learner": "x", "hidden": [8], "also": ["opened"], "revenue": {"high": 100.0}}],
    ids=["t", "t, hidden", "x", "x, hidden, further outcomes"],
)  # fmt: skip
def test_a_brands_own_head_changes_what_each_learner_says_of_every_arm(model):
    plan = make_model_plan(model={"outcome": "clicked"} | model)
    rows = made_rows(plan, 3_000, seed=3, most=1)
    heads, design = rows.design.heads, rows.design
    known = [rows.labels] * len(heads.outcomes) + [rows.labels / 4] * bool(heads.bound)
    labels = np.column_stack(known + [rows.arms.astype(np.float32)] * heads.by_arm)
    network = network_for(plan, initial_arrays(plan))
    common = chances(network, design, rows.features)
    below = [one.clone() for one in network.parameters()][:-2]
    lines = design.expand(rows.features, rows.arms)
    assert with_own_head(network, lambda: [(lines, labels)], heads) is network
    own = chances(network, design, rows.features)
    assert (np.abs(own - common).max(axis=0) > 1e-3).all()
    moved = np.abs(uplifts(own, design) - uplifts(common, design))
    assert (moved.max(axis=0) > 1e-3).all()
    for one, before in zip(network.parameters(), below, strict=False):
        assert torch.equal(one, before)
