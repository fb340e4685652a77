"""Texts and moments as numbers: the same everywhere, and nothing that lists words."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from abfed.learning.wording import encode_send_time, encode_text, words_of
from abfed.protocol.errors import PlanError
from abfed.protocol.modelling import HashedText, SendTime
from abfed.protocol.plan import Plan
from tests.examples import make_model_plan

SUBJECT = HashedText(name="subject", buckets=32)
GOLDEN = {11: -1.0}


def micros(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1e6)


def test_a_text_has_the_same_columns_whatever_stands_beside_it():
    alone = encode_text(SUBJECT, ["Spring sale"])
    among = encode_text(SUBJECT, ["New shoes", None, "Spring sale", "x"])
    assert (alone[0] == among[2]).all()
    assert not among[1].any()
    assert encode_text(SUBJECT, []).shape == (0, 32)


def test_hashes_are_stable_for_ever():
    """A model trained today must read tomorrow's subject lines in the same columns."""
    (line,) = encode_text(SUBJECT, ["sale"])
    assert {int(place): float(line[place]) for place in np.flatnonzero(line)} == GOLDEN


def test_case_accents_composed_and_punctuation_do_not_matter():
    assert words_of("Été: SALE!") == words_of("Été sale")
    one, other = encode_text(SUBJECT, ["Spring — Sale!", "spring sale"])
    assert (one == other).all()
    one, other = encode_text(SUBJECT, ["sale spring", "spring sale"])
    assert (one != other).any()


def test_lines_have_length_one_in_half_precision():
    for line in encode_text(SUBJECT, ["a b c", "sale sale sale", "20 % off everything today"]):
        assert np.linalg.norm(line) == pytest.approx(1.0, abs=0.01)
        assert (line.astype(np.float16).astype(np.float32) == line).all()


def test_an_hour_is_told_in_the_declared_zone_through_summer_time():
    paris, utc = SendTime(timezone="Europe/Paris"), SendTime()
    winter, summer = micros(2026, 1, 14, 8), micros(2026, 7, 15, 8)
    local = encode_send_time(paris, np.array([winter, summer]))
    wanted = encode_send_time(utc, np.array([micros(2026, 1, 14, 9), micros(2026, 7, 15, 10)]))
    assert (local == wanted).all()


def test_midnight_is_as_near_to_eleven_as_to_one_and_monday_to_sunday():
    moments = np.array([micros(2026, 3, 2, hour) for hour in (0, 1, 23)])
    midnight, one, eleven = encode_send_time(SendTime(), moments)[:, :2]
    near = np.linalg.norm(midnight - one)
    assert np.linalg.norm(midnight - eleven) == pytest.approx(near, abs=1e-3)
    days = np.array([micros(2026, 3, day, 0) for day in range(2, 9)])  # a Monday to a Sunday
    week = encode_send_time(SendTime(), days)[:, 2:]
    assert week[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
    steps = np.linalg.norm(week - np.roll(week, 1, axis=0), axis=1)
    assert steps.max() - steps.min() < 0.01


def test_a_text_is_a_column_that_the_policy_judges():
    plan = make_model_plan()
    values = plan.model_dump(mode="json")
    values["model"] |= {"texts": [{"name": "subject"}], "send_time": {"timezone": "Europe/Paris"}}
    asked = Plan.from_values(values)
    assert "subject" in asked.columns()
    assert "sent_at" not in asked.columns()  # every send has one, and it is read anyway
    assert Plan.from_canonical(asked.canonical_bytes()) == asked
    values["model"]["send_time"] = {"timezone": "Europe/Nowhere"}
    with pytest.raises(PlanError, match="IANA"):
        Plan.from_values(values)
    values["model"] |= {"send_time": None, "texts": [{"name": "age"}, {"name": "age"}]}
    with pytest.raises(PlanError, match="stands twice"):
        Plan.from_values(values)
