"""Which silos a silo adds one noise together with: their keys, compared by phone.

A key may come by any way, the coordinator's too. Its fingerprint may not: it is what the other
silo's people read out, and nothing is pinned where it is another one.
"""

from __future__ import annotations

from typing import Any

from abfed.lab.workspace import Workspace
from abfed.protocol.envelope import key_id, parse_public_key
from abfed.protocol.errors import InputError
from abfed.silo.pinning import pin_peer
from abfed.site.certificates import spoken


def peers_of(workspace: Workspace, silo: str) -> dict[str, Any]:
    """A silo's own signing key, and those that it pins; all of it is public."""
    with workspace.silo(silo) as service:
        once, own = service.policy().noise_once, service.keys.public_key
    return {
        "silo": silo,
        "public_key": own.hex(),
        "fingerprint": spoken(key_id(own)),
        "allowed": once is not None and once.allowed,
        "peers": [
            {
                "silo": one.name,
                "public_key": one.public_key,
                "fingerprint": spoken(key_id(bytes.fromhex(one.public_key))),
            }
            for one in (once.peers if once is not None else ())
        ],
    }


def pin(workspace: Workspace, silo: str, peer: str, key: str, fingerprint: str) -> bool:
    """Pin another silo's key in a silo's policy; returns False where it is pinned already.

    Args:
        workspace: that holds the silo.
        silo: whose policy it is.
        peer: the other silo, as plans call it.
        key: its public signing key, 64 hex digits.
        fingerprint: of the key, as the other silo's people read it out.

    Raises:
        Refused: nobody is signed in at the silo who may change its policy.
        InputError: it isn't a key, or the fingerprint is another one.
    """
    actor = workspace.authorise("policy.change", silo)
    shown = f"ask the people of {peer} for what `abfed silo peers {peer}` shows them"
    public = parse_public_key(key, do=shown)
    if "".join(fingerprint.split()).lower() != key_id(public):
        raise InputError(
            "the fingerprint is not that of the key",
            where=peer,
            why=f"the key's is {spoken(key_id(public))}",
            do=f"call the people of {peer} and compare it with theirs; then give it",
        )
    with workspace.silo(silo) as service:
        pinned = pin_peer(service.paths.policy, peer, public)
        if pinned:
            service.audit.append("peer.pinned", by=actor, peer=peer, fingerprint=key_id(public))
    return pinned
