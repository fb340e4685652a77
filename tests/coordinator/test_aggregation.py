"""Rules that make one model of many updates: against the formulas of their papers."""

import re

import numpy as np
import pytest

from abfed.coordinator.aggregation import (
    FIRST,
    SECOND,
    Aggregation,
    length_of,
    moment_shapes,
    update_of,
)
from abfed.coordinator.app import carry_out
from abfed.coordinator.inbox import Accepted
from abfed.learning.shapes import LARGEST_PARAMETER
from abfed.protocol.errors import PlanError, RunFailed
from tests.coordinator.doubles import Federation, make_plan

NAMES = ("aurora", "borealis", "corona", "dawn", "ember")
WIDTH = 4


class Release:
    """What the inbox says of a release, as far as aggregation reads it."""

    silo = "any"


def accepted(update):
    return Accepted(Release(), {"update/w": np.asarray(update, np.float32)}, b"")


def settings(**changes):
    count = 5
    return make_plan(
        silos=list(NAMES),
        minimum_silos=count,
        training={"rounds": 3, "local_steps": 2, "averaged": 0.0} | changes,
    ).schedule


def updates_of(rounds, seed=7):
    drawn = np.random.default_rng(seed).normal(size=(rounds, len(NAMES), WIDTH)).astype(np.float32)
    return [dict(zip(NAMES, each, strict=True)) for each in drawn]


def rounds_of(rule, updates, weights=None):
    model = {"w": np.ones(WIDTH, np.float32)}
    models = []
    for number, each in enumerate(updates, start=1):
        held = {silo: accepted(update) for silo, update in each.items()}
        shares = weights or dict.fromkeys(each, 1.0)
        model = rule.round(model, held, shares, number).model
        models.append(model["w"])
    return models


def test_a_release_is_read_from_the_spool_once_however_many_parameters_it_has():
    class Counted(Accepted):
        reads = 0

        @property
        def arrays(self):
            Counted.reads += 1
            return super().arrays

    names = [f"w{number}" for number in range(9)]
    one = Counted(Release(), {f"update/{name}": np.ones(2, np.float32) for name in names}, b"")
    update = update_of(one, dict.fromkeys(names))
    assert sorted(update) == names
    assert Counted.reads == 1


def test_fedavg_is_the_weighted_mean():
    model = {"w": np.ones(3, np.float32)}
    held = {"a": accepted([1.0] * 3), "b": accepted([4.0] * 3)}
    combined = Aggregation(settings()).round(model, held, {"a": 2.0, "b": 1.0}, 1)
    np.testing.assert_allclose(combined.model["w"], 1 + (2 * 1 + 1 * 4) / 3, rtol=1e-6)
    assert combined.model["w"].dtype == np.float32
    assert combined.weights == {"a": 2.0, "b": 1.0}
    with pytest.raises(RunFailed, match="nothing to average"):
        Aggregation(settings()).round(model, {}, {}, 1)


def test_fedavgm_is_sgd_with_momentum_on_the_mean_update():
    updates = updates_of(4)
    rule = Aggregation(settings(server={"kind": "fedavgm", "learning_rate": 0.5, "momentum": 0.8}))
    model, velocity = np.ones(WIDTH), np.zeros(WIDTH)
    for got, each in zip(rounds_of(rule, updates), updates, strict=True):
        velocity = 0.8 * velocity - np.mean([each[silo].astype(float) for silo in NAMES], axis=0)
        model = model - 0.5 * velocity
        np.testing.assert_allclose(got, model, rtol=1e-6)


@pytest.mark.parametrize("kind", ["fedadam", "fedyogi"])
def test_adaptive_rules_follow_reddi_et_al(kind):
    updates = updates_of(4)
    chosen = {"kind": kind, "learning_rate": 0.2, "beta_1": 0.7, "beta_2": 0.9, "tau": 0.01}
    model, first, second = np.ones(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH)
    got = rounds_of(Aggregation(settings(server=chosen)), updates)
    for number, each in enumerate(updates, start=1):
        step = np.mean([each[silo].astype(float) for silo in NAMES], axis=0)
        first = 0.7 * first + 0.3 * step
        if kind == "fedadam":
            second = 0.9 * second + 0.1 * step**2
            # Flower corrects Adam's bias as Kingma and Ba do, one round ahead of the first.
            rate = 0.2 * np.sqrt(1 - 0.9 ** (number + 1)) / (1 - 0.7 ** (number + 1))
        else:
            second = second - 0.1 * step**2 * np.sign(second - step**2)
            rate = 0.2
        model = model + rate * first / (np.sqrt(second) + 0.01)
        np.testing.assert_allclose(got[number - 1], model, rtol=1e-5)


def test_a_trimmed_mean_forgets_the_extremes():
    honest = dict.fromkeys(NAMES, np.array([1.0, 2.0, 3.0, 4.0]))
    hostile = honest | {"corona": np.array([1e5, -1e5, 1e5, -1e5])}
    rule = settings(combine={"kind": "trimmed-mean", "cut": 0.2})
    (got,) = rounds_of(Aggregation(rule), [hostile])
    np.testing.assert_allclose(got, [2.0, 3.0, 4.0, 5.0], rtol=1e-6)
    (moved,) = rounds_of(Aggregation(settings()), [hostile])
    assert abs(moved[0]) > 1e4, "the plain mean is moved by one silo"


def test_multi_krum_sets_the_far_silo_aside_and_says_so():
    updates = updates_of(1)[0] | {"dawn": np.full(WIDTH, 50.0)}
    rule = Aggregation(settings(combine={"kind": "multi-krum", "hostile": 1}))
    held = {silo: accepted(update) for silo, update in updates.items()}
    combined = rule.round({"w": np.zeros(WIDTH, np.float32)}, held, dict.fromkeys(NAMES, 1.0), 1)
    assert combined.weights == {silo: float(silo != "dawn") for silo in NAMES}
    rest = np.mean([updates[silo] for silo in NAMES if silo != "dawn"], axis=0)
    np.testing.assert_allclose(combined.model["w"], rest, rtol=1e-6)
    again = Aggregation(settings(combine={"kind": "multi-krum", "hostile": 1}))
    repeated = again.round({"w": np.zeros(WIDTH, np.float32)}, held, combined.weights, 1)
    np.testing.assert_array_equal(repeated.model["w"], combined.model["w"])


def test_a_model_stays_where_silos_accept_it():
    rule = Aggregation(settings(server={"kind": "fedavgm", "learning_rate": 1e3}))
    (got,) = rounds_of(rule, [dict.fromkeys(NAMES, np.full(WIDTH, 1e5))])
    np.testing.assert_array_equal(got, LARGEST_PARAMETER)


def test_length_is_that_of_all_parameters_together():
    assert length_of({"a": np.array([3.0]), "b": np.array([[0.0, 4.0]])}) == pytest.approx(5.0)


RULES = {
    "fedavgm": {"server": {"kind": "fedavgm", "momentum": 0.5}},
    "fedadam": {"server": {"kind": "fedadam"}},
    "fedyogi": {"server": {"kind": "fedyogi"}},
    "trimmed-mean": {"combine": {"kind": "trimmed-mean", "cut": 0.34}},
    "multi-krum": {"combine": {"kind": "multi-krum", "hostile": 1}},
    "averaged": {"averaged": 0.75},
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_run_stopped_between_rounds_goes_on_to_the_same_model(rule, tmp_path):
    """Also without its checkpoints: moments are made again out of the releases."""
    plan = make_plan(
        silos=list(NAMES), minimum_silos=5, training={"rounds": 3, "local_steps": 2} | RULES[rule]
    )
    federation = Federation(tmp_path, NAMES)
    outcome = carry_out(plan, federation.grid(), federation.coordinator)
    wanted = outcome.manifest["model"]["digest"]
    for lost in (False, True):
        (tmp_path / "runs").rename(tmp_path / f"runs-{lost}")

        def stop(event):
            if (event.stage, event.step) == ("ask", "train-0003"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            carry_out(plan, federation.grid(), federation.coordinator, progress=stop)
        if lost:
            for kept in (tmp_path / "runs").glob("*/checkpoints/*.sealed"):
                kept.unlink()
        again = carry_out(plan, federation.grid(), federation.coordinator)
        assert again.resumed_after == "train-0002"
        assert again.manifest["model"]["digest"] == wanted
    plain = make_plan(silos=list(NAMES), minimum_silos=5, training={"rounds": 3, "local_steps": 2})
    (tmp_path / "runs").rename(tmp_path / "runs-rule")
    other = carry_out(plain, federation.grid(), federation.coordinator)
    assert other.manifest["model"]["digest"] != wanted, "the rule changes nothing"


def test_moments_have_the_shapes_of_the_model():
    plan = make_plan(training={"server": {"kind": "fedadam"}, "averaged": 0.0})
    shapes = moment_shapes(plan)
    assert {name.split("/")[0] + "/" for name in shapes} == {FIRST, SECOND}
    assert {shape.dtype for shape in shapes.values()} == {"float64"}
    assert moment_shapes(make_plan()) == {}


def test_an_outlier_is_left_out_recorded_and_asked_again(tmp_path):
    plan = make_plan(training={"rounds": 3, "local_steps": 2, "largest_update": 50.0})
    federation = Federation(tmp_path)

    def forge(fields, arrays):
        if fields["step"] == "train-0002":
            arrays["update/output.weight"] = np.full_like(arrays["update/output.weight"], 1e3)

    federation.silos["corona"].forge = forge
    outcome = carry_out(plan, federation.grid(), federation.coordinator)
    left_out = outcome.manifest["left_out"]["train-0002"]
    assert left_out["corona"]["reason"] == "outlier"
    assert re.search(r"largest_update, 50: \d", left_out["corona"]["why"])  # how long it was
    assert "train-0003" not in outcome.manifest["left_out"]


def test_where_all_are_outliers_nobody_is_told_to_ask_again(tmp_path):
    plan = make_plan(training={"rounds": 3, "local_steps": 2, "largest_update": 1e-9})
    federation = Federation(tmp_path)
    with pytest.raises(RunFailed) as failed:
        carry_out(plan, federation.grid(), federation.coordinator)
    assert "another largest_update" in failed.value.do
    assert failed.value.why.count("longer than") == len(federation.silos)


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"combine": {"kind": "multi-krum", "hostile": 1}}, "multi-krum needs minimum_silos"),
        ({"combine": {"kind": "trimmed-mean", "cut": 0.1}}, "trimmed-mean needs minimum_silos"),
        ({"combine": {"kind": "trimmed-mean", "cut": 0.5}}, "less than 0.5"),
        ({"server": {"kind": "fedsgd"}}, "fedavg"),
        ({"server": {"kind": "fedadam", "tau": 0}}, "greater than"),
        ({"proximal": 3.0, "learning_rate": 0.5}, "below 1"),
        ({"largest_update": -1.0}, "greater than 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(training, problem):
    with pytest.raises(PlanError, match=problem):
        make_plan(training=training)


def test_the_final_model_is_the_mean_of_the_last_rounds():
    """Polyak and Juditsky's average, also when a run goes on from what a checkpoint kept."""
    updates = updates_of(5)
    plain = rounds_of(Aggregation(settings(rounds=5)), updates)
    rule = Aggregation(settings(rounds=5, averaged=0.5))
    np.testing.assert_array_equal(rounds_of(rule, updates)[:-1], plain[:-1])
    model, rule = {"w": np.ones(WIDTH, np.float32)}, Aggregation(settings(rounds=5, averaged=0.5))
    for number, each in enumerate(updates, start=1):
        held = {silo: accepted(update) for silo, update in each.items()}
        model = rule.round(model, held, dict.fromkeys(each, 1.0), number).model
        kept = {name: array.copy() for name, array in rule.kept.items()}
        rule = Aggregation(settings(rounds=5, averaged=0.5))
        rule.restore(kept)
    np.testing.assert_allclose(model["w"], np.mean(plain[-3:], axis=0), rtol=1e-6)


def test_averaging_goes_with_moments_and_into_checkpoints():
    server = {"kind": "fedavgm", "learning_rate": 0.5}
    plan = make_plan(
        silos=list(NAMES),
        minimum_silos=5,
        training={"rounds": 4, "local_steps": 2, "averaged": 0.5, "server": server},
    )
    rule = Aggregation(plan.schedule)
    rounds_of(rule, updates_of(1))
    names = {name.partition("/")[0] for name in moment_shapes(plan)}
    assert names == {"moment1", "mean"} == {name.partition("/")[0] for name in rule.kept}


def test_one_round_is_averaged_with_nothing():
    assert settings(rounds=1, averaged=1.0).averaged_rounds == 0
    assert settings(rounds=3, averaged=0.3).averaged_rounds == 0
    assert settings(rounds=6, averaged=0.5).averaged_rounds == 3
