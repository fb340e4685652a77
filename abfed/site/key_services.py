"""The key service that a site's key ring names: files, or a token behind a PKCS#11 module."""

from __future__ import annotations

from pathlib import Path

from abfed.site.kms import FileKms, KeyService, Pkcs11Kms, Secret
from abfed.site.kms_file import FileService


def open_kms(settings: FileKms | Pkcs11Kms, folder: Path, site: str, secret: Secret) -> KeyService:
    """Open a key service.

    Args:
        settings: what the key ring says.
        folder: the site's `keys` folder.
        site: the site's name.
        secret: gives the passphrase or PIN, when it is needed.

    Raises:
        WorkspaceError: what it needs isn't installed.
    """
    if isinstance(settings, FileKms):
        return FileService(settings, folder, site, secret)
    from abfed.site.kms_pkcs11 import Pkcs11Service  # noqa: PLC0415 - an extra: often not there

    return Pkcs11Service(settings, site, secret)
