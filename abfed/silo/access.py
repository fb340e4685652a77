"""Who may ask this silo: checks 5 and 6 of the gate (S11, S12, S20).

The silo judges people again, whatever the coordinator found: by its own policy, its own clock and
its own list of people who were stopped. Nothing is remembered between requests, so that a change
takes effect at the next message. What can't be read is a no.
"""

from __future__ import annotations

from pathlib import Path

from abfed.protocol.errors import AbfedError, Refused
from abfed.protocol.identity import ROLES, Presented
from abfed.protocol.plan import Plan
from abfed.silo.policy import Policy
from abfed.site.access import Asker, Place, Stopped, judge_asker
from abfed.site.clock import Clock
from abfed.site.foureyes import Approvals, Question, reasons
from abfed.site.keys import SiteKeys
from abfed.site.rights import AccessPolicy, Identity
from abfed.site.stops import Stops


class Access:
    """Judges the people behind requests.

    Args:
        keys: the silo's keys.
        folder: the silo's folder.
        clock: where the time comes from.
    """

    def __init__(self, keys: SiteKeys, folder: Path, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._stops = Stops(folder, keys, clock)
        self._approvals = Approvals(folder, keys)

    def judge(self, presented: Presented, plan: Plan, policy: Policy, epoch: str) -> Asker:
        """Checks 5 and 6.

        Args:
            presented: what came with the request.
            plan: what is asked.
            policy: the policy as it is now.
            epoch: the state of the data.

        Raises:
            Refused: with the code of the check that said no.
        """
        try:
            place = self.place(policy.access)
        except AbfedError as cause:
            raise Refused(
                "the list of stopped people can't be read", code="sign-in", why=cause.what
            ) from cause
        try:
            asker = judge_asker(presented, plan.digest, place)  # 5
        except Stopped as stopped:
            self._stops.refused(stopped.who)
            raise
        if reasons(policy.access.four_eyes, plan):  # 6
            question = Question(plan.digest, epoch, policy.version)
            approvers = self._approvals.judge(presented, question, asker, place)
            asker = asker._replace(approvers=approvers)
        return asker

    def place(self, access: AccessPolicy) -> Place:
        """This silo, now. It takes its own word on people for every role."""
        own = Identity(site=self._keys.site, public_key=self._keys.public_key.hex(), roles=ROLES)
        identities = (*(one for one in access.identities if one.site != own.site), own)
        policy = access.model_copy(update={"identities": identities})
        return Place(self._keys.site, policy, self._clock(), self._stops.barred())
