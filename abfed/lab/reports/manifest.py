"""A report's manifest: what it was made from and what came out, signed by the workspace.

It holds the notebook's digest, the parameters, the run's own manifest (and through it plan,
releases and model), versions, who it is for, how its kernel was confined, and each file's digest.
It holds no time and no name of a machine: the same report has the same manifest.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import abfed
from abfed.protocol.canonical import digest, parse_canonical, sha256_hex
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.site.files import read_private

FORMAT = 1
SUFFIX = ".report"
PACKAGES = ("abfed", "ipykernel", "ipython", "jinja2", "matplotlib", "mistune", "nbclient",
            "nbconvert", "nbformat", "numpy", "pandas", "papermill", "scipy",
            "weasyprint")  # fmt: skip
"""Those that the bytes of a page can depend on, besides what made the run."""
FIELDS = {
    "format", "report", "key", "notebook", "parameters", "subject", "seed", "versions", "code",
    "audience", "confinement", "files",
}  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages above, as installed; "" where one isn't."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


@functools.cache
def code_digest() -> str:
    """The digest of this package's source: a page follows from code as well as from a version."""
    package = Path(abfed.__file__).parent
    files = sorted([*package.rglob("*.py"), *package.rglob("*.j2")])
    return digest({str(one.relative_to(package)): sha256_hex(one.read_bytes()) for one in files})


def content_key(notebook: bytes, parameters: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    """The digest of all that a report is made from; another digest is another report."""
    return digest(
        {
            "notebook": sha256_hex(notebook),
            "parameters": dict(parameters),
            "subject": dict(subject),
            "versions": versions(),
            "code": code_digest(),
        }
    )


def read_manifest(path: Path, public_key: bytes) -> dict[str, Any]:
    """A report's manifest, whose signature held.

    Raises:
        WorkspaceError: there is none.
        IntegrityError: it was changed, another key signed it, or it is another report's: beside
            that, files that nobody looks at would pass for this one's.
    """
    stranger = "verify it with -w in the workspace that made it, or make it again in this one"
    found = manifest_of(read_private(path), public_key, where=path.name, stranger=stranger)
    if path.name != f"{found['report']}{SUFFIX}":
        raise IntegrityError(
            "another report's manifest lies under this one's name", where=path.name,
            do="make the report again",
        )  # fmt: skip
    return found


def damaged(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """Files that aren't, byte for byte, what a manifest names."""
    found = []
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256_hex(path.read_bytes()) != wanted:
            found.append(name)
    return found


def manifest_of(signed: bytes, public_key: bytes, *, where: str, stranger: str) -> dict[str, Any]:
    """A manifest from its envelope.

    Args:
        signed: the envelope.
        public_key: whose signature it must bear.
        where: the file, for errors.
        stranger: what to do where another key signed it: nobody pins one for reports.

    Raises:
        IntegrityError: it was changed, or another key signed it.
    """
    trusted = {key_id(public_key): public_key}
    opened = open_envelope(signed, trusted, kind="report", where=where, stranger=stranger)
    found = parse_canonical(opened.content, where=where)
    if not isinstance(found, dict) or set(found) != FIELDS or found["format"] != FORMAT:
        raise IntegrityError("not a report's manifest", where=where)
    return found
