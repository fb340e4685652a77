"""Rotating and moving a site's key-encryption key, by somebody who may."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from abfed.lab.incidents.responding import vendors_of
from abfed.protocol.errors import InputError
from abfed.site.credentials import is_there
from abfed.site.kms import FileKms, Pkcs11Kms
from abfed.site.ring import Ring, read_ring
from abfed.site.rotation import renewed, rotate
from abfed.site.vendors import key_service

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace


def settings_of(kind: str, *, passphrase: bool, module: str, token: str) -> FileKms | Pkcs11Kms:
    """A key service from what was typed.

    Raises:
        InputError: something is missing, or doesn't belong to it.
    """
    if kind == "file":
        if module or token:
            raise InputError("files have no module and no token")
        return FileKms(passphrase=passphrase)
    if not module or not token or not Path(module).is_absolute():
        raise InputError("a PKCS#11 key needs --module, an absolute path, and --token")
    return Pkcs11Kms(module=module, token=token)


def rekey(
    workspace: Workspace,
    site: str,
    *,
    to: FileKms | Pkcs11Kms | None = None,
    kept: timedelta,
) -> Ring:
    """Put a site under a new key-encryption key.

    Raises:
        Refused: nobody is signed in at the site who may rotate its keys, or no approved vendor of
            it has the key service.
        WorkspaceError: a key service can't be opened. The site is as it was then.
    """
    actor = workspace.authorise("keys.rotate", site)
    office = workspace.office(site)
    address = key_service(to or read_ring(office.folder / "keys").current.kms)
    if address:
        vendors_of(office).require("keys", address)
    office.audit.append("keys.rotating", person=actor, to=to.kind if to else "the same")
    ring = rotate(
        office.folder / "keys", to=to, kept=kept, clock=workspace.clock, new_secret=renewed
    )
    office.audit.append("keys.rotated", person=actor, kek=ring.current.kek)
    return ring


def left_new(ring: Ring) -> tuple[str, ...]:
    """Secrets of a new key that still lie under the name that only its making reads."""
    kms = ring.current.kms
    kind = "pin" if kms.kind == "pkcs11" else "passphrase"
    name = f"{ring.site}.{kind}"
    used = kms.kind == "pkcs11" or kms.passphrase
    return (name,) if used and is_there(f"{name}.new") else ()
