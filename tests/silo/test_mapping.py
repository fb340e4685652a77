from __future__ import annotations

from pathlib import Path

import pytest

from abfed.protocol.errors import MappingError
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.mapping import ExportMapping
from tests.silo.made import MAPPING

ROOT = Path(__file__).resolve().parents[2]


def mapping(text: str = MAPPING) -> ExportMapping:
    return ExportMapping.from_values(parse_yaml(text.encode(), where="mapping"))


def test_it_names_exactly_the_columns_that_are_read():
    assert sorted(mapping().columns()) == sorted(
        [
            "campaign",
            "email",
            "variant",
            "sent",
            "opened",
            "clicked_at",
            "spend",
            "age",
            "tier",
            "legal",
            "optout",
            "country",
        ]
    )
    narrow = MAPPING.replace("region: {column: country}", "region: {constant: EU}")
    assert "country" not in mapping(narrow).columns()


def test_it_declares_arms_by_experiment_and_feature_kinds():
    assert mapping().experiments() == {
        "spring": ("control", "warm"),
        "autumn": ("control", "warm"),
    }
    assert mapping().feature_kinds() == {"age": "numeric", "tier": "category"}


def test_two_texts_may_stand_for_one_arm():
    text = MAPPING.replace("B: warm", "B: warm, C: warm")
    assert mapping(text).experiments()["spring"] == ("control", "warm")


def test_defaults_are_the_careful_ones():
    made = mapping()
    assert (made.two_arms, made.on_bad_row, made.max_rejected_share) == ("refuse", "reject", 0.05)
    assert made.recipient.normalise == "casefold"


def test_it_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        mapping().two_arms = "exclude"  # type: ignore[misc]


def test_all_problems_are_named_at_once():
    text = MAPPING.replace("recipient:", "recipent:").replace("kind: numeric", "kind: number")
    with pytest.raises(MappingError) as refused:
        mapping(text)
    for told in ("did you mean 'recipient'", "recipient: is missing", "features.age.kind"):
        assert told in refused.value.what


@pytest.mark.parametrize("column", ["basis", "opted_out"])
def test_an_export_says_under_which_law_each_send_was_made(column):
    lines = MAPPING.splitlines(keepends=True)
    (named,) = [line for line in lines if line.startswith(f"{column}:")]
    with pytest.raises(MappingError, match=f"{column}: is missing"):
        mapping(MAPPING.replace(named, ""))


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(MappingError, match="can't be read"):
        ExportMapping.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.mapping.yaml")), ids=str)
def test_shipped_mappings_are_valid(path):
    assert ExportMapping.load(path).experiments()
