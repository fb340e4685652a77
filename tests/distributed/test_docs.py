"""A newcomer's ten minutes: each command of docs/federation.md, in order, in one shell."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from abfed.coordinator.programs import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "federation.md"
HEAD = """set -eu
trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
    ),
]


def commands() -> list[str]:
    """The page's shell blocks."""
    return re.findall(
        r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def test_every_command_of_the_page_works(tmp_path, tmp_path_factory):
    blocks = commands()
    assert len(blocks) >= 6
    shim = tmp_path / "bin" / "abfed"
    shim.parent.mkdir()
    code = "from abfed.cli.main import script; script()"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    shim.chmod(0o755)
    script = tmp_path / "page.sh"
    script.write_text(HEAD + "\n".join(blocks))
    environment = os.environ | {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ABFED_SOURCE": str(ROOT),
        "ABFED_PORT": str(free_port()),
        "ABFED_LINK_PORT": str(free_port()),
    }
    place = tmp_path_factory.mktemp("p")  # short: sockets lie below it
    started = time.monotonic()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            ["bash", str(script)],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(1400)
        finally:
            if process.poll() is None:
                process.terminate()  # the trap ends what the page started
                process.wait(60)
    told = (tmp_path / "out").read_text(errors="replace")
    logs = "\n".join(
        f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}"
        for file in (place / "laptop").glob("*.log")
    )
    assert code == 0, told[-4000:] + logs
    assert "is complete" in told
    assert list((place / "laptop" / "coordinator" / "reports").glob("*.html"))
    sys.stdout.write(f"the page took {time.monotonic() - started:.0f} s\n")
