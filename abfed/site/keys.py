"""A site's keys (S2): one key-encryption key, and everything else under it.

The key-encryption key (KEK) lives in a key service: a private file, or a token (`kms`). It wraps
the site's *root* secret and nothing else. The Ed25519 signing key is sealed under the root, keys
for single purposes are derived from it, and data keys are wrapped under it by `wrap` and `unwrap`,
the two functions that Parquet's key management interface asks for. So the KEK can be rotated or
moved without writing a row anew (`rotation`). No key is ever shown, logged or sent; `repr` names
the site only.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from abfed.protocol.envelope import Kind, enclose, key_id, sign_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import KEY_BYTES, Unseen, derive_key, new_key, seal, unseal
from abfed.site.clock import Clock, system_clock
from abfed.site.credentials import credential
from abfed.site.files import check_private, make_private_folder, read_private, write_private
from abfed.site.key_services import open_kms
from abfed.site.kms import FileKms, Pkcs11Kms, Secret
from abfed.site.ring import FILE, Marker, Ring, hold_to, marker_of, read_ring, write_ring
from abfed.site.rotation import new_held

SIGNING_FILE = "signing.sealed"


class SiteKeys:
    """The keys of one site, opened.

    Attributes:
        site: the site's name.
        public_key: 32 raw bytes; its `key_id` is the fingerprint that other sites pin.
        kms: the key service that opened them.
    """

    __slots__ = ("_root", "_signing", "kms", "public_key", "site")

    def __init__(
        self, site: str, root: bytes, signing: Ed25519PrivateKey, kms: FileKms | Pkcs11Kms
    ) -> None:
        self.site = site
        self.kms = kms
        self._root = Unseen(root)
        self._signing = signing
        self.public_key = signing.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        """The site and its public fingerprint; nothing secret."""
        return f"SiteKeys(site={self.site!r}, key_id={self.key_id!r})"

    def __reduce__(self) -> str:
        """Keys don't travel."""
        message = "site keys can't be pickled"
        raise TypeError(message)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        site: str,
        kms: FileKms | Pkcs11Kms | None = None,
        clock: Clock = system_clock,
        secret: Secret = credential,
    ) -> SiteKeys:
        """Make new keys in a folder that has none.

        Args:
            folder: the site's `keys` folder.
            site: the site's name.
            kms: where the key-encryption key is to live; in a private file where it isn't given.
            clock: where the time comes from.
            secret: gives the passphrase or PIN of the key service.

        Raises:
            WorkspaceError: there are keys already.
        """
        make_private_folder(folder)
        if (folder / FILE).exists():
            raise WorkspaceError("there are keys already", where=str(folder))
        root, signing = new_key(), Ed25519PrivateKey.generate()
        sealed = seal(
            derive_key(root, "signing-key"), signing.private_bytes_raw(), name=f"signing:{site}"
        )
        held = new_held(kms or FileKms(), clock)
        service = open_kms(held.kms, folder, site, secret)
        service.create(held.kek)
        write_private(folder / SIGNING_FILE, sealed)
        ring = Ring(site=site, current=held, root=service.wrap(held.kek, root).hex())
        write_ring(folder, ring, marker_of(root))
        return cls(site, root, signing, held.kms)

    @classmethod
    def open(cls, folder: Path, secret: Secret = credential) -> SiteKeys:
        """Open the keys of a site.

        Args:
            folder: the site's `keys` folder.
            secret: gives the passphrase or PIN of the key service.

        Raises:
            WorkspaceError: there are none, or the key service can't be opened.
            IntegrityError: they are open to others, damaged, or the ring was edited.
        """
        check_private(folder)
        ring = read_ring(folder)
        service = open_kms(ring.current.kms, folder, ring.site, secret)
        root = Unseen(service.unwrap(ring.current.kek, bytes.fromhex(ring.root)))
        if len(root) != KEY_BYTES:
            raise IntegrityError("the root has the wrong length", where=str(folder))
        hold_to(ring, marker_of(root), folder)
        raw = Unseen(
            unseal(
                derive_key(root, "signing-key"),
                read_private(folder / SIGNING_FILE),
                name=f"signing:{ring.site}",
            )
        )
        signing = Ed25519PrivateKey.from_private_bytes(raw)
        return cls(ring.site, root, signing, ring.current.kms)

    @staticmethod
    def site_of(folder: Path) -> str:
        """The site that keys in a folder say they are of; `open` holds them to it.

        Raises:
            WorkspaceError: there are none.
            IntegrityError: they don't say.
        """
        return read_ring(folder).site

    @property
    def key_id(self) -> str:
        """The fingerprint of the public key, for comparing by phone."""
        return key_id(self.public_key)

    def sign(self, kind: Kind, content: bytes) -> bytes:
        """An envelope of this kind, signed by the site."""
        return enclose(self._signing, kind, content)

    def signature(self, kind: Kind, content: bytes) -> bytes:
        """A detached signature (64 bytes) over content of this kind."""
        return sign_bytes(self._signing, kind, content)

    def sign_request(
        self, builder: x509.CertificateSigningRequestBuilder
    ) -> x509.CertificateSigningRequest:
        """A certificate request for the site's signing key, signed by it."""
        return builder.sign(self._signing, None)

    def derive(self, purpose: str) -> bytes:
        """A secret of 32 bytes for one purpose; the same each time, different for each purpose."""
        return derive_key(self._root, f"derived:{purpose}")

    @property
    def ring_marker(self) -> Marker:
        """What marks this site's key rings (see `ring`)."""
        return marker_of(self._root)

    def exchange_private_key(self) -> X25519PrivateKey:
        """The key that opens boxes sealed to this site; made from the root, so it lies nowhere."""
        return X25519PrivateKey.from_private_bytes(self.derive("exchange"))

    @property
    def exchange_key(self) -> bytes:
        """32 raw bytes that other sites pin beside `public_key`, to seal requests to this site."""
        return self.exchange_private_key().public_key().public_bytes_raw()

    def wrap(self, data_key: bytes, *, name: str) -> bytes:
        """Seal a data key under the root, bound to what it is for."""
        return seal(derive_key(self._root, "wrap"), data_key, name=f"wrap:{self.site}:{name}")

    def unwrap(self, wrapped: bytes, *, name: str) -> bytes:
        """Open a wrapped data key.

        Raises:
            IntegrityError: it was wrapped by another key, for something else, or was changed.
        """
        return unseal(derive_key(self._root, "wrap"), wrapped, name=f"wrap:{self.site}:{name}")
