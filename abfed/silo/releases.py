"""Releases at rest: each kept sealed under its idempotency key, so that it can be given again.

A file is named by key and digest: two processes that answer the same request at once can't
overwrite each other, and the ledger's first entry says which of the two is the release.
"""

from __future__ import annotations

from pathlib import Path

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.sealing import seal, unseal
from abfed.site.files import make_own_folder, read_private, write_private
from abfed.site.keys import SiteKeys


class Releases:
    """A silo's own copies of what it released.

    Args:
        folder: where they lie; made with mode 0700.
        keys: the silo's keys.
    """

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        make_own_folder(folder)
        self._folder = folder
        self._key = keys.derive("releases")

    def keep(self, key: str, envelope: bytes) -> str:
        """Seal a release on disk.

        Returns:
            Its SHA-256 digest.
        """
        digest = sha256_hex(envelope)
        write_private(self._path(key, digest), seal(self._key, envelope, name=f"release:{key}"))
        return digest

    def drop(self, key: str, digest: str) -> None:
        """Remove a copy that did not become the release."""
        self._path(key, digest).unlink(missing_ok=True)

    def again(self, key: str, digest: str) -> bytes:
        """The release that was given under this key.

        Raises:
            IntegrityError: it is damaged or not the one that the ledger names.
        """
        path = self._path(key, digest)
        try:
            sealed = read_private(path)
        except WorkspaceError as cause:
            raise IntegrityError(
                "a release that the ledger names is missing", where=str(path)
            ) from cause
        envelope = unseal(self._key, sealed, name=f"release:{key}")
        if sha256_hex(envelope) != digest:
            raise IntegrityError("is not the release that the ledger names", where=f"release {key}")
        return envelope

    def _path(self, key: str, digest: str) -> Path:
        return self._folder / f"{key[:32]}-{digest[:32]}.sealed"
