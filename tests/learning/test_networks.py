"""Networks, their first parameters, and the shapes that both sides expect."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.__config__ import parallel_info

from abfed.learning.evaluation import BINS, MIDDLES, ScoreHistogram
from abfed.learning.networks import logits, network_for, one_thread, parameters_of
from abfed.learning.shapes import (
    MODEL,
    as_given,
    initial_arrays,
    model_shapes,
    parameter_shapes,
    prefixed,
    release_shapes,
    unprefixed,
)
from abfed.protocol.messages import PROTOCOL_VERSION
from abfed.protocol.tensors import Shape, pack, shapes_of, unpack
from tests.examples import make_plan
from tests.learning.signal_rows import learning_plan

WIDTH = 2 * (3 + 1)


@pytest.mark.parametrize("hidden", [(), (5,), (7, 3)])
def test_shapes_known_without_data_are_those_of_the_network(hidden):
    plan = learning_plan(*hidden)
    network = network_for(plan, initial_arrays(plan))
    assert shapes_of(parameters_of(network)) == parameter_shapes(plan)
    assert network(torch.zeros(4, WIDTH)).shape == (4, 1)


def test_logistic_regression_is_one_layer_that_starts_at_zero():
    first = initial_arrays(learning_plan())
    assert set(first) == {"output.weight", "output.bias"}
    assert not any(array.any() for array in first.values())


def test_the_first_model_follows_from_the_plan_alone():
    plan = learning_plan(5)
    first, again, other = (
        initial_arrays(each) for each in (plan, plan, learning_plan(5, clip=3.0))
    )
    assert pack(first) == pack(again)
    assert pack(first) != pack(other)
    assert np.abs(first["hidden1.weight"]).max() <= (6 / WIDTH) ** 0.5
    assert first["hidden1.weight"].std() > 0.1


def test_torchs_global_generator_is_neither_read_nor_moved():
    plan = learning_plan(5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = initial_arrays(plan)
    network_for(plan, first)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert pack(initial_arrays(plan)) == pack(first)


def test_parameters_survive_the_network_and_the_wire():
    plan = learning_plan(5)
    generator = np.random.default_rng(1)
    model = {
        name: generator.normal(size=shape).astype(np.float32)
        for name, (_, shape) in parameter_shapes(plan).items()
    }
    travelled = unpack(pack(prefixed(MODEL, model)), model_shapes(plan), where="test")
    back = parameters_of(network_for(plan, unprefixed(MODEL, travelled)))
    assert list(back) == list(parameter_shapes(plan))
    assert all((back[name] == model[name]).all() for name in model)


def test_a_network_keeps_its_own_copy():
    plan = learning_plan()
    model = initial_arrays(plan)
    network = network_for(plan, model)
    with torch.no_grad():
        network.get_parameter("output.bias").add_(1.0)
    assert model["output.bias"][0] == 0.0


def test_what_answers_each_step():
    plan = learning_plan(5)
    histogram = {"histogram": Shape("int64", (2, 72))}
    evaluated = release_shapes(plan, "evaluate")
    assert evaluated.keys() >= histogram.keys()
    assert set(evaluated) == {
        "histogram", "policy", "single-column", "uplift", "uplift-single-column"
    }  # fmt: skip
    assert evaluated["uplift"].shape[:3] == (len(plan.arms) - 1, 2, 2)
    assert release_shapes(plan, "train-0001") == histogram | prefixed(
        "update/", parameter_shapes(plan)
    )
    with pytest.raises(ValueError, match="totals"):
        release_shapes(plan, "totals")
    with pytest.raises(ValueError, match="no model"):
        model_shapes(make_plan())


def test_what_a_site_of_before_released_is_read_with_its_own_bins():
    """A figure from a release of before stays what it was; its people lie where they lay."""
    plan = learning_plan(5)
    for step in ("train-0001", "evaluate"):
        now = release_shapes(plan, step)
        assert as_given(now, PROTOCOL_VERSION) == now
        before = as_given(now, 4)
        assert before == now | {"histogram": Shape("int64", (2, 32))}
    counts = np.arange(1, 65).reshape(2, 32)
    scores = ScoreHistogram.of_release(counts, {"noise_multiplier": 2.0, "sensitivity": 2.0})
    assert scores.counts.shape == (2, BINS)
    assert scores.counts.sum() == counts.sum()
    inside = scores.counts[:, scores.counts.any(axis=0)]
    assert (inside == counts).all()
    places = np.flatnonzero(scores.counts.any(axis=0))
    assert MIDDLES[places[1:-1]] == pytest.approx(np.arange(30) * 0.2 - 4.9)


def test_shapes_need_neither_torch_nor_opacus():
    code = (
        "import sys, abfed.learning.shapes, abfed.learning.evaluation; "
        "sys.exit(bool({'torch', 'opacus', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_score_that_is_not_a_number_counts_as_zero():
    plan = learning_plan(2)
    model = initial_arrays(plan)
    model["hidden1.weight"] = np.full_like(model["hidden1.weight"], 3e38)
    model["output.weight"] = np.array([[3e38, -3e38]], dtype=np.float32)
    scores = logits(network_for(plan, model), np.ones((3, WIDTH), dtype=np.float32))
    assert scores.tolist() == [0.0, 0.0, 0.0]


def test_one_thread_for_a_while():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_torch_stays_on_one_thread_as_long_as_any_silo_trains():
    before, entered, left = torch.get_num_threads(), threading.Event(), threading.Event()
    seen = []

    def other():
        with one_thread():
            entered.set()
            left.wait(30)
            seen.append((torch.get_num_threads(), "mkl_get_max_threads() : 1" in parallel_info()))

    thread = threading.Thread(target=other)
    with one_thread():
        thread.start()
        entered.wait(30)
    left.set()
    thread.join(30)
    assert seen == [(1, True)]
    with one_thread():
        assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
