"""What the bounds cut never leaves: not as a figure, nor as a trace in header, log or terminal."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from abfed.protocol.tensors import unpack
from abfed.silo.releasing import expected_shapes
from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from tests.examples import make_model_plan
from tests.silo.asking import SILO, Asker, model_arrays, policy_values, rows

pytestmark = pytest.mark.privacy
PLAN = make_model_plan(simulation={"seed": 7}, sends_per_recipient=1)  # the same noise everywhere
ARMS = {"spring-2026": ("a", "b", "c")}
HEX = re.compile(r"[0-9a-f]{32,}")


def bounded() -> pa.Table:
    """One send each, every amount within the plan's bounds (50 is the upper one)."""
    return rows(revenue=[50.0 if place % 2 else 7.0 for place in range(60)])


def beyond(name: str) -> list[pa.Table]:
    """The same people, of whom the plan's bounds cut something; in one export or in two."""
    one = rows(revenue=[9e9 if place % 2 else 7.0 for place in range(60)])
    if name == "amounts":
        return [one]
    if name == "two arms":  # five more people, whom nothing may be counted of
        first = rows(65, revenue=[50.0 if place % 2 else 7.0 for place in range(65)]).slice(60)
        second = first.set_column(2, "arm", pa.array(["c"] * 5))
        later = [datetime(2026, 2, 2, tzinfo=UTC)] * 5
        second = second.set_column(3, second.schema.field("sent_at"), pa.array(later))
        return [bounded(), pa.concat_tables([first, second.cast(first.schema)])]
    sent = [datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=day) for day in range(1, 6)]
    return [one, *(rows(revenue=one["revenue"].to_pylist(), sent_at=[day] * 60) for day in sent)]


def answers(folder: Path, asker: Asker, tables: list[pa.Table]) -> tuple[list[Any], list[Any]]:
    """What a silo with these rows gives away and writes down, without keys and digests."""
    given: list[Any] = []
    with closing(SiloService(folder, asker.clock)) as service:
        for table in tables:
            service.store.upsert(iter([table]), experiments=ARMS, two_arms="exclude")
        start = len(list(service.audit.entries()))
        for step, arrays in (("totals", {}), ("train-0001", model_arrays(PLAN))):
            kind, answer = asker.read(
                service.answer(asker.request(PLAN, step, arrays)), service.keys
            )
            assert kind == "release"
            header = answer.header.model_dump(mode="json")
            given += [
                HEX.sub("#", json.dumps(header)),
                unpack(answer.arrays, _shapes(step), where=step),
            ]
        log = [one["body"] for one in service.audit.entries()][start:]
    return given, [HEX.sub("#", json.dumps(one)) for one in log]


def _shapes(step: str) -> dict[str, Any]:
    return expected_shapes(PLAN, step)


@pytest.mark.parametrize("name", ["amounts", "sends", "two arms"])
def test_what_the_bounds_cut_leaves_no_trace(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    hub = SiteKeys.create(tmp_path / "hub", site="hub")
    asker = Asker(hub)
    policy = yaml.safe_dump(policy_values(hub.public_key, synthetic=True, show_budget=True))
    SiloService.create(tmp_path / "plain", policy, site=SILO).close()
    shutil.copytree(tmp_path / "plain", tmp_path / "cut")
    capfd.readouterr()
    plain, log = answers(tmp_path / "plain", asker, [bounded()])
    told = capfd.readouterr()
    cut, other = answers(tmp_path / "cut", asker, beyond(name))
    assert capfd.readouterr() == told
    assert other == log
    for mine, theirs in zip(cut, plain, strict=True):
        if isinstance(mine, str):
            assert mine == theirs
        else:
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[one], theirs[one]) for one in mine)


@pytest.mark.parametrize("lawful", [0, 1])
def test_a_silo_in_which_nobody_may_be_read_answers_as_any_other(
    tmp_path: Path, lawful: int
) -> None:
    """A failure would say, without noise, that nobody is there."""
    hub = SiteKeys.create(tmp_path / "hub", site="hub")
    asker, plan = Asker(hub), make_model_plan()
    policy = yaml.safe_dump(policy_values(hub.public_key))
    few = rows(6, opted_out=[place >= lawful for place in range(6)])
    with closing(SiloService.create(tmp_path / "silo", policy, site=SILO)) as founded:
        founded.store.upsert(iter([few]), experiments=ARMS)
    with closing(SiloService(tmp_path / "silo", asker.clock)) as service:
        for step in ("totals", "train-0001", "train-0002", "evaluate"):
            arrays = {} if step == "totals" else model_arrays(plan)
            answer = service.answer(asker.request(plan, step, arrays))
            assert asker.read(answer, service.keys)[0] == "release"
