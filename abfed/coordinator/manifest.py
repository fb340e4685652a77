"""The manifest: what a finished run binds together, signed by the coordinator (S10, S21).

It names the plan, each release, the model, each site's audit head, each silo's public key, who was
left out and why, the weights, and the versions of what computed it. It stands for the whole run: a
changed byte in any of these is found by `verify`, and so is a folder that bears another run's name.

How the run is to be shown, and how long its steps took, may change afterwards and aren't part of
the question: they lie beside it, signed on their own and bound to the run (`coordinator.beside`). A
file in the folder that is neither named by the manifest nor signed so is never read.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.coordinator.journal import read_journal
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.clock import stamp
from abfed.site.files import read_private

if TYPE_CHECKING:
    from abfed.coordinator.rounds import RunFolder

FORMAT = 1
PACKAGES = (
    "abfed",
    "cryptography",
    "dp-accounting",
    "flwr",
    "numpy",
    "opacus",
    "opendp",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "torch",
)
"""Those that a release, a model or a figure can depend on."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages above, as installed; "" where one isn't."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def build(
    folder: RunFolder,
    *,
    silos: Mapping[str, bytes],
    coordinator: bytes,
    heads: Mapping[str, str],
    sealed_model: bytes,
    asked_by: str,
    now: datetime,
) -> bytes:
    """The manifest of a run whose steps are all closed.

    Args:
        folder: the run.
        silos: public key of each silo that the plan names.
        coordinator: the coordinator's public key.
        heads: the last audit head of each site.
        sealed_model: the content of `model.sealed`; b"" where the plan has no model.
        asked_by: the person who submitted the plan, with their site.
        now: when it's made.
    """
    releases: dict[str, dict[str, str]] = {}
    for step, body in folder.steps.items():
        for silo, digest in body["releases"].items():
            releases.setdefault(silo, {})[step] = digest
    last = [body for step, body in folder.steps.items() if body["model"]]
    model = {"digest": last[-1]["model"], "sealed": sha256_hex(sealed_model)} if last else None
    return canonical_bytes(
        {
            "format": FORMAT,
            "status": "complete",
            "run": folder.run,
            "plan": folder.plan.digest,
            "asked_by": asked_by,
            "simulated": folder.plan.simulation is not None,
            "epochs": folder.epochs,
            "releases": releases,
            "model": model,
            "weights": {s: body["weights"] for s, body in folder.steps.items() if body["weights"]},
            "left_out": {
                s: body["left_out"] for s, body in folder.steps.items() if body["left_out"]
            },
            "audit_heads": dict(heads),
            "public_keys": {silo: key.hex() for silo, key in silos.items()},
            "coordinator": coordinator.hex(),
            "journal": folder.journal.head,
            "versions": versions(),
            "created_at": stamp(now),
        }
    )


def verify(path: Path, coordinator: bytes) -> dict[str, Any]:
    """Check a finished run from its signature down, and return its manifest.

    Args:
        path: the run's folder.
        coordinator: the public key of the coordinator that must have signed it.

    Raises:
        WorkspaceError: the run isn't finished.
        IntegrityError: a byte of it was changed; names the file.
    """
    if not (path / "manifest.sig").exists():
        raise WorkspaceError("the run is not finished", where=str(path), do="run its plan again")
    content = open_envelope(
        read_private(path / "manifest.sig"),
        {key_id(coordinator): coordinator},
        kind="manifest",
        where=str(path / "manifest.sig"),
    ).content
    manifest = parse_canonical(content, where=str(path / "manifest.sig"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IntegrityError("not a manifest of a run", where=str(path / "manifest.sig"))
    if manifest.get("run") != path.resolve().name:
        raise IntegrityError(
            "the folder bears another name than the run in it",
            where=str(path),
            why=f"what was signed is run {manifest.get('run')!r}",
            do="give the folder its name back",
        )
    if read_private(path / "manifest.json") != content:
        raise IntegrityError("differs from what was signed", where=str(path / "manifest.json"))
    _check_file(path / "plan.json", manifest["plan"])
    if read_journal(path / "journal.jsonl", coordinator).head != manifest["journal"]:
        raise IntegrityError("differs from what was signed", where=str(path / "journal.jsonl"))
    for silo, steps in manifest["releases"].items():
        for step, digest in steps.items():
            _check_file(path / "releases" / silo / f"{step}.release", digest)
    if manifest["model"] is not None:
        _check_file(path / "model.sealed", manifest["model"]["sealed"])
    return manifest


def _check_file(path: Path, digest: str) -> None:
    try:
        content = read_private(path)
    except WorkspaceError as cause:
        raise IntegrityError("is missing, and the manifest names it", where=str(path)) from cause
    if sha256_hex(content) != digest:
        raise IntegrityError("differs from what was signed", where=str(path))
