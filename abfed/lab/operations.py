"""Running a federation: its processes, who is connected, what runs, and stopping it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from abfed.coordinator.bundle import bundle_digest
from abfed.coordinator.control import ANSWER_SECONDS, NodeState, control, silence
from abfed.coordinator.house import FOLDER, House
from abfed.coordinator.node import Node
from abfed.coordinator.programs import coordinator_programs, node_programs
from abfed.protocol.errors import InputError, RunFailed, WorkspaceError
from abfed.site.certificates import expiry, node_key_from
from abfed.site.files import read_private, write_private
from abfed.site.health import Look, Metrics, served
from abfed.site.ports import held_by, listens
from abfed.site.processes import Keeper, log_line

LOOK_SECONDS = 4.0  # for an answer to a look; the SuperLink of a busy machine took 0.1
HEALTH_SECONDS = 2.0  # that somebody who asks for health or metrics waits for such a look
FREE_SECONDS = 10.0  # for what an earlier `federation up` left at its end


def keep_coordinator(workspace: Path, metrics_port: int | None = None) -> dict[str, int]:
    """Run SuperLink, SuperExec and proxy until they are told to end; how often each was started.

    Raises:
        WorkspaceError: there is no federation here, or something else listens on its ports.
    """
    house = House(workspace / FOLDER)
    _expect_free("port", house.settings.port)
    _expect_free("link_port", house.settings.link_port)
    write_private(house.places.pin, bundle_digest().encode())  # it may have been upgraded
    metrics = Metrics()
    health = _Health(house, metrics)

    def started() -> None:
        log_line("nodes.registered", silos=register_nodes(workspace))

    programs = coordinator_programs(workspace, house)
    keeper = Keeper(programs, house.places.log, started, _both(metrics))
    return _keep(keeper, metrics, metrics_port, health.collect, health.lacks)


class _Health:
    """What a coordinator says of itself: what answers, and what it says then.

    A SuperLink that hangs is told within seconds, and nobody who asks waits longer than that.

    Args:
        house: the federation.
        metrics: what is shown.
    """

    def __init__(self, house: House, metrics: Metrics) -> None:
        self._metrics = metrics
        self._link = Look(lambda: _seen_by_link(house))
        self._proxy = Look(lambda: (proxy_silence(house),))

    def collect(self) -> None:
        """Bring gauges up to date; where the SuperLink says nothing, what it said last stands."""
        silent = self._silent()
        for name in ("superlink", "proxy"):
            self._metrics.state.labels(state=f"{name}-answers").set(name not in silent)
        facts = self._link.within(0)
        if facts is None:
            return
        for state in ("online", "lost", "offline", "unknown"):
            nodes = sum(row["node"] == state for row in facts["silos"])
            self._metrics.state.labels(state=f"node-{state}").set(nodes)
        going = sum(run["status"] != "finished" for run in facts["runs"])
        self._metrics.state.labels(state="run-going-on").set(going)

    def lacks(self) -> list[str]:
        """What doesn't answer, and why."""
        return [f"{name} ({why})" for name, why in self._silent().items()]

    def _silent(self) -> dict[str, str]:
        self._proxy.within(0)  # both begin at once
        facts, proxy = self._link.within(HEALTH_SECONDS), self._proxy.within(HEALTH_SECONDS)
        late = f"no answer for {HEALTH_SECONDS:g} s"
        silent = {"superlink": late} if facts is None else dict(facts["unanswered"])
        if proxy is None or proxy[0]:
            silent["proxy"] = late if proxy is None else proxy[0]
        return silent


def _expect_free(name: str, port: int) -> None:
    """What can't listen would be started again for ever, and its log alone would say why."""
    end = time.monotonic() + FREE_SECONDS
    while listens(port):
        if time.monotonic() > end:
            raise WorkspaceError(
                f"address already in use: something listens on port {port}{held_by(port)}",
                where=f"{name} in federation.yaml",
                do="end it; another `abfed federation up`, perhaps (`ss -ltnp` as root shows it)",
            )
        time.sleep(0.2)


def keep_node(
    folder: Path, metrics_port: int | None = None, neighbours: Sequence[str] = ()
) -> dict[str, int]:
    """Run a brand's SuperNode and SuperExec until they are told to end; how often each was started.

    Args:
        folder: the node's.
        metrics_port: of health and metrics on loopback; none where it isn't given.
        neighbours: bundles of other releases that are taken too, by their SHA-256.
    """
    node = Node(folder)
    node.take_bundles([bundle_digest(), *neighbours])
    metrics = Metrics()
    keeper = Keeper(node_programs(node), node.folder / "log", log=_both(metrics))
    return _keep(keeper, metrics, metrics_port)


def _keep(
    keeper: Keeper,
    metrics: Metrics,
    port: int | None,
    collect: Callable[[], None] = lambda: None,
    lacks: Callable[[], list[str]] = list,
) -> dict[str, int]:
    def gauges() -> None:
        metrics.state.labels(state="process-running").set(keeper.running)
        collect()

    def lacking() -> list[str]:
        return [f"{name} (not running)" for name in keeper.lacks] or lacks()

    with served(port, metrics, lacking, gauges):
        keeper.keep()
    return keeper.starts


def _both(metrics: Metrics) -> Callable[..., None]:
    """Logs an event and counts it."""

    def note(event: str, **facts: object) -> None:
        log_line(event, **facts)
        metrics.note(event, **facts)

    return note


def register_nodes(workspace: Path) -> list[str]:
    """Register the nodes of all silos whose certificates hold; none where the SuperLink is down.

    A node that is registered and whose silo was taken out, as while the SuperLink was down, is cut
    off; one whose silo's certificate has run out isn't: it waits for a new one.
    """
    house = House(workspace / FOLDER)
    holds, _ = house.pinned()
    registered = []
    try:
        with _link(house) as link:
            for node in link.nodes():
                if house.admitted(node.name) is None:
                    link.unregister(node.node_id)
                    log_line("node.cut-off", silo=node.name)
            for silo, pinned in sorted(holds.items()):
                try:
                    link.register(silo, node_key_from(pinned.node))
                except InputError as refused:
                    log_line("node.refused", silo=silo, what=refused.what)
                else:
                    registered.append(silo)
    except RunFailed:
        return []
    return registered


def cut_off(workspace: Path, silo: str) -> bool:
    """Unregister a silo's node; whether there was one to cut off."""
    try:
        with _link(House(workspace / FOLDER)) as link:
            nodes = [node for node in link.nodes() if node.name == silo]
            for node in nodes:
                link.unregister(node.node_id)
    except RunFailed:
        return False
    return bool(nodes)


def status(workspace: Path) -> dict[str, Any]:
    """What a federation's people want to know at a glance.

    Raises:
        WorkspaceError: there is no federation here.
    """
    house = House(workspace / FOLDER)
    facts = _seen_by_link(house)
    if why := proxy_silence(house):
        facts["unanswered"]["proxy"] = why
    return facts


def _seen_by_link(house: House) -> dict[str, Any]:
    """What there is, and what the SuperLink says of it."""
    holds, fails = house.pinned()
    silos = [
        {
            "silo": silo,
            "certificate": f"until {_day(read_private(house.places.admitted / f'{silo}.pem'))}",
            "node": "unknown",
        }
        for silo in sorted(holds)
    ]
    silos += [{"silo": s, "certificate": why, "node": "–"} for s, why in sorted(fails.items())]
    authority = read_private(house.places.authority_certificate)
    facts: dict[str, Any] = {
        "federation": house.settings.name,
        "authority": f"until {_day(authority)}",
        "proxy": f"until {_day(read_private(house.places.tls / 'proxy.crt'))}",
        "superlink": "up",
        "runs": [],
        "unanswered": {},
    }
    try:
        with _link(house, LOOK_SECONDS) as link:
            states = {node.name: _alive(node) for node in link.nodes()}
            facts["runs"] = [run._asdict() for run in link.runs()]
    except RunFailed as error:
        facts["superlink"] = "silent" if listens(house.settings.link_port) else "down"
        facts["unanswered"] = {"superlink": error.why or error.what}
        return facts | {"silos": silos}
    for row in silos:
        row["node"] = states.get(row["silo"], "not registered")
    return facts | {"silos": silos}


def proxy_silence(house: House) -> str:
    """Why the proxy doesn't greet as TLS has it; empty where it does."""
    port = house.settings.port
    context = ssl.create_default_context(cafile=house.places.authority_certificate)
    context.check_hostname = False  # it bears the name that brands reach it by
    try:
        with (
            socket.create_connection(("127.0.0.1", port), LOOK_SECONDS) as line,
            context.wrap_socket(line),
        ):
            return ""
    except OSError as cause:
        return silence(port, LOOK_SECONDS, cause)


def wait_until_connected(workspace: Path, seconds: float) -> dict[str, Any]:
    """Wait until every admitted silo's node is connected; returns the status.

    Raises:
        RunFailed: some still aren't when the time is over.
    """
    end = time.monotonic() + seconds
    while True:
        facts = status(workspace)
        missing = [row["silo"] for row in facts["silos"] if row["node"] != "online"]
        if not missing:
            return facts
        if time.monotonic() > end:
            raise RunFailed(
                f"not connected: {', '.join(missing)}",
                where=facts["federation"],
                why="; ".join(facts["unanswered"].values()) or "the SuperLink is up",
                do="look at the logs of their nodes"
                if facts["superlink"] == "up"
                else "look at what `abfed federation up` says, and at `abfed federation logs`",
            )
        time.sleep(1)


def stop_runs(workspace: Path, run_id: int | None) -> list[int]:
    """Stop a run, or all that are going on; returns their numbers.

    Raises:
        InputError: there is no run of this number.
    """
    stopped = []
    with _link(House(workspace / FOLDER)) as link:
        runs = link.runs()
        if run_id is not None and run_id not in [run.run_id for run in runs]:
            raise InputError(
                "the SuperLink knows no such run",
                where=str(run_id),
                do="see `abfed federation status`",
            )
        for run in runs:
            if run.status != "finished" and run_id in (None, run.run_id):
                link.stop(run.run_id)
                stopped.append(run.run_id)
    return stopped


def log_files(workspace: Path) -> list[Path]:
    """Log files of the coordinator's processes, and of the runs."""
    places = House(workspace / FOLDER).places
    return [*sorted(places.log.glob("*.log")), *sorted(places.orders.glob("*.events"))]


def _link(house: House, seconds: float = ANSWER_SECONDS) -> Any:
    return control(house.settings.link_port, house.places.authority_certificate, seconds)


def _day(certificate: bytes) -> str:
    return f"{expiry(certificate):%Y-%m-%d %H:%M} UTC"


def _alive(node: NodeState) -> str:
    """A node's state; one whose heartbeat is late is lost before the SuperLink says so."""
    if node.status == "online" and node.online_until < time.time():
        return "lost"
    return node.status
