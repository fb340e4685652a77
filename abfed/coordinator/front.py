"""The front: whoever asks is judged when a plan is submitted, and again with each message (S12).

It is the same judgement as inside the silos, by the coordinator's own policy. It spares people a
refusal by every silo and keeps strangers from using the coordinator's key; it is not what protects
the silos, who judge again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from abfed.protocol.declared import parse_record
from abfed.protocol.errors import Refused, WorkspaceError
from abfed.protocol.identity import Presented
from abfed.protocol.plan import Plan
from abfed.protocol.yamltext import parse_yaml
from abfed.site.access import Asker, Barred, Place, judge_asker
from abfed.site.clock import Clock, system_clock
from abfed.site.files import read_private
from abfed.site.freezes import Freezes
from abfed.site.rights import AccessPolicy

ACCESS_FILE = "access.yaml"  # in the coordinator's site folder


@dataclass(frozen=True)
class Front:
    """Who asks, and what lets them.

    Attributes:
        site: the coordinator's name.
        person: gives what the person shows for a plan, as it is now.
        policy: gives the coordinator's access policy, as it is now.
        barred: gives whom this site doesn't hear, as it is now.
        freezes: what is frozen here; nothing where None.
        clock: where the time comes from.
        key: the name of this site's own key.
    """

    site: str
    person: Callable[[Plan], Presented]
    policy: Callable[[], AccessPolicy]
    barred: Callable[[], Barred]
    clock: Clock = system_clock
    freezes: Freezes | None = None
    key: str = ""

    def admit(self, plan: Plan) -> tuple[Presented, Asker]:
        """What goes to the silos, once it is found good here.

        Raises:
            Refused: nobody is signed in, they may not, or this site, its key or the plan is frozen.
        """
        if self.freezes is not None:
            self.freezes.check({"silo": self.site, "key": self.key, "plan": plan.digest})
        presented = self.person(plan)
        place = Place(self.site, self.policy(), self.clock(), self.barred())
        return presented, judge_asker(presented, plan.digest, place)

    def bars(self, silo: str, key: str) -> bool:
        """Whether a silo, or the key that signs its answers, is frozen here (S15)."""
        if self.freezes is None:
            return False
        try:
            self.freezes.check({"silo": silo, "key": key})
        except Refused:
            return True
        return False


def load_access(path: Path) -> AccessPolicy:
    """The coordinator's access policy, as it is now.

    Raises:
        WorkspaceError: it is missing or malformed, so nobody may do anything.
    """
    values = parse_yaml(read_private(path), where=str(path), error=WorkspaceError)
    return parse_record(AccessPolicy, values, where=str(path), error=WorkspaceError)
