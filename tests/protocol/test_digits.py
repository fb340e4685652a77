"""Digits are 0 to 9: a full-width or Arabic one in a date or number is refused, not read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import abfed
from abfed.lab.reports.batches import Period
from abfed.protocol.identity import At
from abfed.protocol.messages import Timestamp
from abfed.site.incidents import Id
from abfed.site.vendors import Day

FORMS: dict[str, tuple[Any, str]] = {
    "a moment": (At, "2026-03-01T12:00:00.000000Z"),
    "a message's time": (Timestamp, "2026-03-01T12:00:00Z"),
    "a vendor's day": (Day, "2026-03-01"),
    "a period": (Period, "2026-Q1"),
    "an incident": (Id, "inc-2026-001"),
}


@pytest.mark.parametrize("other", ["\uff12", "\u0662", "\u0968"])
@pytest.mark.parametrize("form", FORMS)
def test_other_digits_are_refused(form: str, other: str) -> None:
    kind, text = FORMS[form]
    reader = TypeAdapter(kind)
    assert reader.validate_python(text) == text
    with pytest.raises(ValidationError):
        reader.validate_python(text.replace("2", other, 1))


def test_no_form_of_a_record_takes_other_digits() -> None:
    r"""In pydantic's patterns `\d` is any digit of Unicode, and `int` reads those as numbers."""
    root = Path(abfed.__file__).parent
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"pattern=.*\\d", line) or re.search(r"\.isdigit\(\)|\.isnumeric\(\)", line)
    ]
    assert not found
