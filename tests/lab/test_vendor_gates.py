"""Services of others are used while a vendor's entry is approved and in date, and never else (S16).

Each gate is the real one. That a service was let through is seen by what comes next: nothing
answers at the address, no such library is there, or the file is written.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
import yaml

from abfed.lab.incidents.responding import contain, vendors_of
from abfed.lab.reports.manifest import FIELDS, FORMAT
from abfed.lab.reports.sharing import make_reader_key, pin_reader, share_report
from abfed.lab.session import sign_in_by_device
from abfed.lab.upkeep.rekeying import rekey
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import Refused, RunFailed, WorkspaceError
from abfed.site.alarms import Alarm
from abfed.site.clock import stamp
from abfed.site.connectors import FILE as CONNECTORS
from abfed.site.connectors import fetched, find_connector
from abfed.site.files import write_private
from abfed.site.kms import Pkcs11Kms
from abfed.site.sinks import MailSink, WebhookSink, deliver
from abfed.site.vendors import CHECKLIST, Agreement, ServiceKind, Vendors
from tests.silo.asking import SetClock
from tests.site.test_vendors import vendor

NOW = datetime.now(UTC)
NOWHERE = "gate.invalid"  # RFC 6761: never resolves
TOKEN = Pkcs11Kms(module="/nowhere/module.so", token="brand")
ALARM = Alarm(rule="a-test", severity="low", site="hub", at=stamp(NOW), what="a test")


class Gate:
    """A site, and a service of somebody else's that it is configured to use."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock(NOW)
        self.workspace = Workspace.create(folder / "ws", development=True, clock=self.clock)
        self.depot = folder / "depot"
        self.workspace.sign_in_development()

    @property
    def register(self) -> Vendors:
        return vendors_of(self.workspace.office())

    def connector(self) -> None:
        folder = self.workspace.coordinator
        there = {"esp": {"url": f"https://{NOWHERE}/sends.csv", "mapping": "esp.yaml"}}
        write_private(folder / CONNECTORS, yaml.safe_dump({"connectors": there}).encode())
        asked = fetched(find_connector(folder, "esp"), self.register, folder)
        with pytest.raises(RunFailed, match="no export"), asked:
            pass

    def webhook(self) -> None:
        with pytest.raises(RunFailed, match="did not take"):
            deliver(WebhookSink(kind="webhook", url=f"https://{NOWHERE}/x"), [ALARM],
                    self.register, self.workspace.path)  # fmt: skip

    def mail(self) -> None:
        sink = MailSink(kind="mail", host=NOWHERE, sender="a@example.org", to=("b@example.org",))
        with pytest.raises(RunFailed, match="did not take"):
            deliver(sink, [ALARM], self.register, self.workspace.path)

    def identity(self) -> None:
        values = {"issuer": f"https://{NOWHERE}", "client_id": "abfed", "required_amr": ["mfa"],
                  "roles": {"staff": "analyst"}}  # fmt: skip
        folder = self.workspace.coordinator
        write_private(folder / "openid.yaml", yaml.safe_dump(values).encode())
        with pytest.raises(RunFailed):
            sign_in_by_device(self.workspace.office(), lambda _: None, audience=("coordinator",))

    def keys(self) -> None:
        with pytest.raises(WorkspaceError):
            rekey(self.workspace, "coordinator", to=TOKEN, kept=timedelta(days=1))

    def reports(self) -> None:
        (sealed,) = share_report(self.workspace, "spring", ["ada"], self.depot)
        assert sealed.parent == self.depot
        sealed.unlink()

    def has_a_report(self) -> None:
        """A report and a reader of it."""
        page, reports = b"<p>a page</p>", self.workspace.reports_folder
        manifest = dict.fromkeys(FIELDS, "") | {
            "format": FORMAT, "report": "spring", "key": "k", "audience": ["analyst"],
            "files": {"spring.html": sha256_hex(page)},
        }  # fmt: skip
        write_private(reports / "spring.html", page)
        signed = self.workspace.keys.sign("report", canonical_bytes(manifest))
        write_private(reports / "spring.report", signed)
        people, lasts = self.workspace.people, timedelta(days=300)
        people.enrol("ada", "a long enough passphrase 7", by="test")
        people.grant("ada", "analyst", owner="test", reason="to try", lasts=lasts)
        pin_reader(self.workspace, "ada", make_reader_key(self.depot.with_name("ada.key")))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def use_of(gate: Gate, kind: str) -> tuple[Callable[[], None], str]:
    """What uses a service of this kind, and its address."""
    address = {
        "webhook": f"https://{NOWHERE}/x",
        "mail": f"{NOWHERE}:587",
        "identity": f"https://{NOWHERE}",
        "keys": "/nowhere/module.so#brand",
        "reports": str(gate.depot.resolve()),
        "connector": f"https://{NOWHERE}/sends.csv",
    }[kind]
    return getattr(gate, kind), address


@pytest.mark.parametrize("kind", get_args(ServiceKind))
def test_a_service_is_usable_while_its_entry_is_approved_and_not_otherwise(
    kind: ServiceKind, gate: Gate
) -> None:
    if kind == "reports":
        gate.has_a_report()
    use, address = use_of(gate, kind)
    steps: list[tuple[str, Callable[[], object]]] = [("absent", lambda: None)]
    ends = (NOW + timedelta(days=10)).date().isoformat()
    agreed = {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": "2999-01-01"}
    entry = vendor(services=[{"kind": kind, "address": address}], review_by=ends, agreement=agreed)
    office, register = gate.workspace.office(), gate.register
    steps.append(("proposed", lambda: register.put(entry, by="ada@coordinator")))
    for state, come_to in steps:
        come_to()
        with pytest.raises(Refused) as caught:
            use()
        assert caught.value.code == "vendor", state
    register.approve("postbox", by="sam@coordinator")
    use()
    contain(office, "vendor", "postbox", by="sam@coordinator", reason="a test")
    with pytest.raises(Refused, match="frozen"):
        use()


@pytest.mark.parametrize("kind", get_args(ServiceKind))
def test_it_ends_with_its_day_and_with_offboarding(kind: ServiceKind, gate: Gate) -> None:
    if kind == "reports":
        gate.has_a_report()
    use, address = use_of(gate, kind)
    ends = (NOW + timedelta(days=10)).date().isoformat()
    agreed = {"reference": "DPA 7", "signed_on": "2026-01-01", "ends_on": ends}
    services = [{"kind": kind, "address": address}]
    entry = vendor(services=services, review_by="2999-01-01", agreement=agreed)
    gate.register.put(entry, by="ada@coordinator")
    gate.register.approve("postbox", by="sam@coordinator")
    use()
    gate.clock.forward(days=11)
    gate.workspace.sign_in_development()
    with pytest.raises(Refused, match="agreement ended"):
        use()
    longer = Agreement(reference="DPA 8", signed_on=ends, ends_on="2999-01-01")
    gate.register.put(entry.model_copy(update={"agreement": longer}), by="ada@coordinator")
    with pytest.raises(Refused, match="proposed"):
        use()
    gate.register.approve("postbox", by="sam@coordinator")
    use()
    gate.register.offboard("postbox", dict.fromkeys(CHECKLIST, "ticket 12"), by="sam@coordinator")
    with pytest.raises(Refused, match="no vendor of this site"):
        use()


def test_a_page_goes_into_the_workspace_without_a_vendor(gate: Gate) -> None:
    gate.has_a_report()
    (sealed,) = share_report(gate.workspace, "spring", ["ada"])
    assert sealed.parent == gate.workspace.reports_folder
    away = gate.workspace.reports_folder / "away"
    away.symlink_to(gate.depot.parent)
    with pytest.raises(Refused, match="no vendor"):
        share_report(gate.workspace, "spring", ["ada"], away / "depot")
