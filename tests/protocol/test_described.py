"""Schemas for editors: they accept what we accept, and say what each field means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from abfed.protocol.declared import parse_record
from abfed.protocol.described import described_schema
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.protocol.schema import Frozen
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.mapping import ExportMapping
from abfed.silo.policy import Policy
from tests.examples import model_values, plan_values
from tests.silo.asking import policy_values

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
MODELS: tuple[type[Frozen], ...] = (Plan, ExportMapping, Policy)


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described(model: type[Frozen]) -> None:
    schema = described_schema(model, "x")
    jsonschema.Draft202012Validator.check_schema(schema)
    records = {model.__name__: schema} | schema["$defs"]
    bare = [
        f"{name}.{field}"
        for name, record in records.items()
        for field, facts in record.get("properties", {}).items()
        if not facts.get("description")
    ]
    assert bare == []
    assert all("Attributes:" not in record.get("description", "") for record in records.values())


def _valid(model: type[Frozen], values: Any) -> bool:
    schema = described_schema(model, "x")
    return jsonschema.Draft202012Validator(schema).is_valid(values)


def _yaml(path: Path) -> dict[str, Any]:
    return parse_yaml(path.read_bytes(), where=str(path))


def test_shipped_plans_and_mappings_are_valid_by_their_schemas() -> None:
    plans = [path for path in EXPERIMENTS.glob("*.yaml") if "arms" in _yaml(path)]
    plans = [path for path in plans if "mapping" not in path.name]
    mappings = [*EXPERIMENTS.glob("*.mapping.yaml"), *EXPERIMENTS.glob("hillstrom/*.yaml")]
    assert len(plans) >= 3
    assert len(mappings) == 5
    for path in plans:
        assert _valid(Plan, _yaml(path)), path
        Plan.load(path)
    for path in mappings:
        assert _valid(ExportMapping, _yaml(path)), path
        ExportMapping.load(path)


def test_what_is_refused_is_refused_by_the_schema_too() -> None:
    assert _valid(Plan, plan_values() | {"privacy": "none"})
    assert _valid(Plan, model_values())
    assert not _valid(Plan, plan_values() | {"purposee": "x"})
    assert _valid(Policy, policy_values(bytes(32)))
    assert not _valid(Policy, policy_values(bytes(32)) | {"budget": {"epsilon": -1, "delta": 1}})


@pytest.mark.parametrize(
    ("model", "values", "told"),
    [
        (ExportMapping, {"recipient": {"column": "a"}}, "recipient.column: 'columns'"),
        (ExportMapping, {"arm": {"columns": ["a"]}}, "arm.columns: 'column'"),
        (
            ExportMapping,
            {"features": {"age": {"kind": "numeric", "colum": "a"}}},
            ".colum: 'column'",
        ),
        (Plan, {"metrics": [{"kind": "mean", "hihg": 1.0}]}, "hihg: 'high'"),
        (Plan, {"analysis": {"segments": [{"featur": "a"}]}}, "featur: 'feature'"),
        (Plan, {"privacy": {"slit": {}}}, "privacy.slit: 'split'"),
    ],
)
def test_the_key_that_was_meant_is_one_that_may_stand_there(
    model: type[Frozen], values: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as refused:
        parse_record(model, values, where="x")
    assert told.replace(": '", ": unknown key; did you mean '") + "?" in refused.value.what
