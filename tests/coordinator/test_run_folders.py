"""A run's folder: its name is the run's, and what lies beside the manifest is signed."""

import shutil

import pytest

from abfed.coordinator import manifest
from abfed.coordinator.app import carry_out
from abfed.coordinator.beside import REPORT, TIMINGS, read_beside
from abfed.protocol.errors import IntegrityError
from tests.coordinator.doubles import Federation, make_plan


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def carry(federation, plan):
    return carry_out(plan, federation.grid(), federation.coordinator)


def test_a_run_under_another_name_is_refused_and_stands_in_nobodys_way(federation):
    """A copied folder isn't a run: it neither opens nor keeps the real one from being found."""
    plan = make_plan()
    first = carry(federation, plan)
    copy = first.folder.with_name(f"{plan.name}-0000000000")
    shutil.copytree(first.folder, copy)
    with pytest.raises(IntegrityError, match="another name"):
        manifest.verify(copy, federation.keys.public_key)
    assert carry(federation, plan).folder == first.folder
    first.folder.rename(first.folder.with_name(f"{plan.name}-1111111111"))
    with pytest.raises(IntegrityError, match="another name"):
        manifest.verify(
            first.folder.with_name(f"{plan.name}-1111111111"), federation.keys.public_key
        )
    fresh = carry(federation, plan)  # as if neither were there
    assert not fresh.found
    assert fresh.folder == first.folder


@pytest.mark.parametrize("name", [REPORT, TIMINGS])
def test_what_lies_beside_the_manifest_is_signed_and_bound_to_its_run(federation, tmp_path, name):
    plan = make_plan()
    outcome = carry(federation, plan)
    key = federation.keys.public_key
    signed = (outcome.folder / name).read_bytes()
    other = make_plan(name="other")
    beside = carry(federation, other).folder / name
    beside.write_bytes(signed)
    with pytest.raises(IntegrityError, match="of another run"):
        read_beside(beside, key)
    swapped = outcome.folder / (TIMINGS if name == REPORT else REPORT)
    swapped.write_bytes(signed)
    with pytest.raises(IntegrityError, match="another file of it"):
        read_beside(swapped, key)
    (outcome.folder / name).write_bytes(signed.replace(b"{", b"[", 1))
    with pytest.raises(IntegrityError):
        read_beside(outcome.folder / name, key)


def test_what_a_killed_process_had_begun_is_cleared_away(federation):
    plan = make_plan()
    runs = federation.coordinator.runs
    left = runs / ".spring-0123456789.new"
    (left / "releases").mkdir(parents=True)
    (left / "releases" / "half.release").write_bytes(b"x")
    carry(federation, plan)
    assert not left.exists()
