"""Key-encryption keys in private files: what a site has where there is no key service.

A file is 0600 and holds 32 random bytes, or the same sealed under a passphrase by Argon2id with the
second recommended parameters of RFC 9106 (64 MiB, 3 passes, 4 lanes). Destroying overwrites,
flushes and removes; a disk that copies on write, and backups, may keep an old block: the passphrase
is for those.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw

from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import KEY_BYTES, Unseen, derive_key, new_key, seal, unseal
from abfed.site.files import destroy_file, read_private, write_private
from abfed.site.kms import FileKms, Secret

PREFIX = "kek-"
SEALED_MAGIC = b"ABFEDPW1"
SALT_BYTES = 16  # RFC 9106, 3.1
MEMORY, PASSES, LANES = 65_536, 3, 4  # KiB; RFC 9106, 4, second recommended option


class FileService:
    """Keys in files.

    Args:
        settings: whether they are under a passphrase.
        folder: the site's `keys` folder.
        site: the site's name.
        secret: gives the passphrase.
    """

    def __init__(self, settings: FileKms, folder: Path, site: str, secret: Secret) -> None:
        self._settings = settings
        self._folder = folder
        self._site = site
        self._secret = secret

    def create(self, kek: str) -> None:
        """Make a key of this id."""
        path = self._path(kek)
        if path.exists():
            raise WorkspaceError("there is a key already", where=str(path))
        key: bytes = new_key()
        if self._settings.passphrase:
            salt = secrets.token_bytes(SALT_BYTES)
            key = SEALED_MAGIC + salt + seal(self._stretched(salt), key, name=self._name(kek))
        write_private(path, key)

    def wrap(self, kek: str, secret: bytes) -> bytes:
        """Seal a secret under a key."""
        return seal(self._key(kek), secret, name=self._name(kek))

    def unwrap(self, kek: str, wrapped: bytes) -> bytes:
        """Open a sealed secret."""
        return unseal(self._key(kek), wrapped, name=self._name(kek))

    def destroy(self, kek: str) -> None:
        """Overwrite a key's file, and remove it."""
        destroy_file(self._path(kek))

    def holds(self, kek: str) -> bool:
        """Whether there is a key of this id."""
        return self._path(kek).exists()

    def _path(self, kek: str) -> Path:
        return self._folder / f"{PREFIX}{kek}"

    def _name(self, kek: str) -> str:
        return f"kek:{self._site}:{kek}"

    def _key(self, kek: str) -> bytes:
        """The sealing key of a key-encryption key, whose file holds what it should."""
        path = self._path(kek)
        try:
            content = Unseen(read_private(path))
        except WorkspaceError as cause:
            raise IntegrityError(
                "the key-encryption key is missing",
                where=str(path),
                do="restore it; without it nothing of this site can be opened",
            ) from cause
        if self._settings.passphrase:
            start = len(SEALED_MAGIC) + SALT_BYTES
            if not content.startswith(SEALED_MAGIC):
                raise IntegrityError("is not under a passphrase", where=str(path))
            salt = content[len(SEALED_MAGIC) : start]
            stretched = self._stretched(salt)
            content = Unseen(unseal(stretched, content[start:], name=self._name(kek)))
        if len(content) != KEY_BYTES:
            raise IntegrityError("the key file has the wrong length", where=str(path))
        return derive_key(content, "wrap-root")

    def _stretched(self, salt: bytes) -> bytes:
        """A key from the passphrase (Argon2id)."""
        passphrase = Unseen(self._secret(f"{self._site}.passphrase").encode())
        return Unseen(hash_secret_raw(passphrase, salt, PASSES, MEMORY, LANES, KEY_BYTES, Type.ID))
