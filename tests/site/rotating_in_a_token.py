"""Rotations into, inside and out of a PKCS#11 token, killed before each act of theirs.

    python rotating_in_a_token.py FOLDER

A program of its own, which never opens the token itself: a token that was opened before a fork is
not open after it. Each rotation, and each look at what it left, is done in a child of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pkcs11

from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms, Pkcs11Kms
from abfed.site.kms_pkcs11 import Pkcs11Service
from abfed.site.ring import read_ring
from abfed.site.rotation import destroy_due, rotate
from tests.conformance.test_kms import MODULE, PIN
from tests.site import test_rotation as acts

TOKEN = Pkcs11Kms(module=MODULE, token="abfed")
WAYS: dict[str, tuple[FileKms | Pkcs11Kms, FileKms | Pkcs11Kms]] = {
    "into": (FileKms(), TOKEN),
    "inside": (TOKEN, TOKEN),
    "out": (TOKEN, FileKms()),
}


def pin(_: str) -> str:
    return PIN


def later() -> datetime:
    return datetime.now(UTC) + timedelta(days=400)


def in_child(act: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, act


def held(site: str) -> set[str]:
    """Ids of the site's keys in the token."""
    token = pkcs11.lib(MODULE).get_token(token_label="abfed")
    with token.open(user_pin=PIN) as session:
        wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}
        labels = [key.label for key in session.get_objects(wanted)]
    return {one.split(":")[2] for one in labels if one.startswith(f"abfed:{site}:")}


def check(folder: Path, site: str, derived: bytes) -> None:
    """It opens, as it was; the next rotation leaves one key, where the ring says, and no other."""
    assert SiteKeys.open(folder, pin).derive("x") == derived
    rotate(folder, kept=timedelta(), secret=pin)
    keys = SiteKeys.open(folder, pin)
    destroy_due(folder, keys.ring_marker, lambda event, **facts: None, later)
    assert SiteKeys.open(folder, pin).derive("x") == derived
    ring = read_ring(folder)
    assert ring.old == ()
    files = {path.name.removeprefix("kek-") for path in folder.glob("kek-*")}
    inside = ring.current.kms.kind == "pkcs11"
    assert (files, held(site)) == (
        (set(), {ring.current.kek}) if inside else ({ring.current.kek}, set())
    )
    assert not list(folder.glob(".aside-*"))


def killed_at(folder: Path, way: str, number: int) -> bool:
    """Make a site, rotate its key, be killed before that act, look; whether there was one."""
    site, (first, then) = f"{way}-{number}", WAYS[way]
    pin_file = folder / "credentials" / f"{site}.pin"
    pin_file.write_text(PIN)
    pin_file.chmod(0o600)
    keys, said = folder / site / "keys", folder / f"{site}.derived"

    def begin() -> None:
        made = SiteKeys.create(keys, site=site, kms=first, secret=pin)
        said.write_bytes(made.derive("x"))

    def act() -> None:
        rotate(keys, to=then, kept=timedelta(), secret=pin)

    in_child(begin)
    killed = acts._killed_at(number, act, after=False)
    in_child(lambda: check(keys, site, said.read_bytes()))
    return killed


def main() -> None:
    folder = Path(sys.argv[1])
    methods = ("create", "wrap", "unwrap", "destroy")
    acts.WRITES = (*acts.WRITES, *((Pkcs11Service, name) for name in methods))
    # old keys in a token are destroyed by whoever opens the site, with its PIN
    (folder / "credentials").mkdir(mode=0o700)
    os.environ["ABFED_CREDENTIALS"] = str(folder / "credentials")
    for way in WAYS:
        number = 1
        while killed_at(folder, way, number):
            number += 1
        print(way, number - 1)


if __name__ == "__main__":
    main()
