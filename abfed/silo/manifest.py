"""The store's manifest: which files are the store, sealed. Replacing it is the commit.

1. A file that the manifest doesn't name is no part of the store.
2. It holds the SHA-256 of each file, so that a bucket can't be changed, nor replaced by an older
   one of its own.
3. It is sealed under a key of its own, bound to the site's name. What it can't see is a disk that
   was put back as a whole; `generation` counts up so that the ledger and the audit log can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.errors import DataError, IntegrityError, WorkspaceError
from abfed.protocol.identity import At
from abfed.protocol.messages import Hex64
from abfed.protocol.schema import OUTCOMES, Frozen, Name
from abfed.protocol.sealing import seal, unseal
from abfed.silo.rows import FeatureKind
from abfed.site.files import read_private, write_private
from abfed.site.keys import SiteKeys

MANIFEST = "manifest.sealed"
BUCKET_PREFIX = "bucket-"
SUBJECTS_PREFIX = "subjects-"
CACHE_PREFIX = "cache-"
"""Files made of the rows of one state of the data; its name follows, and they go with it."""

FileName = Annotated[str, Field(pattern=r"^bucket-[0-9]{4}-[0-9a-f]{16}\.parquet$")]


class BucketFile(Frozen):
    """One file of the store.

    Attributes:
        bucket: which bucket it holds, all of it.
        name: of the file.
        sha256: digest of its bytes.
        size: in bytes.
        sends: rows in it. Sensitive.
    """

    bucket: Annotated[int, Field(ge=0)]
    name: FileName
    sha256: Hex64
    size: Annotated[int, Field(ge=0)]
    sends: Annotated[int, Field(ge=0)]


class SubjectsFile(Frozen):
    """The file that says who must not be read or come back (`silo/tombstones.py`)."""

    name: Annotated[str, Field(pattern=r"^subjects-[0-9a-f]{16}\.sealed$")]
    sha256: Hex64


class Manifest(Frozen):
    """The state of a store.

    Attributes:
        epoch: random name of this state of the data.
        generation: how many states came before; only ever grows.
        buckets: how many buckets recipients are spread over; never changes.
        experiments: declared arms by experiment.
        outcomes: outcome columns held.
        features: kind by feature held.
        files: the store's files, at most one for each bucket.
        ingested: keyed digests of the exports that changed something.
        subjects: who must not be read or come back; None while there is nobody.
        erasures: how many acts of erasure changed the data; only ever grows.
        purged_before: sends before this moment are gone, by the policy's retention; empty where
            nothing was purged.
    """

    version: Literal[1] = 1
    epoch: Hex64
    generation: Annotated[int, Field(ge=0)] = 0
    buckets: Annotated[int, Field(ge=1, le=256)]
    experiments: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    outcomes: tuple[str, ...] = ()
    features: dict[Name, FeatureKind] = Field(default_factory=dict)
    files: tuple[BucketFile, ...] = ()
    ingested: tuple[Hex64, ...] = ()
    subjects: SubjectsFile | None = None
    erasures: Annotated[int, Field(ge=0)] = 0
    purged_before: At | Literal[""] = ""

    def with_columns(
        self, outcomes: Iterable[str], features: Mapping[str, FeatureKind]
    ) -> Manifest:
        """This manifest, holding these outcomes and features too.

        Raises:
            DataError: a feature is held with another kind.
        """
        for name, kind in features.items():
            held = self.features.get(name, kind)
            if held != kind:
                raise DataError(
                    f"feature {name!r} is a {kind} here and a {held} in the store",
                    do="use another name for one of the two",
                )
        both = set(self.outcomes) | set(outcomes)
        return self.model_copy(
            update={
                "outcomes": tuple(name for name in OUTCOMES if name in both),
                "features": self.features | dict(features),
            }
        )

    def with_experiments(self, declared: Mapping[str, Iterable[str]]) -> Manifest:
        """This manifest, with these arms declared too."""
        experiments = dict(self.experiments)
        for name, arms in declared.items():
            experiments[name] = tuple(dict.fromkeys((*experiments.get(name, ()), *arms)))
        return self.model_copy(update={"experiments": experiments})


def _name(keys: SiteKeys) -> str:
    return f"store:{keys.site}:manifest"


def write_manifest(folder: Path, keys: SiteKeys, manifest: Manifest) -> None:
    """Commit: seal the manifest and put it in place, durably."""
    plain = canonical_bytes(manifest.model_dump(mode="json"))
    sealed = seal(keys.derive("store-manifest"), plain, name=_name(keys))
    write_private(folder / MANIFEST, sealed)


def read_manifest(folder: Path, keys: SiteKeys) -> Manifest:
    """The manifest as it is now.

    Raises:
        WorkspaceError: there is none, so this is no store.
        IntegrityError: open to others, changed, or of another site.
    """
    path = folder / MANIFEST
    try:
        sealed = read_private(path)
    except WorkspaceError as cause:
        raise WorkspaceError("is not a store", where=str(folder)) from cause
    try:
        plain = unseal(keys.derive("store-manifest"), sealed, name=_name(keys))
        return Manifest.model_validate_json(plain)
    except (IntegrityError, ValidationError) as cause:
        raise IntegrityError(
            "the store's manifest can't be opened",
            where=str(path),
            why="it was changed, or it belongs to another site's key",
            do="restore the store from a backup, or find out who changed it",
        ) from cause
