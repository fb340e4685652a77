"""The commands that stand first on a SuperExec's PATH, under Flower's names."""

from __future__ import annotations

import sys
from pathlib import Path

SOCKET = "warm.sock"
"""Where the warm executor of a site listens, in the site's folder."""

COMMANDS: dict[str, str] = {
    "flwr-clientapp": "clientapp",
    "flwr-serverapp": "serverapp",
    "flwr-agentapp": "refuse",
    "flwr-model": "refuse",
    "flwr-connector": "refuse",
    "flwr-simulation": "refuse",
}
"""Each command that a SuperExec may start, and the function that stands in for it."""


def write_executors(folder: Path, *, roles: frozenset[str]) -> None:
    """Write the commands into a folder that goes first on a PATH.

    Args:
        folder: an existing folder.
        roles: of `clientapp` and `serverapp`, those that this site has; others refuse.
    """
    for command, function in COMMANDS.items():
        chosen = function if function in roles else "refuse"
        script = folder / command
        script.write_text(command_text(chosen), encoding="utf-8")
        script.chmod(0o755)


def command_text(function: str) -> str:
    """The command that stands on the PATH: plain Python without site packages, so it starts fast.

    Args:
        function: of `abfed.coordinator.executor`.
    """
    return f"""#!{sys.executable} -IS
import json
import os
import socket
import sys

folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
line = socket.socket(socket.AF_UNIX)
try:
    line.connect(os.path.join(folder, "{SOCKET}"))
except OSError:
    code = "import sys; from abfed.coordinator.executor import {function}; sys.exit({function}())"
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])
line.sendall(json.dumps(["{function}", *sys.argv[1:]]).encode() + b"\\n")
ended = line.recv(1)
sys.exit(ended[0] if ended else 1)
"""
