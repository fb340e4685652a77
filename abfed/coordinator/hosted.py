"""The server app that a SuperLink runs: an order in, a run folder out.

Flower's run configuration names an order by its digest and nothing else. Who may ask, what is asked
and who is asked come from the coordinator's own site, whose folder the SuperExec's environment
names. What happens is written beside the order, one JSON line an event, for whoever waits for the
run; the last line says how it ended. The order, which holds a token, is removed then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from abfed.coordinator.bundle import ORDER
from abfed.coordinator.conduct import Conduct, Coordinator, Event, RunOutcome
from abfed.coordinator.exchange import describe
from abfed.coordinator.front import ACCESS_FILE, Front, load_access
from abfed.coordinator.house import FOLDER, House
from abfed.coordinator.order import Order, events_of, path_of, renewed, take_order
from abfed.coordinator.patience import PatientGrid
from abfed.protocol.errors import AbfedError, IntegrityError, RunFailed
from abfed.site.audit import AuditLog
from abfed.site.clock import stamp, system_clock
from abfed.site.disk import storage_error
from abfed.site.files import FILE_MODE
from abfed.site.freezes import Freezes
from abfed.site.keys import SiteKeys
from abfed.site.people import People
from abfed.site.signin import SignIn
from abfed.site.stops import Stops

WORKSPACE = "ABFED_COORDINATOR"
"""Environment variable: the coordinator's workspace, set by its start script."""


class EventLog:
    """The events of one order's run, one JSON line each, for whoever waits.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)

    def tell(self, event: Event) -> None:
        """Something happened in the run."""
        self.write({"event": event.stage, **event._asdict()})

    def end(self, facts: Mapping[str, Any]) -> None:
        """The last line: how it ended."""
        self.write({"event": "end", **facts})
        os.close(self._file)

    def write(self, facts: Mapping[str, Any]) -> None:
        """One line."""
        line = json.dumps({"at": stamp(system_clock()), **facts}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


class Site(NamedTuple):
    """The coordinator's site, as the server app needs it."""

    workspace: Path
    house: House
    keys: SiteKeys
    audit: AuditLog

    @classmethod
    def open(cls, workspace: Path) -> Site:
        """Open it.

        Raises:
            WorkspaceError: there is no federation here.
        """
        keys = SiteKeys.open(workspace / "coordinator" / "keys")
        audit = AuditLog(workspace / "coordinator" / "audit.jsonl", keys)
        return cls(workspace, House(workspace / FOLDER), keys, audit)

    def front(self, order: Order) -> Front:
        """What judges the person behind an order, as long as the run goes on."""
        folder = self.workspace / "coordinator"
        people = SignIn(People(folder, self.keys, self.audit))
        return Front(
            self.keys.site,
            renewed(order, people.renew),
            lambda: load_access(folder / ACCESS_FILE),
            Stops(folder, self.keys).barred,
            freezes=Freezes(folder, self.keys),
            key=self.keys.key_id,
        )


def carry_out_order(workspace: Path, digest: str, grid: Grid) -> RunOutcome:
    """Judge an order and carry its plan out.

    Raises:
        AbfedError: it isn't believed, or the run ended without a result.
    """
    site = Site.open(workspace)
    orders = site.house.places.orders
    events = EventLog(events_of(orders, digest))
    try:
        order = take_order(orders, digest)
        outcome = _carry_out(site, order, grid, events)
    except AbfedError as error:
        if isinstance(error, RunFailed) and site.house.ran_out:  # so nobody got through
            error.why = f"{site.house.ran_out}; {error.why}"
            error.do = (
                "run `abfed provision federation.yaml` and send `abfed federation up` a SIGHUP"
            )
        site.audit.append("run.ended", order=digest, kind=error.kind, what=error.what)
        events.end(error.as_dict() | {"exit_code": error.exit_code})
        raise
    except OSError as error:  # a full disk, most likely: the log may not take a line either
        failed = storage_error(error) or RunFailed(
            f"the system said no ({error.strerror})",
            do="see to it, then run the plan again with --resume",
        )
        failed.where = failed.where or str(site.workspace)  # a full disk says of no file which
        events.end(failed.as_dict() | {"exit_code": failed.exit_code})
        raise failed from error
    except Exception as error:
        site.audit.append("run.ended", order=digest, kind=type(error).__name__)
        told = {"what": f"the server app met a defect ({type(error).__name__})"}
        do = "see `abfed federation logs`; run the plan again with --resume to go on"
        events.end({"error": "defect", **told, "do": do, "exit_code": 1})
        raise
    finally:
        path_of(orders, digest).unlink(missing_ok=True)
    missing = {silo: describe(one) for silo, one in outcome.missing_now.items()}
    events.end({"run": outcome.run, "found": outcome.found, "missing": missing})
    return outcome


def _carry_out(site: Site, order: Order, grid: Grid, events: EventLog) -> RunOutcome:
    plan = order.load_plan()
    pinned = site.house.wanted(plan.silos)
    coordinator = Coordinator(
        keys=site.keys,
        audit=site.audit,
        runs=site.workspace / "runs",
        silos={silo: one.signing for silo, one in pinned.items()},
        front=site.front(order),
        boxes={silo: one.exchange for silo, one in pinned.items()},
    )
    conduct = Conduct(
        plan,
        coordinator,
        timeout=plan.waiting.step_seconds,
        progress=events.tell,
        plan_text=order.plan.encode(),
    )
    patient = PatientGrid(grid, plan.waiting)
    try:
        return conduct.run(patient)
    except RunFailed as failed:
        if patient.unanswered and failed.why:  # silos are not to blame
            failed.why = f"the SuperLink did not answer any more; {failed.why}"
        raise


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out the order that the run names."""
    workspace = os.environ.get(WORKSPACE, "")
    if not workspace:
        raise IntegrityError("no coordinator is named here", where=WORKSPACE)
    digest = str(context.run_config.get(ORDER, ""))
    carry_out_order(Path(workspace), digest, grid)
