"""The plan: what is refused and how it is said, one canonical form, a digest that stays."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.errors import IntegrityError, PlanError
from abfed.protocol.plan import Plan
from abfed.protocol.schema import BINARY_OUTCOMES, RESERVED_COLUMNS
from tests.examples import make_model_plan, make_plan, model_values, plan_values

GOLDEN = "65b5b4106d2565e29e68bc55464c5af06dc346cd884a53bec93ff9a18dc27c8b"
"""Digest of `make_plan()`. If it changes, every silo's approvals and ledgers lose their meaning."""
GOLDEN_MODEL = "65ba0717428a4936892e336e69a20eb9dfc7768a79981248e53067bcb79cbaf0"

AGE = {"name": "age", "kind": "numeric", "low": 0.0, "high": 100.0}
SPLIT = {"statistics": 1.0, "training": 1.5, "evaluation": 0.5}


def _arms(*arms: tuple[str, float, bool]) -> list[dict[str, Any]]:
    return [{"name": name, "share": share, "control": control} for name, share, control in arms]


def _metric(**changes: Any) -> dict[str, Any]:
    metric = {"name": "clicked", "kind": "mean", "column": "clicked", "high": 3.0}
    return {"metrics": [metric | changes], "guardrails": []}


def _privacy(**changes: Any) -> dict[str, Any]:
    return {"privacy": {"epsilon": 1.0, "delta": 1e-6, "split": {"statistics": 1.0}} | changes}


MALFORMED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("unknown key", {"purposee": "x"}, ("purposee: unknown key", "'purpose'")),
    (
        "unknown inner key",
        _privacy(epsilonn=1.0),
        ("privacy.epsilonn: unknown key", "'epsilon'"),
    ),
    ("unknown key without a neighbour", {"zzzzqqqq": 1}, ("zzzzqqqq: unknown key",)),
    ("missing", {"purpose": None}, ("purpose: is missing",)),
    ("two missing", {"purpose": None, "primary": None}, ("purpose: is", "primary: is")),
    ("number for a name", {"name": 5}, ("name:", "string")),
    ("boolean for a number", _privacy(epsilon=True), ("privacy.epsilon:",)),
    ("text for a number", _privacy(epsilon="1.0"), ("privacy.epsilon:",)),
    ("float for a count", {"sends_per_recipient": 2.5}, ("sends_per_recipient:",)),
    ("mapping for a list", {"arms": {"a": 0.5}}, ("arms:",)),
    ("capital letters", {"experiment": "Spring"}, ("experiment:",)),
    ("over-long name", {"name": "a" * 49}, ("name:",)),
    ("path as a name", {"name": "../../etc"}, ("name:",)),
    ("newline after a name", {"name": "spring\n"}, ("name:",)),
    ("zero epsilon", _privacy(epsilon=0.0), ("privacy.epsilon:", "greater than 0")),
    ("negative epsilon", _privacy(epsilon=-1.0), ("privacy.epsilon:",)),
    ("NaN", _privacy(epsilon=math.nan), ("privacy.epsilon:", "finite")),
    ("infinity", _metric(high=math.inf), ("metrics[0].high:", "finite")),
    ("minus infinity in a list", {"features": [AGE | {"low": -math.inf}]}, ("features[0].low:",)),
    ("zero delta", _privacy(delta=0.0), ("privacy.delta:",)),
    ("delta too large", _privacy(delta=1e-3), ("privacy.delta:", "0.0001")),
    ("split not adding up", _privacy(split={"statistics": 0.5}), ("privacy:", "split", "0.5")),
    ("statistics for nothing", _privacy(split={"statistics": 0.0}), ("split.statistics:",)),
    (
        "bounds too close",
        {"features": [AGE | {"high": 5e-324}]},
        ("features[0].numeric:", "too close"),
    ),
    ("bounds reversed", _metric(low=4.0), ("metrics[0].mean:", "low (4.0)", "high (3.0)")),
    ("bounds equal", _metric(low=3.0), ("low (3.0)",)),
    ("feature bounds reversed", {"features": [AGE | {"low": 101.0}]}, ("features[0]", "low")),
    ("shares below one", {"arms": _arms(("a", 0.5, True), ("b", 0.4, False))}, ("arms:", "0.9")),
    ("share of one", {"arms": _arms(("a", 1.0, True), ("b", 0.4, False))}, ("arms[0].share:",)),
    ("two controls", {"arms": _arms(("a", 0.5, True), ("b", 0.5, True))}, ("arms:", "control")),
    ("no control", {"arms": _arms(("a", 0.5, False), ("b", 0.5, False))}, ("arms:", "not 0")),
    ("one arm", {"arms": _arms(("a", 0.5, True))}, ("arms:",)),
    ("arm twice", {"arms": _arms(("a", 0.5, True), ("a", 0.5, False))}, ("arms:", "'a'")),
    ("silo twice", {"silos": ["aurora", "aurora"]}, ("silos:", "'aurora'")),
    ("no silo", {"silos": []}, ("silos:",)),
    ("more silos needed than asked", {"minimum_silos": 3}, ("minimum_silos (3)",)),
    ("no silo needed", {"minimum_silos": 0}, ("minimum_silos:",)),
    ("primary unknown", {"primary": "opened"}, ("primary:", "'opened'", "clicked, spend")),
    (
        "guardrail unknown",
        {"guardrails": [{"metric": "x", "harm": "increase", "margin": 0.1}]},
        ("guardrails:", "'x'"),
    ),
    (
        "guardrail on the primary",
        {"guardrails": [{"metric": "clicked", "harm": "increase", "margin": 0.1}]},
        ("guardrails:", "primary"),
    ),
    (
        "negative margin",
        {"guardrails": [{"metric": "spend", "harm": "increase", "margin": -0.1}]},
        ("guardrails[0].margin:",),
    ),
    (
        "guardrail without a direction",
        {"guardrails": [{"metric": "spend", "margin": 0.1}]},
        ("guardrails[0].harm: is missing",),
    ),
    (
        "metric twice",
        {"metrics": [{"name": "clicked", "kind": "proportion", "column": "clicked"}] * 2},
        ("metrics:", "'clicked'"),
    ),
    ("metric of unknown kind", _metric(kind="median"), ("metrics[0]", "proportion")),
    ("metric of an unknown outcome", _metric(column="mood"), ("metrics[0].mean.column:",)),
    (
        "ratio over itself",
        {
            "metrics": [
                {"name": "clicked", "kind": "ratio", "numerator": "opened", "denominator": "opened"}
            ],
            "guardrails": [],
        },
        ("metrics[0]", "numerator and denominator"),
    ),
    (
        "population on an undeclared column",
        {"population": [{"column": "age", "at_least": 18.0}]},
        ("population:", "'age'"),
    ),
    (
        "population on an outcome",
        {"population": [{"column": "clicked", "one_of": ["true"]}]},
        ("population:", "'clicked'"),
    ),
    (
        "population asks for a range of a category",
        {"population": [{"column": "region", "at_least": 1.0}]},
        ("population:", "one_of"),
    ),
    (
        "population asks for nothing",
        {"population": [{"column": "region"}]},
        ("population[0]", "one_of"),
    ),
    (
        "population reversed",
        {"population": [{"column": "age", "at_least": 3.0, "at_most": 2.0}], "features": [AGE]},
        ("population[0]", "at_least"),
    ),
    ("feature with a reserved name", {"features": [AGE | {"name": "clicked"}]}, ("'clicked'",)),
    ("feature twice", {"features": [AGE, AGE]}, ("features:", "'age'")),
    (
        "category with one value",
        {"features": [{"name": "tier", "kind": "category", "values": ["x"]}]},
        ("features[0]", "values"),
    ),
    (
        "category with a value twice",
        {"features": [{"name": "tier", "kind": "category", "values": ["x", "x"]}]},
        ("features[0]", "distinct"),
    ),
    (
        "model without features",
        {"model": {"outcome": "clicked"}, "privacy": {"epsilon": 3.0, "split": SPLIT}},
        ("features:", "model"),
    ),
    (
        "model without budget",
        {"model": {"outcome": "clicked"}, "features": [AGE]},
        ("privacy.split:", "training"),
    ),
    (
        "budget without model",
        {"privacy": {"epsilon": 3.0, "split": SPLIT}},
        ("privacy.split:", "no model"),
    ),
    ("training without model", {"training": {}}, ("training:", "no model")),
    ("negative seed", {"simulation": {"seed": -1}}, ("simulation.seed:",)),
    ("text with a tag's value", {"name": b"bytes"}, ("neither text",)),
]


@pytest.mark.parametrize(
    ("changes", "named"),
    [case[1:] for case in MALFORMED],
    ids=[case[0].replace(" ", "-") for case in MALFORMED],
)
def test_a_malformed_plan_is_refused_and_the_field_is_named(
    changes: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_values(plan_values(**changes), where="plans/spring.yaml")
    message = str(caught.value)
    assert message.startswith("plans/spring.yaml: ")
    for text in named:
        assert text in message


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_values(plan_values(name="UP", minimum_silos=0, purpose=None))
    for field in ("name:", "minimum_silos:", "purpose:"):
        assert field in str(caught.value)


def test_the_form_of_a_name_is_told_in_words() -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_values(plan_values(name="Spring Mail"))
    assert "name: must be a small letter first" in str(caught.value)
    assert "[a-z]" not in str(caught.value)


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "only a comment": (b"# later\n", "empty"),
    "a list": (b"- name: spring\n", "mapping"),
    "a word": (b"spring\n", "mapping"),
    "not UTF-8": ("name: frühling".encode("latin-1"), "UTF-8"),
    "a key twice": (b"name: a\nname: b\n", "'name' stands twice (line 2"),
    "an inner key twice": (b"privacy: {epsilon: 1.0, epsilon: 9.0}\n", "'epsilon' stands twice"),
    "aliases": (b"a: &x [1]\nb: *x\n", "not allowed"),
    "over-long": (b"#" * 1_048_577, "longer than 1048576"),
    "torn": (b"arms: [\n", "not valid YAML"),
    "deep": (b"a: " + b"[" * 5000, "not valid YAML"),
}


@pytest.mark.parametrize(("data", "named"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_plan_is_refused_by_path(tmp_path: Path, data: bytes, named: str) -> None:
    path = tmp_path / "spring.yaml"
    path.write_bytes(data)
    with pytest.raises(PlanError) as caught:
        Plan.load(path)
    assert caught.value.where == str(path)
    assert named in caught.value.what


def test_a_missing_file_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="can't be read"):
        Plan.load(tmp_path / "none.yaml")
    with pytest.raises(PlanError, match="a folder"):
        Plan.load(tmp_path)


def test_a_file_gives_the_plan_of_its_values(tmp_path: Path) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(yaml.safe_dump(model_values()), encoding="utf-8")
    assert Plan.load(path) == make_model_plan()


def test_the_digest_of_a_plan_never_changes() -> None:
    assert make_plan().digest == GOLDEN
    assert make_model_plan().digest == GOLDEN_MODEL


def test_writing_a_default_out_or_a_whole_number_is_the_same_question() -> None:
    values = plan_values(minimum_silos=1, population=[], sends_per_recipient=5)
    values["privacy"] = {"delta": 1e-6, "split": {"statistics": 1}, "epsilon": 1}
    assert Plan.from_values(values).digest == make_plan().digest


def test_how_a_report_looks_is_not_part_of_the_question() -> None:
    report = {"title": "Spring, for the board", "notebook": "board"}
    titled = make_plan(report=report)
    assert titled.report.title == report["title"]
    assert titled.digest == make_plan().digest
    assert b"board" not in titled.canonical_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment": "spring-2027"},
        {"purpose": "profiling"},
        {"silos": ["borealis", "aurora"]},
        {"sends_per_recipient": 6},
        {"simulation": {"seed": 1}},
        _privacy(delta=2e-6),
        {"primary": "spend", "guardrails": None},
    ],
)
def test_each_part_of_the_question_changes_the_digest(changes: dict[str, Any]) -> None:
    assert make_plan(**changes).digest != make_plan().digest


NAMES = st.from_regex(r"\A[a-z][a-z0-9_-]{0,47}\Z")
FEATURES = NAMES.filter(lambda name: name not in RESERVED_COLUMNS)
NUMBERS = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda x: round(x, 9))


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Values of plans that are right."""
    cuts = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    arms = draw(st.lists(NAMES, min_size=len(cuts), max_size=len(cuts), unique=True))
    features = draw(st.lists(FEATURES, min_size=2, max_size=4, unique=True))
    bounds = sorted(draw(st.lists(NUMBERS, min_size=2, max_size=2, unique=True)))
    words = st.lists(st.text(max_size=9), min_size=2, max_size=4, unique=True)
    split = [draw(st.floats(0.01, 5.0)) for _ in range(3)]
    return plan_values(
        arms=[
            {"name": name, "share": cut / sum(cuts), "control": place == 0}
            for place, (name, cut) in enumerate(zip(arms, cuts, strict=True))
        ],
        silos=draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)),
        population=[{"column": "region", "one_of": draw(words)}],
        features=[
            {"name": features[0], "kind": "numeric", "low": bounds[0], "high": bounds[1]},
            *({"name": name, "kind": "category", "values": draw(words)} for name in features[1:]),
        ],
        model={
            "outcome": draw(st.sampled_from(BINARY_OUTCOMES)),
            "hidden": draw(st.lists(st.integers(1, 1024), max_size=4)),
        },
        training=draw(st.none() | st.just({"rounds": 3, "sampling_rate": 0.1})),
        privacy={
            "epsilon": sum(split),
            "delta": draw(st.floats(1e-12, 1e-4)),
            "split": dict(zip(("statistics", "training", "evaluation"), split, strict=True)),
        },
        simulation=draw(st.none() | st.fixed_dictionaries({"seed": st.integers(0, 2**63 - 1)})),
        report={"title": draw(st.text(max_size=120))},
    )


@settings(max_examples=40)
@given(plans())
def test_canonical_bytes_lead_back_to_the_same_question(values: dict[str, Any]) -> None:
    before = copy.deepcopy(values)
    plan = Plan.from_values(values)
    assert values == before
    again = Plan.from_canonical(plan.canonical_bytes())
    assert again.canonical_bytes() == plan.canonical_bytes()
    assert again.digest == plan.digest
    assert again.model_dump(exclude={"report"}) == plan.model_dump(exclude={"report"})


@settings(max_examples=20)
@given(plans(), st.randoms(use_true_random=False))
def test_the_order_of_keys_in_a_file_does_not_matter(values: dict[str, Any], random: Any) -> None:
    keys = list(values)
    random.shuffle(keys)
    assert Plan.from_values({key: values[key] for key in keys}) == Plan.from_values(values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b'":', b'": ', 1),
        lambda data: data.replace(b'"epsilon":1.0', b'"epsilon":1'),
        lambda data: data.replace(b'"epsilon":1.0', b'"epsilon":1.00'),
        lambda data: data.replace(b'"minimum_silos":1,', b""),
        lambda data: data.replace(b'"name":"spring"', b'"name":"SPRING"'),
        lambda data: data.replace(b'"name":"spring"', b'"name":"spring","name":"spring"'),
        lambda data: data.replace(b'"name":"spring"', b'"name":NaN'),
        lambda data: data[:-1],
        lambda data: data.decode().encode("utf-16"),
        lambda _: b"[" * 100_000,
        lambda _: b"[" * 900 + b"]" * 900,
        lambda _: b"1" * 10_000,
        lambda _: b'"\\ud800"',
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"",
        lambda _: canonical_bytes(plan_values()),
    ],
)
def test_any_other_spelling_is_refused(spoil: Any) -> None:
    data = make_plan().canonical_bytes()
    assert spoil(data) != data
    with pytest.raises(IntegrityError):
        Plan.from_canonical(spoil(data))


def test_columns_are_all_that_a_plan_reads() -> None:
    plan = make_model_plan(
        population=[{"column": "region", "one_of": ["eu"]}, {"column": "age", "at_least": 18.0}],
        model={"outcome": "converted"},
    )
    assert plan.outcome_columns() == ("clicked", "converted", "revenue")
    assert plan.columns() == ("clicked", "converted", "revenue", "age", "tier")
    assert plan.control.name == "a"
    assert plan.schedule.rounds == 2


def test_a_plan_is_frozen() -> None:
    plan = make_plan()
    with pytest.raises(ValueError, match="frozen"):
        plan.name = "other"  # type: ignore[misc]
