"""Scoring a brand's list inside its silo: who may, and where the list is put.

The right is judged by the silo, for one of its own people or for whoever submitted the plan (S9).
The list lies in the silo's folder and nowhere else; the log names model, person and purpose.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from abfed.lab.coordination import COORDINATOR
from abfed.lab.session import is_signed_in
from abfed.protocol.errors import InputError, Refused
from abfed.silo.lists import Lists
from abfed.silo.mapping import ExportMapping
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.scoring import Scored, Wanted

if TYPE_CHECKING:
    from abfed.lab.workspace import Workspace
    from abfed.silo.models import Models


class Order(NamedTuple):
    """What a list is wanted for.

    Attributes:
        silo: the brand.
        model: a kept model, by its plan's name or the first digits of its digest.
        export: the brand's list of people.
        mapping: how to read it.
        purpose: as the silo's policy names it.
        explore: the largest share of sends in which a random arm is drawn.
        personal: whether the model's last layer is fitted to the brand first.
        send_at: when the list will be sent, in UTC where it has no zone; now where left out.
    """

    silo: str
    model: str
    export: Path
    mapping: Path
    purpose: str
    explore: float = 0.1
    personal: bool = False
    send_at: datetime | None = None


def score_list(workspace: Workspace, order: Order) -> tuple[Path, Scored]:
    """Score a list and write it into the silo's folder.

    Raises:
        Refused: nobody who may is signed in, or the silo says no.
        InputError, DataError: no such model, or the list can't be read.
        IntegrityError: the silo's folder of lists is a link.
    """
    if not 0 <= order.explore <= 1:
        raise InputError(f"explore is {order.explore:g}", why="it is a share, from 0 to 1")
    with workspace.silo(order.silo) as service:
        person = _scorer(workspace, service.models, order)
        model = service.models.find(order.model)
        mapping = ExportMapping.load(order.mapping)
        lists = Lists(workspace.silo_folder(order.silo), Pseudonyms(service.keys))
        lists.make_ready()
        wanted = Wanted(order.export, mapping, order.explore, order.send_at or workspace.clock())
        scored = service.score(
            model, wanted, purpose=order.purpose, person=person, personal=order.personal
        )
        path = lists.keep(
            f"{model.plan.name}-{model.digest[:8]}-{secrets.token_hex(4)}.csv",
            scored.text,
            unless=service.changed_meanwhile,
        )
    if path is None:
        raise Refused("people were erased or barred meanwhile", code="failed", do="ask again")
    return path, scored


def _scorer(workspace: Workspace, models: Models, order: Order) -> str:
    """Who scores, once it is known that they may.

    Which models a silo keeps is told to those only who may score with them: to others a model of
    somebody else's plan and one that there isn't are refused in the same words.
    """
    site = order.silo if is_signed_in(workspace.lab, order.silo) else COORDINATOR
    try:
        return workspace.office(order.silo).actor(
            "model.score",
            lambda: workspace.session(site),
            submitter=_submitter(models, order.model),
        )
    except Refused as refused:
        if refused.code != "rights":
            raise
        raise Refused(
            f"{order.silo} keeps no model called {order.model!r:.60} that you may score with",
            code=refused.code,
            where=refused.where,
            why=f"there is none, or it isn't yours to use: {refused.what}",
            do=f"look for its name with `abfed model list`, or {refused.do}",
        ) from refused


def _submitter(models: Models, name: str) -> str:
    """Whose plan it is of all models that are called so; nobody's where they are of several."""
    people = {model.submitter for model in models.called(name).values()}
    return people.pop() if len(people) == 1 else ""
