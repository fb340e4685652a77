"""`abfed provision`: found a federation, invite brands, join, admit, renew, revoke."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption
from abfed.protocol.documents import read_document


class SettingsFirst(TyperGroup):
    """`abfed provision federation.yaml` is `abfed provision found federation.yaml`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A file's name instead of a verb means the first verb."""
        if args and args[0].endswith((".yaml", ".yml")):
            args = ["found", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=SettingsFirst,
    help="Found a federation of brands that don't trust each other, and join one.",
    no_args_is_help=True,
)

FingerprintOption = Annotated[
    str, typer.Option(help="As the other side's people read it out, by phone.")
]
NodeOption = Annotated[
    Path | None, typer.Option("--node", help="The node's folder.", show_default="nodes/<silo>")
]
SiloOption = Annotated[str, typer.Option("--silo", help="The silo of this workspace.")]


@app.command()
def found(
    settings: Annotated[Path, typer.Argument(help="What people decided: federation.yaml.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Coordinator: found the federation, or renew what runs out. Writes the invitation."""
    from abfed.lab.provisioning import found_federation
    from abfed.lab.workspace import Workspace

    house, fingerprint = found_federation(Workspace(workspace), settings)
    facts: dict[str, Any] = {
        "federation": house.settings.name,
        "invitation": house.places.invitation,
        "fingerprint": fingerprint,
    }
    if as_json:
        say_json(facts)
        return
    say(f"Federation {house.settings.name} is provisioned in {house.places.folder}.")
    say(f"Give each brand {house.places.invitation}; read out its fingerprint by phone:")
    say(f"  {fingerprint}")
    say(
        f"Next: {house.places.folder / 'start'}, and abfed provision admit for each brand's request"
    )


@app.command()
def join(
    invitation: Annotated[Path, typer.Argument(help="What the coordinator gave.")],
    workspace: WorkspaceOption,
    silo: SiloOption,
    fingerprint: FingerprintOption,
    node: NodeOption = None,
    socket: Annotated[
        str, typer.Option(help="Where the silo service will listen.", show_default="node's folder")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Brand: join a federation. Pins its coordinator, makes the node's keys, writes the request."""
    from abfed.lab.provisioning import join as join_federation
    from abfed.lab.workspace import Workspace

    joined = join_federation(
        Workspace(workspace),
        silo,
        read_document(invitation, "invitation"),
        fingerprint=fingerprint,
        node=node,
        socket=socket,
    )
    if as_json:
        say_json(joined._asdict())
        return
    say(f"Give the coordinator {joined.request}; read out its fingerprint by phone:")
    say(f"  {joined.fingerprint}")
    silo_start, node_start = joined.starts / "start-silo", joined.node / "start-node"
    say(f"Next: {silo_start}, and {node_start} once it is admitted")


@app.command()
def admit(
    request: Annotated[Path, typer.Argument(help="A brand's request.")],
    workspace: WorkspaceOption,
    fingerprint: FingerprintOption = "",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Although a silo of its name is admitted with another key."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Coordinator: sign a brand's request; without a fingerprint only to renew the same keys."""
    from abfed.lab.operations import register_nodes
    from abfed.lab.operations import status as federation_status
    from abfed.lab.provisioning import provisioner
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    opened.authorise("policy.change")
    pinned = provisioner(opened).admit(
        read_document(request, "request"), fingerprint=fingerprint, replace=replace
    )
    registered = register_nodes(opened.path)
    if as_json:
        say_json({"silo": pinned.site, "registered": pinned.site in registered})
        return
    say(f"Silo {pinned.site} is admitted.")
    if pinned.site in registered:
        return
    if federation_status(opened.path)["superlink"] != "up":
        start = opened.path / "federation" / "start"
        say(f"Its node is registered once the SuperLink is up: {start}")
    else:
        say("Its node isn't registered: the SuperLink takes no key again that it let go.")
        renewing = f"abfed provision renew --silo {pinned.site} --new-node-key"
        say(f"At the brand: {renewing}; then admit it")


@app.command()
def renew(
    workspace: WorkspaceOption,
    silo: SiloOption,
    node: NodeOption = None,
    new_node_key: Annotated[
        bool,
        typer.Option("--new-node-key", help="Make the node a new key, as after a revocation."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Brand: write a fresh request for the same keys, to have the certificate renewed."""
    from abfed.lab.provisioning import renew as renew_request
    from abfed.lab.workspace import Workspace

    joined = renew_request(Workspace(workspace), silo, node, new_node_key=new_node_key)
    if as_json:
        say_json(joined._asdict())
        return
    if new_node_key:
        say(f"Give the coordinator {joined.request}; read out its fingerprint by phone:")
        say(f"  {joined.fingerprint}")
        say("Next, once it is admitted: start the node again, or send it a SIGHUP")
        return
    say(f"Give the coordinator {joined.request}. Its keys are the same: {joined.fingerprint}")


@app.command()
def revoke(
    silo: Annotated[str, typer.Argument(help="The silo to take out.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Coordinator: revoke a silo's certificate and cut off its node."""
    from abfed.lab.operations import cut_off
    from abfed.lab.provisioning import provisioner
    from abfed.lab.workspace import Workspace

    opened = Workspace(workspace)
    opened.authorise("policy.change")
    provisioner(opened).revoke(silo)
    gone = cut_off(opened.path, silo)
    if as_json:
        say_json({"silo": silo, "node cut off": gone})
        return
    say(f"The certificate of {silo} is revoked: it isn't asked from the next run on.")
    table([{"its node": "cut off" if gone else "not connected, or the SuperLink isn't up"}])


@app.command()
def fingerprint(
    file: Annotated[Path, typer.Argument(help="An invitation or a request.")],
    as_json: JsonOption = False,
) -> None:
    """The fingerprint of an invitation or a request, to compare by phone."""
    from abfed.lab.provisioning import fingerprint_of

    found_fingerprint = fingerprint_of(read_document(file, "file"))
    if as_json:
        say_json({"fingerprint": found_fingerprint})
        return
    say(found_fingerprint)
