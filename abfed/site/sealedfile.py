"""A small sealed file that several processes change: whole or not at all, one after the other.

The content is canonical JSON under a key for this one purpose, so that a stolen disk says nothing
and a changed byte is found. It is for registers of some thousand entries, not for rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.sealing import seal, unseal
from abfed.site.files import alone, read_private, write_private
from abfed.site.keys import SiteKeys


class SealedFile:
    """A sealed register.

    Args:
        path: the file.
        keys: the site's keys.
        purpose: what it is; the seal is bound to it and to the site.
    """

    def __init__(self, path: Path, keys: SiteKeys, purpose: str) -> None:
        self.path = path
        self._key = keys.derive(purpose)
        self._name = f"{purpose}:{keys.site}"

    def __repr__(self) -> str:
        """Where it lies; nothing of what it holds."""
        return f"SealedFile({str(self.path)!r})"

    def read(self) -> Any:
        """The content; None where nothing was written yet.

        Raises:
            IntegrityError: it is open to others, or was changed.
        """
        if not self.path.exists():
            return None
        plain = unseal(self._key, read_private(self.path), name=self._name)
        return parse_canonical(plain, where=str(self.path))

    def write(self, value: Any) -> None:
        """Replace the content, durably."""
        write_private(self.path, seal(self._key, canonical_bytes(value), name=self._name))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes and threads from changing it meanwhile."""
        with alone(self.path.with_name(f".{self.path.name}.lock")):
            yield
