"""The sites of the month: a coordinator and three brands, founded, with policies and people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from argon2.profiles import RFC_9106_LOW_MEMORY

from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.protocol.identity import Role
from abfed.site.factors import otp_code
from abfed.site.files import make_private_folder, write_private
from abfed.site.people import People

BEGINS = datetime(2026, 12, 1, 7, tzinfo=UTC)
DAYS = 30
BRANDS = ("aurora", "borealis", "corvid")
PASSWORD = "made up for this month alone"  # noqa: S105 - of people who don't exist
PASSPHRASE = "made up for these backups alone"  # noqa: S105 - of brands that don't exist
COORDINATOR = "coordinator"
STAFF: dict[str, tuple[Role, ...]] = {
    "ada": ("analyst",),
    "sam": ("security-officer",),
    "olga": ("privacy-officer",),
    "max": ("silo-admin",),
    "tess": ("auditor",),
}


@dataclass
class Clock:
    """The time of the month: it moves when it is told to, and a little at each look."""

    now: datetime = BEGINS

    def __call__(self) -> datetime:
        """Now; a millisecond later than the last time."""
        self.now += timedelta(milliseconds=1)
        return self.now

    def until(self, day: int, hour: int) -> None:
        """Let time pass until an hour of a day of the month, counted from 0."""
        self.now = max(self.now, BEGINS + timedelta(days=day, hours=hour - BEGINS.hour))


@dataclass
class Sites:
    """The sites, and the people who sign in at them.

    Attributes:
        folder: where everything goes; must not be there yet.
        hashing: of passwords.
        scale: multiplies the brands' numbers of recipients.
        tell: told what happens, a line at a time.
        clock: the time of all sites.
        secrets: the second factor of each person, by name and site.
        day: of the month, from 0.
    """

    folder: Path
    hashing: Any = field(default_factory=lambda: RFC_9106_LOW_MEMORY)
    scale: float = 0.1
    tell: Callable[[str], None] = print
    clock: Clock = field(default_factory=Clock)
    secrets: dict[tuple[str, str], str] = field(default_factory=dict)
    day: int = 0

    def found(self) -> None:
        """Found the sites, with their people and policies."""
        make_private_folder(self.folder)
        self.workspace = Workspace.create(self.folder / "workspace", clock=self.clock)
        write_brands(self.workspace.data, seed=11, scale=self.scale)
        for name in BRANDS:
            brand = self.workspace.data / name
            found_and_ingest(
                self.workspace, name, brand / "export.csv", brand / "mapping.yaml", synthetic=True
            )
            self.rules(name)
        access = self.workspace.coordinator / "access.yaml"
        values = yaml.safe_load(access.read_text(encoding="utf-8"))
        values |= {"training": [{"role": "analyst", "module": "privacy-basics"}]}
        values |= {"four_eyes": {"model_export": True}}
        write_private(access, yaml.safe_dump(values).encode())
        for site in (COORDINATOR, *BRANDS):
            for name, roles in STAFF.items():
                self.enrol(site, name, roles)
        self.tell(f"founded: {', '.join(BRANDS)}, with {len(self.secrets)} people")

    def rules(self, silo: str) -> None:
        """What a silo's people write into its policy on the first day."""
        path = self.workspace.silo_folder(silo) / "policy.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values |= {
            "retention_days": 730,
            "checkup_within_days": 31,
            "rerun_reserve": 2.0,
            "retrain_after_erasure": True,
        }
        values["access"]["training"] = [{"role": "analyst", "module": "privacy-basics"}]
        write_private(path, yaml.safe_dump(values).encode())

    def enrol(self, site: str, name: str, roles: tuple[Role, ...], days: int = 90) -> None:
        """Enrol somebody at a site, trained, with their roles."""
        office = self.workspace.office(site)
        people = People(office.folder, office.keys, office.audit, self.clock, hashing=self.hashing)
        enrolled = people.enrol(name, PASSWORD, by="sam")
        self.secrets[name, site] = enrolled.otp_secret
        people.attest(name, "privacy-basics", by="sam", lasts=timedelta(days=365))
        for role in roles:
            people.grant(name, role, owner="sam", reason="their work", lasts=timedelta(days=days))

    def signed_in(self, name: str, site: str = COORDINATOR) -> str:
        """Sign somebody in at a site, by password and a code that was not used yet."""
        self.clock.now += timedelta(seconds=31)
        code = otp_code(self.secrets[name, site], self.clock.now)
        return self.workspace.sign_in(name, PASSWORD, code, site=site).who
