"""Playbooks: what to do in an incident, by whom, how soon; as files that people own and review.

The shipped ones lie in `abfed/lab/incidents/playbooks`. A workspace may keep its own under
`playbooks/`: a file there of the same name counts instead.
"""

from __future__ import annotations

from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError
from abfed.protocol.identity import Role
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.files import write_private
from abfed.site.vendors import Day

FOLDER = "playbooks"

Act = Literal["contain", "verify", "evidence", "recover", "tell"]


class Step(Frozen):
    """One step: what kind of act, in words, and how soon after the incident is known."""

    act: Act
    within_minutes: Annotated[int, Field(ge=1)]
    do: Annotated[str, Field(min_length=1, max_length=500)]


class Playbook(Frozen):
    """What to do in one kind of incident.

    Attributes:
        name, title: which.
        owner: the role that answers for the file.
        reviewed_on, review_every_days: when it was last read through, and how often it must be.
        signs: how the incident shows.
        steps: what to do, in order.
    """

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    owner: Role
    reviewed_on: Day
    review_every_days: Annotated[int, Field(ge=1, le=730)] = 180
    signs: tuple[str, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    @property
    def due_on(self) -> date:
        """The day on which it has to be reviewed again."""
        return date.fromisoformat(self.reviewed_on) + timedelta(days=self.review_every_days)


def playbooks(workspace: Path | None = None) -> dict[str, Playbook]:
    """All playbooks by name; a workspace's own stand in for the shipped ones.

    Raises:
        InputError: a file is malformed, or is named otherwise than its playbook.
    """
    texts = {
        Path(str(entry)).stem: (str(entry.name), entry.read_bytes())
        for entry in files("abfed.lab.incidents").joinpath(FOLDER).iterdir()
        if entry.name.endswith(".yaml")
    }
    own = workspace / FOLDER if workspace is not None else None
    if own is not None and own.is_dir():
        texts |= {path.stem: (str(path), path.read_bytes()) for path in own.glob("*.yaml")}
    found: dict[str, Playbook] = {}
    for name, (where, data) in sorted(texts.items()):
        values = parse_yaml(data, where=where, error=InputError)
        playbook = parse_record(Playbook, values, where=where)
        if playbook.name != name:
            raise InputError(f"the file is of playbook {playbook.name!r}", where=where)
        found[name] = playbook
    return found


def find_playbook(name: str, workspace: Path | None = None) -> Playbook:
    """One playbook.

    Raises:
        InputError: there is none of this name.
    """
    known = playbooks(workspace)
    if name not in known:
        raise InputError(f"there is no playbook {name!r:.60}", do=f"one of {', '.join(known)}")
    return known[name]


def copy_playbooks(workspace: Path) -> list[Path]:
    """Copy the shipped playbooks into a workspace, for its people to change; none is replaced."""
    made: list[Path] = []
    for entry in files("abfed.lab.incidents").joinpath(FOLDER).iterdir():
        target = workspace / FOLDER / entry.name
        if entry.name.endswith(".yaml") and not target.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            write_private(target, entry.read_bytes())
            made.append(target)
    return sorted(made)
