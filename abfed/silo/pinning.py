"""Pinning a site in a silo's policy: a coordinator, or a silo to add one noise together with.

The policy is its people's own text. It is not written anew: the lines are put where the lists of
coordinators and identities, or of peers, begin, and the result must say what was meant, or nothing
is changed.
"""

from __future__ import annotations

import re
from pathlib import Path

from abfed.protocol.errors import InputError
from abfed.protocol.identity import Role
from abfed.silo.policy import Coordinator, NoiseOnce, Peer, Policy
from abfed.site.files import read_private, write_private
from abfed.site.rights import Identity

_LIST = re.compile(r"^coordinators:[ \t]*(\[\])?[ \t]*$", re.MULTILINE)
_IDENTITIES = re.compile(r"^  identities:[ \t]*(\[\])?[ \t]*$", re.MULTILINE)
_ONCE = re.compile(r"^noise_once:[ \t]*$", re.MULTILINE)
_PEERS = re.compile(
    r"^(noise_once:[ \t]*\n(?:[ #].*\n)*?)  peers:[ \t]*(?:\[\])?[ \t]*$", re.MULTILINE
)
_ROLES: tuple[Role, ...] = ("analyst", "service-account")


def pin_coordinator(path: Path, name: str, site: str, public_key: bytes) -> bool:
    """Pin a coordinator's key in the policy; returns False where it is pinned already.

    Args:
        path: the policy.
        name: what the policy is to call it, such as the federation's name.
        site: what it calls itself, when it says who a person is.
        public_key: its Ed25519 key, 32 raw bytes.

    Raises:
        InputError: another key has this name, or the policy's text has no place for it.
    """
    before = Policy.load(path)
    if any(one.public_key == public_key.hex() for one in before.coordinators):
        return False
    if any(one.name == name for one in before.coordinators):
        raise InputError(
            f"the policy pins another key for coordinator {name!r}",
            where=str(path),
            do="find out which is right, and remove the other by hand",
        )
    text = read_private(path).decode()
    key = public_key.hex()
    entry = f"coordinators:\n- name: {name}\n  public_key: {key}"
    changed, count = _LIST.subn(entry, text, count=1)
    if not count:
        changed = f"{text.rstrip()}\n{entry}\n"
    roles = ", ".join(_ROLES)
    listed = f"  identities:\n  - site: {site}\n    public_key: {key}\n    roles: [{roles}]"
    changed = _IDENTITIES.sub(listed, changed, count=1)
    if not _as_meant(changed, before, name, Identity(site=site, public_key=key, roles=_ROLES)):
        raise InputError(
            "the coordinator's key can't be put into the policy",
            where=str(path),
            why="its lists are written in a form that isn't known here",
            do=f"add {{name: {name}, public_key: {key}}} to `coordinators`, and "
            f"{{site: {site}, public_key: {key}, roles: [{roles}]}} to "
            "`access.identities`, by hand",
        )
    write_private(path, changed.encode())
    return True


def pin_peer(path: Path, name: str, public_key: bytes) -> bool:
    """Pin another silo's key for noise once; returns False where it is pinned already.

    Whether noise is added together at all stays as it was: not, where nothing is said of it.

    Args:
        path: the policy.
        name: the silo, as plans call it.
        public_key: its Ed25519 key, 32 raw bytes.

    Raises:
        InputError: it is the silo itself, its name or key stands for another one, or the policy's
            text has no place for it.
    """
    before = Policy.load(path)
    known = before.noise_once or NoiseOnce()
    peer = Peer(name=name, public_key=public_key.hex())
    if peer in known.peers:
        return False
    if name == before.silo:
        raise InputError(f"{name!r} is this silo itself", where=str(path))
    if any(name == one.name or peer.public_key == one.public_key for one in known.peers):
        raise InputError(
            f"the policy pins another key for {name!r}, or this key for another silo",
            where=str(path),
            do="find out which is right, and remove the other by hand",
        )
    text = read_private(path).decode()
    entry = f"  peers:\n  - name: {name}\n    public_key: {peer.public_key}"
    changed, count = _PEERS.subn(lambda found: found[1] + entry, text, count=1)
    if not count:
        changed, count = _ONCE.subn(f"noise_once:\n{entry}", text, count=1)
    if not count:
        changed = f"{text.rstrip()}\nnoise_once:\n  allowed: false\n{entry}\n"
    wanted = known.model_copy(update={"peers": (peer, *known.peers)})
    try:
        after = Policy.parse(changed.encode(), where="policy")
    except InputError:
        after = before
    if after != before.model_copy(update={"noise_once": wanted}):
        raise InputError(
            f"the key of {name!r} can't be put into the policy",
            where=str(path),
            why="its lists are written in a form that isn't known here",
            do=f"add {{name: {name}, public_key: {peer.public_key}}} to `noise_once.peers`, "
            "by hand",
        )
    write_private(path, changed.encode())
    return True


def _as_meant(text: str, before: Policy, name: str, identity: Identity) -> bool:
    """Whether a policy's text says the same as before, and the new key, and nothing else."""
    try:
        after = Policy.parse(text.encode(), where="policy")
    except InputError:
        return False
    coordinator = Coordinator(name=name, public_key=identity.public_key)
    access = before.access.model_copy(update={"identities": (identity, *before.access.identities)})
    return after == before.model_copy(
        update={"coordinators": (coordinator, *before.coordinators), "access": access}
    )
