"""`abfed doctor`: examine sites and the installation, mend what is safe, keep the record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption
from abfed.protocol.errors import InputError

if TYPE_CHECKING:
    from abfed.lab.upkeep.doctor import CheckUp

SOMETHING_LEFT = 5
"""Exit code where something as bad as --fail-on is left: a finding, neither error nor refusal."""


def doctor(
    workspace: WorkspaceOption,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="A site, or `lab`; several times. All here if left out."),
    ] = None,
    fix: Annotated[bool, typer.Option(help="Mend what is safe to mend.")] = False,
    fail_on: Annotated[
        str, typer.Option(help="End with 5 where this or worse is left: low … critical.")
    ] = "high",
    bill: Annotated[
        Path | None, typer.Option(help="Also write a CycloneDX bill of materials to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Examine files, keys, seals, policy, people, vendors, dependencies; keep the dated record."""
    from abfed.lab.upkeep.doctor import LAB, check_lab, check_up, opened_for_check
    from abfed.site.checkups import SEVERITIES
    from abfed.site.clock import system_clock

    order = ("none", *SEVERITIES)
    if fail_on not in SEVERITIES:
        raise InputError(f"{fail_on!r:.40} is no severity", do=f"one of {', '.join(SEVERITIES)}")
    now = system_clock()
    opened = opened_for_check(workspace, now, fix=fix)
    places = at or ["coordinator", *opened.silos, LAB]
    done = [
        check_lab(workspace, now) if place == LAB else check_up(opened, place, now, fix=fix)
        for place in places
    ]
    if bill is not None:
        from abfed.lab.upkeep.supply import write_bill

        components = write_bill(bill)
        if not as_json:
            say(f"{components} components: {bill}")
    if as_json:
        say_json([_plain(one) for one in done])
    else:
        for one in done:
            _tell(one)
    if any(order.index(one.worst) >= order.index(fail_on) for one in done):
        raise typer.Exit(SOMETHING_LEFT)


def _plain(done: CheckUp) -> dict[str, object]:
    return {
        "place": done.place,
        "worst": done.worst,
        "checks": list(done.checks),
        "findings": [one.model_dump(mode="json") for one in done.findings],
        "record": str(done.record) if done.record else None,
    }


def _tell(done: CheckUp) -> None:
    if not done.findings:
        say(f"{done.place}: {len(done.checks)} checks, nothing found.")
        return
    rows = [
        {
            "severity": "fixed" if one.fixed else one.severity,
            "check": one.check,
            "what": one.what,
            "fix": one.fix + (" (--fix)" if one.safe and not one.fixed else ""),
        }
        for one in done.findings
    ]
    table(rows, title=f"{done.place}: {len(done.checks)} checks")
