"""A federation's house at the coordinator: where its parts lie, and what is pinned.

```
federation/
  federation.yaml     what people decided
  authority/          certificate, sealed key, revocation list
  tls/                keys and certificates of proxy and SuperLink
  admitted/<silo>.pem each silo's certificate: names, signing, exchange and node key
  link/               SuperLink's database and the SuperExec's secret
  bin/                our executors, first on the PATH
  orders/             orders that are carried out, and the events of their runs
  log/                one file for each process
  invitation.json     what brands are given
```
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.errors import InputError, IntegrityError, WorkspaceError
from abfed.protocol.schema import Frozen, Name
from abfed.protocol.yamltext import parse_yaml
from abfed.site.certificates import Pinned, expiry, read_site_certificate
from abfed.site.clock import Clock, system_clock
from abfed.site.files import check_private, read_private

FOLDER = "federation"  # in a coordinator's workspace
SETTINGS = "federation.yaml"
INVITATION = "invitation.json"
Port = Annotated[int, Field(ge=1, le=65_535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")]


class Settings(Frozen):
    """What people decide about a federation; `federation.yaml`.

    Attributes:
        name: the federation's.
        host: the name or address that brands connect to.
        port: of the TLS proxy, which brands reach.
        link_port: of the SuperLink, on loopback only.
        development: everything runs on one machine; the proxy listens on loopback only.
        certificate_days: how long the certificates of sites and of the proxy hold.
        authority_days: how long the authority's own certificate holds.
    """

    name: Name
    host: Host = "localhost"
    port: Port = 9443
    link_port: Port = 9444
    development: bool = False
    certificate_days: Annotated[int, Field(ge=1, le=90)] = 30
    authority_days: Annotated[int, Field(ge=1, le=1095)] = 365

    @model_validator(mode="after")
    def _coherent(self) -> Settings:
        if self.port == self.link_port:
            raise ValueError("port and link_port must differ: both listen on this machine")
        return self

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings.

        Raises:
            InputError: the file is missing or malformed.
        """
        data = read_document(path, "federation's settings")
        return parse_record(cls, parse_yaml(data, where=str(path)), where=str(path))


class Places(NamedTuple):
    """Where things lie in a federation's folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        """What people decided."""
        return self.folder / SETTINGS

    @property
    def invitation(self) -> Path:
        """What brands are given; nothing in it is secret."""
        return self.folder / INVITATION

    @property
    def authority(self) -> Path:
        """The authority's folder."""
        return self.folder / "authority"

    @property
    def authority_certificate(self) -> Path:
        """The authority's certificate, PEM."""
        return self.authority / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """The authority's key, sealed under the coordinator's."""
        return self.authority / "ca.key.sealed"

    @property
    def revoked(self) -> Path:
        """The revocation list, PEM; absent where nothing was revoked."""
        return self.authority / "revoked.pem"

    @property
    def tls(self) -> Path:
        """Keys and certificates of proxy and SuperLink."""
        return self.folder / "tls"

    @property
    def admitted(self) -> Path:
        """Certificates of the silos."""
        return self.folder / "admitted"

    @property
    def withdrawn(self) -> Path:
        """Certificates that were revoked."""
        return self.folder / "withdrawn"

    @property
    def trusted(self) -> tuple[Path, ...]:
        """Folders in which whoever writes chooses who is trusted, or what runs."""
        of_trust = (self.folder, self.authority, self.tls, self.admitted, self.withdrawn)
        return (*of_trust, self.link, self.executors, self.orders)

    @property
    def link(self) -> Path:
        """The SuperLink's database and the SuperExec's secret."""
        return self.folder / "link"

    @property
    def proxy(self) -> Path:
        """The proxy's configuration and its temporary files."""
        return self.folder / "proxy"

    @property
    def executors(self) -> Path:
        """Our executors."""
        return self.folder / "bin"

    @property
    def pin(self) -> Path:
        """The digest of the bundle that executors take."""
        return self.folder / "bundle.sha256"

    @property
    def orders(self) -> Path:
        """Orders that are carried out, and the events of their runs."""
        return self.folder / "orders"

    @property
    def log(self) -> Path:
        """One file for each process."""
        return self.folder / "log"


class House:
    """A federation, opened at the coordinator.

    Args:
        folder: its folder.
        clock: where the time comes from.

    Raises:
        WorkspaceError: there is no federation here.
        IntegrityError: others could change who is trusted here.
    """

    def __init__(self, folder: Path, clock: Clock = system_clock) -> None:
        self.places = Places(folder.resolve())
        if not self.places.settings.exists():
            raise WorkspaceError(
                "there is no federation here",
                where=str(folder),
                do="run `abfed provision federation.yaml` first",
            )
        for one in self.places.trusted:
            check_private(one)
        self.settings = Settings.load(self.places.settings)
        self._clock = clock

    def pinned(self) -> tuple[dict[str, Pinned], dict[str, str]]:
        """The silos whose certificates hold now, and why those of others don't."""
        authority = read_private(self.places.authority_certificate)
        revoked = self._revoked()
        now: datetime = self._clock()
        holds: dict[str, Pinned] = {}
        fails: dict[str, str] = {}
        for path in sorted(self.places.admitted.glob("*.pem")):
            try:
                pinned = read_site_certificate(read_private(path), authority, now, revoked)
            except IntegrityError as error:
                fails[path.stem] = f"{error.what} ({error.why})" if error.why else error.what
                continue
            if pinned.site == path.stem:
                holds[pinned.site] = pinned
            else:
                fails[path.stem] = f"it is the certificate of {pinned.site}"
        return holds, fails

    def admitted(self, silo: str) -> Pinned | None:
        """The keys that a silo was admitted with, also where their certificate has run out since.

        None where it wasn't, or was taken out: its keys are to be compared as a stranger's.
        """
        path = self.places.admitted / f"{silo}.pem"
        if not path.exists():
            return None
        certificate = read_private(path)
        authority = read_private(self.places.authority_certificate)
        try:
            return read_site_certificate(
                certificate, authority, expiry(certificate), self._revoked()
            )
        except IntegrityError:
            return None

    def wanted(self, silos: tuple[str, ...]) -> Mapping[str, Pinned]:
        """The pinned keys of these silos.

        Raises:
            InputError: one isn't admitted, or its certificate doesn't hold now.
        """
        holds, fails = self.pinned()
        for silo in silos:
            if silo not in holds:
                raise InputError(
                    f"silo {silo!r} can't take part",
                    where=self.settings.name,
                    why=fails.get(silo, "it was not admitted to this federation"),
                    do="see `abfed federation status`",
                )
        return {silo: holds[silo] for silo in silos}

    @property
    def ran_out(self) -> str:
        """Which certificates that the TLS of all rests on have run out; empty where none has."""
        files = {
            "the authority's": self.places.authority_certificate,
            "the proxy's": self.places.tls / "proxy.crt",
            "the SuperLink's": self.places.tls / "superlink.crt",
        }
        until = {name: expiry(read_private(path)) for name, path in files.items()}
        return ", ".join(
            f"{name} certificate ran out at {when:%Y-%m-%d %H:%M} UTC"
            for name, when in until.items()
            if when < self._clock()
        )

    def _revoked(self) -> bytes:
        return read_private(self.places.revoked) if self.places.revoked.exists() else b""
