"""The command line: `abfed`. One command per verb, no logic.

Exit codes: 0 done, 2 bad input, 3 refused by policy or budget, 4 integrity failure (or a disk that
keeps nothing durably), 5 findings of a check, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from abfed import __version__
from abfed.cli.ondemand import Command, OnDemand
from abfed.cli.output import INTERRUPTED, defect, fail, interrupted, misused, say
from abfed.cli.settings import over, workspace_in
from abfed.protocol.errors import AbfedError

COMMANDS = {
    "demo": Command(
        "demo", "Make three brands, carry a private federated experiment out, and write its report."
    ),
    "run": Command(
        "run", "Carry a plan out, or find the run that did: the same plan on the same data is free."
    ),
    "report": Command("report", "Make a report, make it again to verify it, or share it."),
    "evaluate": Command(
        "evaluate",
        "Show how good a run's model is, from its releases: it costs nothing and asks no silo.",
    ),
    "batch": Command(
        "batch", "Make what isn't made yet: a batch resumes, and makes again only what changed."
    ),
    "plan": Command("plan", "Check plans."),
    "design": Command(
        "design", "Sample size, smallest effect, power and ε of a plan, before it is run."
    ),
    "allocate": Command(
        "design", "The Bayesian read-out of a run, and the next wave's allocation."
    ),
    "attack": Command(
        "attack",
        "Audit the shipped mechanisms empirically: a lower bound on ε, with 95 % confidence.",
    ),
    "explain": Command(
        "explain", "Say what was released, what is guaranteed, on what it rests and what remains."
    ),
    "data": Command("data", "Make up brands, or fetch public data."),
    "silo": Command("silo", "Found, fill and look at a silo."),
    "ledger": Command("ledger", "Read a silo's privacy ledger; return unused charges."),
    "audit": Command("audit", "Check audit logs, ask them, hand them out, prune them."),
    "login": Command(
        "login",
        "Sign in with password and second factor; the session lasts hours, its tokens minutes.",
    ),
    "logout": Command("login", "Sign out: the session's key is destroyed."),
    "model": Command(
        "model", "List, approve, retire, export and verify models; where they came from."
    ),
    "keys": Command("keys", "Rotate a site's key-encryption key, or move it; show how it stands."),
    "people": Command(
        "people", "Enrol people of a site, grant them roles; change your own factors."
    ),
    "access": Command("access", "Show, explain, review and revoke access."),
    "doctor": Command(
        "doctor",
        "Examine files, keys, seals, policy, people, vendors, dependencies; keep the dated record.",
    ),
    "review": Command(
        "review",
        "See how each control stands at every site here; ends with 5 where one does not hold.",
    ),
    "watch": Command(
        "watch",
        "Look at logs, runs and registers for what is unusual; tell the sinks of watch.yaml.",
    ),
    "incident": Command("incident", "Contain incidents, prove what was done, and drill."),
    "records": Command(
        "records",
        "Records of processing, impact assessment, CCPA notice, transfers: from enforced state.",
    ),
    "vendor": Command("vendor", "Vet vendors: register, approve, offboard."),
    "provision": Command(
        "provision", "Found a federation of brands that don't trust each other, and join one."
    ),
    "federation": Command("federation", "Run a federation and look after it."),
    "init": Command(
        "init", "Make a workspace: a coordinator, and room for silos, runs and reports."
    ),
}
"""Every command: the module of `abfed.cli` that holds it, and its help in a line."""


class Commands(OnDemand):
    """The commands of `abfed`."""

    table = COMMANDS


app = typer.Typer(
    name="abfed",
    cls=Commands,
    help="Federated, differentially private A/B testing for marketing e-mail.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # drawing boxes would take longer than all the rest of --help
)


def _version(asked: bool) -> None:
    if asked:
        say(f"abfed {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Federated, differentially private A/B testing for marketing e-mail."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; the entry point of the `abfed` script."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        result = app(args=given, standalone_mode=False)
        if result == INTERRUPTED:  # Typer makes of Ctrl-C an exit without a word
            raise KeyboardInterrupt
    except AbfedError as error:
        error.do = over(error.do, workspace_in(given), typer.main.get_command(app))
        return fail(error, as_json=as_json)
    except click.ClickException as error:
        return misused(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return interrupted(as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last frame: a traceback could show a row
        from abfed.site.disk import storage_error

        storage = storage_error(error)
        if storage is not None:
            return fail(storage, as_json=as_json)
        return defect(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def script() -> None:
    """The console script."""
    sys.exit(main())
