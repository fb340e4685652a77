"""`abfed vendor`: the register of vendors; what isn't approved there is not used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption, typed

if TYPE_CHECKING:
    from abfed.site.vendors import Entry

app = typer.Typer(help="Vet vendors: register, approve, offboard.", no_args_is_help=True)

SHOWN = 16
"""So many characters of an entry's digest are shown, and are enough to name it."""

VendorArgument = Annotated[str, typer.Argument(help="The vendor's name in the register.")]


@app.command()
def propose(
    file: Annotated[Path, typer.Argument(help="A vendor's entry, as YAML; see `vendor schema`.")],
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Put a vendor, or a change to one, into a site's register, for another to approve."""
    from abfed.lab.incidents.responding import load_vendor, propose_vendor
    from abfed.lab.workspace import Workspace

    vendor = load_vendor(file)
    opened = Workspace(workspace)
    session = opened.session(site)
    entry = propose_vendor(opened.office(site), vendor, by=session.who)
    if as_json:
        say_json(_facts(entry))
        return
    say(f"{vendor.name} is proposed at {site}; its questionnaire scores {vendor.score:.2f}.")
    seen = f"--digest {entry.digest[:SHOWN]}"
    command = typed(f"vendor approve {vendor.name} -s {site} {seen}", workspace)
    say(f"Next, by somebody else: {command}")


@app.command()
def approve(
    name: VendorArgument,
    workspace: WorkspaceOption,
    seen: Annotated[
        str,
        typer.Option(
            "--digest", help="Of the entry you looked at, or its start; another is refused."
        ),
    ] = "",
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Approve a vendor as it stands in the register, until its review or its agreement's end."""
    from abfed.lab.incidents.responding import vendors_of
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    actor = opened.authorise("vendor.approve", site)
    entry = vendors_of(opened.office(site)).approve(name, by=actor, seen=seen)
    if as_json:
        say_json(_facts(entry))
        return
    say(f"{name} is approved at {site}: the entry {entry.digest[:SHOWN]}, until {entry.until}.")
    for one in entry.vendor.services:
        say(f"  {one.kind}: {one.address}")


@app.command()
def show(
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Argument(help="One of them, with all that is known.")] = "",
    site: SiteOption = "coordinator",
    as_json: JsonOption = False,
) -> None:
    """Show a site's vendors: what for, what they see, where, on what terms, and how they stand."""
    from abfed.lab.incidents.responding import vendors_of
    from abfed.lab.workspace import Workspace

    register = vendors_of(Workspace(workspace).office(site))
    standings = register.standings()
    if name:
        entry = register.find(name)
        if as_json:
            say_json(_facts(entry) | {"standing": standings[name]})
        else:
            _say_all(entry, standings[name])
        return
    rows: list[dict[str, Any]] = [
        {
            "vendor": name,
            "standing": standings[name],
            "purpose": entry.vendor.purpose,
            "sees": ", ".join(entry.vendor.categories),
            "region": entry.vendor.region,
            "services": "\n".join(f"{one.kind} {one.address}" for one in entry.vendor.services),
            "score": entry.vendor.score,
            "owner": entry.vendor.owner,
            "until": entry.until,
            "entry": entry.digest[:SHOWN],
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
    from abfed.lab.security.uses import offboard as let_go
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


def _facts(entry: Entry) -> dict[str, Any]:
    counted = {"digest": entry.digest, "until": entry.until, "score": entry.vendor.score}
    return entry.model_dump(mode="json") | counted


def _say_all(entry: Entry, standing: str) -> None:
    """All that is known of a vendor: what somebody looks at before they approve it."""
    vendor, agreement = entry.vendor, entry.vendor.agreement
    terms = (
        f"{agreement.reference}, {agreement.signed_on} to {agreement.ends_on}" if agreement else ""
    )
    approved = f"by {entry.approved_by} on {entry.approved_at[:10]}" if entry.approved_by else ""
    facts = {
        "standing": standing,
        "entry": entry.digest,
        "until": entry.until,
        "purpose": vendor.purpose,
        "owner": vendor.owner,
        "services": "\n".join(f"{one.kind} {one.address}" for one in vendor.services),
        "sees": ", ".join(vendor.categories),
        "region": vendor.region,
        "transfer": vendor.transfer,
        "standards": ", ".join(vendor.standards),
        "agreement": terms,
        "review by": vendor.review_by,
        "proposed": f"by {entry.added_by} on {entry.added_at[:10]}",
        "approved": approved,
        "score": vendor.score,
    }
    facts |= {f"gone: {item}": known for item, known in entry.offboarded.items()}
    table([{"": what, "value": said} for what, said in facts.items()], title=vendor.name)
    asked = [
        {"weight": one.weight, "answer": "yes" if one.yes else "NO", "question": one.text,
         "evidence": one.evidence}
        for one in vendor.questionnaire
    ]  # fmt: skip
    table(asked, title="Questionnaire")
