"""The desk: what asking takes, and what of it is found once instead of anew for each step or silo.

A plan and a listing of nodes name all silos. What a round costs may not grow with their number
where few of them are asked.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from abfed.coordinator.anchors import Anchors
from abfed.coordinator.front import Front
from abfed.coordinator.inbox import Inbox
from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.plan import Plan
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock
from abfed.site.keys import SiteKeys

LISTED_SECONDS = 5.0
"""How long a listing of nodes counts. Flower itself holds a node that went for connected longer."""


def addresses_of(grid: Grid) -> dict[str, int]:
    """The node of each connected silo, by the name it was registered under.

    A wrong name is harmless: an answer counts for the silo that signed it, or not at all.
    """
    return {node.name: node.node_id for node in grid.get_nodes() if node.name}


class Nodes:
    """Where silos are, by the newest listing.

    Nodes are listed anew when the last listing is `LISTED_SECONDS` old, or lacks a silo that is to
    be asked; and a step that has to ask again lists them, and tells us.
    """

    def __init__(self) -> None:
        self._grid: Grid | None = None
        self._found: Mapping[str, int] = {}
        self._listed = -math.inf

    def of(self, grid: Grid, silos: Collection[str]) -> Mapping[str, int]:
        """The nodes of at least these silos, as far as they are connected."""
        old = grid is not self._grid or time.monotonic() - self._listed > LISTED_SECONDS
        if old or not all(silo in self._found for silo in silos):
            self._grid = grid
            self.learn(addresses_of(grid))
        return self._found

    def learn(self, found: Mapping[str, int]) -> None:
        """Take a listing that somebody else has just made."""
        self._found, self._listed = found, time.monotonic()


@dataclass
class Desk:
    """What asking takes: who we are, what we ask, and who judges the answers.

    Attributes:
        boxes: exchange key of each silo that requests are sealed to; empty where nobody is between.
        anchors: heads of the silos' logs that were seen; none are kept where None.
        nodes: where silos are.
    """

    plan: Plan
    keys: SiteKeys
    audit: AuditLog
    inbox: Inbox
    front: Front
    clock: Clock
    boxes: Mapping[str, bytes] = field(default_factory=dict)
    anchors: Anchors | None = None
    nodes: Nodes = field(default_factory=Nodes)

    @functools.cached_property
    def plan_text(self) -> str:
        """The plan as each request carries it."""
        return self.plan.canonical_bytes().decode()

    @functools.cached_property
    def plan_json(self) -> bytes:
        """That text as it stands in a request's JSON."""
        return canonical_bytes(self.plan_text)
