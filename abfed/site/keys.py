"""A site's keys (S2): one key-encryption key, and everything else under it.

The key-encryption key (KEK) lies in a private file; the Ed25519 signing key is sealed under it.
Keys for single purposes are derived from it, and data keys are wrapped by it through the two
functions that a key management service offers (`wrap`, `unwrap`), so that one can take its place.
No key is ever shown, logged or sent; `repr` names the site only.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import Kind, enclose, key_id, sign_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import KEY_BYTES, derive_key, new_key, seal, unseal
from abfed.site.files import check_private, make_private_folder, read_private, write_private

KEK_FILE = "kek"
SIGNING_FILE = "signing.sealed"
FACTS_FILE = "site.json"


class SiteKeys:
    """The keys of one site, opened.

    Attributes:
        site: the site's name.
        public_key: 32 raw bytes; its `key_id` is the fingerprint that other sites pin.
    """

    __slots__ = ("_kek", "_signing", "public_key", "site")

    def __init__(self, site: str, kek: bytes, signing: Ed25519PrivateKey) -> None:
        self.site = site
        self._kek = kek
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
    def create(cls, folder: Path, *, site: str) -> SiteKeys:
        """Make new keys in a folder that has none.

        Raises:
            WorkspaceError: there are keys already.
        """
        make_private_folder(folder)
        if (folder / KEK_FILE).exists():
            raise WorkspaceError("there are keys already", where=str(folder))
        kek, signing = new_key(), Ed25519PrivateKey.generate()
        sealed = seal(
            derive_key(kek, "signing-key"), signing.private_bytes_raw(), name=f"signing:{site}"
        )
        write_private(folder / FACTS_FILE, canonical_bytes({"site": site}))
        write_private(folder / SIGNING_FILE, sealed)
        write_private(folder / KEK_FILE, kek)
        return cls(site, kek, signing)

    @classmethod
    def open(cls, folder: Path) -> SiteKeys:
        """Open the keys of a site.

        Raises:
            WorkspaceError: there are none.
            IntegrityError: they are open to others, or damaged.
        """
        check_private(folder)
        kek = read_private(folder / KEK_FILE)
        if len(kek) != KEY_BYTES:
            raise IntegrityError("the key file has the wrong length", where=str(folder / KEK_FILE))
        site = cls.site_of(folder)
        raw = unseal(
            derive_key(kek, "signing-key"),
            read_private(folder / SIGNING_FILE),
            name=f"signing:{site}",
        )
        return cls(site, kek, Ed25519PrivateKey.from_private_bytes(raw))

    @staticmethod
    def site_of(folder: Path) -> str:
        """The site that keys in a folder say they are of; `open` holds them to it.

        Raises:
            WorkspaceError: there are none.
            IntegrityError: they don't say.
        """
        file = folder / FACTS_FILE
        facts = parse_canonical(read_private(file), where=str(file))
        if not isinstance(facts, dict) or not isinstance(facts.get("site"), str):
            raise IntegrityError("does not name a site", where=str(file))
        site: str = facts["site"]
        return site

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
        return derive_key(self._kek, f"derived:{purpose}")

    def exchange_private_key(self) -> X25519PrivateKey:
        """The key that opens boxes sealed to this site; made from the KEK, so it lies nowhere."""
        return X25519PrivateKey.from_private_bytes(self.derive("exchange"))

    @property
    def exchange_key(self) -> bytes:
        """32 raw bytes that other sites pin beside `public_key`, to seal requests to this site."""
        return self.exchange_private_key().public_key().public_bytes_raw()

    def wrap(self, data_key: bytes, *, name: str) -> bytes:
        """Seal a data key under the KEK, bound to what it is for."""
        return seal(derive_key(self._kek, "wrap"), data_key, name=f"wrap:{self.site}:{name}")

    def unwrap(self, wrapped: bytes, *, name: str) -> bytes:
        """Open a wrapped data key.

        Raises:
            IntegrityError: it was wrapped by another key, for something else, or was changed.
        """
        return unseal(derive_key(self._kek, "wrap"), wrapped, name=f"wrap:{self.site}:{name}")
