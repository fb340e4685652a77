"""Files for running a site for good: systemd units, and a Compose file.

Written beside what they start, to be read before they are installed. The units keep silo service
and SuperNode under users of their own, which is the wall between sent code and rows. The Compose
file is checked by a linter only: it has not been run where abfed is developed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

SILO_USER, NODE_USER, COORDINATOR_USER = "abfed-silo", "abfed-node", "abfed"
RUN = Path("/run")

_HARDENING = """NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
UMask=0077
"""


def unit(
    description: str,
    user: str,
    command: Sequence[str],
    *,
    writable: Sequence[Path],
    runtime: str = "",
    after: str = "",
) -> str:
    """A systemd unit.

    Args:
        description: for people.
        user: whom it runs as.
        command: an abfed command and its arguments.
        writable: the only folders that it may write.
        runtime: folder under /run that systemd makes for it.
        after: a unit that has to be started before.
    """
    made = f"RuntimeDirectory={_word(runtime)}\nRuntimeDirectoryMode=0755\n" if runtime else ""
    order = f"After={after}\nWants={after}\n" if after else ""
    abfed = Path(sys.executable).with_name("abfed")
    words = " ".join(_word(str(one)) for one in (abfed, *command))
    folders = " ".join(_word(str(one)) for one in writable)
    return f"""[Unit]
Description={description}
After=network-online.target
Wants=network-online.target
{order}
[Service]
User={user}
ExecStart={words}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2
TimeoutStopSec=30
ReadWritePaths={folders}
{made}{_HARDENING}
[Install]
WantedBy=multi-user.target
"""


def _word(text: str) -> str:
    """A word of a unit: systemd splits at spaces and reads what follows a percent sign."""
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text


def coordinator_unit(workspace: Path) -> str:
    """The coordinator's SuperLink, SuperExec and proxy."""
    place = workspace.resolve()
    return unit(
        "abfed coordinator",
        COORDINATOR_USER,
        ["federation", "up", "--workspace", str(place)],
        writable=[place],
    )


def silo_unit(workspace: Path, silo: str, socket: Path) -> str:
    """A brand's silo service, under a user who owns rows and keys.

    Its socket lies where the node looks for it. systemd makes a folder for it under /run, which is
    gone after each start of the machine; one elsewhere is there already, and may be written.
    """
    place, folder = workspace.resolve(), socket.parent
    command = ["silo", "serve", silo, "--workspace", str(place), "--peer", NODE_USER]
    below_run = folder.is_relative_to(RUN) and folder != RUN
    apart = not below_run and not folder.is_relative_to(place)
    return unit(
        f"abfed silo {silo}",
        SILO_USER,
        [*command, "--socket", str(socket)],
        writable=[place, *([folder] if apart else [])],
        runtime=str(folder.relative_to(RUN)) if below_run else "",
    )


def node_unit(folder: Path, silo: str) -> str:
    """A brand's SuperNode, under a user who owns neither."""
    return unit(
        f"abfed node of {silo}",
        NODE_USER,
        ["federation", "node", str(folder.resolve())],
        writable=[folder.resolve()],
        after=f"abfed-silo-{silo}.service",
    )


def compose(workspace: Path, silo: str, node: Path, socket: Path) -> str:
    """A brand's two services as containers that share nothing but the socket's volume.

    The volume lies in both where the socket does at the brand, which is where the node looks.
    """
    shared = f"socket:{socket.parent}"
    hard = {
        "cap_drop": ["ALL"],
        "read_only": True,
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108 - the container's own
    }
    serve = ["abfed", "silo", "serve", silo, "--workspace", "/site", "--peer", NODE_USER]
    services = {
        "node": {
            "image": "abfed:local",
            "depends_on": ["silo"],
            "volumes": [f"{node.resolve()}:/node", f"{shared}:ro"],
            "command": ["abfed", "federation", "node", "/node"],
            "restart": "unless-stopped",
            "user": NODE_USER,
        }
        | hard,
        "silo": {
            "image": "abfed:local",
            "volumes": [f"{workspace.resolve()}:/site", shared],
            "network_mode": "none",
            "command": [*serve, "--socket", str(socket)],
            "restart": "unless-stopped",
            "user": SILO_USER,
        }
        | hard,
    }
    head = "# Not run where abfed is developed: its form is checked by a linter (dclint).\n"
    head += "# The image: podman build --tag abfed:local --file Containerfile .\n"
    whole = {"name": f"abfed-{silo}", "services": services, "volumes": {"socket": {}}}
    return head + yaml.safe_dump(whole, sort_keys=False)


def start_script(command: Sequence[str]) -> str:
    """A script that starts one command of this installation, with more options where given."""
    abfed = Path(sys.executable).with_name("abfed")
    words = shlex.join([str(abfed), *command])
    return f'#!/bin/sh\n# Ends what it started when it is ended.\nexec {words} "$@"\n'
