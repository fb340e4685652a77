"""What ingest says about rows that it takes in: counts and declared names, never a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abfed.silo.ingest import ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.policy import Policy
from tests.silo.asking import policy_values
from tests.silo.bad_inputs import SECRETS
from tests.silo.made import MAPPING, export_text, founded, line


def doubts(folder: Path, *rows: str, **policy: Any) -> dict[str, int]:
    store, keys = founded(folder, buckets=2)
    (folder / "export.csv").write_text(export_text(*rows))
    (folder / "mapping.yaml").write_text(MAPPING)
    columns = ["opened", "clicked", "revenue", "age", "tier"]
    values = policy_values(bytes(32), columns=columns, **policy)
    made = Policy.model_validate_json(json.dumps(values))
    mapping = ExportMapping.load(folder / "mapping.yaml")
    return dict(ingest(store, keys, mapping, folder / "export.csv", policy=made).doubts)


PEOPLE = [line(person, legal="C") for person in range(1, 41)]
AUTUMN = [line(person, legal="C", campaign="Autumn") for person in range(1, 41)]


def test_a_plain_export_raises_none(tmp_path: Path) -> None:
    assert doubts(tmp_path, *PEOPLE, *AUTUMN) == {}


@pytest.mark.parametrize(
    ("rows", "policy", "told"),
    [
        ([line(n, variant="A") for n in range(1, 21)], {}, {"arm 'warm' of 'spring'": 0}),
        (PEOPLE, {}, {"experiment 'autumn' has no row": 0}),
        ([*PEOPLE, line(50, spend="-7331.5")], {}, {"revenue is below zero": 1}),
        ([line(n, age="") for n in range(1, 41)], {}, {"age is missing in every row": 40}),
        ([*PEOPLE, line(51, legal="LI")], {}, {"basis 'legitimate-interests' serves no": 1}),
        ([*PEOPLE, line(52, optout="Y")], {}, {"opted out or objected": 1}),
    ],
)
def test_what_looks_wrong_is_told_with_its_rows(
    tmp_path: Path, rows: list[str], policy: dict[str, Any], told: dict[str, int]
) -> None:
    found = doubts(tmp_path, *rows, **policy)
    for start, count in told.items():
        assert [rows for doubt, rows in found.items() if doubt.startswith(start)] == [count]
    assert not any(secret in str(found) for secret in SECRETS)


def test_a_column_that_no_plan_may_use_is_told(tmp_path: Path) -> None:
    store, keys = founded(tmp_path, buckets=2)
    (tmp_path / "export.csv").write_text(export_text(*PEOPLE))
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    mapping = ExportMapping.load(tmp_path / "mapping.yaml")
    policy = Policy.parse(
        b"{silo: aurora, budget: {epsilon: 1.0, delta: 1e-6}, "
        b"per_plan: {epsilon: 1.0, delta: 1e-6}}",
        where="policy",
    )
    found = ingest(store, keys, mapping, tmp_path / "export.csv", policy=policy).doubts
    assert found["revenue is not among the policy's columns: no plan may use it"] == 40
