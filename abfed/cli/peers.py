"""`abfed silo peers` and `abfed silo pin`: with whom a silo adds one noise."""

from __future__ import annotations

from typing import Annotated

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption

NameArgument = Annotated[str, typer.Argument(help="The brand's name.")]


def peers(name: NameArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show a silo's own signing key, and the silos it pins to add one noise together with."""
    from abfed.lab.peering import peers_of
    from abfed.lab.workspace import Workspace

    facts = peers_of(Workspace(workspace), name)
    if as_json:
        say_json(facts)
        return
    say(f"{name}: {facts['public_key']}")
    say(f"Fingerprint, to be read out by phone: {facts['fingerprint']}")
    if facts["peers"]:
        table(facts["peers"], title="Pinned for noise once")
    else:
        say("No silo is pinned for noise once.")
    if not facts["allowed"]:
        say("Noise once isn't allowed here: the policy's noise_once.allowed is false.")


def pin(
    name: NameArgument,
    peer: Annotated[str, typer.Argument(help="The other silo, as plans call it.")],
    key: Annotated[str, typer.Argument(help="Its public signing key, 64 hex digits.")],
    workspace: WorkspaceOption,
    fingerprint: Annotated[
        str, typer.Option(help="Of the key, as the other silo's people read it out by phone.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Pin another silo's key in a silo's policy, to add one noise together with it."""
    from abfed.lab.peering import pin as pin_key
    from abfed.lab.workspace import Workspace

    pinned = pin_key(Workspace(workspace), name, peer, key, fingerprint)
    if as_json:
        say_json({"silo": name, "peer": peer, "pinned": pinned})
        return
    say(f"{name} pins the key of {peer}{'' if pinned else ', as before'}.")
