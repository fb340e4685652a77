"""Containing at several sites at once: the same is meant everywhere, and no site waits (S15)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from abfed.lab.coordination import COORDINATOR
from abfed.lab.entrance import Entrance
from abfed.lab.offices import parse_who
from abfed.lab.responding import Contained, contain, frozen_at, incidents_of, lift
from abfed.protocol.errors import AbfedError, InputError, RunFailed
from abfed.site.incidents import Incident


def meant(workspace: Entrance, kind: str, name: str, site: str) -> str:
    """What a name stands for at every site: a person's without a site is of this one.

    Raises:
        InputError: nobody at a site of this machine is called so; a slip of the pen freezes nobody.
    """
    if kind != "person":
        return name
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
    workspace: Entrance,
    incident: str,
    kind: str,
    name: str,
    *,
    site: str,
    actors: Mapping[str, str],
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

    Raises:
        InputError: there is no such incident, it is closed, or nobody is called so.
        AbfedError: no site froze it; what the first one said.
        RunFailed: some sites did not freeze it; the others did.
    """
    kept = incidents_of(workspace.office(site))
    kept.find_open(incident)
    who, done = meant(workspace, kind, name, site), []
    failed: dict[str, AbfedError] = {}
    for one, actor in actors.items():
        try:
            made = contain(workspace.office(one), kind, who, by=actor, reason=incident)
        except AbfedError as error:
            failed[one] = error
            continue
        kept.contained(incident, kind, who, site=one, by=actor, durable_ms=made.durable_ms)
        done.append(made)
    if failed and not done:
        raise next(iter(failed.values()))
    if failed:
        raise RunFailed(
            f"{kind} {who[:60]} was not frozen at {', '.join(failed)}",
            why="; ".join(f"{one}: {error.what}" for one, error in failed.items()),
            where=f"frozen at {', '.join(one.site for one in done) or 'no site'}",
        )
    return done


def lift_everywhere(
    workspace: Entrance,
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
    person, home = parse_who(name, site) if kind == "person" else ("", "")
    who = f"{person}@{home}" if person else name
    for one in actors:
        if (kind, who) not in {
            (row["kind"], row["name"]) for row in frozen_at(workspace.office(one))
        }:
            raise InputError(f"{kind} {who[:60]} is not frozen at {one}", where=incident)
    for one, actor in actors.items():
        lift(workspace.office(one), kind, who, by=actor)
        kept.lifted(incident, kind, who, site=one, by=actor)
    return who


def still_frozen(workspace: Entrance, incident: Incident) -> dict[tuple[str, str], list[str]]:
    """What an incident froze and is frozen still: at which sites, by kind and name.

    A site that can't be asked, because it isn't here or doesn't open, is told as it was recorded.
    """
    held: dict[tuple[str, str], list[str]] = {}
    for one in incident.contained:
        if one.lifted_at:
            continue
        with suppress(AbfedError):
            rows = frozen_at(workspace.office(one.site)) if one.site else ()
            if one.site and (one.kind, one.name) not in {(r["kind"], r["name"]) for r in rows}:
                continue  # let go by another way, as a person is by `abfed access restore`
        held.setdefault((one.kind, one.name), []).append(one.site or one.by.rpartition(" at ")[2])
    return held
