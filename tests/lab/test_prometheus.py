"""The shipped alert rules in a real Prometheus: what a watch finds fires, and quiet stays quiet."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from abfed.lab.workspace import Workspace
from tests.lab.test_watch_goes_on import Going, a_port, damage, until
from tools.watch_files import FOLDER

RULES_FILE = FOLDER / "prometheus-alerts.yml"
BOARD = FOLDER / "grafana-dashboard.json"

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="Debian's package prometheus is not installed"
)

Case = tuple[list[dict[str, str]], list[dict[str, Any]]]
"""What is fed, and which alerts must be there when."""


def series(event: str, values: str) -> dict[str, str]:
    return {"series": f'abfed_events_total{{event="{event}"}}', "values": values}


def named(severity: str) -> str:
    return f"Abfed{severity.capitalize()}Alarms"


def nothing(at: str) -> list[dict[str, Any]]:
    """No alert at all."""
    every = [*map(named, FIRST), "AbfedSinkFails", "AbfedWatchSilent"]
    return [{"eval_time": at, "alertname": one} for one in every]


def firing(severity: str, name: str) -> dict[str, dict[str, str]]:
    return {
        "exp_labels": {"severity": severity, "event": f"alarm-{name}"},
        "exp_annotations": {"summary": f"abfed watch raised alarm-{name}"},
    }


def tried(tmp_path: Path, *cases: Case) -> str:
    """What promtool says of cases, on a clock of its own; empty where each came out."""
    tests = [
        {"interval": "1m", "input_series": fed, "alert_rule_test": checked}
        for fed, checked in cases
    ]
    whole = {"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": tests}
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


FIRST = {"critical": "strangers", "high": "check-drift", "medium": "refusals", "low": "log-torn"}


def test_what_is_raised_first_and_what_is_raised_again_fires_and_quiet_does_not(
    tmp_path: Path,
) -> None:
    """A counter that wasn't there and begins with one: `increase` alone sees nothing of it.

    One alarm of each severity; that each alarm's name is in its rule, `test_operations_page` says.
    """
    fed = [series("look", "1+1x120"), series("sink-failed", "_x20 1x100")]
    fed += [series(f"alarm-{name}", "_x20 1x40 2x60") for name in FIRST.values()]
    sinks = {
        "exp_labels": {"severity": "high", "event": "sink-failed"},
        "exp_annotations": {"summary": "a sink of abfed watch does not take alarms"},
    }
    checked = [*nothing("19m"), *nothing("40m"), *nothing("80m")]
    for at in ("22m", "63m"):
        checked += [
            {"eval_time": at, "alertname": named(severity), "exp_alerts": [firing(severity, name)]}
            for severity, name in FIRST.items()
        ]
    checked += [{"eval_time": "22m", "alertname": "AbfedSinkFails", "exp_alerts": [sinks]}]
    assert not tried(tmp_path, (fed, checked))


def test_a_watch_that_is_silent_or_gone_fires(tmp_path: Path) -> None:
    words = {"summary": "abfed watch has not looked for 15 minutes"}
    labels = {"severity": "high", "event": "look"}
    told = [{"exp_labels": labels, "exp_annotations": words}]
    checked = [{"eval_time": "50m", "alertname": "AbfedWatchSilent", "exp_alerts": told}]
    assert not tried(
        tmp_path,
        ([series("look", "1+1x20 20x90")], [*nothing("19m"), *checked]),
        ([series("look", "1+1x20 stale")], checked),
    )


def asked(port: int, query: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}"
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]["result"]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """A server that asks a watch every second; its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(watched: int) -> int:
        port, file = a_port(), tmp_path / "prometheus.yml"
        job = {"job_name": "abfed", "static_configs": [{"targets": [f"127.0.0.1:{watched}"]}]}
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        values = {"global": every, "rule_files": [str(RULES_FILE)], "scrape_configs": [job]}
        file.write_text(yaml.safe_dump(values))
        options = [f"--storage.tsdb.path={tmp_path / 'series'}"]
        options += [f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}"]
        with (tmp_path / "prometheus.log").open("wb") as log:
            started.append(subprocess.Popen(["prometheus", *options], stdout=log, stderr=log))
        return port

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.slow
@pytest.mark.privacy  # CI runs it: how an alarm reaches people
def test_what_a_watch_finds_fires_in_a_real_server_and_fills_the_dashboard(
    tmp_path: Path, prometheus: Callable[[int], int]
) -> None:
    workspace, metrics = Workspace.create(tmp_path / "ws", development=True), a_port()
    damage(workspace, "spring-0001")  # before anybody asks: the counter is there from the beginning
    watch = Going(workspace.path, "--metrics", str(metrics))
    try:
        until(lambda: watch.says("Nothing new; 1"), "it did not look")
        port = prometheus(metrics)

        def fires() -> set[str]:
            with suppress(URLError):
                found = asked(port, 'ALERTS{alertstate="firing"}')
                return {f"{one['metric']['alertname']} {one['metric']['event']}" for one in found}
            return set()

        until(lambda: "AbfedCriticalAlarms alarm-run-damaged" in fires(), "the first alarm")
        for _ in range(5):
            workspace.audit.append("sign-in.failed", person="unknown")
        until(lambda: "AbfedHighAlarms alarm-sign-in-failures" in fires(), "the second alarm")
        board = json.loads(BOARD.read_text(encoding="utf-8"))
        drawn = {panel["title"]: panel["targets"][0]["expr"] for panel in board["panels"]}
        del drawn["Budget left"]  # no silo here
        for title, expression in drawn.items():
            assert asked(port, expression), title
    finally:
        assert watch.end(SIGTERM) == 0
