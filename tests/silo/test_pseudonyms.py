"""One person is one pseudonym, however an export writes them; another person is another one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.silo.pseudonyms import SEPARATOR, Pseudonyms, normalised
from abfed.site.keys import SiteKeys

SAME = {
    "case": ("Ann@Example.com", "ann@example.COM"),
    "space around it": (" ann@example.com\u00a0", "ann@example.com"),
    "a zero-width space": ("an\u200bn@example.com", "ann@example.com"),
    "a byte-order mark": ("\ufeffann@example.com", "ann@example.com"),
    "a soft hyphen": ("an\u00adn@example.com", "ann@example.com"),
    "direction marks": ("\u202aann@example.com\u202c", "ann@example.com"),
    "full-width letters": ("\uff41\uff4e\uff4e\uff20example.com", "ann@example.com"),
    "a decomposed accent": ("rene\u0301@example.com", "ren\u00e9@example.com"),
    "a ligature": ("\ufb01nn@example.com", "finn@example.com"),
    "sharp s": ("STRASSE@example.com", "stra\u00dfe@example.com"),
    "a dotted capital I": ("\u0130@example.com", "i\u0307@example.com"),
    "space before something unseen": ("ann@example.com \u200b", "ann@example.com"),
    "two columns": (f"Ann\u200b{SEPARATOR}7", f"ann{SEPARATOR} 7"),
}
OTHERS = ("ann+news@example.com", "a.nn@example.com", "anne@example.com", "\u0430nn@example.com")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SiteKeys:
    return SiteKeys.create(tmp_path_factory.mktemp("keys") / "keys", site="aurora")


@pytest.mark.parametrize("kind", SAME)
def test_how_it_is_written_makes_nobody_else(keys: SiteKeys, kind: str) -> None:
    one, other = SAME[kind]
    pseudonyms = Pseudonyms(keys)
    assert one != other
    assert pseudonyms.of(one) == pseudonyms.of(other)
    column = pseudonyms.column(pa.array([one, other]))
    assert column[0] == column[1]


def test_somebody_else_stays_somebody_else(keys: SiteKeys) -> None:
    pseudonyms = Pseudonyms(keys)
    assert len({pseudonyms.of(one) for one in (*OTHERS, "ann@example.com")}) == len(OTHERS) + 1
    trimmed = {pseudonyms.of(one, normalise="trim") for one in ("Ann", "ann", " ann", "an\u200bn")}
    assert len(trimmed) == 2  # an identifier whose case counts


@pytest.mark.parametrize("nobody", ["", " ", "\u200b", "\u00ad \ufeff", f"ann{SEPARATOR}\u200b"])
def test_an_identifier_without_anything_to_see_is_nobody(keys: SiteKeys, nobody: str) -> None:
    assert Pseudonyms(keys).column(pa.array([nobody])).null_count == 1


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["casefold", "trim"]))
def test_the_normal_form_of_a_normal_form_is_itself(text: str, how) -> None:
    once = normalised(text, how)
    assert normalised(once, how) == once
    assert normalised(unicodedata.normalize("NFD", text), how) == once


def test_an_export_with_unseen_characters_has_no_more_people(tmp_path: Path) -> None:
    from tests.silo.made import export_text, line
    from tests.silo.test_ingest import Site

    site = Site(tmp_path)
    people = [line(person) for person in range(1, 21)]
    again = [
        line(person, email=f"PERSON{person}\u200b@example.com", sent="2026-03-09 08:00")
        for person in range(1, 21)
    ]
    unseen = line(30, email="\u200b")
    report = site.take(export_text(*people, *again, unseen))
    assert (report.accepted, report.rejected) == (40, {"recipient: missing": 1})
    assert len({row["recipient"] for row in site.rows()}) == 20
