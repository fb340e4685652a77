"""An order: what starts a run at the coordinator, shown by a person who is signed in (S11, S12).

Open-source Flower lets anyone who reaches its control port start anything. Here a run's server app
does nothing without an order: a plan, and what its asker shows for it (a token of this site, and
the word of the session's key that it submits this very plan). Both are judged by the front before
anybody is asked, and again by each silo. Only an order's digest is shown to Flower.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import InputError, IntegrityError
from abfed.protocol.identity import Presented
from abfed.protocol.messages import MAX_HEADER
from abfed.protocol.plan import Plan
from abfed.protocol.schema import Frozen
from abfed.protocol.yamltext import parse_yaml
from abfed.site.files import read_private, write_private


class Order(Frozen):
    """What is asked for, and by whom.

    Attributes:
        plan: the plan's YAML, as it was given.
        presented: what the person shows for it.
    """

    version: int = 1
    plan: Annotated[str, Field(max_length=MAX_HEADER)]
    presented: Presented

    def load_plan(self) -> Plan:
        """The plan.

        Raises:
            PlanError: it is malformed.
        """
        return Plan.from_values(parse_yaml(self.plan.encode(), where="plan"), where="plan")


def place_order(folder: Path, order: Order) -> str:
    """Put an order into the folder; returns its digest."""
    content = canonical_bytes(order.model_dump(mode="json"))
    digest = sha256_hex(content)
    write_private(path_of(folder, digest), content)
    return digest


def take_order(folder: Path, digest: str) -> Order:
    """The order that a run names.

    Raises:
        InputError: there is none, or it isn't one.
        IntegrityError: it was changed.
    """
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InputError("the run names no order", where="order")
    path = path_of(folder, digest)
    if not path.exists():
        raise InputError("there is no such order", where=digest[:16])
    content = read_private(path)
    if sha256_hex(content) != digest:
        raise IntegrityError("the order was changed", where=digest[:16])
    return parse_record(Order, parse_canonical(content, where="order"), where="order")


def renewed(order: Order, renew: Callable[[str], str]) -> Callable[[Plan], Presented]:
    """Gives what an order's asker shows, with a token that is in date: a run outlives one.

    Args:
        order: the order.
        renew: the site's sign-in; it refuses once the person is stopped or the session is over.
    """
    held = [order.presented]

    def show(_: Plan) -> Presented:
        held[0] = held[0].model_copy(update={"token": renew(held[0].token)})
        return held[0]

    return show


def path_of(folder: Path, digest: str) -> Path:
    """Where an order lies."""
    return folder / f"{digest}.order"


def events_of(folder: Path, digest: str) -> Path:
    """Where the events of its run are written, one JSON line each."""
    return folder / f"{digest}.events"
