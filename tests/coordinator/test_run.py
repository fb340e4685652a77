"""A run, from the first request to the signed manifest, over silos that answer honestly."""

import dataclasses

import numpy as np
import pytest

from abfed.coordinator import manifest
from abfed.coordinator.app import carry_out
from abfed.coordinator.beside import REPORT, TIMINGS, read_beside
from abfed.coordinator.conduct import Event, step_names
from abfed.coordinator.inbox import expected_shapes
from abfed.coordinator.vault import Vault, model_digest
from abfed.learning.shapes import initial_arrays, parameter_shapes
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.protocol.messages import decode
from abfed.protocol.tensors import pack
from abfed.site.clock import system_clock
from abfed.stats.totals import Layout
from tests.coordinator.doubles import Federation, make_plan, noise_of, statistics_plan


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def carry(federation, plan, **options):
    return carry_out(plan, federation.grid(), federation.coordinator, **options)


def model_of(federation, plan, outcome):
    """The final model of a run, opened."""
    sealed = (outcome.folder / "model.sealed").read_bytes()
    shapes = parameter_shapes(plan)
    return Vault(federation.keys).open(sealed, shapes, name=outcome.run, version="final")


def expected_model(plan, weights):
    """What federated averaging gives, in plain numpy."""
    model = {name: np.asarray(array) for name, array in initial_arrays(plan).items()}
    total = sum(weights.values())
    for step in step_names(plan)[1:-1]:
        incoming = sha256_hex(pack({f"model/{name}": array for name, array in model.items()}))
        mean = {name: np.zeros(array.shape) for name, array in model.items()}
        for silo, weight in sorted(weights.items()):
            update = noise_of(silo, step, incoming, expected_shapes(plan, step))
            for name, array in model.items():
                mean[name] += weight / total * (array.astype(np.float64) + update["update/" + name])
        model = {name: array.astype(np.float32) for name, array in mean.items()}
    return model


def test_the_model_is_the_mean_weighted_by_noised_size(federation):
    plan = make_plan()
    outcome = carry(federation, plan)
    totals = {
        silo: noise_of(silo, "totals", sha256_hex(b""), expected_shapes(plan, "totals"))["totals"]
        for silo in plan.silos
    }
    layout = Layout.of(plan)
    weights = {silo: max(1.0, layout.recipients(array)) for silo, array in totals.items()}
    assert outcome.manifest["weights"]["train-0001"] == pytest.approx(weights)
    expected, found = expected_model(plan, weights), model_of(federation, plan, outcome)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7)


def test_equal_weights_where_the_plan_says_so(federation):
    plan = make_plan(training={"rounds": 2, "local_steps": 2, "weighting": "equal"})
    outcome = carry(federation, plan)
    expected = expected_model(plan, dict.fromkeys(plan.silos, 1.0))
    found = model_of(federation, plan, outcome)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7)


def test_two_runs_of_the_same_answers_give_the_same_bytes(federation, tmp_path):
    plan = make_plan()
    first = carry(federation, plan)
    aside = (tmp_path / "runs").rename(tmp_path / "runs-before")
    second = carry(federation, plan)
    assert second.folder == first.folder
    assert not second.found
    for part in ("releases", "model", "weights", "epochs", "plan", "left_out"):
        assert first.manifest[part] != {} or part == "left_out"
        if part == "model":
            assert first.manifest[part]["digest"] == second.manifest[part]["digest"]
        else:
            assert first.manifest[part] == second.manifest[part]
    for path in sorted(second.folder.rglob("*.release")):
        before = aside / path.relative_to(tmp_path / "runs")
        assert path.read_bytes() == before.read_bytes()


def test_the_manifest_binds_everything(federation):
    plan = make_plan()
    outcome = carry(federation, plan, plan_text=b"name: spring\n")
    bound = manifest.verify(outcome.folder, federation.keys.public_key)
    assert bound == outcome.manifest
    assert bound["status"] == "complete"
    assert bound["plan"] == plan.digest
    assert bound["run"] == outcome.folder.name
    assert {silo: sorted(steps) for silo, steps in bound["releases"].items()} == {
        silo: ["evaluate", "totals", "train-0001", "train-0002", "train-0003"]
        for silo in plan.silos
    }
    assert bound["model"]["digest"] == model_digest(model_of(federation, plan, outcome))
    assert bound["versions"]["flwr"] == "1.41.0"
    assert set(bound["audit_heads"]) == {"coordinator", *plan.silos}
    assert bound["audit_heads"]["dawn"] == sha256_hex(b"dawn evaluate")
    assert bound["public_keys"] == {
        name: silo.keys.public_key.hex() for name, silo in federation.silos.items()
    }
    assert bound["left_out"] == {}
    assert bound["simulated"] is False
    assert (outcome.folder / "plan.yaml").read_bytes() == b"name: spring\n"
    assert (outcome.folder / "plan.json").read_bytes() == plan.canonical_bytes()
    timings = read_beside(outcome.folder / TIMINGS, federation.keys.public_key)
    assert set(timings) == set(step_names(plan))


NAMED = [
    "plan.json",
    "journal.jsonl",
    "model.sealed",
    "manifest.json",
    "manifest.sig",
    "releases/dawn/totals.release",
    "releases/aurora/train-0002.release",
    "releases/corona/evaluate.release",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    federation = Federation(tmp_path_factory.mktemp("finished"))
    return federation, carry(federation, make_plan())


@pytest.mark.parametrize("name", NAMED)
def test_a_changed_byte_is_found_and_named(finished, name):
    federation, outcome = finished
    path = outcome.folder / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError) as caught:
            manifest.verify(outcome.folder, federation.keys.public_key)
        assert str(path) in caught.value.where
    path.write_bytes(whole)
    manifest.verify(outcome.folder, federation.keys.public_key)


def test_a_missing_file_is_found_and_named(finished):
    federation, outcome = finished
    path = outcome.folder / "releases/borealis/train-0003.release"
    aside = path.rename(path.with_name("aside"))
    with pytest.raises(IntegrityError, match="is missing"):
        manifest.verify(outcome.folder, federation.keys.public_key)
    aside.rename(path)


def test_a_manifest_of_another_coordinator_is_not_believed(finished):
    federation, outcome = finished
    with pytest.raises(IntegrityError, match="not trusted"):
        manifest.verify(outcome.folder, federation.silos["dawn"].keys.public_key)


def test_an_unfinished_run_has_no_manifest(tmp_path):
    with pytest.raises(WorkspaceError, match="not finished"):
        manifest.verify(tmp_path, b"\0" * 32)


def test_files_and_folders_are_private(finished):
    _, outcome = finished
    for path in outcome.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_of_the_model_lies_open(finished):
    federation, outcome = finished
    model = model_of(federation, make_plan(), outcome)
    files = [path for path in outcome.folder.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    for array in model.values():
        assert array.tobytes() not in content
    kept = sorted(path.stem for path in (outcome.folder / "checkpoints").iterdir())
    assert kept == ["train-0002", "train-0003"]


def test_the_run_is_found_again_and_only_totals_are_asked(federation):
    plan = make_plan()
    first = carry(federation, plan)
    for silo in federation.silos.values():
        silo.asked.clear()
    again = carry(federation, plan)
    assert again.found
    assert again.folder == first.folder
    assert again.manifest == first.manifest
    assert all(silo.asked == ["totals"] for silo in federation.silos.values())


def test_another_title_finds_the_same_run_and_is_kept(federation):
    first = carry(federation, make_plan())
    again = carry(federation, make_plan(report={"title": "Spring, again"}))
    assert again.found
    assert again.folder == first.folder
    shown = read_beside(again.folder / REPORT, federation.keys.public_key)
    assert shown["title"] == "Spring, again"


def test_a_plan_without_a_model_asks_totals_only(federation):
    plan = statistics_plan()
    outcome = carry(federation, plan)
    assert outcome.manifest["model"] is None
    assert not (outcome.folder / "model.sealed").exists()
    assert all(silo.asked == ["totals"] for silo in federation.silos.values())
    assert carry(federation, plan).found


def test_new_data_is_a_new_run(federation):
    plan = statistics_plan()
    first = carry(federation, plan)
    federation.silos["dawn"].epoch = "d" * 64
    second = carry(federation, plan)
    assert not second.found
    assert second.folder != first.folder
    assert second.manifest["epochs"]["dawn"] == "d" * 64
    assert carry(federation, plan).folder == second.folder


def test_a_silo_that_is_gone_does_not_unfind_the_run(federation):
    plan = make_plan()
    first = carry(federation, plan)
    federation.silos["dawn"].refuses = "policy"
    again = carry(federation, plan)
    assert again.found
    assert again.folder == first.folder
    assert again.missing_now["dawn"] == ("refused", "policy")


def test_a_silo_that_comes_late_to_a_trained_run_is_told_so(federation):
    plan = make_plan()
    federation.silos["dawn"].refuses = "policy"
    first = carry(federation, plan)
    assert first.manifest["left_out"]["totals"]["dawn"] == {"reason": "refused", "why": "policy"}
    federation.silos["dawn"].refuses = ""
    again = carry(federation, plan)
    assert again.found
    assert again.folder == first.folder
    assert again.missing_now["dawn"].reason == "not-in-run"


def test_a_silo_that_comes_late_to_totals_joins(federation):
    plan = statistics_plan()
    federation.silos["dawn"].refuses = "policy"
    first = carry(federation, plan)
    federation.silos["dawn"].refuses = ""
    again = carry(federation, plan)
    assert not again.found
    assert set(again.manifest["releases"]) == {*first.manifest["releases"], "dawn"}


def test_totals_that_changed_on_the_same_data_are_an_integrity_error(federation):
    plan = make_plan()
    carry(federation, plan)

    def other(fields, arrays):
        arrays["totals"] = arrays["totals"] + 1

    federation.silos["corona"].forge = other
    with pytest.raises(IntegrityError, match="another way") as caught:
        carry(federation, plan)
    assert "corona" in caught.value.where


def test_requests_differ_in_nonce_time_and_token_only(federation, tmp_path):
    plan = statistics_plan()
    seen = []

    def listen(envelope):
        trusted = {federation.keys.key_id: federation.keys.public_key}
        opened = open_envelope(envelope, trusted, kind="request", where="test")
        seen.append(decode("request", opened.content, where="test").header)
        return federation.silos["dawn"].answer(envelope)

    for _ in range(2):
        carry_out(plan, federation.grid(dawn=listen), federation.coordinator)
    first, second = (request.model_dump() for request in seen)
    differing = {name for name in first if first[name] != second[name]}
    differing.discard("presented")  # the same token, unless a minute has passed
    assert differing == {"nonce", "issued_at", "head", "known_head"}
    assert first["plan"].encode() == plan.canonical_bytes()


def test_a_request_is_made_when_it_is_its_silos_turn(federation):
    plan = statistics_plan()
    order: list[str] = []

    def clock():
        order.append("made")
        return system_clock()

    def noting(silo):
        def answer(envelope):
            order.append("answered")
            return silo.answer(envelope)

        return answer

    carriers = {name: noting(silo) for name, silo in federation.silos.items()}
    site = dataclasses.replace(federation.coordinator, clock=clock)
    carry_out(plan, federation.grid(**carriers), site)
    assert order[:8] == ["made", "answered"] * 4


def test_progress_names_every_step_and_silo(federation):
    plan = make_plan()
    events: list[Event] = []
    carry(federation, plan, progress=events.append)
    assert [event.step for event in events if event.stage == "ask"] == list(step_names(plan))
    assert [event.step for event in events if event.stage == "closed"] == list(step_names(plan))
    answers = [event.silo for event in events if event.stage == "answer"]
    assert answers == sorted(plan.silos) * 5
    assert {(event.n, event.of) for event in events if event.step == "evaluate"} == {(5, 5)}
    assert events[-1].stage == "complete"
    again: list[Event] = []
    carry(federation, plan, progress=again.append)
    assert again[-1].stage == "found"


def test_what_happened_stands_in_the_audit_log(federation):
    plan = make_plan()
    outcome = carry(federation, plan)
    entries = [entry["body"] for entry in federation.coordinator.audit.entries()]
    assert [entry["event"] for entry in entries] == ["run.asked", "run.begun", "run.completed"]
    written = (outcome.folder / "manifest.json").read_bytes()
    assert entries[-1]["facts"] == {"run": outcome.run, "manifest": sha256_hex(written)}


def test_an_unknown_silo_is_bad_input(federation):
    with pytest.raises(InputError, match="'elsewhere' is not known"):
        carry(federation, make_plan(silos=["aurora", "elsewhere"]))


def test_flower_prints_nothing(federation, capfd):
    carry(federation, make_plan())
    assert capfd.readouterr() == ("", "")
