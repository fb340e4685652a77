"""The service: bytes in, a signed release or refusal out, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abfed.privacy.accounting import Curve
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.messages import MAX_HEADER, Decoded, Refusal, Release, encode
from abfed.protocol.tensors import unpack
from abfed.silo import service as service_module
from abfed.silo import totals
from abfed.silo.permit import Computed
from abfed.silo.releasing import expected_shapes
from abfed.silo.service import SiloService
from abfed.site.keys import SiteKeys
from abfed.stats.totals import SCALE, Layout
from tests.examples import make_model_plan, make_plan
from tests.silo import killed
from tests.silo.asking import DELTA, SILO, Asker, charged, model_arrays, policy_values, rows

ROOT = Path(__file__).parents[2]
PLAN = make_plan(privacy={"epsilon": 4.0, "delta": 1e-6, "split": {"statistics": 4.0}})
MODEL_PLAN = make_model_plan()
SECRET = "jane.doe@example.com"


@dataclass
class Silo:
    """A founded silo with rows, and a coordinator that it trusts."""

    folder: Path
    asker: Asker
    service: SiloService

    def ask(self, envelope: bytes) -> tuple[str, Decoded]:
        """Send bytes; the answer, its signature checked."""
        return self.asker.read(self.service.answer(envelope), self.service.keys)

    def code(self, envelope: bytes) -> str:
        """Send bytes that are refused; the code."""
        kind, (header, arrays) = self.ask(envelope)
        assert (kind, arrays) == ("refusal", b"")
        assert isinstance(header, Refusal)
        return header.code

    def reopen(self) -> None:
        """As after a restart."""
        self.service.ledger.close()
        self.service = SiloService(self.folder, self.asker.clock)

    def refill(self, **changes: Any) -> None:
        """New rows: a new epoch."""
        self.service.store.upsert(
            iter([rows(**changes)]), experiments={"spring-2026": ("a", "b", "c")}
        )


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("founded")
    hub = SiteKeys.create(folder / "hub", site="hub")
    policy = yaml.safe_dump(policy_values(hub.public_key))
    service = SiloService.create(folder / "silo", policy, site=SILO)
    service.store.upsert(iter([rows()]), experiments={"spring-2026": ("a", "b", "c")})
    service.ledger.close()
    return folder


@pytest.fixture
def silo(founded: Path, tmp_path: Path) -> Iterator[Silo]:
    shutil.copytree(founded / "silo", tmp_path / "silo")
    asker = Asker(SiteKeys.open(founded / "hub"))
    made = Silo(tmp_path / "silo", asker, SiloService(tmp_path / "silo", asker.clock))
    yield made
    made.service.ledger.close()


def test_totals_are_released_near_the_truth(silo: Silo) -> None:
    kind, (header, arrays) = silo.ask(silo.asker.request(PLAN))
    assert kind == "release"
    assert isinstance(header, Release)
    found = unpack(arrays, expected_shapes(PLAN, "totals"), where="x")["totals"] / SCALE
    layout = Layout.of(PLAN)
    block = layout.block("clicked")
    sigma = block.sd * header.noise["noise_multiplier"]
    truth = np.array([[10.0, 20.0], [10.0, 20.0]])  # clicked and not, in each arm of thirty
    assert np.abs(found[:, block.columns] - truth).max() < 7 * sigma
    assert not np.array_equal(found[:, block.columns], truth)


def test_the_same_request_gives_the_same_bytes_and_one_charge(silo: Silo) -> None:
    first = silo.service.answer(silo.asker.request(PLAN))
    before = charged(silo.service.ledger)
    assert before[0] == 1
    assert silo.service.answer(silo.asker.request(PLAN)) == first
    silo.reopen()
    assert silo.service.answer(silo.asker.request(PLAN)) == first
    assert charged(silo.service.ledger) == before


def test_changed_data_is_a_new_charge(silo: Silo) -> None:
    first = silo.service.answer(silo.asker.request(PLAN))
    silo.refill()
    assert silo.service.answer(silo.asker.request(PLAN)) == first  # nothing was new
    silo.refill(count=61)
    second = silo.service.answer(silo.asker.request(PLAN))
    assert second != first
    assert len(silo.service.ledger.reservations()) == 2


def test_a_whole_plan_with_a_model_out_of_order_and_yesterdays_again(silo: Silo) -> None:
    """A coordinator that is hostile itself: in any order, each step is answered for one model."""
    asker, model = silo.asker, model_arrays(MODEL_PLAN)
    assert silo.code(asker.request(MODEL_PLAN, "train-0002", model)) == "order"
    steps = ("totals", "train-0002", "evaluate", "train-0001")
    asked, made = {}, {}
    for step in steps:
        asked[step] = asker.request(MODEL_PLAN, step, {} if step == "totals" else model)
        made[step] = kind, (header, packed) = silo.ask(asked[step])
        assert kind == "release"
        assert isinstance(header, Release)
        unpack(packed, expected_shapes(MODEL_PLAN, step), where=step)
    assert len({packed for _, (_, packed) in made.values()}) == 4
    spent = charged(silo.service.ledger)
    asker.clock.forward(days=1)
    for step in steps:
        arrays = {} if step == "totals" else model
        assert silo.code(asked[step]) == "stale"
        assert silo.ask(asker.request(MODEL_PLAN, step, arrays)) == made[step]
        if arrays:
            other = model_arrays(MODEL_PLAN, 0.5)
            assert silo.code(asker.request(MODEL_PLAN, step, other)) == "step-used"
    changed = make_model_plan(name="another")  # under what was shown for the plan before
    shown = asker.presented(MODEL_PLAN)
    assert silo.code(asker.request(changed, presented=shown)) == "sign-in"
    assert charged(silo.service.ledger) == spent
    assert spent[0] == 1
    silo.service.audit.verify()


def _hostile(silo: Silo) -> list[bytes]:
    good = silo.asker.request(PLAN)
    sign = silo.asker.keys.sign
    header = encode(Refusal(silo=SILO, plan_digest="", step="", code="budget", head="0" * 64))
    return [
        b"",
        b"\0" * 1000,
        b"ABFED1",
        b"ABFED1" + b"\xff" * 400,
        b"ABFED1" + struct.pack(">I", 4096) + b"[" * 4096,
        SECRET.encode(),
        *(good[:size] for size in range(0, len(good), 37)),
        good + b"\0",
        good[:-1] + bytes([good[-1] ^ 1]),
        sign("request", b""),
        sign("request", header),
        sign("release", header),
        sign("request", struct.pack(">I", 2**32 - 1) + b"{}"),
        sign("request", struct.pack(">I", MAX_HEADER + 1) + b" " * (MAX_HEADER + 1)),
        sign("request", struct.pack(">I", 5000) + b"[" * 5000),
        sign("request", struct.pack(">I", 5000) + b"9" * 5000),
        silo.asker.request(PLAN, plan="[" * 100_000),
        silo.asker.request(PLAN, plan="[" * 950 + "]" * 950),
        silo.asker.request(PLAN, plan=""),
        silo.asker.request(PLAN, issued_at="2026-02-30T12:00:00Z"),
        silo.asker.request(PLAN, "train-9999"),
        silo.asker.request(MODEL_PLAN, "evaluate", {"model/x": np.zeros(1)}),
    ]


def test_hostile_bytes_get_a_signed_refusal_and_cost_nothing(silo: Silo) -> None:
    envelopes = _hostile(silo)
    for envelope in envelopes:
        assert silo.code(envelope) in {"untrusted", "version", "stale", "order"}
    assert silo.service.ledger.entries == 0
    log = silo.service.paths.audit.read_text()
    assert "jane" not in log
    assert silo.service.audit.verify().entries == 1 + len(envelopes)  # founding is the first


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_get_a_signed_refusal(silo: Silo, data: bytes, signed: bool) -> None:
    envelope = silo.asker.keys.sign("request", data) if signed else data
    assert silo.code(envelope) == ("version" if signed else "untrusted")


def test_a_request_that_is_too_large_is_not_opened(
    silo: Silo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MAX_REQUEST", 100)
    assert silo.code(silo.asker.request(PLAN)) == "untrusted"


@pytest.mark.parametrize(
    "failure",
    [
        ValueError(SECRET),
        MemoryError(SECRET),
        RecursionError(SECRET),
        KeyError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    ],
)
def test_a_failure_while_computing_tells_nothing(
    silo: Silo, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object) -> Computed:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(totals, "compute_totals", fail)
        answer = silo.service.answer(silo.asker.request(PLAN))
    _, (header, arrays) = silo.asker.read(answer, silo.service.keys)
    assert isinstance(header, Refusal)
    assert (header.code, arrays) == ("failed", b"")
    assert b"jane" not in answer
    log = silo.service.paths.audit.read_text()
    assert "jane" not in log
    assert type(failure).__name__ in log
    before = charged(silo.service.ledger)
    assert before[0] == 1  # charged, and lost nothing: the next attempt is the same charge
    kind, _ = silo.ask(silo.asker.request(PLAN))
    assert kind == "release"
    assert len(silo.service.ledger.reservations()) == 1


def test_a_warning_while_computing_is_told_to_nobody(
    silo: Silo, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = silo.service._compute

    def warning(permit: Any) -> Any:
        warnings.warn("seven rows", stacklevel=1)
        np.divide(np.ones(1), np.zeros(1))
        return compute(permit)

    monkeypatch.setattr(silo.service, "_compute", warning)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        silo.service.answer(silo.asker.request(PLAN))
    assert told == []


def test_data_that_change_while_it_computes_are_not_released(
    silo: Silo, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = totals.compute_totals

    def slow(*args: Any) -> Computed:
        result = compute(*args)
        silo.refill(count=62)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(totals, "compute_totals", slow)
        assert silo.code(silo.asker.request(PLAN)) == "failed"
    assert not list(silo.service.paths.releases.iterdir())


@pytest.mark.parametrize("name", ["policy.yaml", "ledger.db"])
def test_a_silo_open_to_others_gives_nothing(silo: Silo, name: str) -> None:
    (silo.folder / name).chmod(0o644)
    if name == "policy.yaml":
        assert silo.code(silo.asker.request(PLAN)) == "damaged"
        assert silo.service.ledger.entries == 0
        return
    with pytest.raises(IntegrityError):
        SiloService(silo.folder)


def test_a_lost_ledger_is_not_begun_anew(silo: Silo) -> None:
    silo.service.answer(silo.asker.request(PLAN))
    silo.service.close()
    for path in silo.folder.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(IntegrityError, match="ledger"):
        SiloService(silo.folder)
    assert not silo.service.paths.ledger.exists()


def test_a_silo_is_founded_once_and_with_a_policy_of_its_own(tmp_path: Path) -> None:
    text = yaml.safe_dump(policy_values(bytes(32)))
    with pytest.raises(WorkspaceError):
        SiloService(tmp_path / "none")
    service = SiloService.create(tmp_path / "silo", text, site=SILO)
    service.ledger.close()
    with pytest.raises(WorkspaceError):
        SiloService.create(tmp_path / "silo", text, site=SILO)
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "silo").rglob("*")}
    assert modes == {0}


@pytest.fixture(scope="module")
def crashed(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A silo for each point at which a child was killed, and how each child ended."""
    folder = tmp_path_factory.mktemp("crashed")
    shutil.copytree(founded / "silo", folder / "silo")
    (folder / "request").write_bytes(Asker(SiteKeys.open(founded / "hub")).request(PLAN))
    done = subprocess.run(
        [sys.executable, killed.__file__, str(folder), str(folder / "request")],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    return folder, dict(line.split() for line in done.stdout.splitlines())


UNCHARGED = {"before-reserve", "within-a-transaction"}
SETTLED = {"after-settle"}


@pytest.mark.parametrize("point", killed.POINTS)
def test_a_kill_at_any_point_loses_no_charge_and_gives_nothing_away(
    crashed: tuple[Path, dict[str, str]], founded: Path, point: str
) -> None:
    folder, ends = crashed
    assert ends[point] == str(int(signal.SIGKILL))
    asker = Asker(SiteKeys.open(founded / "hub"))
    service = SiloService(folder / point, asker.clock)
    with closing(service.ledger):
        assert len(service.ledger.reservations()) == (0 if point in UNCHARGED else 1)
        kept = {path.read_bytes() for path in service.paths.releases.glob("*.sealed")}
        answers = []
        for _ in range(2):
            answers.append(service.answer(asker.request(PLAN)))
            kind, _ = asker.read(answers[-1], service.keys)
            assert kind == "release"
            assert len(service.ledger.reservations()) == 1
        assert answers[0] == answers[1]
        if point in SETTLED:  # it was the release, though it never left
            assert {path.read_bytes() for path in service.paths.releases.glob("*.sealed")} == kept
        service.audit.verify()


@pytest.mark.privacy
def test_a_ledger_from_a_backup_is_refused(silo: Silo) -> None:
    """It would be whole and well signed, and would have forgotten what was charged since."""
    silo.service.answer(silo.asker.request(PLAN))
    silo.service.close()
    shutil.copytree(silo.folder, silo.folder.parent / "backup")
    silo.reopen()
    silo.service.answer(silo.asker.request(MODEL_PLAN))
    silo.service.close()
    for path in silo.folder.glob("ledger.db*"):
        path.unlink()
    for path in (silo.folder.parent / "backup").glob("ledger.db*"):
        shutil.copy2(path, silo.folder / path.name)
    with pytest.raises(IntegrityError, match="older than the audit log"):
        SiloService(silo.folder, silo.asker.clock)


@pytest.mark.privacy
def test_two_plans_that_differ_in_one_recipients_group_cost_both(silo: Silo) -> None:
    """Differencing: with and without a group of one. Each answer has its own noise and charge."""
    wide = make_plan(population=[{"column": "region", "one_of": ["eu", "us"]}])
    narrow = make_plan(population=[{"column": "region", "one_of": ["eu"]}])
    silo.refill(count=61, region=["eu"] * 60 + ["us"])
    found = []
    for plan in (wide, narrow):
        _, (header, arrays) = silo.ask(silo.asker.request(plan))
        assert isinstance(header, Release)
        layout = Layout.of(plan)
        totals = unpack(arrays, expected_shapes(plan, "totals"), where="x")["totals"] / SCALE
        sd = layout.counts(totals)[1] * header.noise["noise_multiplier"]
        found.append((layout.recipients(totals * SCALE), sd))
    assert len(silo.service.ledger.reservations()) == 2
    each = silo.service.ledger.reservations()[0].charges
    both = silo.service.ledger.spent_epsilon(DELTA)
    assert both == pytest.approx(Curve.of([*each, *each]).epsilon(DELTA))
    # the difference of the counts is one person under the noise of two arms, twice
    assert np.sqrt(2 * 2) * found[0][1] > 2.0
