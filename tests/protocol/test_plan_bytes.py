"""A plan's bytes and digest, made once and never another plan's."""

from __future__ import annotations

import pytest

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.plan import Plan
from tests.examples import plan_values


def test_a_copy_with_another_question_has_another_digest() -> None:
    plan = Plan.from_values(plan_values())
    kept = plan.digest
    other = plan.model_copy(update={"purpose": "another-purpose"})
    assert other.digest == sha256_hex(other.canonical_bytes()) != kept
    assert plan.model_copy() == plan
    assert plan.model_copy().digest == kept


def test_a_plan_from_its_bytes_is_made_once_and_bad_bytes_are_refused_each_time() -> None:
    data = Plan.from_values(plan_values()).canonical_bytes()
    assert Plan.from_canonical(data) is Plan.from_canonical(data)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            Plan.from_canonical(data + b" ")
