"""`abfed watch --every` as a process: its sinks die and return meanwhile, and a signal ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller

from abfed.lab.watch.watching import FILE
from abfed.lab.workspace import Workspace
from abfed.site.files import write_private

pytestmark = [pytest.mark.slow, pytest.mark.privacy]  # CI runs them: how an alarm reaches people


class Hook(BaseHTTPRequestHandler):
    taken: list[list[dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Mailbox:
    def __init__(self) -> None:
        self.taken: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(envelope.content.decode())
        return "250 taken"


def a_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Going:
    """A watch that goes on, and what it says."""

    def __init__(self, workspace: Path, *options: str) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "abfed", "watch", "--every", "0.2", "-w", str(workspace),
             *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.said.extend(iter(lines.readline, ""))

    def says(self, pattern: str) -> int:
        return len(re.findall(pattern, "".join(self.said)))

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", development=True)


@pytest.fixture
def going(place: Workspace) -> Iterator[Callable[..., Going]]:
    started: list[Going] = []

    def start(*options: str) -> Going:
        started.append(Going(place.path, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def damage(workspace: Workspace, name: str) -> None:
    folder = workspace.runs_folder / name
    folder.mkdir(mode=0o700, parents=True)
    write_private(folder / "manifest.sig", b"x")


def counted(port: int, event: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.search(
            rf'abfed_events_total{{event="{event}"}} ([0-9.]+)', answer.read().decode()
        )
    return float(found[1]) if found else 0.0


def test_sinks_die_and_return_and_each_alarm_reaches_each_once(
    place: Workspace, going: Callable[..., Going]
) -> None:
    hook_port, mail_port, metrics, log = a_port(), a_port(), a_port(), place.path / "alarms.jsonl"
    sinks = [
        {"kind": "log", "path": log.name},
        {"kind": "webhook", "url": f"http://127.0.0.1:{hook_port}/abfed"},
        {"kind": "mail", "host": "127.0.0.1", "port": mail_port, "sender": "abfed@example.org",
         "to": ["security@example.org"]},
    ]  # fmt: skip
    write_private(place.path / FILE, yaml.safe_dump({"sinks": sinks}).encode())
    watch = going("--metrics", str(metrics))
    until(lambda: watch.says("Nothing new"), "it did not look")
    damage(place, "spring-0001")  # both servers are away
    until(lambda: watch.says("mail: the mail server did not take"), "a sink that is away is told")
    Hook.taken = []
    hook = ThreadingHTTPServer(("127.0.0.1", hook_port), Hook)
    serving = threading.Thread(target=hook.serve_forever, daemon=True)
    serving.start()
    mail = Controller(Mailbox(), hostname="127.0.0.1", port=mail_port)
    try:
        until(lambda: Hook.taken, "the webhook returned, and was not told")
        assert watch.says("webhook: the webhook did not take") > 0
        mail.start()
        until(lambda: mail.handler.taken, "the mail server returned, and was not told")
        until(lambda: watch.says("Nothing new; 1 alarm told"), "it was not told to all in the end")
        mail.stop()
        damage(place, "spring-0002")
        until(lambda: len(Hook.taken) == 2, "the second alarm")
        looks = counted(metrics, "look")
        until(lambda: counted(metrics, "look") > looks + 2, "it goes on")
        mail = Controller(mail.handler, hostname="127.0.0.1", port=mail_port)
        mail.start()
        until(lambda: watch.says("Nothing new; 2 alarms told"), "the second was not told to all")
        assert counted(metrics, "alarm-run-damaged") == 2, "an alarm is counted once"
        assert counted(metrics, "sink-failed") >= 2
    finally:
        hook.shutdown()
        hook.server_close()
        serving.join()
        mail.stop()
    assert watch.end(signal.SIGTERM) == 0
    names = ["spring-0001", "spring-0002"]
    assert [json.loads(line)["subject"] for line in log.read_text().splitlines()] == names
    assert [[one["subject"] for one in told] for told in Hook.taken] == [[one] for one in names]
    assert [re.findall(r"spring-\d+", mailed)[0] for mailed in mail.handler.taken] == names
    assert watch.says("critical run-damaged") == 2, "the terminal was told once of each"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_look_that_it_is_at(
    number: signal.Signals, place: Workspace, going: Callable[..., Going]
) -> None:
    damage(place, "spring-0001")
    watch = going()
    until(lambda: watch.says("run-damaged"), "it did not look")
    assert watch.end(number) == 0
    assert "Traceback" not in "".join(watch.said)
    again = going()
    until(lambda: watch.says("run-damaged") and again.says("Nothing new; 1"), "told before")
    assert again.end(number) == 0
    assert again.says("run-damaged") == 0
