"""Training and evaluation in a silo: who is used for what, and what comes out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from abfed.learning.shapes import MODEL, initial_arrays, prefixed, release_shapes
from abfed.privacy.charges import plan_charges
from abfed.privacy.mechanisms import UnsafeSeededNoise
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import Charge
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import pack, shapes_of
from abfed.silo.evaluation import compute_evaluation
from abfed.silo.heldout import GRID
from abfed.silo.permit import Permit
from abfed.silo.prepared import PreparedRows
from abfed.silo.training import columns_needed, compute_training, prepare
from tests.silo import made

PEOPLE = 400
EPOCH = "e" * 64


class NoNoise(UnsafeSeededNoise):
    """Seeded batches, no noise: shows what is computed underneath."""

    __slots__ = ()

    def integers(self, values: Any, scale: float) -> Any:
        return values

    def floats(self, count: int, sigma: float) -> Any:
        return np.zeros(count)


class NobodyDrawn(NoNoise):
    """Every batch is empty."""

    __slots__ = ()

    def poisson_batch(self, population: int, rate: float) -> Any:
        return np.zeros(0, dtype=np.int64)


class Asked(NoNoise):
    """Remembers what integer noise was asked for."""

    __slots__ = ("asked",)

    def integers(self, values: Any, scale: float) -> Any:
        self.asked = [*getattr(self, "asked", []), (values.copy(), scale)]
        return values + GRID // 4


def learning_plan(*hidden: int, **training: Any) -> Plan:
    values = made.spring_plan().model_dump(mode="json") | {
        "model": {"outcome": "clicked", "hidden": list(hidden)},
        "training": {"rounds": 1, "local_steps": 3, "sampling_rate": 0.3} | training,
        "privacy": {
            "epsilon": 3.0,
            "split": {"statistics": 1.0, "training": 1.5, "evaluation": 0.5},
        },
    }
    return Plan.from_values(values)


def with_model(**changes: Any) -> Plan:
    """The plan with a model that has more to tell."""
    values = learning_plan(3).model_dump(mode="json")
    return Plan.from_values(values | {"model": values["model"] | changes})


def permit_for(plan: Plan, step: str = "train-0001", **changes: Any) -> Permit:
    values: dict[str, Any] = {
        "plan": plan,
        "step": step,
        "key": "0" * 64,
        "epoch": EPOCH,
        "charges": plan_charges(plan)[step],
        "noise": UnsafeSeededNoise(5),
        "lawful_bases": made.LAWFUL,
        "holdout_key": bytes(32),
        "incoming": prefixed(MODEL, initial_arrays(plan)),
        "expected_recipients": 400.0,
    }
    return Permit(**(values | changes))


def sends(people: int = PEOPLE, **changes: Any) -> list[dict[str, Any]]:
    """Rows sorted by recipient; two sends each, features and clicks of their own."""
    generator = np.random.default_rng(3)
    rows = []
    for person in range(people):
        age = float(generator.uniform(0, 100))
        for day in (0, 7):
            clicked = bool(generator.random() < 0.1 + age / 200)
            rows.append(made.send(person, day, age=age, clicked=clicked, **changes))
    return sorted(rows, key=lambda row: (row["recipient"], row["sent_at"]))


def prepared(permit: Permit, rows: list[dict[str, Any]], pieces: int = 1) -> PreparedRows:
    """Rows as the store gives them: a recipient's all in one table."""
    owners = sorted({row["recipient"] for row in rows})
    tables = []
    for piece in range(pieces):
        mine = set(owners[piece::pieces])
        tables.append(made.table([row for row in rows if row["recipient"] in mine]))
    return prepare(permit, tables)


def held_out_people(permit: Permit, rows: list[dict[str, Any]]) -> set[bytes]:
    """Whom the key holds out, found by preparing each person alone."""
    return {
        owner
        for owner in {row["recipient"] for row in rows}
        if prepared(permit, [r for r in rows if r["recipient"] == owner]).held_out.recipients
    }


def test_only_declared_columns_are_asked_for():
    assert columns_needed(learning_plan()) == ("clicked", "age", "tier")


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_what_comes_out_is_what_the_gate_expects(hidden):
    plan = learning_plan(*hidden)
    permit = permit_for(plan)
    computed = compute_training(permit, prepared(permit, sends()))
    assert computed.payload == "training"
    assert shapes_of(computed.arrays) == release_shapes(plan, permit.step)
    sampled, gaussian = permit.charges
    assert computed.noise == {
        "noise_multiplier": sampled.noise_multiplier,
        "sampling_rate": 0.3,
        "clip": 4.0,
        "steps": 3.0,
        "expected_batch": pytest.approx(0.3 * 400 * 0.8),
        "evaluation_noise_multiplier": gaussian.noise_multiplier,
    }
    final = permit_for(plan, "evaluate")
    evaluated = compute_evaluation(final, prepared(final, sends()))
    assert evaluated.payload == "evaluation"
    assert shapes_of(evaluated.arrays) == release_shapes(plan, "evaluate")
    assert evaluated.noise == {
        "noise_multiplier": final.charges[0].noise_multiplier,
        "sensitivity": pytest.approx(7**0.5),  # three tables, and two for each of two arms
    }


@pytest.mark.privacy
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_people_held_out_have_no_part_in_the_update(hidden):
    permit = permit_for(learning_plan(*hidden))
    rows = sends()
    out = held_out_people(permit, rows)
    assert 0.1 * PEOPLE < len(out) < 0.3 * PEOPLE
    turned = [
        row | {"clicked": not row["clicked"], "age": 3.0, "tier": "basic"}
        if row["recipient"] in out
        else row
        for row in rows
    ]
    absent = [row for row in rows if row["recipient"] not in out]
    updates = []
    for each in (rows, turned, absent):
        again = dataclasses.replace(permit, noise=NoNoise(5))
        arrays = compute_training(again, prepared(again, each)).arrays
        updates.append(pack({k: v for k, v in arrays.items() if k.startswith("update/")}))
    assert updates[0] == updates[1] == updates[2]


@pytest.mark.privacy
def test_only_people_held_out_are_evaluated_and_each_is_one_count():
    plan = learning_plan()
    permit = permit_for(plan, "evaluate", noise=NoNoise(1))
    rows = sends()
    out = held_out_people(permit, rows)
    counts = compute_evaluation(permit, prepared(permit, rows)).arrays["histogram"]
    assert counts.sum() == len(out)
    turned = [r if r["recipient"] in out else r | {"clicked": not r["clicked"]} for r in rows]
    again = compute_evaluation(permit, prepared(permit, turned)).arrays["histogram"]
    assert (again == counts).all()
    gone = next(iter(out))
    fewer = prepared(permit, [row for row in rows if row["recipient"] != gone])
    without = compute_evaluation(permit, fewer).arrays["histogram"]
    assert np.abs(counts - without).sum() == 1


@pytest.mark.privacy
def test_which_row_of_a_person_counts_does_not_depend_on_values():
    permit = permit_for(learning_plan())
    rows = sends()
    days = [float(row["sent_at"].day) for row in rows]
    marked = [row | {"age": day} for row, day in zip(rows, days, strict=True)]
    chosen = prepared(permit, marked).held_out.features[:, 0]
    assert len(set(chosen.tolist())) == 2  # now the first send, now the second
    turned = [row | {"clicked": not row["clicked"]} for row in marked]
    assert (prepared(permit, turned).held_out.features[:, 0] == chosen).all()


def test_the_key_decides_and_a_larger_share_holds_the_same_people_out():
    rows = sends()
    small = held_out_people(permit_for(learning_plan(holdout=0.1)), rows)
    large = held_out_people(permit_for(learning_plan(holdout=0.4)), rows)
    other = held_out_people(permit_for(learning_plan(holdout=0.4), holdout_key=b"k" * 32), rows)
    assert small < large
    assert large != other
    assert len(large) == pytest.approx(0.4 * PEOPLE, abs=40)


def test_rows_without_a_label_are_dropped_and_missing_features_are_neutral():
    permit = permit_for(learning_plan())
    rows = [
        made.send(1, 0, clicked=None),
        made.send(1, 7, clicked=True, age=None, tier=None),
        made.send(2, 0, clicked=None),
        made.send(3, 0, clicked=False, age=100.0, tier="unheard-of"),
    ]
    ready = prepared(permit, sorted(rows, key=lambda row: row["recipient"]))
    both = [ready.training, ready.held_out]
    assert sum(each.recipients for each in both) == 2
    found = {
        (float(label), *features.tolist())
        for each in both
        for label, features in zip(each.labels, each.features, strict=True)
    }
    assert found == {(1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)}


def test_how_the_store_parts_its_tables_changes_nothing():
    permit = permit_for(learning_plan())
    one, five = (prepared(permit, sends(), pieces) for pieces in (1, 5))
    for part in ("training", "held_out"):
        mine, other = getattr(one, part), getattr(five, part)
        assert mine.recipients == other.recipients
        assert np.diff(mine.offsets).sum() == np.diff(other.offsets).sum() == len(other.labels)
        lines = [sorted(each.features.tolist()) for each in (mine, other)]
        assert lines[0] == lines[1]


@pytest.mark.privacy
@pytest.mark.parametrize("tables", [0, 1])
@pytest.mark.parametrize("model", [{}, {"also": ["opened"], "revenue": {"high": 9.0}}])
def test_an_empty_silo_answers_like_any_other(tables, model):
    """That there is nobody is a figure, too: it must not show as a failure."""
    plan = with_model(**model)
    for step, compute in (("train-0001", compute_training), ("evaluate", compute_evaluation)):
        permit = permit_for(plan, step, expected_recipients=1.0)
        ready = prepare(permit, [made.table([])] * tables)
        computed = compute(permit, ready)
        assert shapes_of(computed.arrays) == release_shapes(plan, step)
        assert computed.arrays["histogram"].any()


@pytest.mark.privacy
@pytest.mark.parametrize("sends_each", [1, 2])
def test_a_batch_of_nobody_is_a_step_of_noise_with_several_labels_too(sends_each):
    """Whether anybody was drawn is a figure, too: a refusal must not tell it."""
    plan = with_model(also=["opened"], learner="x")
    permit = permit_for(plan, noise=NobodyDrawn(1))
    rows = [made.send(person, day) | {"clicked": True} for person in range(9)
            for day in range(sends_each)]  # fmt: skip
    ready = prepared(permit, sorted(rows, key=lambda row: row["recipient"]))
    assert ready.training.recipients
    computed = compute_training(permit, ready)
    assert shapes_of(computed.arrays) == release_shapes(plan, permit.step)


@pytest.mark.privacy
def test_a_model_that_overflows_gets_a_finite_answer():
    plan = learning_plan(3)
    hostile = {name: np.full_like(array, 3e38) for name, array in initial_arrays(plan).items()}
    hostile["output.weight"][0, 1] = -3e38
    permit = permit_for(plan, incoming=prefixed(MODEL, hostile))
    computed = compute_training(permit, prepared(permit, sends()))
    assert all(np.isfinite(array).all() for array in computed.arrays.values())


def test_rows_of_another_plan_or_state_of_the_data_are_refused():
    plan = learning_plan()
    permit = permit_for(plan)
    ready = prepared(permit, sends(20))
    for other in (
        dataclasses.replace(permit, epoch="f" * 64),
        permit_for(learning_plan(clip=3.0)),
    ):
        with pytest.raises(IntegrityError, match="another plan"):
            compute_training(other, ready)
    final = permit_for(plan, "evaluate", epoch="f" * 64)
    with pytest.raises(IntegrityError, match="another plan"):
        compute_evaluation(final, ready)


@pytest.mark.privacy
def test_nothing_runs_that_was_not_paid_for():
    plan = learning_plan()
    permit = permit_for(plan)
    ready = prepared(permit, sends(20))
    sampled, gaussian = permit.charges
    for charges in (
        (),
        (sampled,),
        (gaussian,),
        (sampled, gaussian, gaussian),
        (sampled.model_copy(update={"count": 2}), gaussian),
        (sampled.model_copy(update={"sampling_rate": 0.2}), gaussian),
        (sampled, Charge(event="gaussian", noise_multiplier=5.0, count=2)),
    ):
        with pytest.raises(IntegrityError, match="permit"):
            compute_training(dataclasses.replace(permit, charges=charges), ready)
    with pytest.raises(IntegrityError, match="another step"):
        compute_training(dataclasses.replace(permit, step="evaluate"), ready)
    with pytest.raises(IntegrityError, match="noised count"):
        compute_training(dataclasses.replace(permit, expected_recipients=None), ready)
    with pytest.raises(IntegrityError, match="another step"):
        compute_evaluation(permit, ready)


def test_a_row_of_an_unknown_arm_is_a_defect_of_the_store():
    permit = permit_for(learning_plan())
    with pytest.raises(IntegrityError, match="arm"):
        prepared(permit, [made.send(1, clicked=True, arm="lost")])


def test_rows_in_memory_never_show_themselves():
    permit = permit_for(learning_plan())
    ready = prepared(permit, sends(20))
    assert "array" not in repr(ready)
    assert "permit" in repr(permit).lower()
    assert "\\x00" not in repr(permit)  # nor does the key


def test_text_columns_may_come_as_dictionaries():
    permit = permit_for(learning_plan())
    plain = made.table(sends(20))
    coded = plain
    for name in ("arm", "tier"):
        place = coded.schema.get_field_index(name)
        coded = coded.set_column(place, name, coded[name].dictionary_encode())
    assert isinstance(coded["arm"].type, pa.DictionaryType)
    one, two = (prepare(permit, [table]).training for table in (plain, coded))
    assert (one.features == two.features).all()
    assert (one.arms == two.arms).all()


@pytest.mark.privacy
def test_a_histogram_gets_the_charged_noise_on_a_fine_grid() -> None:
    """On whole counts the noise would be coarser than what was charged (tests/privacy)."""
    plan, noise = learning_plan(), Asked(3)
    permit = permit_for(plan, "evaluate", noise=noise)
    computed = compute_evaluation(permit, prepared(permit, sends()))
    charged = plan_charges(plan)["evaluate"][0].noise_multiplier
    assert len(noise.asked) == len(computed.arrays)
    for (values, scale), counts in zip(noise.asked, computed.arrays.values(), strict=True):
        assert scale == pytest.approx(charged * computed.noise["sensitivity"] * GRID)
        assert (values % GRID == 0).all()
        assert (counts == values // GRID).all()  # a quarter of a count is rounded away
        assert counts.sum() > 0


def test_texts_and_send_times_are_features_and_missing_ones_are_zeros():
    values = learning_plan().model_dump(mode="json")
    values["model"] |= {"texts": [{"name": "subject", "buckets": 8}], "send_time": {}}
    plan = Plan.from_values(values)
    permit = permit_for(plan)
    assert columns_needed(plan) == ("clicked", "age", "tier", "subject")
    rows = [row | {"subject": "Spring sale"} for row in sends(40)]
    rows[0]["subject"] = None
    held = made.table(rows, made.FEATURES | {"subject": "category"})
    kept = prepare(permit, [held])
    lines = np.vstack([kept.training.features, kept.held_out.features])
    assert lines.shape[1] == 3 + 8 + 4
    texts = lines[:, 3:11]
    assert len(np.unique(texts, axis=0)) <= 2
    assert np.abs(lines[:, 11:]).max() <= 1.0
    computed = compute_training(permit, kept)
    assert shapes_of(computed.arrays) == release_shapes(plan, permit.step)
