"""`abfed batch`: many reports from one file."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from abfed.cli.output import say, say_json
from abfed.cli.settings import JsonOption, WorkspaceOption
from abfed.protocol.printable import printable

if TYPE_CHECKING:
    from abfed.lab.reports.batch_run import Outcome

MOST_TOLD = 3  # points of a grid that were left out


def batch(
    file: Annotated[Path, typer.Argument(help="The batch, such as experiments/grid.yaml.")],
    workspace: WorkspaceOption,
    workers: Annotated[int, typer.Option(min=1, help="Reports made at once.")] = 2,
    kernels: Annotated[
        Literal["auto", "fork", "spawn"], typer.Option(help="How each fresh kernel is started.")
    ] = "auto",
    preload: Annotated[
        list[str] | None, typer.Option(help="A module for the warm process, such as torch.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one report.")] = 1800,
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster that shares this workspace's folder.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Make what isn't made yet: a batch resumes, and makes again only what changed.

    Ends with exit code 1 where a report failed; the others are made all the same.
    """
    from abfed.lab.reports.warming import CAN_FORK, warming

    how = ("fork" if CAN_FORK else "spawn") if kernels == "auto" else kernels
    with _termination_interrupts(), ExitStack() as held:
        warm = None
        if how == "fork" and not ray:  # it is made while the file is read and checked
            warm = held.enter_context(warming(imports=preload or ()))
        from abfed.lab.reports.batch_index import write_index
        from abfed.lab.reports.batch_run import Ways, carry_out
        from abfed.lab.reports.batches import BatchSpec, items_of
        from abfed.lab.workspace import Workspace

        opened = Workspace(workspace)
        spec = BatchSpec.load(file)
        asked = items_of(spec, opened, beside=file.parent)
        folder = opened.reports_folder / spec.name
        ways = Ways(workers, how, warm, timeout, ray)
        tell = held.enter_context(ReportsBar(len(asked.items), quiet=as_json))
        outcomes = carry_out(asked.items, folder, opened.keys, ways, tell)
    counted = Counter(one.status for one in outcomes)
    if not as_json:  # said before the index: where it finds no room, the reports stand all the same
        made, kept, failed = (counted[one] for one in ("made", "kept", "failed"))
        say(f"{made} made, {kept} as they were, {failed} failed.")
    index = write_index(spec.name, outcomes, folder, opened.keys, left_out=asked.left_out)
    if as_json:
        reports = [
            {"report": one.item.order.name, "status": one.status, "seconds": one.seconds,
             "reason": one.reason}
            for one in outcomes
        ]  # fmt: skip
        counts = dict(counted)
        say_json({"index": index, "counts": counts, "reports": reports,
                  "left_out": asked.left_out})  # fmt: skip
    else:
        say(f"Start at {index}")
        for one in asked.left_out[:MOST_TOLD]:
            say(f"left out, as there is nothing to show: {one}")
        if len(asked.left_out) > MOST_TOLD:
            say(f"and {len(asked.left_out) - MOST_TOLD} more, which the index lists")
    if counted["failed"]:
        raise typer.Exit(1)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP end it as Ctrl-C does, cleanly."""
    from abfed.lab.reports.execution import endings

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in endings()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ReportsBar:
    """Progress with the time that is left, on standard error."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        from tqdm import tqdm

        self._failed = 0
        self._bar = tqdm(
            total=total, unit="report", file=sys.stderr, disable=quiet, smoothing=0.1,
            bar_format="{desc}{n_fmt}/{total_fmt} |{bar:30}| {elapsed} gone, {remaining} left",
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._bar.close()

    def __call__(self, outcome: Outcome) -> None:
        """One more is done."""
        if outcome.status == "failed":
            self._failed += 1
            said = printable(f"failed: {outcome.item.order.name}: {outcome.reason}")
            self._bar.write(said, sys.stderr)
            self._bar.set_description_str(f"{self._failed} failed, ", refresh=False)
        self._bar.update(1)
