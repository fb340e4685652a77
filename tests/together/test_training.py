"""Noise once in training: one step a round down the gradient of all brands."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats

from abfed.coordinator.together import open_sums
from abfed.lab.evaluating import Evaluation
from abfed.lab.runs import Run
from abfed.lab.together import guarantee
from abfed.learning.dpsgd import summed_step, train_round
from abfed.learning.heads import Heads
from abfed.learning.losses import loss_of
from abfed.learning.networks import network_for
from abfed.learning.shapes import UNIT_BITS, initial_arrays, parameter_shapes
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.charges import (
    epsilon_alone,
    noise_multipliers,
    plan_charges,
    plan_epsilon,
    silo_share,
)
from abfed.protocol.errors import IntegrityError, RunFailed
from abfed.silo.rows import canonical_schema
from tests.examples import model_values
from tests.learning.signal_rows import NoNoise, made_rows
from tests.together.kin import SILOS, Kin, once_plan, table
from tests.together.test_runs import SURE, failing

ROUNDS = 3


def training_plan(**changes):
    """Three rounds of one step each, after the totals."""
    model = model_values()
    training = {"rounds": ROUNDS, "local_steps": 1, "sampling_rate": 0.5, "learning_rate": 1.0}
    values = {
        "features": model["features"],
        "model": {"outcome": "clicked", "hidden": [8]},
        "training": training | changes.pop("training", {}),
        "privacy": model["privacy"] | {"noise": "once"},
    }
    return once_plan(**(values | changes))


def steps_of_run(run: Run):
    """Releases by step."""
    names = {step for one in run.releases.values() for step in one}
    return {
        step: {silo: one[step] for silo, one in run.releases.items() if step in one}
        for step in names
    }


def test_a_model_comes_of_it_and_the_same_again_from_its_releases(kin):
    plan = training_plan()
    run = kin.run(plan)
    assert {name for name in run.releases["aurora"] if "-0001" in name} == {
        "keys-0001", "shares-0001", "train-0001", "answered-0001", "opening-0001",
    }  # fmt: skip
    assert run.manifest["model"] is not None
    assert list(run.training["model"]) == list(range(ROUNDS + 1))
    assert run.training["recipients"].notna().all()
    heads = {name: one.ledger.head for name, one in kin.services.items()}
    again = kin.carry(plan)
    assert again.found
    assert {name: one.ledger.head for name, one in kin.services.items()} == heads
    (charge,) = kin.services["dawn"].ledger.reservations()
    charged = [one for step in plan_charges(plan).values() for one in step]
    assert sum(one.count for one in charge.charges) == sum(one.count for one in charged)
    assert plan_epsilon(plan) <= plan.privacy.epsilon
    assert plan_epsilon(plan) < epsilon_alone(plan)
    told = guarantee(plan, 50.0)  # a floor far above what the plan needs: in both
    assert "50 in the totals and 50 in each round, of one person's" in told
    shares = [silo_share(plan, 0.0, step) for step in ("totals", "train-0001")]
    assert "({:.3g} in the totals and {:.3g} in each round, of".format(*shares) in guarantee(plan)


@pytest.mark.slow
@pytest.mark.privacy
def test_each_round_has_keys_and_masks_of_its_own(kin):
    steps = steps_of_run(kin.run(training_plan()))
    keys = [
        row.tobytes()
        for number in ("keys", "keys-0001", "keys-0002", "keys-0003")
        for one in steps[number].values()
        for row in one.arrays["keys"]
    ]
    assert len(set(keys)) == len(keys)
    for number in ("0001", "0002"):
        masked = np.concatenate([one.arrays["masked"] for one in steps[f"train-{number}"].values()])
        top = (masked.view(np.uint64) >> np.uint64(60)).astype(np.int64)
        assert stats.chisquare(np.bincount(top, minlength=16)).pvalue > SURE


@pytest.mark.slow
@pytest.mark.privacy
def test_a_silo_that_drops_out_of_a_round_is_out_of_that_round_only(kin):
    plan = training_plan()
    run = kin.run(plan, corona=failing(kin, "corona", ("train-0002",)))
    steps = steps_of_run(run)
    answered = [open_sums(plan, steps, f"{n:04d}").answered for n in (1, 2, 3)]
    assert answered == [SILOS, ("aurora", "borealis", "dawn"), SILOS]


@pytest.mark.slow
@pytest.mark.privacy
def test_a_run_that_stopped_in_a_round_goes_on_to_a_model_of_the_same_releases(kin):
    plan = training_plan()
    gone = {one: failing(kin, one, ("train-0002",)) for one in ("aurora", "dawn")}
    with pytest.raises(RunFailed, match="2 of at least 3"):
        kin.carry(plan, **gone)
    done = kin.carry(plan)
    assert done.resumed_after == "shares-0002"
    assert Run.open(done.folder, coordinator_key=kin.hub.public_key).silos == SILOS


FURTHER = {"outcome": "clicked", "hidden": [4], "also": ["opened"], "revenue": {"high": 40.0}}


@pytest.mark.slow
@pytest.mark.privacy
def test_further_outcomes_and_revenue_are_learnt_of_the_same_sum(tmp_path):
    """All heads of one network stand in one vector, clipped, noised and masked together."""
    kin = Kin.found(tmp_path, {name: opening(400) for name in SILOS})
    plan = training_plan(model=FURTHER, training={"rounds": 2, "learning_rate": 0.5})
    run = kin.run(plan)
    heads = Heads.of(plan)
    assert (heads.outputs, heads.further) == (4, 2)
    opened = open_sums(plan, steps_of_run(run), "0002")
    assert opened.answered == SILOS
    assert opened.sums.size == sum(math.prod(one.shape) for one in parameter_shapes(plan).values())
    assert opened.noise >= noise_multipliers(plan).training
    told = Evaluation(run).further
    assert told["outcome"].tolist() == ["opened", "revenue above 0"]
    (charge, *_) = kin.services["dawn"].ledger.reservations()
    assert epsilon_of(charge.charges, plan.privacy.delta) == plan_epsilon(plan)
    kin.close()


def opening(count):
    """Rows in which every fourth recipient opens, too."""
    rows = table(count)
    schema = canonical_schema(
        ("clicked", "opened", "revenue"), {"age": "numeric", "tier": "category"}
    )
    opened = pa.array([place % 4 == 0 for place in range(count)], schema.field("opened").type)
    return rows.append_column("opened", opened).select(schema.names).cast(schema)


def test_a_model_that_its_releases_dont_give_is_found(kin, monkeypatch):
    plan = training_plan()
    gone = {one: failing(kin, one, ("keys-0002",)) for one in ("aurora", "dawn")}
    with pytest.raises(RunFailed):
        kin.carry(plan, **gone)
    monkeypatch.setattr("abfed.coordinator.rounds_together.COUNT_UNITS", 1 << 17)
    with pytest.raises(IntegrityError, match="journal's model"):
        kin.carry(plan)


def test_a_silos_part_of_the_sum_is_its_clipped_gradient():
    """Noise so small that it can't be seen, nothing clipped: one step is that of noise each."""
    plan = training_plan(training={"sampling_rate": 1.0, "clip": 50.0})
    rows, settings = made_rows(plan, 200, seed=1), plan.schedule
    start = initial_arrays(plan)
    units = summed_step(network_for(plan, start), rows, settings, share=1e-9, noise=NoNoise(1))
    assert units.dtype == np.int64
    moved = train_round(
        network_for(plan, start), rows, settings, noise_multiplier=1e-9, expected_batch=200.0,
        noise=NoNoise(1),
    )  # fmt: skip
    expected = np.concatenate([moved[name].ravel() for name in start])
    found = units * (-settings.learning_rate * settings.clip * 2.0**-UNIT_BITS / 200.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_one_recipient_moves_the_sum_by_at_most_one_clip():
    plan = training_plan(training={"sampling_rate": 1.0, "clip": 0.01})
    rows = made_rows(plan, 1, seed=1)
    units = summed_step(
        network_for(plan, initial_arrays(plan)), rows, plan.schedule,
        share=1.0, noise=NoNoise(2),
    )  # fmt: skip
    length = math.sqrt(sum(int(one) ** 2 for one in units))
    assert 0.99 * 2**UNIT_BITS < length <= 2**UNIT_BITS


def test_every_heads_part_of_the_sum_is_its_own_gradient():
    """Noise so small that it can't be seen, and nothing clipped: autograd's gradient, by head."""
    plan = training_plan(model=FURTHER, training={"sampling_rate": 1.0, "clip": 100.0})
    heads, made = Heads.of(plan), made_rows(plan, 200, seed=1)
    labels = np.random.default_rng(3).random((len(made.labels), heads.labels)) < 0.3
    rows = dataclasses.replace(made, labels=labels.astype(np.float32))
    start = initial_arrays(plan)
    units = summed_step(
        network_for(plan, start), rows, plan.schedule, share=1e-9, noise=NoNoise(1),
        loss=loss_of(heads),
    )  # fmt: skip
    network = network_for(plan, start)
    lines = torch.from_numpy(rows.design.expand(rows.features, rows.arms))
    loss_of(heads).total(network(lines), torch.from_numpy(rows.labels)).backward()
    whole = np.concatenate([one.grad.numpy().ravel() for one in network.parameters()])
    np.testing.assert_allclose(
        units * (plan.schedule.clip * 2.0**-UNIT_BITS), whole, rtol=1e-3, atol=1e-2
    )
    assert (np.abs(network[-1].bias.grad.numpy()) > 0.1).all()


@pytest.mark.slow
@pytest.mark.privacy
def test_the_sum_of_a_round_holds_the_noise_that_it_should(tmp_path):
    """Where clipping leaves next to nothing of gradients, what is opened is the noise."""
    plan = training_plan(
        model={"outcome": "clicked", "hidden": [64]},
        training={"rounds": 1, "sampling_rate": 0.01},
    )
    kin = Kin.found(tmp_path, {name: table(400) for name in SILOS})
    for name in SILOS:
        kin.allow(name, {"least_share": 0.01})
    run = kin.run(plan)
    opened = open_sums(plan, steps_of_run(run), "0001")
    share = silo_share(plan, step="train-0001")
    assert opened.noise == pytest.approx(share * 2.0)  # four silos
    units = opened.sums / 2.0**UNIT_BITS
    # about 13 recipients, each at most one clip long over all coordinates, beside noise of 2 shares
    low, high = stats.chi2.interval(1 - SURE, units.size)
    slack = (math.sqrt(high) + 60 / opened.noise) ** 2
    assert low * 0.8 < float(((units / opened.noise) ** 2).sum()) < slack
    kin.close()
