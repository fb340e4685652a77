"""Hours from a send to its open, from two moments in an export."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from abfed.protocol.errors import MappingError
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.ingest import IngestReport, ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.recipients import Recipients
from tests.silo.made import MAPPING, export_text, founded, line, permit, spring_plan

TIMED = MAPPING.replace(
    "  revenue: {column: spend}\n",
    '  revenue: {column: spend}\n  hours_to_open: {column: clicked_at, moment: "%Y-%m-%d %H:%M"}\n',
)
QUANTILE = {
    "name": "soon",
    "kind": "quantile",
    "column": "hours_to_open",
    "quantile": 0.5,
    "edges": [0.0, 1.0, 6.0, 24.0],
}
PLAN = spring_plan(metrics=[QUANTILE], primary="soon", features=[])


def taken(folder: Path, text: str, mapping: str = TIMED) -> tuple[IngestReport, pa.Table, object]:
    """What an export becomes: the report, the rows, and what makes pseudonyms."""
    store, keys = founded(folder, buckets=1)
    file = folder / "export.csv"
    file.write_text(text)
    declared = ExportMapping.from_values(parse_yaml(mapping.encode(), where="mapping"))
    report = ingest(store, keys, declared, file)
    rows = pa.concat_tables(store.read(permit(store, PLAN), ("hours_to_open",)))
    return report, rows, Pseudonyms(keys)


def test_hours_are_counted_from_the_send(tmp_path: Path) -> None:
    lines = [
        line(1, sent="2026-03-02 08:00", clicked_at="2026-03-02 09:30"),
        line(2, sent="2026-03-02 08:00", clicked_at="2026-03-04 08:00"),
        line(3, sent="2026-03-02 08:00", clicked_at=""),
        line(4, sent="2026-03-02 08:00", clicked_at="2026-03-02 07:57"),  # clocks apart
    ]
    report, rows, names = taken(tmp_path, export_text(*lines))
    assert report.rejected == {}
    found = dict(zip(rows["recipient"].to_pylist(), rows["hours_to_open"].to_pylist(), strict=True))
    expected = {1: 1.5, 2: 48.0, 3: None, 4: 0.0}
    assert found == {
        names.of(f"person{who}@example.com"): hours  # type: ignore[attr-defined]
        for who, hours in expected.items()
    }


def test_hours_across_a_change_of_clocks_are_the_real_ones(tmp_path: Path) -> None:
    """Paris, 29 March 2026: from 1:30 to 3:30 is one hour."""
    text = TIMED.replace('sent, format: "%Y', 'sent, timezone: Europe/Paris, format: "%Y')
    one = line(1, sent="2026-03-29 01:30", clicked_at="2026-03-29 03:30")
    _, rows, _ = taken(tmp_path, export_text(one), text)
    assert rows["hours_to_open"].to_pylist() == [1.0]


def test_impossible_moments_are_rejected_by_reason(tmp_path: Path) -> None:
    good = [line(person, clicked_at="2026-03-02 09:00") for person in range(100)]
    bad = [
        line(200, clicked_at="2026-03-01 09:00"),
        line(201, clicked_at="soon"),
        line(202, clicked_at="0026-03-02 09:00"),
    ]
    report, _, _ = taken(tmp_path, export_text(*good, *bad))
    assert report.rejected == {
        "hours_to_open: before the send": 1,
        "hours_to_open: not a date in the declared format": 1,
        "hours_to_open: before 1990 or after 2099": 1,
    }


def test_the_first_open_decides_the_bin(tmp_path: Path) -> None:
    """Each recipient is in the bin of their soonest open; who never opened is in the last."""
    lines = [
        line(1, sent="2026-03-02 08:00", clicked_at="2026-03-03 08:00"),  # 24 hours
        line(1, sent="2026-03-09 08:00", clicked_at="2026-03-09 08:30"),  # half of one
        line(3, sent="2026-03-02 08:00"),
    ]
    _, rows, names = taken(tmp_path, export_text(*lines))
    placed = Recipients(rows, PLAN).simplex(PLAN.metrics[0]).argmax(axis=1)
    order = list(dict.fromkeys(rows["recipient"].to_pylist()))
    where = dict(zip(order, placed.tolist(), strict=True))
    assert where[names.of("person1@example.com")] == 1  # type: ignore[attr-defined]
    assert where[names.of("person3@example.com")] == len(QUANTILE["edges"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("column: spend", "column: spend, moment: iso8601", "revenue: is not a duration"),
        ('moment: "%Y-%m-%d %H:%M"', 'moment: "%H:%M"', "at least %Y and %d"),
        ('moment: "%Y-%m-%d %H:%M"', "present: true", "is a duration, not true or false"),
    ],
)
def test_a_moment_that_makes_no_sense_is_refused(before: str, after: str, told: str) -> None:
    text = TIMED.replace(before, after)
    assert text != TIMED
    with pytest.raises(MappingError, match=told):
        ExportMapping.from_values(parse_yaml(text.encode(), where="mapping"))


def test_a_file_with_hours_needs_no_moment(tmp_path: Path) -> None:
    text = TIMED.replace('clicked_at, moment: "%Y-%m-%d %H:%M"', "age").replace(
        "  age: {kind: numeric, column: age}\n", ""
    )
    _, rows, _ = taken(tmp_path, export_text(line(1, age="3.5")), text)
    assert rows["hours_to_open"].to_pylist() == [3.5]
