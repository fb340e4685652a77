"""`abfed keys`: a site's key-encryption key, rotated and moved without writing a row anew."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, SiteOption, WorkspaceOption

if TYPE_CHECKING:
    from abfed.site.kms import FileKms, Pkcs11Kms
    from abfed.site.ring import Ring

app = typer.Typer(
    help="Rotate a site's key-encryption key, or move it; show how it stands.",
    no_args_is_help=True,
)

KeepOption = Annotated[
    int, typer.Option(min=0, max=3660, help="Days until the old key is destroyed.")
]


@app.command()
def rotate(
    workspace: WorkspaceOption,
    site: SiteOption = "coordinator",
    keep_days: KeepOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Put the site under a new key in the same key service. Needs a fresh second factor."""
    from abfed.lab.upkeep.rekeying import rekey
    from abfed.lab.workspace import Workspace

    ring = rekey(Workspace(workspace), site, kept=timedelta(days=keep_days))
    _told(ring, as_json=as_json)


@app.command()
def rewrap(
    workspace: WorkspaceOption,
    to: Annotated[Literal["file", "pkcs11"], typer.Option(help="Which key service.")],
    site: SiteOption = "coordinator",
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Files are put under a passphrase.")
    ] = False,
    module: Annotated[str, typer.Option(help="Path of the PKCS#11 module's library.")] = "",
    token: Annotated[str, typer.Option(help="Label of the PKCS#11 token.")] = "",
    keep_days: KeepOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Put the site under a new key in another key service, or under another passphrase."""
    from abfed.lab.upkeep.rekeying import rekey, settings_of
    from abfed.lab.workspace import Workspace

    wanted = settings_of(to, passphrase=passphrase, module=module, token=token)
    ring = rekey(Workspace(workspace), site, to=wanted, kept=timedelta(days=keep_days))
    _told(ring, as_json=as_json)


@app.command()
def status(
    workspace: WorkspaceOption, site: SiteOption = "coordinator", as_json: JsonOption = False
) -> None:
    """Show which key the site is under, where it lives, since when, and which are to go."""
    from abfed.lab.workspace import Workspace
    from abfed.site.ring import read_ring

    office = Workspace(workspace).office(site)
    ring = read_ring(office.folder / "keys")
    if as_json:
        say_json(ring.model_dump(mode="json", exclude={"root", "mark"}))
        return
    rows = [
        {"key": held.kek, "lives in": _where(held.kms), "made": held.made_at[:10], "state": state}
        for held, state in (
            (ring.current, "in use"),
            *((one.held, f"destroyed on {one.destroy_on[:10]}") for one in ring.old),
            *(((ring.begun, "begun; the next rotation destroys it"),) if ring.begun else ()),
        )
    ]
    table(rows, title=f"Key-encryption keys of {site}")
    say(f"Others pin its signing key: {office.keys.key_id}")


def _where(kms: FileKms | Pkcs11Kms) -> str:
    if kms.kind == "pkcs11":
        return f"token {kms.token}"
    return "a file under a passphrase" if kms.passphrase else "a file"


def _told(ring: Ring, *, as_json: bool) -> None:
    from abfed.lab.upkeep.rekeying import left_new

    if as_json:
        say_json(ring.model_dump(mode="json", exclude={"root", "mark"}))
        return
    lives = _where(ring.current.kms)
    say(f"{ring.site} is under key {ring.current.kek} now, in {lives}; no row was written.")
    say(f"The old key is destroyed on {ring.old[-1].destroy_on[:10]}.")
    for name in left_new(ring):
        say(f"Rename {name}.new to {name} now: the site opens with that alone.")
