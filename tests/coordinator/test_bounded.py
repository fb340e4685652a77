"""The coordinator's memory doesn't grow with the number of silos."""

import os
import re
import threading
import tracemalloc
from pathlib import Path

import pytest
from flwr.serverapp import ServerApp

from abfed.coordinator import desk, exchange, strategy
from abfed.coordinator.app import carry_out
from abfed.coordinator.conduct import Conduct, step_names
from abfed.coordinator.courier import make_courier
from abfed.coordinator.exchange import Requests
from abfed.coordinator.front import Front
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.inbox import Accepted, Inbox, expected_shapes
from abfed.coordinator.patience import PatientGrid
from abfed.coordinator.spool import Spool
from abfed.coordinator.strategy import drawn
from abfed.protocol import identity
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import content_of_verified
from abfed.protocol.errors import IntegrityError
from abfed.protocol.identity import Presented
from abfed.protocol.messages import decode, encode
from abfed.protocol.plan import Plan
from abfed.site import files
from tests.coordinator.doubles import Federation, make_plan

HIDDEN = [256]  # about 3,000 parameters of 4 and 8 bytes


def names(count):
    return tuple(f"silo-{number:03d}" for number in range(count))


def peak(folder, count):
    """Peak of traced memory (bytes) while a plan is carried out over so many silos."""
    federation = Federation(folder, names(count))
    plan = make_plan(
        silos=list(names(count)),
        model={"outcome": "clicked", "hidden": HIDDEN},
        training={"rounds": 1, "local_steps": 2},
    )
    grid = EmbeddedGrid({name: make_courier(s.answer) for name, s in federation.silos.items()})
    app = ServerApp()

    @app.main()
    def main(inner, context):
        Conduct(plan, federation.coordinator).run(PatientGrid(inner, plan.waiting))

    tracemalloc.start()
    try:
        grid.carry_out(app)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_four_times_as_many_silos_take_little_more_memory(tmp_path):
    peak(tmp_path / "warm", 4)  # imports and caches
    few, many = peak(tmp_path / "few", 10), peak(tmp_path / "many", 40)
    # 30 more silos hold names, digests and headers: some 20 kB each, and no arrays (50 kB each).
    assert many - few < 30 * 25_000, (few, many)


def test_a_waiting_grid_gives_the_same_model_as_a_plain_one(tmp_path):
    federation = Federation(tmp_path, names(5))
    plan = make_plan(silos=list(names(5)), training={"rounds": 2, "local_steps": 2})
    plain = carry_out(plan, federation.grid(), federation.coordinator)
    (tmp_path / "runs").rename(tmp_path / "before")
    outcomes = []
    app = ServerApp()

    @app.main()
    def main(inner, context):
        outcomes.append(Conduct(plan, federation.coordinator).run(PatientGrid(inner, plan.waiting)))

    federation.grid().carry_out(app)
    assert outcomes[0].manifest["model"]["digest"] == plain.manifest["model"]["digest"]


def test_a_spool_whose_disk_gives_other_bytes_back_is_found_out():
    class Release:
        silo = "aurora"

    spool = Spool()
    kept = spool.keep(Accepted(Release(), {}, b"an envelope"))
    assert kept.envelope == b"an envelope"
    os.pwrite(spool._file.fileno(), b"AN", 0)
    with pytest.raises(IntegrityError, match="other bytes"):
        _ = kept.envelope


def test_a_share_of_the_silos_is_asked_in_each_round_drawn_anew(tmp_path):
    federation = Federation(tmp_path, names(12))
    plan = make_plan(
        silos=list(names(12)),
        minimum_silos=2,
        training={"rounds": 4, "local_steps": 2},
        waiting={"silo_share": 0.25},
    )
    outcome = carry_out(plan, federation.grid(), federation.coordinator)
    asked = [frozenset(outcome.manifest["weights"][f"train-{n:04d}"]) for n in range(1, 5)]
    assert [len(one) for one in asked] == [3] * 4
    assert len(set(asked)) > 1
    assert all(one < set(names(12)) for one in asked)


def test_who_is_asked_is_drawn_as_ever():
    """A run that an older release began goes on with the same silos."""
    plan = make_plan(silos=list(names(40)), minimum_silos=2, waiting={"silo_share": 0.2})
    for step in ("train-0001", "train-0002"):
        begun = f"{plan.digest} {step} "
        order = sorted(names(40), key=lambda one: sha256_hex(f"{begun}{one}".encode()))
        assert drawn(plan, step, names(40)) == sorted(order[:8])


def test_a_round_neither_lists_nodes_nor_writes_the_plan_anew(tmp_path, monkeypatch):
    """Both name all silos, however few are asked."""
    listed, written = [], []
    get_nodes, write = EmbeddedGrid.get_nodes, Plan.canonical_bytes
    monkeypatch.setattr(EmbeddedGrid, "get_nodes", lambda self: listed.append(1) or get_nodes(self))
    monkeypatch.setattr(Plan, "canonical_bytes", lambda self: written.append(1) or write(self))
    monkeypatch.setattr(desk, "LISTED_SECONDS", 3600.0)

    def counted(folder, rounds):
        federation = Federation(folder, names(6))
        plan = make_plan(
            silos=list(names(6)),
            training={"rounds": rounds, "local_steps": 2},
            waiting={"silo_share": 0.4},
        )
        listed.clear()
        written.clear()
        carry_out(plan, federation.grid(), federation.coordinator)
        return len(listed), len(written)

    few = counted(tmp_path / "few", 2)
    assert counted(tmp_path / "many", 6) == few
    assert few[0] == 1
    monkeypatch.setattr(desk, "LISTED_SECONDS", -1.0)
    assert counted(tmp_path / "old", 2)[0] == 4  # totals, two rounds, evaluation


def test_a_silo_that_the_last_listing_lacks_is_looked_for_at_once():
    grid = EmbeddedGrid(dict.fromkeys(names(2)))
    nodes, known = desk.Nodes(), grid.get_nodes()
    grid.get_nodes = lambda: known[:1]
    assert set(nodes.of(grid, names(2))) == set(names(1))
    grid.get_nodes = lambda: known
    assert set(nodes.of(grid, names(1))) == set(names(1))
    assert set(nodes.of(grid, names(2))) == set(names(2))
    other = EmbeddedGrid(dict.fromkeys(names(3)))
    assert set(nodes.of(other, names(1))) == set(names(3))


def test_a_request_grows_by_thirty_bytes_a_silo(tmp_path):
    """Its name, in the plan and, in base64, in what the person shows; and nothing else."""

    def size(count):
        federation = Federation(tmp_path / str(count), names(count))
        site, plan = federation.coordinator, make_plan(silos=list(names(count)))
        inbox = Inbox(site.silos, plan, lambda step: expected_shapes(plan, step))
        made = desk.Desk(plan, site.keys, site.audit, inbox, site.front, site.clock)
        requests = Requests(made, "train-0001", b"", {names(1)[0]: 1}, names(1))
        envelope = requests._envelope(names(1)[0])
        content = content_of_verified(envelope)
        header, arrays = decode("request", content, where="request")
        assert encode(header, arrays) == content  # what was written once is written as ever
        return len(envelope)

    growth = (size(54) - size(4)) / 50
    quoted = len(f'"{names(1)[0]}",')
    assert growth == pytest.approx(quoted + 2 + 2 * quoted * 4 / 3, abs=0.2)  # quotes escaped


def test_what_a_person_shows_is_written_once_a_step_and_read_by_nobody_twice(tmp_path, monkeypatch):
    """It names all silos."""
    written, opened = [], []
    write, opens = Presented.model_dump, identity.open_envelope
    monkeypatch.setattr(
        Presented, "model_dump", lambda self, **named: written.append(1) or write(self, **named)
    )
    monkeypatch.setattr(
        identity,
        "open_envelope",
        lambda *words, **named: opened.append(1) or opens(*words, **named),
    )
    monkeypatch.setattr(exchange, "ADMITTED_SECONDS", 3600.0)
    federation = Federation(tmp_path, names(6))
    plan = make_plan(silos=list(names(6)), training={"rounds": 6, "local_steps": 2})
    carry_out(plan, federation.grid(), federation.coordinator)
    steps = len(step_names(plan))
    assert len(written) == steps
    # Of each step and the door a token, by its holder and by its judge; and one submission.
    assert len(opened) <= 2 * (steps + 1) + 1


def test_a_round_removes_one_checkpoint(tmp_path, monkeypatch):
    """To look for those of all rounds each time would cost the square of their number."""
    looked = []
    unlink = Path.unlink

    def counting(self, missing_ok=False):
        looked.append(self.name)
        unlink(self, missing_ok=missing_ok)

    federation = Federation(tmp_path)
    monkeypatch.setattr(Path, "unlink", counting)
    done = carry_out(
        make_plan(training={"rounds": 6, "local_steps": 2}),
        federation.grid(),
        federation.coordinator,
    )
    removed = [name for name in looked if name.endswith(".sealed")]
    assert removed == [f"train-{number:04d}.sealed" for number in range(1, 5)]
    kept = sorted(one.name for one in (done.folder / "checkpoints").iterdir())
    assert kept == ["train-0005.sealed", "train-0006.sealed"]


def test_a_round_neither_starts_threads_nor_reads_its_own_model_back(tmp_path, monkeypatch):
    """What a round costs by itself weighs most where few silos bear it."""
    made, read = [], []
    pool, from_record = files.ThreadPoolExecutor, strategy.from_record
    monkeypatch.setattr(
        files, "ThreadPoolExecutor", lambda *a, **k: made.append(1) or pool(*a, **k)
    )
    monkeypatch.setattr(strategy, "from_record", lambda one: read.append(1) or from_record(one))

    def counted(folder, rounds):
        federation = Federation(folder)
        made.clear()
        read.clear()
        plan = make_plan(training={"rounds": rounds, "local_steps": 2})
        carry_out(plan, federation.grid(), federation.coordinator)
        return len(made), len(read)

    assert counted(tmp_path / "few", 2) == counted(tmp_path / "many", 6) == (2, 1)
    assert not [one for one in threading.enumerate() if one.name.startswith("abfed-write")]


def test_who_asks_is_judged_anew_in_each_step_and_not_for_each_silo(tmp_path, monkeypatch):
    """What a person shows names all silos: once for each would cost the square of their number."""
    federation = Federation(tmp_path, names(12))
    plan = make_plan(silos=list(names(12)), training={"rounds": 2, "local_steps": 2})
    judged = []
    admit = Front.admit
    monkeypatch.setattr(Front, "admit", lambda self, p: judged.append(p) or admit(self, p))
    monkeypatch.setattr(exchange, "ADMITTED_SECONDS", 3600.0)
    carry_out(plan, federation.grid(), federation.coordinator)
    steps = len(step_names(plan))
    assert steps <= len(judged) <= steps + 1  # and once at the door
    monkeypatch.setattr(exchange, "ADMITTED_SECONDS", -1.0)  # as if a step took very long
    (tmp_path / "runs").rename(tmp_path / "before")
    judged.clear()
    carry_out(plan, federation.grid(), federation.coordinator)
    assert len(judged) >= 12 * steps


def test_the_worked_estimate_of_the_page_follows_from_its_formula():
    """Ten thousand silos and a million parameters: the figures are those of the formula beside."""
    page = (Path(__file__).parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
    formula = re.search(r"\*s·N·\((\d+) P \+ (\d+) kB \+ (\d+) N\)\* bytes", page).groups()
    per_parameter, fixed, per_silo = (int(one) for one in formula)
    seconds = re.search(r"\*s·N·\(([\d.]+) \+ ([\d.]+) P/10⁶ \+ ([\d.]+) N/10⁶\)\*", page).groups()
    silos, parameters = 10_000, 10**6

    def traffic(share):
        one = per_parameter * parameters + fixed * 1000 + per_silo * silos
        return share * silos * one

    named = float(seconds[2]) * silos / 10**6
    cpu = 0.1 * silos * (float(seconds[0]) + float(seconds[1]) + named)
    assert f"**{traffic(0.1) / 1e9:.1f} GB and {cpu:.0f} CPU s a round**" in page
    assert f"{traffic(0.1) * 8 / 1e9:.0f} s at 1 Gbit/s" in page
    assert f"every round: {traffic(1) / 1e9:.0f} GB, {10 * cpu:.0f} CPU s" in page
    table = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert len(table) == 3
    for row in table:  # what was measured is what the formula says, to a fifth
        size, milliseconds, measured = (float(one.replace(",", "")) for one in row)
        said = per_parameter * size + fixed * 1000
        assert abs(said - measured) < 0.2 * measured
        assert abs(1000 * float(seconds[0]) + float(seconds[1]) * size / 1000 - milliseconds) < 2
