"""Drills: a playbook carried out from end to end, against a federation that is made for it (S15).

A drill makes two small synthetic brands and a coordinator in a folder of its own, with people who
sign in for real, lets the incident happen, and does what the playbook says: the same acts on the
same registers as in life, each checked by what it must lead to, each timed. What only people can do
(phoning, telling an authority) is recorded as theirs. The record is signed by the site that asked.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from abfed import __version__
from abfed.lab.incidents.playbook import Act, Playbook
from abfed.lab.incidents.responding import (
    contain,
    frozen_at,
    incidents_of,
    vendors_of,
    verify_evidence,
    write_evidence,
)
from abfed.lab.offices import Office
from abfed.lab.session import Session, sign_in
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import AbfedError, IntegrityError, Refused, RunFailed
from abfed.protocol.plan import Plan
from abfed.site.clock import stamp
from abfed.site.factors import otp_code
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.keys import SiteKeys
from abfed.site.vendors import Vendor

FOLDER = "drills"
SCALE = 0.02
PASSWORD = "only for this drill, made up"  # noqa: S105 - of people who are gone with the folder
BY = "drill@coordinator"
BRANDS = ("aurora", "borealis")
QUESTION: dict[str, Any] = {
    "name": "drill",
    "purpose": "email-optimisation",
    "experiment": "spring-2026",
    "silos": list(BRANDS),
    "minimum_silos": 2,
    "arms": [
        {"name": "control", "share": 0.34, "control": True},
        {"name": "warm", "share": 0.33},
        {"name": "urgent", "share": 0.33},
    ],
    "metrics": [{"name": "clicked", "kind": "proportion", "column": "clicked"}],
    "primary": "clicked",
    "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}},
}
WEBHOOK = "https://alerts.example.org/abfed"


class Drilled(NamedTuple):
    """One step of a drill: what was done, how long it took, and what it led to."""

    act: Act
    do: str
    seconds: float
    outcome: str


class Ground:
    """The federation that a drill is held on.

    Args:
        folder: where; removed afterwards.
    """

    def __init__(self, folder: Path) -> None:
        from abfed.lab.intake import found_and_ingest
        from abfed.lab.samples.synth import write_brands

        self.plan = Plan.from_values(QUESTION)
        self.workspace = Workspace.create(folder / "workspace", development=True)
        write_brands(self.workspace.data, seed=1, scale=SCALE)
        for name in BRANDS:
            brand = self.workspace.data / name
            found_and_ingest(
                self.workspace, name, brand / "export.csv", brand / "mapping.yaml", synthetic=True
            )
        self.session = self.workspace.sign_in_development()
        office = self.office()
        self.incident = incidents_of(office).open("a drill", by=BY, playbook="drill").id
        self.folder = folder

    def office(self, site: str = "coordinator") -> Office:
        """A site's office."""
        return self.workspace.office(site)

    def freeze(self, sites: tuple[str, ...], kind: str, name: str) -> str:
        """Contain at these sites; says how long each took until it was on disk."""
        took: list[str] = []
        for site in sites:
            done = contain(self.office(site), kind, name, by=BY, reason="a drill")
            incidents_of(self.office()).contained(
                self.incident, kind, name, site=site, by=BY, durable_ms=done.durable_ms
            )
            took.append(f"{site} {done.durable_ms:.0f} ms")
        return f"on disk, so in effect at the next message: {', '.join(took)}"

    def asked(self) -> Exception | None:
        """Ask the plan; what it was refused with, if it was."""
        try:
            self.workspace.run(self.plan)
        except (Refused, RunFailed) as error:
            return error
        return None

    def expect_refusal(self, *words: str) -> str:
        """Ask, and expect a refusal that says one of these."""
        error = self.asked()
        word = next((one for one in words if one in str(error)), "")
        if error is None or not word:
            raise RunFailed("the incident was not contained", why=str(error or "it was answered"))
        delays = [
            f"{row['refused_after_ms']:.0f} ms after the freeze"
            for site in ("coordinator", *BRANDS)
            for row in frozen_at(self.office(site))
            if row["refused_after_ms"] is not None
        ]
        return f"refused ({word}); first refused {', '.join(delays) or 'at once'}"

    def bundle(self) -> str:
        """Write the evidence and check it as a stranger would."""
        path = self.folder / "evidence.zip"
        sites = ("coordinator", *BRANDS)
        digest = write_evidence(
            self.workspace, self.office(), self.incident, path, sites=sites, by=BY
        )
        checked = verify_evidence(path, self.workspace.keys.public_key)
        lines = sum(checked["entries"].values())
        return f"bundle {digest[:16]} holds {lines} signed entries of {len(sites)} sites; verified"

    def told(self) -> str:
        """Record that it was told."""
        kept = incidents_of(self.office())
        told = kept.told(self.incident, "nobody: a drill", "", by=BY)
        return f"for people to do; the record says {told.clock(self.workspace.clock())}"


Scene = dict[Act, Callable[[Ground], str]]


def _person(ground: Ground) -> str:
    return ground.session.who


def _silo_frozen(ground: Ground) -> str:
    ground.freeze(("coordinator", "aurora"), "silo", "aurora")
    run = ground.workspace.run(ground.plan.model_copy(update={"minimum_silos": 1}))
    if "aurora" not in set(run.left_out["silo"]):
        raise RunFailed("the frozen silo was asked and answered")
    return "aurora is frozen, not asked, and recorded as left out; borealis answered"


def _factor_refused(ground: Ground) -> str:
    """The person's old factor gives no session any more."""
    try:
        ground.workspace.sign_in_development()
    except AbfedError as error:
        return f"signing in with the old factor: {error.what}"
    raise RunFailed("the old factor still counts")


def _enrolled_anew(ground: Ground) -> str:
    people = ground.workspace.people
    enrolled = people.enrol("anew", PASSWORD, by=BY)
    people.grant("anew", "analyst", owner=BY, reason="a drill", lasts=timedelta(days=1))
    code = otp_code(enrolled.otp_secret, people.clock())
    session: Session = sign_in(people, "anew", PASSWORD, code, audience=ground.workspace.sites())
    return f"{session.who} has a new password and a new factor, and is signed in"


def _new_key(ground: Ground) -> str:
    made = SiteKeys.create(ground.folder / "new-keys", site="coordinator")
    return f"new key {made.key_id[:16]} made; pinning it at the brands is by phone, for people"


def _budget_stands(ground: Ground) -> str:
    with ground.workspace.silo("aurora") as silo:
        held = silo.audit.verify().entries
        spent = ", ".join(f"{one.scope} ε = {one.spent:.3g}" for one in silo.standing())
    return f"aurora's log holds ({held} entries); spent, and kept so: {spent or 'nothing'}"


def _vendor_frozen(ground: Ground) -> str:
    vendors = vendors_of(ground.office())
    vendors.put(_vendor(), by="proposer@coordinator")
    vendors.approve("alerts", by="approver@coordinator")
    vendors.require("webhook", WEBHOOK)
    return ground.freeze(("coordinator",), "vendor", "alerts")


def _vendor_refused(ground: Ground) -> str:
    try:
        vendors_of(ground.office()).require("webhook", WEBHOOK)
    except Refused as refused:
        return f"its webhook is refused: {refused.what}"
    raise RunFailed("the frozen vendor's service may still be used")


def _vendor() -> Vendor:
    return Vendor.model_validate_json(
        canonical_bytes(
            {
                "name": "alerts",
                "purpose": "carries alarms",
                "owner": "owner",
                "categories": ["security-events"],
                "region": "DE",
                "services": [{"kind": "webhook", "address": WEBHOOK}],
                "questionnaire": [{"text": "Is it certified?", "weight": 1.0, "yes": True}],
                "review_by": "9999-12-31",
            }
        )
    )


def _refused(*words: str) -> Callable[[Ground], str]:
    return lambda ground: ground.expect_refusal(*words)


def _by_people(what: str) -> Callable[[Ground], str]:
    return lambda _: f"for people to do: {what}"


SCENES: dict[str, Scene] = {
    "key-compromise": {
        "contain": lambda g: g.freeze(BRANDS, "key", g.workspace.keys.key_id),
        "verify": _refused("frozen"),
        "recover": _new_key,
    },
    "poisoned-silo": {
        "contain": _silo_frozen,
        "verify": _refused("frozen"),
        "recover": _by_people("make runs again without the silo, retire models"),
    },
    "stolen-laptop": {
        "contain": lambda g: g.freeze(("coordinator", *BRANDS), "person", _person(g)),
        "verify": _refused("revoked", "stopped"),
        "recover": _enrolled_anew,
    },
    "hostile-coordinator": {
        "contain": lambda g: g.freeze(("aurora",), "key", g.workspace.keys.key_id),
        "verify": _refused("frozen"),
        "recover": _budget_stands,
    },
    "leaked-report": {
        "contain": lambda g: g.freeze(("coordinator", *BRANDS), "plan", g.plan.digest),
        "verify": _refused("frozen"),
        "recover": _by_people("`abfed explain` says what each release guarantees"),
    },
    "vendor-breach": {
        "contain": _vendor_frozen,
        "verify": _vendor_refused,
        "recover": _by_people("review or offboard its entry"),
    },
    "lost-second-factor": {
        "contain": lambda g: g.freeze(("coordinator",), "person", _person(g)),
        "verify": _factor_refused,
        "recover": _enrolled_anew,
    },
}


def drill(
    playbook: Playbook,
    office: Office,
    *,
    by: str,
    tell: Callable[[Drilled], None] | None = None,
) -> Path:
    """Carry a playbook out and keep the timed record, signed by the site.

    Args:
        playbook: which; its name must be one of `SCENES`.
        office: the site that keeps the record.
        by: who asked for the drill.
        tell: told each step as it is done.

    Raises:
        RunFailed: a step did not lead to what it must; the record says so too.
    """
    scene = SCENES.get(playbook.name)
    if scene is None:
        raise RunFailed(f"playbook {playbook.name!r} has no scene to be drilled on")
    done: list[Drilled] = []
    began, failure = stamp(office.clock()), ""
    with tempfile.TemporaryDirectory(prefix="abfed-drill-") as folder:
        ground = Ground(Path(folder))
        every = {"evidence": Ground.bundle, "tell": Ground.told, **scene}
        for step in playbook.steps:
            started = time.perf_counter()
            try:
                outcome = every[step.act](ground)
            except AbfedError as error:
                failure = f"{step.act}: {error}"
                outcome = f"FAILED: {error.what}"
            one = Drilled(step.act, step.do, round(time.perf_counter() - started, 3), outcome)
            done.append(one)
            if tell is not None:
                tell(one)
            if failure:
                break
    return _keep(playbook, office, done, began, failure, by)


def read_drill(path: Path, public_key: bytes) -> dict[str, Any]:
    """A drill's record, its signature checked.

    Raises:
        IntegrityError: it was changed, or is not of this site.
    """
    trusted = {key_id(public_key): public_key}
    content = open_envelope(read_private(path), trusted, kind="drill", where=path.name).content
    record = parse_canonical(content, where=path.name)
    if not isinstance(record, dict):
        raise IntegrityError("not a record of a drill", where=path.name)
    return record


def _keep(
    playbook: Playbook, office: Office, done: list[Drilled], began: str, failure: str, by: str
) -> Path:
    record = {
        "playbook": playbook.name,
        "reviewed_on": playbook.reviewed_on,
        "began_at": began,
        "ended_at": stamp(office.clock()),
        "by": by,
        "abfed": __version__,
        "passed": not failure,
        "steps": [one._asdict() for one in done],
    }
    folder = office.folder / FOLDER
    make_private_folder(folder)
    path = folder / f"{playbook.name}-{began[:19].replace(':', '')}.drill"
    write_private(path, office.keys.sign("drill", canonical_bytes(record)))
    office.audit.append("incident.drilled", playbook=playbook.name, passed=not failure, by=by)
    if failure:
        raise RunFailed("the drill failed", where=playbook.name, why=failure, do=f"see {path}")
    return path
