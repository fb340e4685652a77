"""The Containerfile's form, and that it fits the Compose file; no container engine is needed.

The linters for such files judge both where they are installed, as `.ci/run` does. The rules of
theirs that matter here are read from the file itself, too.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from abfed.coordinator.units import compose

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
SOCKET = Path("/run/abfed/silo.sock")  # the image has that folder, and it is the silo's user's
KNOWN = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "CMD", "SHELL"}


HADOLINT = shutil.which("hadolint", path=f"{ROOT / 'build' / 'hadolint' / 'bin'}:{os.defpath}")
DCLINT = ROOT / "build" / "browser" / "node_modules" / ".bin" / "dclint"


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_linter_of_containerfiles_finds_nothing() -> None:
    command = [str(HADOLINT), "--no-color", str(ROOT / "Containerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not DCLINT.exists(), reason="dclint is not installed")
def test_the_linter_of_compose_files_finds_no_error(tmp_path: Path) -> None:
    text = compose(tmp_path, "aurora", tmp_path / "node", SOCKET)
    file = tmp_path / "compose.yaml"

    def judged(content: str) -> subprocess.CompletedProcess[str]:
        file.write_text(content)
        command = [str(DCLINT), "--formatter", "json", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = judged(text)
    assert done.returncode == 0, done.stdout
    counts = [(one["errorCount"], one["warningCount"]) for one in json.loads(done.stdout)]
    assert counts == [(0, 0)]
    broken = text.replace("image: abfed:local", "image: 7", 1)
    assert judged(broken).returncode != 0, "it judges nothing"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its words, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines()]


def test_it_says_that_it_was_not_run() -> None:
    assert "Not run where abfed is developed" in TEXT.split("FROM")[0]


def test_each_instruction_is_known_and_pinned() -> None:
    found = instructions()
    assert {name for name, _ in found} <= KNOWN
    (base,) = [words for name, words in found if name == "FROM"]
    assert re.fullmatch(r"[a-z]+:[0-9]+\.[0-9]+-[a-z-]+", base), "a base without its version"
    for _, words in (one for one in found if one[0] == "RUN"):
        assert words.count("pip install") == words.count("--no-cache-dir")
        if "apt-get install" in words:
            assert "--no-install-recommends" in words
            assert "rm -rf /var/lib/apt/lists/*" in words
        assert "sudo" not in words
        assert "curl" not in words


def test_the_sockets_folder_is_there_and_the_silos_users() -> None:
    """A new volume takes its owner from what the image holds there; root's is closed to it."""
    assert f"install --directory --owner abfed-silo --mode 0755 {SOCKET.parent}\n" in TEXT


def test_what_it_copies_is_here_and_holds_no_keys() -> None:
    for name, words in instructions():
        if name == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / one).exists() for one in sources)
            assert "." not in sources, "a whole checkout would bring workspaces along"


def test_nobody_is_root_and_the_users_are_those_of_the_compose_file(tmp_path: Path) -> None:
    found = instructions()
    uids = dict(re.findall(r"useradd [^&]*?--uid (\d+) ([a-z-]+)", TEXT))
    assert [words for name, words in found if name == "USER"][-1] in uids
    made = set(uids.values())
    services = yaml.safe_load(compose(tmp_path, "aurora", tmp_path / "node", SOCKET))["services"]
    assert {one["user"] for one in services.values()} <= made
    for one in services.values():
        assert one["image"] == "abfed:local"
        assert one["read_only"]
        assert one["tmpfs"] == ["/tmp"]
        assert one["cap_drop"] == ["ALL"]
        assert "abfed:local" in TEXT
