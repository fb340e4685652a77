"""Checking a silo from its keys to its last row: each part on its own, so that none hides another.

What is looked at: that nothing is missing or open to others; the policy; the sealed manifest, who
must not come back, and each file of the store, byte by byte; each entry of the ledger; each kept
release and model; each entry of the audit log, and that the ledger is not older than it. Nothing is
decrypted that holds a row, nothing is written, and nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from abfed.protocol.errors import AbfedError, IntegrityError
from abfed.silo.buckets import BucketFiles
from abfed.silo.ledger import Ledger
from abfed.silo.models import Models
from abfed.silo.policy import Policy
from abfed.silo.releases import Releases
from abfed.silo.service import SiloPaths, check_not_restored, check_there
from abfed.silo.tombstones import Tombstones
from abfed.site.audit import AuditLog
from abfed.site.keys import SiteKeys

FOREVER = "9999"
"""Later than every stamp."""


class Part(NamedTuple):
    """One part of a silo.

    Attributes:
        part: which.
        holds: whether it is as it was written.
        what: what was looked at, or what is wrong.
    """

    part: str
    holds: bool
    what: str


def check_silo(folder: Path, parts: Collection[str] = ()) -> tuple[Part, ...]:
    """Check all parts of a silo, or those that are named.

    Raises:
        WorkspaceError, IntegrityError: its keys can't be opened, so nothing can be checked.
    """
    paths = SiloPaths(folder)
    keys = SiteKeys.open(paths.keys)
    checks: dict[str, Callable[[], str]] = {
        "files": lambda: _files(paths),
        "policy": lambda: f"of {Policy.load(paths.policy).silo}",
        "store": lambda: _store(paths, keys),
        "ledger": lambda: _ledger(paths, keys),
        "releases": lambda: _releases(paths, keys),
        "models": lambda: _models(folder, keys),
        "audit log": lambda: f"{AuditLog(paths.audit, keys).verify().entries} entries",
    }
    wanted = parts or checks
    return tuple(_checked(part, check) for part, check in checks.items() if part in wanted)


def _checked(part: str, check: Callable[[], str]) -> Part:
    try:
        return Part(part, holds=True, what=check())
    except AbfedError as error:
        place = f" ({error.where})" if error.where else ""
        return Part(part, holds=False, what=f"{error.what}{place}")


def _files(paths: SiloPaths) -> str:
    check_there(paths)
    return "none is missing or open to others"


def _store(paths: SiloPaths, keys: SiteKeys) -> str:
    files = BucketFiles(paths.store, keys)
    with files.snapshot() as (manifest, opened):
        Tombstones(paths.store, keys).read(manifest.subjects)  # else who was erased came back (S1b)
        for file, handle in opened:
            files.content(file, handle)
        return f"{len(opened)} files, every byte"


def _ledger(paths: SiloPaths, keys: SiteKeys) -> str:
    check_there(paths)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(paths.ledger, keys))
        check_not_restored(ledger, AuditLog(paths.audit, keys))
        return f"{ledger.entries} entries, none older than the audit log's"


def _models(folder: Path, keys: SiteKeys) -> str:
    models = Models(folder / "models", keys)
    if broken := models.damaged():
        name, what = next(iter(sorted(broken.items())))
        raise IntegrityError(what, where=f"model {name}")
    return f"{len(models.digests())}, each the one that its name says"


def _releases(paths: SiloPaths, keys: SiteKeys) -> str:
    kept = Releases(paths.releases, keys)
    with Ledger(paths.ledger, keys) as ledger:
        named = ledger.kept_before(FOREVER)
    for key, digest in named:
        kept.again(key, digest)
    return f"{len(named)}, each the one that was given"
