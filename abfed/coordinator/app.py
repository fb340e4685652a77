"""The coordinator's server app: plan in, run folder out.

It is a real Flower `ServerApp`. Embedded, it runs on a grid of ours in this process; distributed,
a SuperLink runs the same app.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from abfed.coordinator.conduct import Conduct, Coordinator, Event, Progress, RunOutcome
from abfed.coordinator.grid import EmbeddedGrid
from abfed.protocol.errors import RunFailed
from abfed.protocol.plan import Plan

__all__ = ["Coordinator", "Event", "Progress", "RunOutcome", "carry_out", "make_server_app"]


def make_server_app(conduct: Conduct, deliver: Callable[[RunOutcome], None]) -> ServerApp:
    """A server app that carries out one plan.

    Args:
        conduct: the plan and who carries it out.
        deliver: called with the outcome when the run is complete.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context  # who asks what is not Flower's to say
        deliver(conduct.run(grid))

    return app


def carry_out(
    plan: Plan,
    grid: EmbeddedGrid,
    coordinator: Coordinator,
    *,
    timeout: float | None = None,
    progress: Progress | None = None,
    plan_text: bytes | None = None,
) -> RunOutcome:
    """Carry out a plan on the silos of this process, or find its run.

    Args:
        plan: what is asked.
        grid: the silos.
        coordinator: who asks.
        timeout: seconds that silos have for one step; an hour where it isn't given.
        progress: told of each event.
        plan_text: the plan as it was given, kept with the run.

    Returns:
        The complete run. The same plan on the same data gives the same run again.

    Raises:
        InputError: the plan names a silo that the coordinator doesn't know.
        Refused: too few silos answered, and all others refused.
        IntegrityError: too few were believed, or the run's folder is damaged.
        RunFailed: too few answered.
        WorkspaceError: another run is going on in this process, or this one in another.
        KeyboardInterrupt: as it was raised; the run goes on when it's carried out again.
    """
    outcomes: list[RunOutcome] = []
    conduct = Conduct(
        plan,
        coordinator,
        progress=progress,
        plan_text=plan_text,
        **({} if timeout is None else {"timeout": timeout}),
    )
    grid.carry_out(make_server_app(conduct, outcomes.append))
    if not outcomes:
        raise RunFailed("the run ended without an outcome", where=plan.name)
    return outcomes[0]
