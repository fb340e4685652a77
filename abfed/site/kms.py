"""Where a site's key-encryption key lives: the interface, and what the key ring says of it (S2).

A key service holds key-encryption keys by id. It wraps and unwraps one secret of the site, its
*root*, and never hands out a key of its own. What is wrapped is bound to the site and the key's id.
Five functions are all that an adapter to another service has to have; `tests/conformance/kms.py` is
the suite that each passes.

Two come with abfed: private files (`kms_file`), and any PKCS#11 module (`kms_pkcs11`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

from pydantic import Field

from abfed.protocol.schema import Frozen

KekId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""64 random bits: names a key-encryption key for good."""

Secret = Callable[[str], str]
"""Gives what opens a key service: asked with the name of a credential."""


class FileKms(Frozen):
    """Keys in private files of the site's `keys` folder, under a passphrase if wished."""

    kind: Literal["file"] = "file"
    passphrase: bool = False


class Pkcs11Kms(Frozen):
    """Keys in a token behind a PKCS#11 module: a hardware module, a smart card, SoftHSM.

    Attributes:
        module: path of the module's library.
        token: label of the token.
    """

    kind: Literal["pkcs11"] = "pkcs11"
    module: str
    token: str


KmsSettings = Annotated[FileKms | Pkcs11Kms, Field(discriminator="kind")]


class KeyService(Protocol):
    """Holds key-encryption keys."""

    def create(self, kek: str) -> None:
        """Make a key of this id; there is none yet. It is durable when this returns."""

    def wrap(self, kek: str, secret: bytes) -> bytes:
        """Seal a secret under a key.

        Raises:
            IntegrityError: there is no such key.
        """

    def unwrap(self, kek: str, wrapped: bytes) -> bytes:
        """Open a sealed secret.

        Raises:
            IntegrityError: no such key, another key's, another site's, or changed bytes.
        """

    def destroy(self, kek: str) -> None:
        """Destroy a key for good; one that isn't there is destroyed already."""

    def holds(self, kek: str) -> bool:
        """Whether there is a key of this id."""
