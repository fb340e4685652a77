"""Stopped at any point, a run goes on to the same model, bit for bit."""

import itertools
import json
import os
import signal
import traceback

import pytest

from abfed.coordinator.app import carry_out
from abfed.coordinator.beside import TIMINGS, read_beside
from abfed.coordinator.conduct import step_names
from abfed.coordinator.journal import Journal
from abfed.lab.federation import expect_begun
from abfed.protocol.errors import IntegrityError, WorkspaceError
from tests.coordinator.doubles import Federation, make_plan

PLAN = make_plan(silos=["aurora", "borealis"], training={"rounds": 2, "local_steps": 2})


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path, ("aurora", "borealis"))


def carry(federation, plan=PLAN, **options):
    return carry_out(plan, federation.grid(), federation.coordinator, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the run gives when nothing stops it."""
    federation = Federation(tmp_path_factory.mktemp("undisturbed"), ("aurora", "borealis"))
    return summary(carry(federation))


def summary(outcome):
    return {
        "model": outcome.manifest["model"]["digest"],
        "steps": [body["step"] for body in steps_of(outcome)],
        "models": [body["model"] for body in steps_of(outcome)],
        "left_out": outcome.manifest["left_out"],
        "weights": outcome.manifest["weights"],
    }


def steps_of(outcome):
    lines = (outcome.folder / "journal.jsonl").read_bytes().splitlines()
    return [json.loads(line)["body"] for line in lines][1:]


def killed_at(folder, count):
    """Carry the run out in a child that is killed at its `count`th act on the disk.

    Returns whether it was killed; if not, there are fewer such acts.
    """
    child = os.fork()
    if child == 0:
        try:
            federation = Federation(folder, ("aurora", "borealis"))
            _die_at(count)
            carry(federation)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not run on
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _die_at(count):
    """Kill this process in the middle of its `count`th write, flush, rename or removal."""
    acts = itertools.count(1)  # several threads write at once

    def dying(name, act):
        def instead(*arguments, **options):
            if next(acts) == count:
                if name == "write":
                    act(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments, **options)

        return instead

    for name in ("write", "fsync", "replace", "rename", "unlink", "ftruncate"):
        setattr(os, name, dying(name, getattr(os, name)))


def test_killed_at_every_act_on_the_disk_it_goes_on_to_the_same_model(tmp_path, undisturbed):
    count, resumed = 0, set()
    while True:
        count += 1
        folder = tmp_path / str(count)
        Federation(folder, ("aurora", "borealis"))
        if not killed_at(folder, count):
            break
        outcome = carry(Federation(folder, ("aurora", "borealis")))
        assert summary(outcome) == undisturbed, count
        resumed.add("found" if outcome.found else outcome.resumed_after)
    assert resumed == {"", "found", *step_names(PLAN)[1:]}, "not every state was killed in"
    assert count > 50


def test_killed_again_and_again_it_ends_with_the_same_model(tmp_path, undisturbed):
    Federation(tmp_path, ("aurora", "borealis"))
    attempts = 1
    while killed_at(tmp_path, 25):
        attempts += 1
        assert attempts < 50
    assert attempts > 3
    outcome = carry(Federation(tmp_path, ("aurora", "borealis")))
    assert outcome.found
    assert summary(outcome) == undisturbed


def stopped_after(federation, step):
    """Stop a run by Ctrl-C once this step is closed; returns its folder."""

    def stop(event):
        if (event.stage, event.step) == ("closed", step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(federation, progress=stop)
    (folder,) = (path for path in (federation.folder / "runs").iterdir() if path.is_dir())
    return folder


@pytest.mark.parametrize("step", step_names(PLAN)[1:])
def test_ctrl_c_leaves_a_run_that_goes_on(federation, undisturbed, step):
    stopped_after(federation, step)
    for silo in federation.silos.values():
        silo.asked.clear()
    outcome = carry(federation)
    assert outcome.resumed_after == step
    assert summary(outcome) == undisturbed
    steps = step_names(PLAN)
    assert federation.silos["aurora"].asked == ["totals", *steps[steps.index(step) + 1 :]]


def test_a_torn_last_line_is_a_crash(federation, undisturbed):
    folder = stopped_after(federation, "train-0002")
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    outcome = carry(federation)
    assert outcome.resumed_after == "train-0001"
    assert summary(outcome) == undisturbed


@pytest.mark.parametrize("gone", [["train-0002"], ["train-0001", "train-0002"]])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_checkpoint_that_does_not_open_is_made_again_from_releases(
    federation, undisturbed, gone, how
):
    folder = stopped_after(federation, "train-0002")
    for step in gone:
        path = folder / "checkpoints" / f"{step}.sealed"
        if how == "missing":
            path.unlink()
        else:
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    outcome = carry(federation)
    assert outcome.resumed_after == "train-0002"
    assert summary(outcome) == undisturbed
    events = [entry["body"]["event"] for entry in federation.coordinator.audit.entries()]
    assert events.count("checkpoint.unusable") == (len(gone) if how == "damaged" else 0)


def test_an_older_checkpoint_in_the_place_of_a_newer_is_not_taken(federation, undisturbed):
    folder = stopped_after(federation, "train-0002")
    home = folder / "checkpoints"
    (home / "train-0002.sealed").write_bytes((home / "train-0001.sealed").read_bytes())
    assert summary(carry(federation)) == undisturbed
    events = [entry["body"]["event"] for entry in federation.coordinator.audit.entries()]
    assert "checkpoint.unusable" in events


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plan.json", "another plan"),
        ("releases/aurora/totals.release", "not the one that was received"),
        ("releases/borealis/train-0001.release", "not the one that was received"),
    ],
)
def test_other_damage_is_an_integrity_error(federation, name, said):
    path = stopped_after(federation, "train-0002") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(IntegrityError, match=said) as caught:
        carry(federation)
    assert str(path.parent) in caught.value.where


def test_a_changed_journal_is_an_integrity_error(federation):
    path = stopped_after(federation, "train-0002") / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(IntegrityError, match="missing or out of place"):
        carry(federation)
    path.write_bytes(b"".join(lines).replace(b'"left_out":{}', b'"left_out":{"x":1}', 1))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        carry(federation)


def test_a_missing_release_is_an_integrity_error(federation):
    folder = stopped_after(federation, "train-0002")
    (folder / "releases/aurora/train-0001.release").unlink()
    with pytest.raises(IntegrityError, match="missing"):
        carry(federation)


def test_a_run_is_carried_out_by_one_process_at_a_time(federation):
    folder = stopped_after(federation, "train-0001")
    journal = Journal(folder / "journal.jsonl", federation.keys)
    with pytest.raises(WorkspaceError, match="another process"):
        carry(federation)
    journal.close()
    assert carry(federation).resumed_after == "train-0001"


def test_a_half_made_folder_is_made_anew(federation, undisturbed):
    folder = stopped_after(federation, "train-0001")
    half = folder.with_name(f".{folder.name}.new")
    folder.rename(half)
    (half / "journal.jsonl").unlink()
    outcome = carry(federation)
    assert outcome.resumed_after == ""
    assert summary(outcome) == undisturbed
    assert not half.exists()


def test_timings_of_all_attempts_are_kept(federation):
    stopped_after(federation, "train-0002")
    outcome = carry(federation)
    found = read_beside(outcome.folder / TIMINGS, federation.keys.public_key)
    assert set(found) == set(step_names(PLAN))


def test_one_that_ended_in_its_totals_is_gone_on_with_and_a_complete_one_is_not(federation):
    site = federation.coordinator

    def expected():
        expect_begun(site.runs, PLAN, site.audit)

    with pytest.raises(WorkspaceError) as never:
        expected()
    assert never.value.why == "it was never asked by this coordinator"

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(federation, progress=stop)  # at the first step's asking
    assert not list(site.runs.glob("*/plan.json"))
    expected()  # silos may have been charged: asked again, they answer the same
    assert carry(federation).resumed_after == ""
    for _ in range(2):
        with pytest.raises(WorkspaceError) as over:
            expected()
        assert over.value.why == "its run is complete"
        assert carry(federation).found


def test_a_run_with_a_folder_is_gone_on_with_whatever_its_log_says(federation):
    stopped_after(federation, "train-0001")
    site = federation.coordinator
    expect_begun(site.runs, PLAN, site.audit)
    with pytest.raises(WorkspaceError, match="no unfinished run"):
        expect_begun(site.runs, make_plan(name="another"), site.audit)
