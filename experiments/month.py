"""A month of operation of three made-up brands, in minutes: `python experiments/month.py FOLDER`.

Nothing is played: a workspace with a coordinator and three silos is founded, people sign in with
password and second factor, and each day does what such a day asks for, through the same functions
that the commands call. Only the clock is not the machine's: it is given to the workspace and moves
on by days.

1. Runs: one of totals, one with a model, which is approved; one asked again after an erasure.
2. People: exports, objections, erasures, one of them received and answered days later.
3. Grants: somebody comes, is trained, has their access ended; every site's rights are reviewed.
4. One incident: a laptop is stolen, contained at every site, refused, proved, told, closed.
5. One vendor whose agreement runs out, is refused, and is approved anew.
6. One key rotated; backups each week, the doctor each week, the watch each morning.

It ends with a security review and its page. What is red there, or alarmed on the way, is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from abfed.lab.incidents.drills import drill
from abfed.lab.incidents.playbook import find_playbook
from abfed.lab.incidents.responding import (
    contain,
    incidents_of,
    vendors_of,
    verify_evidence,
    write_evidence,
)
from abfed.lab.models import approve
from abfed.lab.reports.report import write_report
from abfed.lab.reports.sharing import make_reader_key, pin_reader, share_report
from abfed.lab.reports.subjects import find_subject
from abfed.lab.samples.shipped import shipped
from abfed.lab.security.posture import Posture, assess, keep
from abfed.lab.upkeep.backups import back_up
from abfed.lab.upkeep.doctor import CheckUp, check_lab, check_up
from abfed.lab.upkeep.rekeying import rekey
from abfed.lab.watch.watching import Watch
from abfed.protocol.declared import parse_record
from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from abfed.silo.subjects import Subjects
from abfed.site.files import make_private_folder
from abfed.site.reviews import Verdict
from abfed.site.vendors import Vendor
from experiments.month_sites import BEGINS, BRANDS, COORDINATOR, DAYS, PASSPHRASE, Sites


@dataclass
class Month(Sites):
    """The month, and what was seen in it.

    Attributes:
        lab: gives the installation's check-up.
        alarms: day, rule and subject of each that was told.
        reviews: how the controls stood, by the day on which they were looked at.
        refused: what was refused, with why.
        page: of the last review.
    """

    lab: Callable[[Path, datetime], CheckUp] = check_lab
    alarms: list[tuple[int, str, str]] = field(default_factory=list)
    reviews: dict[int, Posture] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    page: Path | None = None

    def live(self) -> Posture:
        """Let the month pass; returns the review at its end."""
        self.found()
        for self.day in range(DAYS + 1):
            self.clock.until(self.day, 8)
            self.watch()
            if act := self.days().get(self.day):
                self.clock.until(self.day, 10)
                act()
            if self.day % 7 == 0 or self.day == DAYS:
                self.clock.until(self.day, 17)
                self.doctor()
        return self.review()

    def days(self) -> dict[int, Callable[[], None]]:
        """What each day asks for."""
        return {
            1: self.vendor_comes,
            2: self.first_run,
            3: self.somebody_comes,
            4: self.drilled,
            6: self.people_ask,
            8: self.model,
            9: self.shared,
            10: self.erasure_is_received,
            14: self.erasure_is_answered,
            15: self.asked_again,
            16: self.laptop_is_stolen,
            18: self.incident_is_closed,
            20: self.vendor_has_ended,
            22: self.vendor_is_approved_anew,
            24: self.rights_are_reviewed,
            26: self.key_is_rotated,
        }

    @contextmanager
    def expecting_refusal(self, what: str) -> Iterator[None]:
        """What must be refused is; and is kept, to be shown."""
        try:
            yield
        except Refused as refused:
            self.refused[what] = refused.what
            self.tell(f"day {self.day:2}: {what}: refused, {refused.what}")
            return
        message = f"{what}: it was not refused"
        raise AssertionError(message)

    # ---- every day, every week

    def watch(self) -> None:
        """Purge what is past retention, and look, as every morning."""
        for silo in BRANDS:
            with self.workspace.silo(silo) as service:
                service.purge()
        for alarm in Watch(self.workspace).look().new:
            self.alarms.append((self.day, alarm.rule, f"{alarm.site} {alarm.subject}".strip()))
            self.tell(f"day {self.day:2}: alarm {alarm.rule} at {alarm.site}: {alarm.what}")

    def doctor(self) -> None:
        """Back every silo up, and examine every site."""
        for silo in BRANDS:
            actor = self.signed_in("max", silo)
            self.workspace.authorise("keys.rotate", silo)
            path = self.folder / "backups" / f"{silo}-{self.day:02}.backup"
            make_private_folder(path.parent)
            back_up(self.workspace, silo, path, PASSPHRASE, by=actor)
        worst = {
            site: check_up(self.workspace, site, self.clock()).worst
            for site in (COORDINATOR, *BRANDS)
        }
        self.tell(f"day {self.day:2}: backed up and examined; worst found: {set(worst.values())}")
        if not self.day:
            self.reviewed()

    def reviewed(self) -> Posture:
        """How the controls stand now; kept under the day."""
        now = self.clock()
        found = assess(self.workspace, self.lab(self.workspace.path, now), now)
        self.reviews[self.day] = found
        self.tell(f"day {self.day:2}: review: {', '.join(found.red) or 'nothing'} is red")
        return found

    def review(self) -> Posture:
        """The review at the end, and its page."""
        found = self.reviewed()
        keep(self.workspace, found, by=self.signed_in("sam"))
        self.page = self.report()
        self.tell(f"the page: {self.page}")
        return found

    def report(self) -> Path:
        """The page of the newest review."""
        subject = find_subject(self.workspace, "security")
        return write_report(subject, self.workspace.reports_folder, signer=self.workspace.keys)

    # ---- runs and models

    def plan(self, name: str, *, model: bool) -> Plan:
        """The demo's plan, with one short round where it trains a model."""
        values = yaml.safe_load(shipped("experiments/spring.yaml").read_text(encoding="utf-8"))
        values |= {"name": name, "training": {"rounds": 1, "local_steps": 3, "sampling_rate": 0.1}}
        values["privacy"] = {
            "epsilon": 2.0,
            "split": {"statistics": 1.0, "training": 0.5, "evaluation": 0.5},
        }
        if not model:
            del values["model"], values["training"], values["features"]
            values["privacy"] = {"epsilon": 1.0, "split": {"statistics": 1.0}}
        return Plan.from_values(values)

    def ask(self, plan: Plan) -> None:
        """Ask a plan, for whoever is signed in."""
        run = self.workspace.run(plan)
        self.tell(f"day {self.day:2}: {run.name}: {len(run.silos)} brands answered")

    def first_run(self) -> None:
        """Ada asks for totals."""
        self.signed_in("ada")
        self.ask(self.plan("totals", model=False))

    def model(self) -> None:
        """Eve trains a model; Olga, who didn't ask for it, approves it."""
        self.signed_in("eve")
        self.ask(self.plan("with-model", model=True))
        self.signed_in("olga")
        approve(self.workspace, "with-model", reason="better than none, and explained")

    def asked_again(self) -> None:
        """A model is trained without those who were erased.

        At brands whose data is as it was, the old plan has its one model; so it is a new plan.
        """
        self.signed_in("ada")
        self.ask(self.plan("with-model-anew", model=True))

    # ---- people whom the data is about

    def people_ask(self) -> None:
        """One wants a copy, two object; all are answered on the day."""
        actor = self.signed_in("olga", "borealis")
        self.workspace.authorise("subject.export", "borealis")
        with self.workspace.silo("borealis") as service:
            subjects = Subjects(service)
            _, data = subjects.export("borealis-000003@example.com", by=actor)
            objecting = ["borealis-000004@example.com", "borealis-000005@example.com"]
            receipts = subjects.carry_out("opt-out", objecting, by=actor, law="ccpa")
        self.tell(f"day {self.day:2}: {len(data['sends'])} sends given, {len(receipts)} objections")

    def erasure_is_received(self) -> None:
        """Two ask to be erased: written down, so that the month of the law runs."""
        self.signed_in("olga", "aurora")
        self.workspace.authorise("subject.erase", "aurora")
        with self.workspace.silo("aurora") as service:
            (first, *_) = Subjects(service).receive("erase", self.erased())
        self.tell(f"day {self.day:2}: two erasures received, due on {first.due_on}")

    def erasure_is_answered(self) -> None:
        """They are erased; the plan whose model knew them is queued to be trained again."""
        actor = self.signed_in("olga", "aurora")
        self.workspace.authorise("subject.erase", "aurora")
        with self.workspace.silo("aurora") as service:
            receipts = Subjects(service).carry_out("erase", self.erased(), by=actor)
        affected = {plan.name for one in receipts for plan in one.affected}
        self.tell(f"day {self.day:2}: {len(receipts)} erased; asked again: {', '.join(affected)}")

    @staticmethod
    def erased() -> list[str]:
        """Who asks to be erased."""
        return ["aurora-000001@example.com", "aurora-000002@example.com"]

    # ---- staff

    def somebody_comes(self) -> None:
        """Eve is an analyst for a while."""
        self.signed_in("sam")
        self.workspace.authorise("people.manage")
        self.enrol(COORDINATOR, "eve", ("analyst",), days=20)

    def rights_are_reviewed(self) -> None:
        """Every site's rights are gone through; what ran out is taken back."""
        for site in (COORDINATOR, *BRANDS):
            actor = self.signed_in("sam", site)
            self.workspace.authorise("access.review", site)
            office = self.workspace.office(site)
            verdicts = [
                Verdict(
                    person=line.person,
                    role=line.role,
                    decision="revoke" if line.person == "eve" else "keep",
                )
                for line in office.review_lines()
                if line.marks and f"{line.person}@{site}" != actor
            ]
            review = office.review(verdicts, by=actor)
            self.tell(f"day {self.day:2}: rights of {site} reviewed, {len(review.verdicts)} marked")

    # ---- an incident

    def drilled(self) -> None:
        """The playbook is tried before it is needed."""
        actor = self.signed_in("sam")
        drill(find_playbook("stolen-laptop"), self.workspace.office(), by=actor)

    def laptop_is_stolen(self) -> None:
        """Eve's laptop is gone, with her session on it."""
        self.signed_in("eve")
        stolen = self.workspace.session()
        actor = self.signed_in("sam")
        self.workspace.authorise("incident.contain")
        office = self.workspace.office()
        kept = incidents_of(office)
        self.incident = kept.open("Eve's laptop is gone", by=actor, playbook="stolen-laptop").id
        for site in (COORDINATOR, *BRANDS):
            here = self.workspace.office(site)
            done = contain(here, "person", "eve@coordinator", by=actor, reason=self.incident)
            kept.contained(
                self.incident, "person", done.name, site=site, by=actor, durable_ms=done.durable_ms
            )
        stolen.keep(self.workspace.lab)
        with self.expecting_refusal("the stolen session asks a plan"):
            self.ask(self.plan("stolen", model=False))
        self.signed_in("sam")
        path = self.folder / "evidence.zip"
        sites = (COORDINATOR, *BRANDS)
        write_evidence(self.workspace, office, self.incident, path, sites=sites, by=actor)
        lines = verify_evidence(path, office.keys.public_key)["entries"]
        self.tell(f"day {self.day:2}: contained; evidence of {sum(lines.values())} signed entries")
        self.reviewed()

    def incident_is_closed(self) -> None:
        """The authority is told within 72 hours; the disk was encrypted."""
        actor = self.signed_in("sam")
        self.workspace.authorise("incident.contain")
        kept = incidents_of(self.workspace.office())
        told = kept.told(self.incident, "the authority", "A-1", by=actor)
        kept.close(self.incident, "the disk was encrypted; her session was stopped", by=actor)
        self.tell(f"day {self.day:2}: {self.incident} closed; {told.clock(self.clock())}")

    # ---- a vendor

    @property
    def depot(self) -> Path:
        """A folder that a vendor synchronises."""
        return self.folder / "depot"

    def vendor(self, until: int) -> None:
        """The depot's entry: proposed by Olga, approved by Sam, until a day of the month."""
        ends = f"{BEGINS + timedelta(days=until):%Y-%m-%d}"
        agreement = {"reference": "DPA 7", "signed_on": "2026-11-01", "ends_on": ends}
        values = {
            "name": "depot",
            "purpose": "takes reports to readers",
            "owner": "max",
            "categories": ["contact"],
            "region": "DE",
            "standards": ["ISO 27001"],
            "agreement": agreement,
            "services": [{"kind": "reports", "address": str(self.depot.resolve())}],
            "questionnaire": [{"text": "Is it certified?", "weight": 1.0, "yes": True}],
            "review_by": "2027-11-01",
        }
        register = vendors_of(self.workspace.office())
        register.put(parse_record(Vendor, values, where="vendor"), by=self.signed_in("olga"))
        actor = self.signed_in("sam")
        self.workspace.authorise("vendor.approve")
        register.approve("depot", by=actor)
        self.tell(f"day {self.day:2}: vendor depot is approved until {ends}")

    def vendor_comes(self) -> None:
        """A vendor is vetted; its agreement ends on day 19."""
        self.vendor(19)

    def shared(self) -> None:
        """A page is shared into the vendor's folder, sealed for the auditor."""
        key = make_reader_key(self.folder / "tess.key")
        self.signed_in("sam")
        pin_reader(self.workspace, "tess", key)
        keep(self.workspace, self.reviewed(), by=self.signed_in("sam"))
        self.shown = str(self.report())
        self.share()

    def share(self) -> None:
        """Share that page."""
        self.signed_in("sam")
        (path,) = share_report(self.workspace, self.shown, ["tess"], self.depot)
        self.tell(f"day {self.day:2}: shared as {path.name}")

    def vendor_has_ended(self) -> None:
        """The agreement ended yesterday."""
        with self.expecting_refusal("a page into the depot"):
            self.share()
        check_up(self.workspace, COORDINATOR, self.clock())
        self.reviewed()

    def vendor_is_approved_anew(self) -> None:
        """With a new agreement it may be used again."""
        self.vendor(400)
        self.share()

    # ---- keys

    def key_is_rotated(self) -> None:
        """One brand's key-encryption key is changed; the old one opens backups for a while."""
        self.signed_in("max", "borealis")
        ring = rekey(self.workspace, "borealis", kept=timedelta(days=30))
        self.tell(f"day {self.day:2}: borealis is under key {ring.current.kek}")


def main(arguments: list[str]) -> int:
    """Live a month in a folder, and say what is red at its end."""
    if len(arguments) != 1 or Path(arguments[0]).exists():
        sys.stderr.write("python experiments/month.py FOLDER, which must not be there yet\n")
        return 2
    found = Month(Path(arguments[0])).live()
    for one in found.standings:
        mark = {"red": "NOT SO", "look": "look"}.get(one.state, "holds")
        print(f"{one.id:4} {mark:7} {one.evidence[0]}")  # noqa: T201 - for whoever runs it
    return 5 if found.red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
