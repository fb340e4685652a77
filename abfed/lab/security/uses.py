"""Services of vendors that are configured at a site, and whether each may be used (S16, S17).

What is asked here is asked of a throw-away copy of the register, under the site's own keys: the
code is the one that answers when a service is used, and neither the register nor the log of the
site is touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from abfed.lab.coordination import COORDINATOR
from abfed.lab.incidents.responding import vendors_of
from abfed.lab.offices import Office
from abfed.lab.security.trials import Trial
from abfed.lab.watch.watching import FILE, load_settings
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError, Refused
from abfed.site.audit import AuditLog
from abfed.site.connectors import FILE as CONNECTORS
from abfed.site.connectors import is_elsewhere, load_connectors
from abfed.site.files import make_private_folder, read_private, write_private
from abfed.site.freezes import FILE as FREEZES
from abfed.site.openid import FILE as OPENID
from abfed.site.openid import load_provider
from abfed.site.ring import FILE as RING
from abfed.site.ring import read_ring
from abfed.site.sinks import MailSink, WebhookSink
from abfed.site.vendors import FILE as REGISTER
from abfed.site.vendors import Entry, ServiceKind, Vendors, key_service, on_this_machine

NOWHERE = "https://nobody-vetted.example/"


class Use(NamedTuple):
    """A service that a site is configured to use.

    Attributes:
        kind, address: as the register names it.
        where: the file that names it.
    """

    kind: ServiceKind
    address: str
    where: str


def services_in_use(workspace: Workspace, office: Office) -> tuple[Use, ...]:
    """What a site is configured to use of others; nothing that runs on this machine."""
    return tuple(_uses(workspace, office))


def offboard(workspace: Workspace, site: str, name: str, done: dict[str, str], *, by: str) -> Entry:
    """Let a vendor go that no configuration of this site names any more.

    Raises:
        InputError: there is none, an item is missing, or a service of it is still configured.
    """
    office = workspace.office(site)
    entry = vendors_of(office).list().get(name)
    services = {(one.kind, one.address) for one in entry.vendor.services} if entry else set()
    for use in services_in_use(workspace, office):
        if (use.kind, use.address) in services:
            raise InputError(
                f"{use.where} still names {use.address!r}",
                where=name,
                do="take it out of the configuration first",
            )
    return vendors_of(office).offboard(name, done, by=by)


def unusable(office: Office, kind: ServiceKind, address: str, now: datetime) -> str:
    """Why a service may not be used at a moment; empty where it may."""
    with _copied(office, now) as vendors:
        try:
            vendors.require(kind, address)
        except Refused as refused:
            return refused.what
    return ""


def try_register(office: Office, now: datetime) -> list[Trial]:
    """Ask for every service of every vendor, and for one that nobody vetted."""
    tried = []
    with _copied(office, now) as vendors:
        standings = vendors.standings()
        asked: list[tuple[ServiceKind, str, bool]] = [("webhook", NOWHERE, False)]
        for name, entry in sorted(vendors.list().items()):
            good = standings[name] == "approved"
            asked += [(one.kind, one.address, good) for one in entry.vendor.services]
        for kind, address, good in asked:
            try:
                vendors.require(kind, address)
            except Refused as refused:
                tried.append(Trial(f"{address}: refused, {refused.what}", as_must=not good))
            else:
                tried.append(Trial(f"{address}: let through", as_must=good))
    return tried


@contextmanager
def _copied(office: Office, now: datetime) -> Iterator[Vendors]:
    """The register of a site in a folder of its own, at a moment."""
    with tempfile.TemporaryDirectory(prefix="abfed-trial-") as scratch:
        folder = Path(scratch) / "site"
        make_private_folder(folder)
        for name in (REGISTER, FREEZES):
            if (office.folder / name).exists():
                write_private(folder / name, read_private(office.folder / name))
        log = AuditLog(folder / "audit.jsonl", office.keys, lambda: now)
        yield Vendors(folder, office.keys, log, lambda: now)


def _uses(workspace: Workspace, office: Office) -> Iterator[Use]:
    if office.site == COORDINATOR:
        for sink in load_settings(workspace.path).sinks:
            if isinstance(sink, WebhookSink) and _elsewhere(sink.url):
                yield Use("webhook", sink.url, FILE)
            if isinstance(sink, MailSink) and not on_this_machine(sink.host):
                yield Use("mail", f"{sink.host}:{sink.port}", FILE)
    if (office.folder / OPENID).exists():
        issuer = load_provider(office.folder).issuer
        if _elsewhere(issuer):
            yield Use("identity", issuer, OPENID)
    for connector in load_connectors(office.folder).values():
        if is_elsewhere(connector):
            yield Use("connector", connector.url, CONNECTORS)
    address = key_service(read_ring(office.folder / "keys").current.kms)
    if address:
        yield Use("keys", address, f"keys/{RING}")


def _elsewhere(url: str) -> bool:
    return not on_this_machine(urlsplit(url).hostname or "")
