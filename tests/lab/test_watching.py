"""The watch: what is told once, what is told again, and what it finds in runs and registers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from abfed.cli.main import main
from abfed.coordinator.inbox import Accepted
from abfed.lab.offices import Office
from abfed.lab.runs import Run, is_scored
from abfed.lab.watch import rehearsing, watching
from abfed.lab.watch.run_alarms import Floats, judge_run
from abfed.lab.watch.watching import FILE, TOLD, Watch
from abfed.lab.workspace import Workspace
from abfed.learning.evaluation import BINS
from abfed.learning.shapes import UPDATE
from abfed.site.alarms import RULES, Alarm, judge_log
from abfed.site.files import write_private
from abfed.site.incidents import Incidents
from tests.lab.example import example_values, make_run, read_playbooks_today
from tests.signing import PASSWORD, sign_in


def sinks(workspace: Workspace, *made: dict[str, object]) -> None:
    write_private(workspace.path / FILE, yaml.safe_dump({"sinks": list(made)}).encode())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "ws", development=True)
    read_playbooks_today(made.path)
    return made


def attack(workspace: Workspace) -> None:
    for _ in range(5):
        workspace.audit.append("sign-in.failed", person="unknown")


def test_an_alarm_is_told_once_and_again_after_a_sink_failed(workspace: Workspace) -> None:
    sinks(workspace, {"kind": "log", "path": "alarms.jsonl"})
    watch = Watch(workspace)
    assert watch.look().new == ()
    attack(workspace)
    (alarm,) = watch.look().new
    assert alarm.rule == "sign-in-failures"
    again = Watch(workspace).look()  # another process
    assert again.new == ()
    assert again.standing == (alarm,)
    told = (workspace.path / "alarms.jsonl").read_text().splitlines()
    assert [json.loads(line)["rule"] for line in told] == ["sign-in-failures"]

    workspace.audit.append("sign-in.too-many")
    sinks(workspace, {"kind": "webhook", "url": "http://127.0.0.1:9/none"})
    failing = Watch(workspace).look()
    assert [one.rule for one in failing.new] == ["sign-in-flood"]
    assert len(failing.failed) == 1
    sinks(workspace, {"kind": "log", "path": "alarms.jsonl"})
    assert [one.rule for one in Watch(workspace).look().new] == ["sign-in-flood"]


def test_alarms_are_counted_once_each_and_what_stands_is_a_gauge(workspace: Workspace) -> None:
    watch, counted = Watch(workspace), "abfed_events_total"
    alarm = {"event": "alarm-sign-in-failures"}
    watch.look()
    assert watch.metrics.registry.get_sample_value(counted, alarm) is None
    attack(workspace)
    for _ in range(2):
        watch.look()
        asked = watch.metrics.registry.get_sample_value
        assert asked(counted, alarm) == 1
        assert asked("abfed_state", {"state": "alarms-high"}) == 1
    assert asked(counted, {"event": "look"}) == 3


def test_whoever_damages_what_the_watch_keeps_does_not_silence_it(workspace: Workspace) -> None:
    sinks(workspace, {"kind": "log", "path": "alarms.jsonl"})
    Watch(workspace).look()
    attack(workspace)
    kept = workspace.coordinator / TOLD
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = {one.rule for one in Watch(workspace).look().new}
    assert found == {"sign-in-failures", "chain-or-seal-broken"}
    told = (workspace.path / "alarms.jsonl").read_text().splitlines()
    assert {json.loads(line)["rule"] for line in told} == found
    assert Watch(workspace).look().new == (), "it is told once"


def test_who_took_an_alarm_does_not_get_it_again_while_another_is_down(
    workspace: Workspace,
) -> None:
    log = {"kind": "log", "path": "alarms.jsonl"}
    down = {"kind": "webhook", "url": "http://127.0.0.1:9/none"}
    sinks(workspace, down, log)
    attack(workspace)
    for _ in range(5):
        assert len(Watch(workspace).look().failed) == 1
    told = workspace.path / "alarms.jsonl"
    assert len(told.read_text().splitlines()) == 1
    workspace.audit.append("sign-in.too-many")
    Watch(workspace).look()
    assert len(told.read_text().splitlines()) == 2
    sinks(workspace, log)
    assert len(Watch(workspace).look().new) == 2
    assert len(told.read_text().splitlines()) == 2
    assert Watch(workspace).look().new == ()


@pytest.mark.parametrize("part", ["of_log", "of_incidents", "of_vendors", "of_models"])
def test_a_part_that_fails_is_an_alarm_and_the_others_go_on(
    part: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(office: Office, now: datetime) -> Iterator[Alarm]:
        raise ZeroDivisionError(office, now)
        yield

    failing.__name__ = part
    monkeypatch.setattr(watching, part, failing)
    attack(workspace)
    office = workspace.office()
    Incidents(office.folder, office.keys, office.audit).open(
        "a test",
        by="sam@coordinator",
        playbook="leaked-report",
        known_at=datetime.now(UTC) - timedelta(hours=73),
    )
    found = {one.rule: one for one in Watch(workspace).look().new}
    assert found["watch-broken"].subject == part
    assert found["watch-broken"].what == "failed with ZeroDivisionError"
    others = {"sign-in-failures": "of_log", "authority-not-told": "of_incidents"}
    for rule, own in others.items():
        assert (rule in found) == (own != part)


def test_a_rule_that_fails_is_an_alarm_and_the_others_go_on(workspace: Workspace) -> None:
    def failing(facts: Any) -> bool:
        raise KeyError(facts)

    attack(workspace)
    first, *others = RULES
    broken = first._replace(name="broken", when=failing)
    found = [one.rule for one in judge_log("hub", workspace.audit.entries(), (broken, *RULES))]
    assert found.count("watch-broken") == 1
    assert found.count("sign-in-failures") == 1
    assert len(others) == len(RULES) - 1


def test_a_changed_log_is_an_alarm_and_stops_no_other(workspace: Workspace) -> None:
    path = workspace.coordinator / "audit.jsonl"
    attack(workspace)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"sign-in.failed", b"sign-in.passed", 1))
    found = {one.rule: one for one in Watch(workspace).look().new}
    assert found["chain-or-seal-broken"].severity == "critical"


def test_the_authority_s_clock_is_watched(workspace: Workspace) -> None:
    office = workspace.office()
    known = datetime.now(UTC) - timedelta(hours=73)
    Incidents(office.folder, office.keys, office.audit).open(
        "a test", by="sam@coordinator", playbook="leaked-report", known_at=known
    )
    (alarm,) = Watch(workspace).look().new
    assert alarm.rule == "authority-not-told"
    assert alarm.at[:16] == (known + timedelta(hours=72)).strftime("%Y-%m-%dT%H:%M")


def test_playbooks_are_due(workspace: Workspace) -> None:
    later = datetime.now(UTC) + timedelta(days=800)
    found = Watch(workspace, clock=lambda: later).look().new
    assert {one.rule for one in found} == {"playbook-review-due"}
    assert len(found) == 7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    values = example_values(model={"outcome": "clicked", "hidden": [32]})
    return make_run(tmp_path_factory.mktemp("watched") / "ws", values)


def test_a_sound_run_raises_no_alarm_about_losses_or_checks(run: Run) -> None:
    honest = with_updates(run, noise_of(run, np.random.default_rng(5)))
    assert list(judge_run(honest)) == []


def test_a_release_that_does_not_say_how_it_was_noised_is_named(run: Run) -> None:
    assert {one.rule for one in judge_run(run)} == {"noise-untold"}


def with_updates(run: Run, made: Callable[[str, str, int], Floats]) -> Run:
    """The run with other updates in the place of its own: `made(silo, step, size)`, flat."""
    noise = {
        "clip": 4.0,
        "expected_batch": 60.0,
        "noise_multiplier": 2.0,
        "steps": 10.0,
        "sampling_rate": 0.05,
        "evaluation_noise_multiplier": 5.0,
    }
    releases: dict[str, dict[str, Accepted]] = {}
    for silo, steps in run.releases.items():
        releases[silo] = dict(steps)
        for step, accepted in steps.items():
            if not step.startswith("train-"):
                continue
            names = sorted(name for name in accepted.arrays if name.startswith(UPDATE))
            size = sum(accepted.arrays[name].size for name in names)
            flat, arrays = made(silo, step, size).astype(np.float32), dict(accepted.arrays)
            for name in names:
                part, flat = np.split(flat, [arrays[name].size])
                arrays[name] = part.reshape(arrays[name].shape)
            header = accepted.release.model_copy(update={"noise": noise})
            releases[silo][step] = Accepted(header, arrays, accepted.envelope)
    return dataclasses.replace(run, releases=releases)


def noise_of(run: Run, draw: np.random.Generator) -> Callable[[str, str, int], Floats]:
    """Noise as long as an honest silo's is."""
    rate = run.plan.schedule.learning_rate
    return lambda _silo, _step, size: draw.normal(0, rate * 4.0 / 60.0 * 2.0 * np.sqrt(10.0), size)


def found_in(run: Run) -> set[tuple[str, str]]:
    return {
        (one.rule, one.subject)
        for one in judge_run(run)
        if "update" in one.rule or "noise" in one.rule
    }


def test_honest_updates_raise_no_alarm_in_a_hundred_runs(run: Run) -> None:
    draw = np.random.default_rng(5)
    for _ in range(100):
        assert found_in(with_updates(run, noise_of(run, draw))) == set()


def test_an_update_that_is_too_long_is_named(run: Run) -> None:
    honest = noise_of(run, np.random.default_rng(5))

    def made(silo: str, step: str, size: int) -> Floats:
        factor = 200.0 if (silo, step) == ("corona", "train-0002") else 1.0
        return factor * honest(silo, step, size)

    assert ("update-norm", "corona") in found_in(with_updates(run, made))


def test_noise_that_is_not_there_is_named(run: Run) -> None:
    honest = noise_of(run, np.random.default_rng(5))

    def made(silo: str, step: str, size: int) -> Floats:
        return honest(silo, step, size) * (0.1 if silo == "borealis" else 1.0)

    assert found_in(with_updates(run, made)) == {("noise-missing", "borealis")}


def test_a_silo_that_pulls_against_the_others_is_named(run: Run) -> None:
    way = np.random.default_rng(3).normal(0, 0.1, 4096)

    def made(silo: str, _step: str, size: int) -> Floats:
        return (-1.0 if silo == "aurora" else 1.0) * way[:size]

    assert ("update-direction", "aurora") in found_in(with_updates(run, made))
    assert ("update-direction", "corona") not in found_in(with_updates(run, made))


def test_a_silo_on_whose_people_the_model_grows_worse_is_named(run: Run) -> None:
    honest = with_updates(run, noise_of(run, np.random.default_rng(5)))
    steps = dict(honest.releases["corona"])
    for step in filter(is_scored, steps):
        scores = np.zeros_like(steps[step].arrays["histogram"])
        low, high = BINS // 2 - 13, BINS // 2 + 13
        unlikely, likely = (high, low) if step == "evaluate" else (low, high)  # at last upside down
        scores[0, unlikely], scores[1, likely] = 5000, 500
        arrays = steps[step].arrays | {"histogram": scores}
        steps[step] = Accepted(steps[step].release, arrays, steps[step].envelope)
    worse = dataclasses.replace(honest, releases={**honest.releases, "corona": steps})
    assert [(one.rule, one.subject) for one in judge_run(worse)] == [("loss-rises", "corona")]


def test_every_rule_s_alarm_reaches_the_command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-w", str(workspace.path)]
    workspace.people.enrol("sam", PASSWORD, by="test")  # from now on, people act here
    lasts = timedelta(days=1)
    workspace.people.grant("sam", "security-officer", owner="test", reason="a test", lasts=lasts)
    assert main(["watch", *where]) == 3, "nobody is signed in"
    sign_in(workspace)
    code = main(["watch", *where])
    told = capsys.readouterr()
    assert code == 3, told
    assert "may not audit.read" in told.err


def test_a_rehearsal_tells_each_rule_s_delay_and_ends_badly_where_one_is_deaf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["watch", "--rehearse", "--every", "5", "--json"]) == 0, "it needs no workspace"
    told = json.loads(capsys.readouterr().out)
    delays = {one["rule"]: one["found_after"] for one in told["rules"]}
    assert set(delays) == {rule.name for rule in RULES}
    assert delays["sign-in-lock-out"] == 5.0
    assert told["false_alarms"] == sum(one["false_alarms"] for one in told["rules"])
    deaf = (RULES[0]._replace(when=lambda _: False), RULES[1])
    monkeypatch.setattr(rehearsing.rehearse, "__defaults__", (deaf,))
    assert main(["watch", "--rehearse"]) == 1
    said = capsys.readouterr()
    assert "NOT FOUND" in said.out
    assert "not found: sign-in-failures" in said.err


def test_nothing_of_a_copied_run_is_believed(run: Run, tmp_path: Path) -> None:
    copied = tmp_path / "ws"
    shutil.copytree(run.folder.parents[1], copied)
    (folder,) = (copied / "runs").glob("*/manifest.sig")
    model = folder.parent / "model.sealed"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    found = {one.rule: one for one in Watch(Workspace(copied), ["coordinator"]).look().new}
    assert found["run-damaged"].subject == folder.parent.name
    assert example_values()["name"] in found["run-damaged"].subject
