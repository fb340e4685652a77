"""How a federation's connections stand (S3, S5): its certificates read, its port asked if it runs.

1. Each certificate on disk is opened: who issued it, for whom, until when, whether it was revoked.
2. Where the proxy runs, two connections are tried: one in plain text, which must get nothing but an
   error, and one by TLS, which must be by 1.2 at least and with a certificate of our authority.
3. What isn't there or doesn't run is said to be so, and nothing is concluded from a folder's name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from abfed.coordinator.house import FOLDER, House, Places
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import AbfedError
from abfed.site.clock import stamp
from abfed.site.files import read_private

Told = tuple[Literal["holds", "look", "red"], str, str]
SECONDS = 3.0
SOON = timedelta(days=7)
"""Certificates of sites live for weeks, and are renewed when a third of that is left."""


def standing_of_transit(workspace: Workspace, now: datetime) -> Iterator[Told]:
    """What was seen of a workspace's connections to other sites."""
    at, folder = stamp(now), workspace.path / FOLDER
    if not Places(folder).settings.exists():
        yield "holds", "no federation is founded here, so nothing connects to another site", at
        return
    house = House(folder, lambda: now)
    authority = _opened(read_private(house.places.authority_certificate))
    yield from _judged("the authority", authority, authority, now)
    for path in sorted(house.places.tls.glob("*.crt")):
        yield from _judged(path.stem, _opened(read_private(path)), authority, now)
    holds, fails = house.pinned()
    for silo, why in fails.items():
        yield "red", f"the certificate of {silo} does not hold: {why}", at
    if holds:
        names = ", ".join(sorted(holds))
        yield "holds", f"certificates of {names} hold, by this authority, not revoked", at
    yield from _asked(house, at)


def _judged(
    name: str, found: x509.Certificate | None, authority: x509.Certificate | None, now: datetime
) -> Iterator[Told]:
    at = stamp(now)
    if found is None or authority is None:
        yield "red", f"{name}: not a certificate", at
        return
    try:
        found.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        yield "red", f"{name}: its certificate is not by this federation's authority", at
        return
    ends = found.not_valid_after_utc
    said = f"{name}: its certificate holds until {ends:%Y-%m-%d}"
    if not found.not_valid_before_utc <= now <= ends:
        yield "red", f"{name}: its certificate does not hold now (until {ends:%Y-%m-%d})", at
    else:
        yield ("look" if ends - now < SOON else "holds"), said, at


def _opened(pem: bytes) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def _asked(house: House, at: str) -> Iterator[Told]:
    """Plain text and TLS, tried at the proxy's port of this machine."""
    address = ("127.0.0.1", house.settings.port)
    try:
        plain = _plainly(address)
    except OSError:
        yield "holds", f"nothing listens on port {house.settings.port} now", at
        return
    if plain.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
        yield "red", f"port {house.settings.port} answers in plain text", at
    else:
        yield "holds", f"port {house.settings.port}: plain text was tried, and not served", at
    try:
        version = _by_tls(address, house)
    except (OSError, ssl.SSLError, AbfedError) as error:
        yield (
            "red",
            f"port {house.settings.port}: TLS was tried and failed: {type(error).__name__}",
            at,
        )
    else:
        said = f"port {house.settings.port}: {version}, with a certificate by our authority"
        yield "holds", said, at


def _plainly(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            return connection.recv(64)
        except OSError:
            return b""


def _by_tls(address: tuple[str, int], house: House) -> str:
    context = ssl.create_default_context(
        cadata=read_private(house.places.authority_certificate).decode()
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(address, timeout=SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=house.settings.host) as secured,
    ):
        return secured.version() or "TLS"
