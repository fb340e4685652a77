"""What runs at a coordinator and at a node: Flower's own programs, as `abfed` starts them.

SuperLink and SuperNode run with process isolation: a separate SuperExec, which has to know a
secret, starts the apps. So a SuperLink that is killed and comes back finds its run again, and
another process on the machine can't take a task. Telemetry, update checks and the installing of
dependencies are off.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
from pathlib import Path

from abfed.coordinator.commands import SOCKET
from abfed.coordinator.executor import PIN
from abfed.coordinator.hosted import WORKSPACE
from abfed.coordinator.house import House
from abfed.coordinator.node import PIN_FILE, Node
from abfed.protocol.errors import WorkspaceError
from abfed.site.processes import Program, find_program

TASK_LOOK = "0.2"  # seconds between a SuperExec's looks for a task
PORTS = range(20_000, 32_768)  # where a free one is looked for


def coordinator_programs(workspace: Path, house: House) -> list[Program]:
    """SuperLink, SuperExec and proxy, in the order of their start."""
    places, settings = house.places, house.settings
    secret = str(places.link / "exec.secret")
    environment = quiet(places.folder) | {WORKSPACE: str(workspace.resolve())}
    link = [
        *flower("superlink"),
        *("--host", "127.0.0.1", "--port", str(settings.link_port)),
        *("--ssl-ca-certfile", str(places.authority_certificate)),
        *("--ssl-certfile", str(places.tls / "superlink.crt")),
        *("--ssl-keyfile", str(places.tls / "superlink.key")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        *("--isolation", "process", "--superexec-auth-secret-file", secret),
        *("--database", str(places.link / "state.db")),
    ]
    execute = [
        *flower("superexec"),
        *("--runtime-api-address", f"127.0.0.1:{settings.link_port}"),
        *("--root-certificates", str(places.authority_certificate)),
        *("--superexec-auth-secret-file", secret),
    ]
    proxy = [find_program("nginx"), "-p", str(places.proxy), "-c", "nginx.conf"]
    executors = environment | executing(places.executors, places.pin)
    authority, certificate = places.authority_certificate, places.tls / "superlink.crt"
    return [
        Program(
            "superlink",
            link,
            environment,
            port=settings.link_port,
            setting="link_port in federation.yaml",
            reads=(authority, certificate),
        ),
        warm_program(places.folder, "serverapp", executors),
        Program("superexec", execute, executors, reads=(authority,)),
        Program("proxy", proxy, port=settings.port, setting="port in federation.yaml", reload=True),
    ]


def node_programs(node: Node) -> list[Program]:
    """SuperNode and SuperExec of one brand."""
    port = free_port()
    folder = node.folder
    secret = str(folder / "exec.secret")
    environment = quiet(folder)
    supernode = [
        *flower("supernode"),
        *("--superlink", node.settings.address),
        *("--root-certificates", str(folder / "ca.crt")),
        *("--auth-supernode-private-key", str(folder / "node.key")),
        *("--node-config", f'silo="{node.settings.silo}" socket="{node.settings.socket}"'),
        *("--isolation", "process", "--superexec-auth-secret-file", secret),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    execute = [
        *flower("superexec"),
        *("--runtime-api-address", f"127.0.0.1:{port}", "--insecure"),
        *("--superexec-auth-secret-file", secret),
    ]
    executors = environment | executing(folder / "bin", folder / PIN_FILE)
    return [
        Program(
            "supernode",
            supernode,
            environment,
            port=port,
            setting="the SuperNode's own port",
            reads=(folder / "ca.crt", folder / "node.key"),
        ),
        warm_program(folder, "clientapp", executors),
        Program("superexec", execute, executors),
    ]


def warm_program(folder: Path, role: str, environment: dict[str, str]) -> Program:
    """The warm executor of a site."""
    path = folder / SOCKET
    command = [sys.executable, "-m", "abfed.coordinator.warm", str(path), role]
    return Program("executor", command, environment)


_FLOWER = {
    "superlink": ("flwr.superlink.cli", "flower_superlink"),
    "superexec": ("abfed.coordinator.superexec", "main"),
    "supernode": ("abfed.coordinator.supernode", "main"),
}


# A SuperNode that gives its connection up, as after a TLS handshake that was cut, comes to the end
# of its main function and lives on, deaf, because a thread of its own does; one whose heartbeat
# ends by an error lives on unheard. A process that is dead in part ends here, and is started again.
_TO_ITS_END = """import os, sys, threading, traceback
from {module} import {function}

def end(code):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def fallen(thread):
    traceback.print_exception(thread.exc_type, thread.exc_value, thread.exc_traceback)
    end(1)

if {whole}:
    threading.excepthook = fallen
code = 1
try:
    {function}()
except SystemExit as ended:
    code = ended.code if isinstance(ended.code, int) else 1
except BaseException:
    traceback.print_exc()
end(code)
"""


def flower(name: str) -> list[str]:
    """One of Flower's programs, run by our own Python: the installation that was tested.

    Its process ends where its main function does; a SuperNode's also where one of its threads ends
    by an error.
    """
    module, function = _FLOWER[name]
    whole = name == "supernode"
    code = _TO_ITS_END.format(module=module, function=function, whole=whole)
    return [sys.executable, "-c", code]


def quiet(home: Path) -> dict[str, str]:
    """Flower at home, and silent towards its makers."""
    return {
        "FLWR_HOME": str(home / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_LOOK,
    }


def executing(executors: Path, pin: Path) -> dict[str, str]:
    """Our executors first on the PATH, and the bundle that they take."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join([str(executors), beside, os.environ.get("PATH", os.defpath)])
    return {"PATH": path, PIN: str(pin)}


def free_port() -> int:
    """A port of loopback that is free, and that no kernel gives to a connection meanwhile.

    Of those that kernels give (from 32,768 on, by Linux's default), one could be another's by the
    time that a program listens there, or comes back there after its end.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise WorkspaceError(
        f"no port from {PORTS[0]} to {PORTS[-1]} is free",
        where="127.0.0.1",
        do="end some of what listens there",
    )
