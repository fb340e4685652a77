from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abfed.protocol.errors import DataError
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.columns import SentAt
from abfed.silo.ingest import IngestReport, ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.moments import parse_moments
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.rewriting import Rewriting
from tests.silo.bad_inputs import BAD, SECRETS, Bad
from tests.silo.made import HEADER, MAPPING, contents, export_text, founded, line, people, seen


class Site:
    """A silo that takes exports in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.keys = founded(folder, buckets=2)
        self.export = folder / "export.csv"

    def take(self, text: str | bytes, mapping: str = MAPPING, **options: Any) -> IngestReport:
        data = text.encode() if isinstance(text, str) else text
        self.export.write_bytes(data)
        file = self.folder / "mapping.yaml"
        file.write_text(mapping)
        return ingest(self.store, self.keys, ExportMapping.load(file), self.export, **options)

    def rows(self) -> list[dict[str, object]]:
        return seen(self.store)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name.replace(" ", "-"))
def test_a_bad_input_is_told_apart_and_changes_no_byte(tmp_path: Path, bad: Bad):
    site = Site(tmp_path)
    site.take(export_text(*(line(person) for person in range(60, 80))))
    before = contents(tmp_path / "store")
    with pytest.raises(bad.error) as refused:
        site.take(bad.export, bad.mapping)
    message = str(refused.value)
    for told in bad.told:
        assert told in message
    for secret in SECRETS:
        assert secret not in message
        assert secret not in repr(refused.value.__context__)
    assert contents(tmp_path / "store") == before
    assert len(site.rows()) == 20


def test_every_bad_input_has_a_message_of_its_own(tmp_path: Path):
    """Grouped by what they say: only those that are one fault may share a message."""
    site = Site(tmp_path)
    said: dict[str, list[str]] = {}
    for bad in BAD:
        with pytest.raises(bad.error) as refused:
            site.take(bad.export, bad.mapping)
        said.setdefault(str(refused.value), []).append(bad.name)
    shared = sorted(sorted(names) for names in said.values() if len(names) > 1)
    assert shared == [
        ["NaN", "not a number"],
        ["another file", "no header"],
        ["column and constant", "neither column nor constant"],
        ["columns and row number", "no recipient column"],
        ["infinite", "too large"],
    ]


def test_a_missing_file_says_so(site):
    declared = ExportMapping.from_values(parse_yaml(MAPPING.encode(), where="mapping"))
    with pytest.raises(DataError, match="no such file"):
        ingest(site.store, site.keys, declared, site.folder / "none.csv")


# ------------------------------------------------------------------ what becomes of a row


def test_each_column_becomes_its_canonical_one(site):
    report = site.take(
        export_text(
            line(1, sent="2026-03-02 08:30", opened="1", clicked_at="2026-03-03", spend="12.5"),
            line(2, opened="0", age="", tier="b", legal="LI", country="US"),
        )
    )
    assert (report.rows, report.accepted, report.new, report.rejected) == (2, 2, 2, {})
    rows = {row["arm"]: row for row in site.rows()}
    assert rows["warm"] == {
        "recipient": Pseudonyms(site.keys).of("person1@example.com"),
        "arm": "warm",
        "sent_at": datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
        "opened": True,
        "clicked": True,
        "revenue": 12.5,
        "age": 40.0,
        "tier": "gold",
    }
    other = rows["control"]
    assert (other["opened"], other["clicked"], other["age"]) == (False, False, None)
    assert other["tier"] == "basic"


def test_an_address_is_one_person_whatever_its_case_and_blanks(site):
    site.take(export_text(line(1, email=" Person1@Example.COM "), line(1, sent="2026-03-09 08:00")))
    assert len({row["recipient"] for row in site.rows()}) == 1


def test_case_sensitive_ids_stay_apart(site):
    site.take(
        export_text(line(1, email="0015Abc"), line(1, email="0015aBc")),
        MAPPING.replace("[email]", "[email], normalise: trim"),
    )
    assert len({row["recipient"] for row in site.rows()}) == 2


def test_several_columns_make_one_id_and_do_not_run_together(site):
    text = MAPPING.replace("columns: [email]", "columns: [email, country]")
    site.take(export_text(line(1, email="ab", country="c"), line(1, email="a", country="bc")), text)
    assert len({row["recipient"] for row in site.rows()}) == 2


def test_two_silos_give_one_person_two_pseudonyms(tmp_path):
    ids = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        site = Site(tmp_path / name)
        site.take(export_text(line(1)))
        ids += [row["recipient"] for row in site.rows()]
    assert len(set(ids)) == 2


def test_row_numbers_count_all_rows_of_the_file(site):
    """A brand's part of a file has the same ids whatever the other parts hold."""
    text = MAPPING.replace("columns: [email]", "row_number: true")
    lines = [line(1, country=land, opened=str(n % 2)) for n, land in enumerate("XEXEE")]
    report = site.take(export_text(*lines), text + "where: [{column: country, one_of: [E]}]\n")
    assert (report.rows, report.left_out, report.accepted, report.new) == (5, 2, 3, 3)
    wanted = {Pseudonyms(site.keys).of(f"row\x1f{n}", normalise="trim") for n in (2, 4, 5)}
    assert {row["recipient"] for row in site.rows()} == wanted


def test_where_needs_every_condition(site):
    both = "where: [{column: country, one_of: [EU, UK]}, {column: tier, one_of: [g]}]\n"
    lines = [line(1), line(2, tier="b"), line(3, country="US"), line(4, country="UK")]
    report = site.take(export_text(*lines), MAPPING + both)
    assert (report.left_out, report.new) == (2, 2)


def test_bad_rows_are_counted_once_each_by_their_first_reason(site):
    good = [line(person) for person in range(100)]
    bad = [
        line(200, sent="soon", spend="much"),
        line(201, spend="much"),
        line(202, opened="maybe"),
    ]
    report = site.take(export_text(*good, *bad))
    assert report.rejected == {
        "opened: neither yes nor no": 1,
        "revenue: not a number": 1,
        "sent_at: not a date in the declared format": 1,
    }
    assert (report.rows, report.accepted, report.new) == (103, 100, 100)


def test_the_allowed_share_of_bad_rows_is_the_mappings(site):
    lines = [line(person) for person in range(80)]
    lines += [line(person, age="x") for person in range(80, 100)]
    with pytest.raises(DataError, match="too many rows"):
        site.take(export_text(*lines))
    report = site.take(export_text(*lines), MAPPING + "max_rejected_share: 0.2\n")
    assert report.accepted == 80


def test_time_zones_and_offsets(site):
    text = MAPPING.replace('format: "%Y-%m-%d %H:%M"', "timezone: Europe/Paris")
    site.take(
        export_text(
            line(1, sent="2026-07-01 10:00"),
            line(2, sent="2026-07-01T10:00:00Z"),
            line(3, sent="2026-01-01 10:00:00.250-05:00"),
            line(4, sent="2026-03-29 02:30"),
            line(6, sent="2026-10-25 02:30"),
        ),
        text,
    )
    pseudonyms = Pseudonyms(site.keys)
    moments = {row["recipient"]: row["sent_at"] for row in site.rows()}
    for person, moment in {
        1: datetime(2026, 7, 1, 8, tzinfo=UTC),
        2: datetime(2026, 7, 1, 10, tzinfo=UTC),
        3: datetime(2026, 1, 1, 15, 0, 0, 250_000, tzinfo=UTC),
        4: datetime(2026, 3, 29, 1, tzinfo=UTC),  # skipped by the clocks: the next moment
        6: datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # there twice: the earlier
    }.items():
        assert moments[pseudonyms.of(f"person{person}@example.com")] == moment


def test_dates_that_stand_for_never_are_rejected_rows_in_any_zone(site):
    text = MAPPING.replace('format: "', 'timezone: America/New_York, format: "')
    never = [line(200, sent="9999-12-31 23:59"), line(201, sent="0001-01-01 00:00")]
    report = site.take(export_text(*(line(person) for person in range(60)), *never), text)
    assert report.rejected == {"sent_at: before 1990 or after 2099": 2}


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.date64()]
)
def test_a_units_extremes_are_no_dates_of_another_unit(kind):
    """2⁶² seconds times a million are, in 64 bits, the first hours of 1970."""
    sent = SentAt(column="sent", timezone="America/New_York")
    ends = pa.array([2**62, -(2**62), None], pa.int64()).view(kind)
    last, first, missing = parse_moments(ends, sent).to_pylist()
    assert (last.year, first.year, missing) == (2200, 1900, None)


def test_a_european_file_and_words_for_missing(site):
    lines = [line(1, spend="12.5", age="n/a"), line(2, spend="-3.25", tier="-", age="1.5")]
    text = export_text(*lines).replace(",", ";").replace("12.5", "12,5").replace("-3.25", "-3,25")
    site.take(
        text.replace("1.5", "1,5"),
        MAPPING + 'source: {delimiter: ";", decimal: ",", missing: ["n/a", "-"]}\n',
    )
    rows = {row["arm"]: row for row in site.rows()}
    assert (rows["warm"]["revenue"], rows["warm"]["age"]) == (12.5, None)
    assert (rows["control"]["revenue"], rows["control"]["tier"]) == (-3.25, None)


def test_thousands_of_a_european_file_are_not_read_as_ones(site):
    lines = [line(number, spend="12.5") for number in range(1, 31)] + [line(31, spend="1.500")]
    text = export_text(*lines).replace(",", ";").replace("12.5", "12,5")
    report = site.take(text, MAPPING + 'source: {delimiter: ";", decimal: ","}\n')
    assert report.rejected == {"revenue: not a number": 1}
    assert {row["revenue"] for row in site.rows()} == {12.5}


def test_an_empty_field_is_unknown_or_false_as_the_mapping_says(site):
    site.take(export_text(line(1, opened="", spend="")))
    assert [row["opened"] for row in site.rows()] == [None]
    site.take(export_text(line(1, opened="")), MAPPING.replace('no: ["0"]', 'no: ["0", ""]', 1))
    assert [row["opened"] for row in site.rows()] == [False]


def test_quotes_line_ends_marks_and_blank_lines_are_no_trouble(site):
    text = "\ufeff" + export_text(
        line(1, country='"E,U"'), "", line(2, country='"two\nlines"'), line(3, country='"a ""b"""')
    )
    report = site.take(text.replace("\n", "\r\n"))
    assert (report.rows, report.new) == (3, 3)


def test_only_declared_columns_are_kept(site):
    text = export_text(line(1)).replace(HEADER, HEADER + ",note").replace(",EU\n", ",EU,private\n")
    site.take(text)
    facts = site.store.describe()
    assert set(facts.features) == {"age", "tier"}
    assert facts.outcomes == ("opened", "clicked", "revenue")


def test_a_typed_parquet_export(site):
    table = pa.table(
        {
            "email": ["a@example.com", "b@example.com"],
            "campaign": pa.array(["Spring", "Spring"]).dictionary_encode(),
            "variant": ["A", "B"],
            "sent": pa.array([date(2026, 3, 2), date(2026, 3, 3)]),
            "opened": [True, False],
            "clicked_at": pa.array([None, datetime(2026, 3, 3, tzinfo=UTC)], pa.timestamp("ns")),
            "spend": pa.array(["3.00", None]).cast(pa.decimal128(9, 2)),
            "age": pa.array([41.5, 20], pa.float32()),
            "tier": ["g", None],
            "legal": ["C", "LI"],
            "optout": ["N", "N"],
            "country": ["EU", "EU"],
            "unread": [[1], [2]],
        }
    )
    path = site.folder / "export.csv"
    pq.write_table(table, path)
    text = MAPPING.replace('yes: ["1"], no: ["0"]', 'yes: ["true"], no: ["false"]', 1)
    text += "source: {format: parquet, decimal: ','}\n"  # for texts
    report = site.take(path.read_bytes(), text)
    assert (report.rows, report.new) == (2, 2)
    rows = {row["arm"]: row for row in site.rows()}
    assert rows["control"]["sent_at"] == datetime(2026, 3, 2, tzinfo=UTC)
    assert (rows["control"]["opened"], rows["control"]["clicked"]) == (True, False)
    assert (rows["control"]["revenue"], rows["control"]["age"]) == (3.0, 41.5)
    assert (rows["warm"]["clicked"], rows["warm"]["revenue"]) == (True, None)


# ------------------------------------------------------------------ again and later


def test_the_same_file_again_changes_nothing_and_is_recognised(site):
    text = export_text(*(line(person) for person in range(50)), line(1))
    first = site.take(text)
    before, epoch = contents(site.folder / "store"), site.store.epoch
    again = site.take(text)
    assert (first.known, again.known) == (False, True)
    assert (first.repeated, again.repeated) == (1, 1)
    assert (again.new, again.updated, again.unchanged) == (0, 0, 50)
    assert first.digest == again.digest
    assert contents(site.folder / "store") == before
    assert site.store.epoch == epoch


def test_who_was_erased_is_kept_out_however_spelt_and_counted_as_that(site):
    site.take(export_text(*(line(person) for person in range(10))))
    gone = Pseudonyms(site.keys).of("person3@example.com")
    Rewriting(site.folder / "store", site.keys).erase([gone])
    spelt = line(3, email=" PERSON3@Example.com ", sent="2026-03-09 08:00")
    again = export_text(*(line(person) for person in range(10)), spelt, line(4))
    report = site.take(again)
    assert (report.unchanged, report.kept_out, report.repeated) == (9, 2, 1)
    assert len(site.rows()) == 9


def test_a_row_that_is_left_out_still_says_who_opted_out(site):
    site.take(export_text(*(line(person) for person in range(40))))
    left = [
        line(3, legal="", optout="Y"),  # nobody's basis any more
        line(4, campaign="Winter", optout="Y"),
        line(5, email="", optout="Y"),
        line(6, spend="much"),
        line(7, spend="much", optout="perhaps"),
    ]
    later = export_text(*(line(person) for person in range(40, 80)), line(4), *left)
    report = site.take(later, MAPPING + "max_rejected_share: 0.2\n")
    assert sum(report.rejected.values()) == len(left)
    assert (report.new, report.updated) == (40, 1)
    gone = {Pseudonyms(site.keys).of(f"person{one}@example.com") for one in (3, 4)}
    assert len(people(site.rows())) == 78
    assert not people(site.rows()) & gone
    epoch = site.store.epoch
    site.take(later, MAPPING + "max_rejected_share: 0.2\n")
    assert site.store.epoch == epoch, "the same file again changes nothing"
    site.take(export_text(*(line(person) for person in range(4))))
    assert len(people(site.rows())) == 79, "a later export may say otherwise of the same send"


def test_a_later_file_brings_later_outcomes(site):
    site.take(export_text(*(line(person, spend="") for person in range(10))))
    report = site.take(export_text(*(line(person, spend=person) for person in range(12))))
    assert (report.new, report.updated, report.unchanged) == (2, 10, 0)
    assert sorted(row["revenue"] for row in site.rows()) == [float(n) for n in range(12)]


def test_the_digest_of_a_file_is_keyed(tmp_path):
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digests.add(Site(tmp_path / name).take(export_text(line(1))).digest)
    assert len(digests) == 2


def test_progress_ends_at_the_whole_file(site):
    told: list[tuple[int, int]] = []
    text = export_text(*(line(person) for person in range(200)))
    site.take(text, progress=lambda done, size: told.append((done, size)))
    assert told[-1] == (len(text.encode()),) * 2
    assert told == sorted(told)


@pytest.mark.privacy
def test_nothing_of_a_row_is_logged(site, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        site.take(export_text(*(line(person) for person in range(20)), line(90, country="Nowhere")))
        site.rows()
    said = caplog.text + "".join(capfd.readouterr())
    for value in ("example.com", "Nowhere", "spring"):
        assert value not in said


def test_a_file_of_many_batches_is_one_whole(site, monkeypatch):
    monkeypatch.setattr("abfed.silo.exports.BLOCK", 20_000)
    lines = [
        line(person % 1000, sent=f"2026-03-{2 + person // 1000:02} 08:00") for person in range(3000)
    ]
    report = site.take(export_text(*lines))
    assert (report.rows, report.new) == (3000, 3000)
    assert len(site.rows()) == 3000
    numbered = MAPPING.replace("columns: [email]", "row_number: true")
    other = site.folder / "other"
    other.mkdir()
    whole = Site(other)
    assert whole.take(export_text(*lines), numbered).new == 3000
    assert len({row["recipient"] for row in whole.rows()}) == 3000
