"""The coordinator's people and its access policy, in a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from abfed.coordinator.front import ACCESS_FILE, load_access
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.errors import WorkspaceError
from abfed.protocol.identity import ROLES
from abfed.site.audit import AuditLog
from abfed.site.files import alone, read_private, write_private
from abfed.site.keys import SiteKeys
from abfed.site.rights import AccessPolicy, default_rules

COORDINATOR = "coordinator"
"""What the coordinator's site is called in its own workspace."""

SILOS_FILE = "silos.json"
"""In the coordinator's folder: public keys of the silos, as they were pinned."""


def default_access(
    site: str, public_key: bytes, *, roles: tuple[str, ...], development: bool
) -> dict[str, Any]:
    """An access policy that hears people of one site, as plain values for YAML."""
    return {
        "identities": [{"site": site, "public_key": public_key.hex(), "roles": list(roles)}],
        "development_people": development,
        "rights": [rule.model_dump(mode="json", exclude_defaults=True) for rule in default_rules()],
    }


def write_coordinator_access(folder: Path, keys: SiteKeys, *, development: bool) -> None:
    """Write the policy that a new coordinator starts with."""
    values = default_access(keys.site, keys.public_key, roles=ROLES, development=development)
    text = "# Which people may do what at the coordinator. Whatever is not here is a no.\n"
    write_private(folder / ACCESS_FILE, (text + yaml.safe_dump(values, sort_keys=False)).encode())


def coordinator_access(folder: Path) -> AccessPolicy:
    """The coordinator's access policy, as it is now.

    Raises:
        WorkspaceError: it is missing or malformed, so nobody may do anything.
    """
    return load_access(folder / ACCESS_FILE)


def first_policy(
    name: str,
    *,
    columns: Sequence[str],
    purposes: Sequence[str],
    synthetic: bool,
    epsilon: float,
    show_budget: bool,
    coordinator_key: bytes,
    development: bool,
) -> str:
    """The policy that a silo of this workspace is founded with, as YAML for its people to edit."""
    pinned = [{"name": COORDINATOR, "public_key": coordinator_key.hex()}]
    policy = {
        "silo": name,
        "synthetic": synthetic,
        "coordinators": pinned,
        "purposes": [
            {"name": purpose, "bases": ["consent", "legitimate-interests"]} for purpose in purposes
        ],
        "columns": list(columns),
        "budget": {"epsilon": float(epsilon), "delta": 1e-5},
        "per_plan": {"epsilon": min(5.0, float(epsilon)), "delta": 1e-6},
        "minimum_recipients": 10,
        "show_budget": show_budget,
        "access": default_access(
            COORDINATOR,
            coordinator_key,
            roles=("analyst", "service-account"),
            development=development,
        ),
    }
    return "# What this silo allows. Whatever is not here is a no.\n" + yaml.safe_dump(
        policy, sort_keys=False
    )


def pin_silo(folder: Path, audit: AuditLog, name: str, public_key: bytes, *, by: str) -> None:
    """Remember a silo's public key; a key that is pinned is never replaced silently.

    Raises:
        WorkspaceError: another one is pinned.
    """
    file = folder / SILOS_FILE
    with alone(folder / f".{SILOS_FILE}.lock"):  # two at once would each forget the other's key
        pinned = parse_canonical(read_private(file), where=str(file))
        if pinned.get(name, public_key.hex()) != public_key.hex():
            raise WorkspaceError(
                f"another key is pinned for silo {name!r}",
                where=str(file),
                why="whoever has that key may still answer as this silo",
                do="give the silo another name, or take the key out by hand if it is lost",
            )
        write_private(file, canonical_bytes(pinned | {name: public_key.hex()}))
    audit.append("silo.pinned", silo=name, person=by)
