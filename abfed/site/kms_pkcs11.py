"""Key-encryption keys in a token behind a PKCS#11 module, such as a hardware security module.

Keys are AES-256, made inside the token, sensitive and never extractable; wrapping is AES-GCM done
by the token, with the site and the key's id as associated data. The PIN is asked for at each use
and kept nowhere. Needs the extra `hsm` (python-pkcs11).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import NONCE_BYTES, TAG_BYTES
from abfed.site.kms import Pkcs11Kms, Secret

try:
    import pkcs11
except ImportError as missing:
    raise WorkspaceError(
        "this site's keys are in a PKCS#11 token, and python-pkcs11 is not installed",
        do="install abfed with the extra `hsm`",
    ) from missing

KEY_BITS = 256
_ALONE = threading.Lock()  # a token takes one sign-in of a process at a time


class Pkcs11Service:
    """Keys in a token.

    Args:
        settings: which module and token.
        site: the site's name.
        secret: gives the token's PIN.
    """

    def __init__(self, settings: Pkcs11Kms, site: str, secret: Secret) -> None:
        self._settings = settings
        self._site = site
        self._secret = secret

    def create(self, kek: str) -> None:
        """Make a key of this id inside the token."""
        if self.holds(kek):
            raise WorkspaceError("there is a key already", where=self._label(kek))
        with self._session() as session:
            session.generate_key(
                pkcs11.KeyType.AES,
                KEY_BITS,
                label=self._label(kek),
                id=bytes.fromhex(kek),
                store=True,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                template={
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                },
            )

    def wrap(self, kek: str, secret: bytes) -> bytes:
        """Seal a secret under a key, inside the token."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        with self._session() as session:
            sealed: bytes = self._key(session, kek).encrypt(
                secret, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=self._bound(kek, nonce)
            )
        return nonce + sealed

    def unwrap(self, kek: str, wrapped: bytes) -> bytes:
        """Open a sealed secret, inside the token."""
        if len(wrapped) < NONCE_BYTES + TAG_BYTES:
            raise IntegrityError("not a wrapped key, or cut short", where=self._label(kek))
        nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        with self._session() as session:
            key = self._key(session, kek)
            try:
                plain: bytes = key.decrypt(
                    sealed,
                    mechanism=pkcs11.Mechanism.AES_GCM,
                    mechanism_param=self._bound(kek, nonce),
                )
            except pkcs11.PKCS11Error as cause:  # tokens differ in how they say it
                raise IntegrityError("the seal is broken", where=self._label(kek)) from cause
        return plain

    def destroy(self, kek: str) -> None:
        """Destroy a key inside the token."""
        with self._session() as session:
            for key in self._found(session, kek):
                key.destroy()

    def holds(self, kek: str) -> bool:
        """Whether the token has a key of this id."""
        with self._session() as session:
            return bool(self._found(session, kek))

    def _label(self, kek: str) -> str:
        return f"abfed:{self._site}:{kek}"

    def _bound(self, kek: str, nonce: bytes) -> pkcs11.GCMParams:
        aad = f"kek:{self._site}:{kek}".encode()
        return pkcs11.GCMParams(nonce, aad=aad, tag_bits=8 * TAG_BYTES)

    def _found(self, session: pkcs11.Session, kek: str) -> list[Any]:
        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.LABEL: self._label(kek),
        }
        return list(session.get_objects(wanted))

    def _key(self, session: pkcs11.Session, kek: str) -> Any:
        found = self._found(session, kek)
        if len(found) != 1:
            raise IntegrityError(
                "the key-encryption key is missing",
                where=self._label(kek),
                why=f"the token {self._settings.token!r} has {len(found)} keys of this label",
            )
        return found[0]

    @contextmanager
    def _session(self) -> Iterator[pkcs11.Session]:
        """A session with the token, signed in."""
        with _ALONE:
            try:
                token = pkcs11.lib(self._settings.module).get_token(
                    token_label=self._settings.token
                )
                opened = token.open(rw=True, user_pin=self._secret(f"{self._site}.pin"))
            except (pkcs11.PKCS11Error, RuntimeError) as cause:
                raise WorkspaceError(
                    "the token with this site's keys can't be opened",
                    where=self._settings.token,
                    why=type(cause).__name__,
                    do="look at the module's path, the token's label and the PIN",
                ) from cause
            with opened as session:
                yield session
