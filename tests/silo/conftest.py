"""A gate with all that it keeps, and a coordinator it trusts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from abfed.silo.ledger import Ledger
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys
from tests.silo.asking import (
    SILO,
    Asker,
    SetClock,
)
from tests.silo.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    keys = SiteKeys.create(tmp_path / "keys", site=SILO)
    clock = SetClock()
    asker = Asker(SiteKeys.create(tmp_path / "hub", site="hub"), clock)
    with Ledger(tmp_path / "ledger.db", keys, clock) as ledger:
        made = House(tmp_path, keys, asker, ledger, AuditLog(tmp_path / "audit.jsonl", keys, clock))
        made.policy()
        yield made
