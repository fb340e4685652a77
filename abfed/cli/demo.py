"""`abfed demo`: the whole story on three synthetic brands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.lab.session import Session
    from abfed.lab.workspace import Workspace


def demo(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Make three brands, carry a private federated experiment out, and write its report.

    A second time nothing is charged again: the run is found, and reported from.
    """
    from abfed.cli.run import progress_bar, show_run, summary
    from abfed.lab.intake import found_and_ingest
    from abfed.lab.reports.report import write_report
    from abfed.lab.samples.shipped import shipped
    from abfed.lab.samples.synth import write_brands
    from abfed.lab.workspace import FILE, Workspace

    seconds: dict[str, float] = {}
    with _timed(seconds, "make three brands", quiet=as_json):
        fresh = not (workspace / FILE).exists()
        opened = Workspace.create(workspace, development=True) if fresh else Workspace(workspace)
        brands = write_brands(opened.data, seed=2026)
    with _timed(seconds, "ingest into encrypted silos", quiet=as_json):
        for brand in brands:
            found_and_ingest(opened, brand.name, brand.export, brand.mapping, synthetic=True)
    with _timed(seconds, "sign in with password and one-time code", quiet=as_json):
        session = signed_in(opened)
    if not as_json:
        say(f"  signed in as {session.who} by {' and '.join(session.facts.factors)}")
    with (
        _timed(seconds, "private federated run", quiet=as_json),
        progress_bar(quiet=as_json) as progress,
    ):
        done = opened.run(shipped("experiments/spring.yaml"), progress=progress)
    with _timed(seconds, "report", quiet=as_json):
        page = write_report(done, opened.reports_folder, signer=opened.keys)
    if as_json:
        stages = [{"stage": stage, "seconds": round(spent, 1)} for stage, spent in seconds.items()]
        say_json(summary(done) | {"report": page.resolve(), "stages": stages})
        return
    say()
    show_run(done)
    rows = [{"stage": stage, "seconds": round(spent, 1)} for stage, spent in seconds.items()]
    table([*rows, {"stage": "all", "seconds": round(sum(seconds.values()), 1)}])
    say(f"The report lies in {page.resolve()}")


def signed_in(opened: Workspace) -> Session:
    """The session that is kept, or a new one of the development person."""
    from abfed.protocol.errors import Refused

    try:
        session = opened.session()
        session.token  # noqa: B018 - renewing says whether it still lasts
    except Refused:
        return opened.sign_in_development()
    return session


@contextmanager
def _timed(seconds: dict[str, float], stage: str, *, quiet: bool) -> Iterator[None]:
    if not quiet:
        say(f"… {stage}")
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
