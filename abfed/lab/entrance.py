"""The entrance of a workspace: its sites' offices, signing in, and what judges who came in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from abfed.lab.coordination import COORDINATOR, SILOS_FILE, coordinator_access
from abfed.lab.offices import Office
from abfed.protocol.canonical import parse_canonical
from abfed.protocol.identity import Right
from abfed.site.clock import Clock
from abfed.site.files import read_private
from abfed.site.freezes import Freezes
from abfed.site.people import People
from abfed.site.stops import Stops

if TYPE_CHECKING:
    from abfed.coordinator.front import Front
    from abfed.lab.session import Session
    from abfed.site.device import Shown
    from abfed.site.proofs import Second


class Entrance(ABC):
    """What a workspace offers to people who come in.

    Attributes:
        path: the workspace's folder.
        people: the coordinator's people.
        clock: where the time comes from, for all sites of this workspace.
    """

    path: Path
    people: People
    clock: Clock

    @property
    @abstractmethod
    def silos(self) -> tuple[str, ...]:
        """Names of the silos."""

    @abstractmethod
    def place_of(self, name: str) -> Path:
        """Where a silo lies, or is to lie."""

    @abstractmethod
    def silo_folder(self, name: str) -> Path:
        """A silo's folder."""

    @property
    def silos_here(self) -> tuple[str, ...]:
        """Those whose folder is there: one that was lost is listed still, and stops no other."""
        return tuple(name for name in self.silos if self.place_of(name).exists())

    @property
    def coordinator(self) -> Path:
        """The coordinator's site folder."""
        return self.path / COORDINATOR

    @property
    def lab(self) -> Path:
        """Where the researcher's session lies."""
        return self.path / "lab"

    def sites(self) -> tuple[str, ...]:
        """The coordinator and the silos, here and in its federation, by name."""
        admitted = (self.path / "federation" / "admitted").glob("*.pem")
        return (COORDINATOR, *sorted({*self.silos, *(path.stem for path in admitted)}))

    def pinned_keys(self) -> dict[str, bytes]:
        """Public keys of the silos, as the coordinator pinned them."""
        file = self.coordinator / SILOS_FILE
        values = parse_canonical(read_private(file), where=str(file))
        return {name: bytes.fromhex(key) for name, key in values.items()}

    def office(self, site: str = COORDINATOR) -> Office:
        """Where a site's people are kept and judged: only where its keys are, so embedded."""
        if site == COORDINATOR:
            return Office.of_coordinator(self.coordinator, self.clock)
        return Office.of_silo(self.silo_folder(site), self.clock)

    def sign_in(
        self, name: str, password: str, second: Second, *, site: str = COORDINATOR
    ) -> Session:
        """Sign a person of a site in, and keep the session.

        Args:
            name: who.
            password: theirs.
            second: a one-time code, or the touch of a hardware key.
            site: the site.

        Raises:
            Refused: without saying which of name, password and second factor was wrong.
        """
        from abfed.lab.session import sign_in

        people = self.office(site).people
        session = sign_in(people, name, password, second, audience=self.sites())
        session.keep(self.lab)
        return session

    def sign_in_with_key(self, key_file: Path, *, site: str = COORDINATOR) -> Session:
        """Sign a service account of a site in by its key, and keep the session.

        Raises:
            Refused: no such account, stopped, or not its key.
        """
        from abfed.lab.session import sign_in_with_key

        session = sign_in_with_key(self.office(site).people, key_file, audience=self.sites())
        session.keep(self.lab)
        return session

    def sign_in_by_device(
        self, show: Callable[[Shown], None], *, site: str = COORDINATOR
    ) -> Session:
        """Sign a person in through the provider that a site trusts, and keep the session.

        Args:
            show: tells the person where to go and what to type there.
            site: the site.

        Raises:
            WorkspaceError: the site trusts none.
            Refused: the provider, or the site, said no.
        """
        from abfed.lab.session import sign_in_by_device

        session = sign_in_by_device(self.office(site), show, audience=self.sites())
        session.keep(self.lab)
        return session

    def sign_in_development(self) -> Session:
        """Sign in as the person who was made up for trying abfed out, and keep the session.

        Raises:
            WorkspaceError: this workspace has none.
        """
        from abfed.lab.development import sign_in_development

        session = sign_in_development(self.lab, self.people, audience=self.sites())
        session.keep(self.lab)
        return session

    def session(self, site: str = COORDINATOR) -> Session:
        """The session at a site that is kept here.

        Raises:
            Refused: nobody is signed in there.
        """
        from abfed.lab.approvals import approvals_of
        from abfed.lab.session import load_session

        session = load_session(self.lab, self.office(site).people, audience=self.sites())
        session.approvals = partial(approvals_of, self.lab)
        return session

    def authorise(self, right: Right, site: str = COORDINATOR, *, submitter: str = "") -> str:
        """Who acts at a site, once it is known that they may: for any act that needs a right.

        Dangerous rights need a second factor of the last minutes: `abfed login --fresh`.

        Args:
            right: what they want to do.
            site: where; it is judged there, by that site's own policy.
            submitter: whose plan, run or model it is.

        Raises:
            Refused: nobody is signed in there, or they may not.
        """
        return self.office(site).actor(right, lambda: self.session(site), submitter=submitter)

    def front(self, session: Session) -> Front:
        """What judges the person of a session at the coordinator."""
        from abfed.coordinator.front import Front

        stops = Stops(self.coordinator, self.people.keys, self.clock)
        policy = partial(coordinator_access, self.coordinator)
        freezes = Freezes(self.coordinator, self.people.keys, self.clock)
        return Front(
            COORDINATOR,
            session.present,
            policy,
            stops.barred,
            clock=self.clock,
            freezes=freezes,
            key=self.people.keys.key_id,
        )
