"""Carrying a plan out from the researcher's machine.

Embedded: coordinator and silos in this process, on Flower's own types over our grid; no server, no
socket, nothing left running. The wall stands all the same: what passes between them are the bytes
that would pass over a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from abfed.coordinator.app import Coordinator, Progress, RunOutcome, carry_out
from abfed.coordinator.courier import make_courier
from abfed.coordinator.grid import EmbeddedGrid
from abfed.protocol.plan import Plan
from abfed.silo.service import SiloService


def run_embedded(
    coordinator: Coordinator,
    silos: Mapping[str, Path],
    plan: Plan,
    *,
    plan_text: bytes | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Carry a plan out with silos of this machine, or find the run that already did.

    A silo that the plan names and that isn't here is left out; the plan's `minimum_silos` says
    whether the run may go on without it.

    Args:
        coordinator: who asks.
        silos: folder of each silo that is here.
        plan: what is asked.
        plan_text: the plan as it was given, kept with the run.
        progress: told of each event.

    Raises:
        InputError: the coordinator doesn't know a silo that the plan names.
        Refused, RunFailed, IntegrityError: see `coordinator.app.carry_out`.
    """
    with ExitStack() as stack:
        couriers = {}
        for name in sorted(set(plan.silos) & set(silos)):
            service = stack.enter_context(closing(SiloService(silos[name])))
            couriers[name] = make_courier(service.answer)
        grid = EmbeddedGrid(couriers)
        return carry_out(plan, grid, coordinator, progress=progress, plan_text=plan_text)
