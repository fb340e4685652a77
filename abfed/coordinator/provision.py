"""Provisioning at the coordinator: found a federation, admit silos, renew, revoke.

Keys are made here for what runs here. The authority's key lies sealed under the coordinator's own;
a silo's keys never come here, only its signed request. What is written can be written again:
nothing that exists is replaced unless its time is running out.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from abfed.coordinator.bundle import bundle_digest
from abfed.coordinator.commands import write_executors
from abfed.coordinator.house import House, Places, Settings
from abfed.coordinator.proxy import proxy_configuration
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import InputError
from abfed.site.audit import AuditLog
from abfed.site.certificates import (
    Authority,
    Pinned,
    expiry,
    issue_site_certificate,
    make_authority,
    make_server_certificate,
    read_site_certificate,
    read_site_request,
    revocation_list,
    spoken,
)
from abfed.site.clock import Clock, stamp
from abfed.site.files import make_own_folder, read_private, sweep, write_private
from abfed.site.keys import SiteKeys

_SEALED_NAME = "federation authority"


class Provisioner:
    """Provisions a federation at its coordinator.

    Args:
        folder: the federation's folder.
        keys: the coordinator's keys.
        audit: the coordinator's log.
        clock: where the time comes from.
    """

    def __init__(self, folder: Path, keys: SiteKeys, audit: AuditLog, clock: Clock) -> None:
        self._places = Places(folder.resolve())
        self._keys = keys
        self._audit = audit
        self._clock = clock

    def found(self, settings: Settings, text: bytes) -> str:
        """Found the federation, or renew what runs out; returns the invitation's fingerprint."""
        places = self._places
        for folder in (*places.trusted, places.proxy, places.log):
            make_own_folder(folder)
            sweep(folder)
        write_private(places.settings, text)
        if not places.authority_certificate.exists():
            made = make_authority(settings.name, self._clock(), settings.authority_days)
            write_private(places.authority_key, self._keys.wrap(made.key, name=_SEALED_NAME))
            write_private(places.authority_certificate, made.certificate)
            self._audit.append("authority.founded", digest=sha256_hex(made.certificate))
        self.renew_authority(settings)
        self.renew_servers(settings)
        if not (places.link / "exec.secret").exists():
            write_private(places.link / "exec.secret", secrets.token_bytes(32))
        write_executors(places.executors, roles=frozenset({"serverapp"}))
        write_private(places.pin, bundle_digest().encode())
        write_private(places.proxy / "nginx.conf", proxy_configuration(places, settings).encode())
        invitation = canonical_bytes(self._invitation(settings))
        write_private(places.invitation, invitation)
        return spoken(sha256_hex(invitation))

    def renew_authority(self, settings: Settings) -> None:
        """A new certificate for the authority's key where a third of its time is left.

        The key stays, so what it signed holds on under either certificate, and nothing stops. The
        old one is what brands have: before it runs out they join again, with the new invitation.
        """
        authority = self._authority()
        left = expiry(authority.certificate) - self._clock()
        if left.days >= settings.authority_days / 3:
            return
        name, now, days = settings.name, self._clock(), settings.authority_days
        made = make_authority(name, now, days, authority.key)
        write_private(self._places.authority_certificate, made.certificate)
        self._audit.append("authority.renewed", digest=sha256_hex(made.certificate))

    def renew_servers(self, settings: Settings) -> None:
        """New keys and certificates for proxy and SuperLink where a third of their time is left.

        The proxy takes them at a SIGHUP, without losing a connection.
        """
        self._renew("proxy", [settings.host], settings.certificate_days)
        self._renew("superlink", ["localhost", "127.0.0.1"], settings.authority_days)

    def admit(self, request: bytes, *, fingerprint: str, replace: bool = False) -> Pinned:
        """Sign a silo's request.

        Args:
            request: the request, PEM.
            fingerprint: as the silo's people read it out; not needed to renew the same keys.
            replace: admit it also where a silo of this name has another signing key: a fingerprint
                tells that the request is of whoever was called, not that the name is theirs.

        Raises:
            IntegrityError: the request was changed, or folders here are open to others.
            InputError: the fingerprint is another one, or another silo has this name.
        """
        pinned = read_site_request(request)
        if pinned.site == self._keys.site:
            raise InputError(
                "a silo can't be admitted under the coordinator's own name",
                where=pinned.site,
                do="found it under its brand's name",
            )
        known = self._house().admitted(pinned.site)
        if known != pinned and _plain(fingerprint) != _plain(pinned.fingerprint):
            raise InputError(
                "the fingerprint is not that of the request",
                where=pinned.site,
                why=f"the request's is {pinned.fingerprint}",
                do="call the silo's people and compare it with theirs; then give it",
            )
        if known is not None and known.signing != pinned.signing and not replace:
            raise InputError(
                f"a silo named {pinned.site!r} is admitted, with another key",
                where=pinned.site,
                why=f"its fingerprint: {known.fingerprint}; the request's: {pinned.fingerprint}",
                do="call the people of the silo that is admitted; where it is theirs, and they "
                "changed its keys, give --replace; else let the other choose another name",
            )
        if pinned.node in self._let_go():
            raise InputError(
                "the key of its node was taken out of this federation, and is not taken again",
                where=pinned.site,
                do="have the brand make a new one: abfed provision renew --new-node-key",
            )
        settings = Settings.load(self._places.settings)
        certificate = issue_site_certificate(
            self._authority(), request, self._clock(), settings.certificate_days
        )
        self._audit.append(  # first: nobody takes part whose admission is not on record
            "silo.admitted", silo=pinned.site, fingerprint=pinned.fingerprint.replace(" ", "")
        )
        write_private(self._places.admitted / f"{pinned.site}.pem", certificate)
        return pinned

    def revoke(self, silo: str) -> None:
        """Take a silo out: its certificate is revoked, from the next run on it isn't asked.

        Raises:
            InputError: it was not admitted.
        """
        self._house()
        path = self._places.admitted / f"{silo}.pem"
        known = [one.stem for one in self._places.admitted.glob("*.pem")]
        if silo not in known:  # a path such as ../admitted/aurora would revoke nothing
            raise InputError(
                f"silo {silo[:60]!r} was not admitted", where=str(self._places.admitted)
            )
        certificate = read_private(path)
        kept = self._places.withdrawn / f"{silo}-{sha256_hex(certificate)[:12]}.pem"
        write_private(kept, certificate)
        gone = [read_private(one) for one in sorted(self._places.withdrawn.glob("*.pem"))]
        settings = Settings.load(self._places.settings)
        listed = revocation_list(self._authority(), gone, self._clock(), settings.authority_days)
        write_private(self._places.revoked, listed)
        self._audit.append("silo.revoked", silo=silo)

    def _house(self) -> House:
        """What is founded here, without what a killed command left half written."""
        house = House(self._places.folder, self._clock)
        for folder in self._places.trusted:
            sweep(folder)
        return house

    def _let_go(self) -> set[bytes]:
        """Node keys of revoked certificates: a SuperLink registers none of them a second time."""
        gone = [read_private(one) for one in self._places.withdrawn.glob("*.pem")]
        authority = read_private(self._places.authority_certificate)
        return {read_site_certificate(one, authority, expiry(one)).node for one in gone}

    def _invitation(self, settings: Settings) -> dict[str, str]:
        return {
            "federation": settings.name,
            "address": f"{settings.host}:{settings.port}",
            "authority": read_private(self._places.authority_certificate).decode(),
            "coordinator": self._keys.public_key.hex(),
        }

    def _renew(self, name: str, hosts: list[str], days: int) -> None:
        certificate = self._places.tls / f"{name}.crt"
        if certificate.exists():
            left = expiry(read_private(certificate)) - self._clock()
            if left.days >= days / 3:
                return
        key, made = make_server_certificate(self._authority(), hosts, self._clock(), days)
        write_private(self._places.tls / f"{name}.key", key)
        write_private(certificate, made)
        self._audit.append("certificate.made", server=name, until=stamp(expiry(made)))

    def _authority(self) -> Authority:
        sealed = read_private(self._places.authority_key)
        key = self._keys.unwrap(sealed, name=_SEALED_NAME)
        return Authority(key, read_private(self._places.authority_certificate))


def _plain(fingerprint: str) -> str:
    return "".join(fingerprint.split()).lower()
