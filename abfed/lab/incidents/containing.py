"""Containing at several sites at once: the same is meant everywhere, and no site waits (S15).

A freeze holds before the incident says so. A command that was killed between the two leaves what
is frozen under the incident's id: it is told when the incident is shown or closed, can be lifted,
and is written down when the same is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from abfed.lab.coordination import COORDINATOR
from abfed.lab.incidents.responding import Contained, contain, frozen_at, incidents_of, lift
from abfed.lab.offices import Office, parse_who
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.documents import is_file
from abfed.protocol.envelope import key_id
from abfed.protocol.errors import AbfedError, InputError, RunFailed
from abfed.protocol.plan import Plan
from abfed.site.files import read_private
from abfed.site.incidents import Incident, Incidents

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace


def meant(workspace: Workspace, kind: str, name: str, site: str) -> str:
    """What a name stands for at every site, so that a slip of the pen freezes nothing.

    A person's without a site is of this one; a silo must be known here. A key is named by its id or
    its site, a plan by its digest, a run or a file, a model by a digest or NAME@VERSION.

    Raises:
        InputError: it stands for nothing.
    """
    match kind:
        case "person":
            return _person(workspace, name, site)
        case "silo" if name not in workspace.sites():
            raise InputError(
                f"there is no silo {name!r:.60} here",
                why=f"known here: {', '.join(workspace.sites())}",
            )
        case "key" if not re.fullmatch("[0-9a-f]{32}", name):
            return _key(workspace, name)
        case "plan" if not re.fullmatch("[0-9a-f]{64}", name):
            return _plan(workspace, name)
        case "model" if not re.fullmatch("[0-9a-f]{64}", name):
            return _model(workspace, name)
    return name


def _model(workspace: Workspace, label: str) -> str:
    """The digest of a registered model."""
    from abfed.lab.models import registry_of

    if "@" not in label:
        raise InputError(
            f"{label!r:.60} is no model",
            do="name its digest, or NAME@VERSION as `abfed model list` does",
        )
    return registry_of(workspace).find(label).registration.digest


def _key(workspace: Workspace, site: str) -> str:
    """The name of a site's signing key, as the coordinator pinned it."""
    if site == COORDINATOR:
        return workspace.office().keys.key_id
    pinned = workspace.pinned_keys()
    if site not in pinned:
        raise InputError(
            f"no key of {site!r:.60} is pinned here", do="name it by its 32 hex digits"
        )
    return key_id(pinned[site])


def _plan(workspace: Workspace, name: str) -> str:
    """The digest of a run's plan, or of a plan's file."""
    kept = workspace.path / "runs" / Path(name).name / "plan.json"
    if is_file(kept):
        return sha256_hex(read_private(kept))
    if is_file(name):
        return Plan.load(name).digest
    raise InputError(
        f"{name!r:.60} is no plan",
        do="name its digest (`abfed plan check FILE` prints it), a run, or the plan's file",
    )


def _person(workspace: Workspace, name: str, site: str) -> str:
    person, home = parse_who(name, site)
    if home in (COORDINATOR, *workspace.silos):
        known = workspace.office(home).people.names()
        if person not in known:
            raise InputError(
                f"there is nobody called {person!r:.60} at {home}",
                why=f"known there: {', '.join(known) or 'nobody'}",
                do="see `abfed people list`; write NAME@SITE for somebody of another site",
            )
    return f"{person}@{home}"


def contain_everywhere(
    workspace: Workspace,
    incident: str,
    kind: str,
    name: str,
    *,
    site: str,
    actors: Mapping[str, str],
    refused: Mapping[str, AbfedError] | None = None,
) -> list[Contained]:
    """Freeze something at several sites, and record it with the incident of one.

    A site that fails keeps no other from freezing.

    Args:
        workspace: where the sites are.
        incident: its id; it must be open.
        kind: what kind of thing.
        name: which.
        site: whose incident it is, and of whom a person is whose name has no site.
        actors: who acts, by site.
        refused: sites where whoever asks may not, with why.

    Raises:
        InputError: there is no such incident, it is closed, or nobody is called so.
        AbfedError: no site froze it; what the first one said.
        RunFailed: some sites did not freeze it; the others did.
    """
    kept = incidents_of(workspace.office(site))
    kept.find_open(incident)
    who, done = meant(workspace, kind, name, site), []
    failed = dict(refused or {})
    for one, actor in actors.items():
        try:
            office = workspace.office(one)
            made = _unwritten(kept, incident, office, kind, who)
            made = made or contain(office, kind, who, by=actor, reason=incident)
        except AbfedError as error:
            failed[one] = error
            continue
        kept.contained(incident, kind, who, site=one, by=actor, durable_ms=made.durable_ms)
        done.append(made)
    if failed and not done:
        raise next(iter(failed.values()))
    if failed:
        raise RunFailed(
            f"{kind} {who[:64]} was not frozen at {', '.join(failed)}",
            why="; ".join(f"{one}: {error.what}" for one, error in failed.items()),
            where=f"frozen at {', '.join(one.site for one in done) or 'no site'}",
        )
    return done


def _unwritten(
    kept: Incidents, incident: str, office: Office, kind: str, who: str
) -> Contained | None:
    """What is frozen for an incident and not written down there; None where there is no such.

    Raises:
        InputError: it is frozen for this incident, and written down.
    """
    for row in frozen_at(office):
        if (row["kind"], row["name"], row["reason"]) != (kind, who, incident):
            continue
        if _noted(kept.find(incident), kind, who, office.site):
            raise InputError(f"{kind} {who[:60]} is frozen already", where=office.site)
        if kind != "person":  # who is stopped may still renew tokens at home: stopped once more
            return Contained(office.site, kind, who, row["durable_ms"])
    return None


def _noted(incident: Incident, kind: str, who: str, site: str) -> bool:
    return any(
        (one.kind, one.name, one.site, one.lifted_at) == (kind, who, site, "")
        for one in incident.contained
    )


def _lifted(workspace: Workspace, kind: str, name: str, site: str) -> str:
    """What a name stands for; of what isn't known here any more, the name itself."""
    try:
        return meant(workspace, kind, name, site)
    except AbfedError:
        if kind != "person":
            return name
        person, home = parse_who(name, site)
        return f"{person}@{home}"


def lift_everywhere(
    workspace: Workspace,
    incident: str,
    kind: str,
    name: str,
    *,
    site: str,
    actors: Mapping[str, str],
) -> str:
    """Let something be used again at several sites; returns what was meant.

    Also after the incident was closed: what is frozen then stays so until it is lifted.

    Raises:
        InputError: there is no such incident, or it isn't frozen at one of the sites: nothing is
            lifted then.
        Refused: it is the person who lifts.
    """
    kept = incidents_of(workspace.office(site))
    kept.find(incident)
    who = _lifted(workspace, kind, name, site)
    for one in actors:
        if (kind, who) not in {
            (row["kind"], row["name"]) for row in frozen_at(workspace.office(one))
        }:
            raise InputError(f"{kind} {who[:60]} is not frozen at {one}", where=incident)
    for one, actor in actors.items():
        lift(workspace.office(one), kind, who, by=actor)
        kept.lifted(incident, kind, who, site=one, by=actor)
    return who


def still_frozen(workspace: Workspace, incident: Incident) -> dict[tuple[str, str], list[str]]:
    """What an incident froze and is frozen still: at which sites, by kind and name.

    A site that can't be asked, because it isn't here or doesn't open, is told as it was recorded.
    What was frozen for it and never written down is told too.
    """
    held: dict[tuple[str, str], list[str]] = {}
    for site in (COORDINATOR, *workspace.silos):
        with suppress(AbfedError):
            for row in frozen_at(workspace.office(site)):
                kind, name = row["kind"], row["name"]
                if row["reason"] == incident.id and not _noted(incident, kind, name, site):
                    held.setdefault((kind, name), []).append(site)
    for one in incident.contained:
        if one.lifted_at:
            continue
        with suppress(AbfedError):
            rows = frozen_at(workspace.office(one.site)) if one.site else ()
            if one.site and (one.kind, one.name) not in {(r["kind"], r["name"]) for r in rows}:
                continue  # let go by another way, as a person is by `abfed access restore`
        held.setdefault((one.kind, one.name), []).append(one.site or one.by.rpartition(" at ")[2])
    return held
