"""The controls S1 to S22: what is asked, where it is enforced, what shows it.

Data only. `docs/controls.md` is made from it, and from `tests/breaks.yaml`, which says what breaks
each, by `tools/controls.py`; that fails where a module, a command or a test that is named there
doesn't exist. `abfed review` says how each stands at the sites of a workspace.
"""

from __future__ import annotations

from typing import NamedTuple

from abfed.protocol.identity import Role


class Control(NamedTuple):
    """One control.

    Attributes:
        id: as comments, tests and reports call it.
        asked: the sentence of the brief.
        where: modules that enforce it.
        command: what shows it.
        owner: the role that answers for it.
        checks: the doctor's checks that look at it.
        outside: tests that look at all of it from outside, over several hosts or users: several
            lines hold there, so none that is taken away alone can be seen.
    """

    id: str
    asked: str
    where: tuple[str, ...]
    command: str
    owner: Role = "security-officer"
    checks: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


CONTROLS: tuple[Control, ...] = (
    Control(
        "S1",
        "Data used in AI models complies with GDPR and CCPA.",
        ("abfed.silo.policy", "abfed.silo.selection", "abfed.silo.retention"),
        "abfed silo show",
        owner="privacy-officer",
        checks=("policy",),
    ),
    Control(
        "S1b",
        "People can have their data exported, erased, or kept from being used.",
        ("abfed.silo.subjects", "abfed.silo.rewriting", "abfed.silo.tombstones"),
        "abfed silo subject due",
        owner="privacy-officer",
        checks=("requests",),
    ),
    Control(
        "S2",
        "Data is encrypted at rest.",
        ("abfed.silo.encryption", "abfed.site.sealedfile", "abfed.site.rotation"),
        "abfed silo verify",
        checks=("seals", "keys", "leftovers"),
    ),
    Control(
        "S3",
        "Data is encrypted in transit.",
        ("abfed.protocol.boxes", "abfed.protocol.envelope", "abfed.site.certificates"),
        "abfed federation status",
        checks=("certificates",),
        outside=("distributed/test_hosts.py::test_the_wire_shows_no_canary_and_no_plain_message",),
    ),
    Control(
        "S4",
        "Access to data is restricted to authorised people.",
        ("abfed.site.files", "abfed.silo.serving", "abfed.coordinator.courier"),
        "abfed doctor",
        checks=("permissions",),
        outside=(
            "distributed/test_hosts.py::test_the_node_reaches_no_file_of_its_own_silo",
            "distributed/test_hostile_bundle.py::test_it_reads_no_file_of_the_silo",
        ),
    ),
    Control(
        "S5",
        "Connections use HTTPS and TLS.",
        ("abfed.site.certificates", "abfed.coordinator.provision", "abfed.coordinator.proxy"),
        "abfed federation status",
        checks=("certificates",),
        outside=("distributed/test_hosts.py::test_plain_text_is_refused",),
    ),
    Control(
        "S6",
        "Data is stored securely, with controlled access.",
        ("abfed.site.files", "abfed.silo.buckets"),
        "abfed doctor",
        checks=("permissions", "leftovers", "strays", "backups", "unfinished"),
    ),
    Control(
        "S7",
        "Storage is audited regularly for weaknesses.",
        ("abfed.lab.upkeep.examining", "abfed.site.checkups"),
        "abfed doctor",
    ),
    Control(
        "S8",
        "Models are protected by encryption.",
        ("abfed.coordinator.vault", "abfed.silo.models"),
        "abfed silo verify",
        checks=("seals", "models"),
    ),
    Control(
        "S9",
        "Models are protected by access control.",
        ("abfed.silo.models", "abfed.lab.scoring", "abfed.site.rights"),
        "abfed access show",
        checks=("access",),
    ),
    Control(
        "S10",
        "The integrity of models and data is checked regularly.",
        ("abfed.coordinator.vault", "abfed.silo.checking", "abfed.lab.watch.watching"),
        "abfed silo verify",
        checks=("seals", "models"),
    ),
    Control(
        "S11",
        "Sign-in takes several factors.",
        ("abfed.site.signin", "abfed.site.factors", "abfed.silo.access"),
        "abfed login",
        checks=("access",),
    ),
    Control(
        "S12",
        "Access follows roles.",
        ("abfed.site.rights", "abfed.silo.judging", "abfed.coordinator.front"),
        "abfed access show",
        checks=("access",),
    ),
    Control(
        "S13",
        "Permissions are reviewed; access that isn't needed is revoked.",
        ("abfed.site.reviews", "abfed.site.stops"),
        "abfed access review",
        checks=("people",),
    ),
    Control(
        "S14",
        "Unusual activity is watched for continuously.",
        (
            "abfed.site.alarms",
            "abfed.lab.watch.watching",
            "abfed.lab.watch.run_alarms",
            "abfed.site.sinks",
        ),
        "abfed watch",
    ),
    Control(
        "S15",
        "There are plans for incidents, kept current.",
        ("abfed.site.incidents", "abfed.site.freezes", "abfed.lab.incidents.drills"),
        "abfed incident drill",
        checks=("playbooks",),
    ),
    Control(
        "S16",
        "Third-party tools and services are vetted.",
        ("abfed.site.vendors",),
        "abfed vendor show",
        checks=("vendors",),
    ),
    Control(
        "S17",
        "Vendors comply with contracts and standards.",
        ("abfed.site.vendors",),
        "abfed vendor show",
        checks=("vendors",),
    ),
    Control(
        "S18",
        "Software is updated and patched regularly.",
        ("abfed.lab.upkeep.supply",),
        "abfed doctor",
        checks=("lock-drift", "lock-age", "advisories"),
    ),
    Control(
        "S19",
        "Systems are audited regularly.",
        ("abfed.site.checkups", "abfed.silo.gate"),
        "abfed doctor",
    ),
    Control(
        "S20",
        "Staff are trained.",
        ("abfed.site.rights", "abfed.site.people"),
        "abfed people attest",
    ),
    Control(
        "S21",
        "Logging is comprehensive, and the trail holds.",
        ("abfed.site.audit", "abfed.protocol.chain"),
        "abfed audit verify",
        owner="auditor",
        checks=("seals",),
    ),
    Control(
        "S22",
        "What is done complies with data-protection law, and that is on record.",
        ("abfed.lab.records.record", "abfed.lab.records.files"),
        "abfed records show",
        owner="privacy-officer",
    ),
)
