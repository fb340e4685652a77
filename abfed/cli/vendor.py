"""`abfed vendor`: the register of vendors; what isn't approved there is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption

app = typer.Typer(help="Vet vendors: register, approve, offboard.", no_args_is_help=True)

VendorArgument = Annotated[str, typer.Argument(help="The vendor's name in the register.")]


@app.command()
def propose(
    file: Annotated[Path, typer.Argument(help="A vendor's entry, as YAML; see `vendor schema`.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Put a vendor, or a change to one, into a site's register, for another to approve."""
    from abfed.lab.responding import load_vendor, vendors_of
    from abfed.lab.workspace import Workspace

    vendor = load_vendor(file)
    opened = Workspace(workspace)
    session = opened.session(site)
    entry = vendors_of(opened.office(site)).put(vendor, by=session.who)
    if as_json:
        say_json(entry.model_dump(mode="json") | {"score": vendor.score})
        return
    say(f"{vendor.name} is proposed at {site}; its questionnaire scores {vendor.score:.2f}.")
    say(f"Next, by somebody else: abfed vendor approve {vendor.name} -s {site} -w {workspace}")


@app.command()
def approve(
    name: VendorArgument,
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Approve a vendor as it stands in the register, until its review date."""
    from abfed.lab.responding import vendors_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("vendor.approve", site)
    entry = vendors_of(opened.office(site)).approve(name, by=actor)
    if as_json:
        say_json(entry.model_dump(mode="json"))
        return
    say(f"{name} may be used at {site} until {entry.vendor.review_by}.")


@app.command()
def show(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """Show a site's vendors: what for, what they see, where, on what terms, and how they stand."""
    from abfed.lab.responding import vendors_of
    from abfed.lab.workspace import Workspace

    register = vendors_of(Workspace(workspace).office(site))
    standings = register.standings()
    rows: list[dict[str, Any]] = [
        {
            "vendor": name,
            "standing": standings[name],
            "purpose": entry.vendor.purpose,
            "sees": ", ".join(entry.vendor.categories),
            "region": entry.vendor.region,
            "standards": ", ".join(entry.vendor.standards),
            "agreement": entry.vendor.agreement.reference if entry.vendor.agreement else "",
            "score": entry.vendor.score,
            "owner": entry.vendor.owner,
            "review by": entry.vendor.review_by,
        }
        for name, entry in sorted(register.list().items())
    ]
    if as_json:
        say_json(rows)
        return
    if not rows:
        say(f"{site} has no vendors: no service of others is used there.")
        return
    table(rows, title=f"Vendors of {site}")


@app.command()
def offboard(
    name: VendorArgument,
    workspace: WorkspaceOption,
    done: Annotated[
        list[str] | None,
        typer.Option(help="ITEM=how it is known; once for each item of the checklist."),
    ] = None,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Let a vendor go, once each item of the checklist is done; shows the list where it isn't."""
    from abfed.lab.uses import offboard as let_go
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("vendor.approve", site)
    given = dict(one.split("=", 1) for one in done or () if "=" in one)
    gone = let_go(opened, site, name, given, by=actor)
    if as_json:
        say_json(gone.model_dump(mode="json"))
        return
    say(f"{name} is offboarded at {site}: none of its services is used any more.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of an entry, for editors."""
    from abfed.site.vendors import Vendor

    say_json(Vendor.model_json_schema())
