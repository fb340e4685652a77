"""The encrypted store of a silo's rows (S2, S4).

What it promises, in this order:

1. Rows leave through `read` only, and only under a permit: the plan's experiment, lawful
   recipients, declared columns, bounded sends (`abfed.silo.selection`).
2. Nothing in the folder can be read without the site's keys, and the folder by its owner alone.
   Wider permissions, a changed byte, a swapped or missing file: IntegrityError, no rows.
3. An upsert happens wholly or not at all, also when the process is killed. New bucket files are
   written beside the old ones and flushed; replacing the sealed manifest is the commit; then the
   old files go.
4. Readers don't wait for a writer and see one state: they open all files of one manifest first.
   Writers wait for one another.
5. A reader's memory is bounded by one row group, and one bucket's encrypted bytes; a writer's by
   one bucket: its old rows, its new rows and the merged ones.

All rows of a recipient are in one bucket. Each file is read whole and compared with the digest in
the manifest before it is decrypted (SHA-256, about a second for 1.5 GB), so that what was checked
is what is used.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import DataError, Refused, WorkspaceError
from abfed.protocol.schema import RESERVED_COLUMNS
from abfed.silo.buckets import LOCK, BucketFiles
from abfed.silo.encryption import Cryptor
from abfed.silo.manifest import BucketFile, Manifest, write_manifest
from abfed.silo.merging import check_declared, merge
from abfed.silo.permit import Permit
from abfed.silo.portions import opted_out, rising, whole_recipients
from abfed.silo.pseudonyms import SendOrder
from abfed.silo.rows import (
    RECIPIENT,
    SEND_ORDER,
    SENT_AT,
    FeatureKind,
    canonical_schema,
    flat,
    schema_parts,
    with_schema,
)
from abfed.silo.selection import CODED, coded_schema, columns_to_read, select
from abfed.silo.spill import Spill, bucket_of
from abfed.silo.tombstones import Tombstones, erased, leave_out, unread
from abfed.site.clock import moment_of
from abfed.site.files import check_private, make_private_folder, write_private
from abfed.site.keys import SiteKeys

TwoArms = Literal["refuse", "exclude"]

DEFAULT_BUCKETS = 16
MAX_BUCKETS = 256  # a reader holds all files open


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What an upsert did, in sends. For the silo's own people: sensitive.

    Attributes:
        rows: that were taken in: not of erased people, and not past retention.
        new: sends that weren't known.
        updated: known sends that got a new value.
        unchanged: known sends that didn't.
    """

    rows: int
    new: int
    updated: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store holds. For the silo's own people; `sends` and `size` are sensitive.

    Attributes:
        epoch: random name of this state of the data, hex.
        generation: how many states came before.
        experiments: declared arms by experiment.
        outcomes: outcome columns.
        features: kind by feature.
        buckets: how many buckets recipients are spread over.
        sends: rows.
        size: bytes on disk, encrypted.
        exports: how many exports changed it so far.
        erasures: how many acts of erasure did.
        purged_before: sends before this moment are gone by retention; empty where none are.
    """

    epoch: str
    generation: int
    experiments: Mapping[str, tuple[str, ...]]
    outcomes: tuple[str, ...]
    features: Mapping[str, FeatureKind]
    buckets: int
    sends: int
    size: int
    exports: int
    erasures: int = 0
    purged_before: str = ""


class Store:
    """A silo's rows. Use `create` or `open`."""

    __slots__ = ("_cryptor", "_files", "_keys", "_manifest", "_order", "_people")

    def __init__(self, folder: Path, keys: SiteKeys, manifest: Manifest) -> None:
        self._files = BucketFiles(folder, keys)
        self._keys = keys
        self._manifest = manifest
        self._cryptor = Cryptor(keys)
        self._order = SendOrder(keys)
        self._people = Tombstones(folder, keys)

    def __repr__(self) -> str:
        """Where it lies; nothing of what it holds."""
        return f"Store({str(self._files.folder)!r})"

    @classmethod
    def create(cls, folder: Path, keys: SiteKeys, *, buckets: int = DEFAULT_BUCKETS) -> Store:
        """Make an empty store.

        Args:
            folder: a folder that doesn't exist yet, or is empty.
            keys: the site's keys.
            buckets: over how many files recipients are spread; memory is bounded by the largest.

        Raises:
            WorkspaceError: there is something already.
            ValueError: `buckets` isn't between 1 and 256.
        """
        if not 1 <= buckets <= MAX_BUCKETS:
            message = f"buckets must be between 1 and {MAX_BUCKETS}"
            raise ValueError(message)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError("is there already, and not empty", where=str(folder))
        make_private_folder(folder)
        write_private(folder / LOCK, b"")
        write_manifest(folder, keys, Manifest(epoch=secrets.token_hex(32), buckets=buckets))
        return cls.open(folder, keys)

    @classmethod
    def open(cls, folder: Path, keys: SiteKeys) -> Store:
        """Open a store, and clear away what a killed writer left.

        Every file's presence and mode are checked here, its content when it is read.

        Raises:
            WorkspaceError: it isn't a store.
            IntegrityError: open to others, changed, incomplete, or of another site.
        """
        if not folder.is_dir():
            raise WorkspaceError("is not a store", where=str(folder), do="create the silo first")
        check_private(folder)
        files = BucketFiles(folder, keys)
        check_private(folder / LOCK)
        with files.snapshot() as (manifest, _):
            store = cls(folder, keys, manifest)
        with files.exclusive(wait=False) as held:
            if held:
                files.sweep()
        return store

    @property
    def epoch(self) -> str:
        """Random name (64 hex digits) of the state of the data that was last looked at."""
        return self._manifest.epoch

    @property
    def features(self) -> dict[str, FeatureKind]:
        """Kind by feature held."""
        return dict(self._manifest.features)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Outcome columns held."""
        return self._manifest.outcomes

    def refresh(self) -> None:
        """Look at the manifest again: another process may have changed the data.

        Raises:
            IntegrityError: it was changed, by somebody without the key.
        """
        self._manifest = self._files.manifest()

    def describe(self) -> StoreFacts:
        """What the store holds, from its manifest: no row is read."""
        manifest = self._manifest
        return StoreFacts(
            epoch=manifest.epoch,
            generation=manifest.generation,
            experiments=dict(manifest.experiments),
            outcomes=manifest.outcomes,
            features=dict(manifest.features),
            buckets=manifest.buckets,
            sends=sum(file.sends for file in manifest.files),
            size=sum(file.size for file in manifest.files),
            exports=len(manifest.ingested),
            erasures=manifest.erasures,
            purged_before=manifest.purged_before,
        )

    def has_ingested(self, source: str) -> bool:
        """Whether an export of this keyed digest changed the store before."""
        return source in self._manifest.ingested

    def verify(self) -> None:
        """Compare every file with its digest (S10).

        Raises:
            IntegrityError: naming the first file that was changed or is missing.
        """
        with self._files.snapshot() as (manifest, opened):
            self._people.read(manifest.subjects)
            for file, handle in opened:
                self._files.content(file, handle)

    def read(self, permit: Permit, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows that a permit may see, bucket by bucket, in portions. Rows: sensitive.

        Each table has `recipient` (pseudonym, 16 bytes), `arm`, `sent_at` and the requested
        columns, is sorted by recipient, and holds all rows of its recipients.

        Args:
            permit: from the gate.
            columns: of those that the permit's plan declares.

        Raises:
            Refused: a column that isn't declared or held, or data that changed since the permit.
            IntegrityError: a file was changed or is missing.
        """
        wanted = columns_to_read(permit.plan, columns)
        with self._files.snapshot() as (manifest, opened):
            _check_permit(permit, columns, manifest)
            barred = unread(self._people.read(manifest.subjects))
            schema = coded_schema(stored_schema(manifest), wanted)
            for file, handle in opened:
                data = self._files.content(file, handle)
                out = opted_out(self._cryptor, data, file.name)
                groups = self._cryptor.groups(data, wanted, where=file.name, coded=CODED)
                held = (with_schema(one, schema) for one in whole_recipients(groups))
                known = permit.plan, permit.lawful_bases, columns, out
                yield from rising(select(leave_out(rows, barred), *known) for rows in held)

    def upsert(
        self,
        tables: Iterable[pa.Table],
        *,
        experiments: Mapping[str, Collection[str]],
        two_arms: TwoArms = "refuse",
        source: str | None = None,
        opted_out: Collection[bytes] = (),
    ) -> UpsertResult:
        """Add rows and what is new about known ones, wholly or not at all.

        Args:
            tables: canonical rows (`rows.canonical_schema`), all of one schema. Sensitive. An
                error that they raise while they are read leaves the store as it was.
            experiments: declared arms by experiment; rows must be of these.
            two_arms: what to do with a recipient in two arms of an experiment.
            source: keyed digest of the export, hex, to be remembered if it changes something.
            opted_out: who did by rows that can't be taken in; looked at when the tables are read.

        Raises:
            DataError: contradicting arms, a recipient in two arms, undeclared arms, other types.
            IntegrityError: a file of the store was changed or is missing.
        """
        with ExitStack() as stack:
            stack.enter_context(self._files.exclusive(wait=True))
            self.refresh()
            self._files.sweep()
            before = self._manifest.with_experiments(experiments)
            spill = stack.enter_context(Spill(self._files.folder, before.buckets))
            rows, before, out = self._take_in(tables, spill, before)
            out.update(opted_out)
            refuse = two_arms == "refuse"
            written: dict[int, BucketFile] = {}
            try:
                counts = self._merge(before, spill, written, out, refuse_two_arms=refuse)
                if written or before != self._manifest:
                    self._commit(before, written, source)
            except BaseException:
                self._files.sweep()
                raise
            return UpsertResult(rows, *counts)

    def _take_in(
        self, tables: Iterable[pa.Table], spill: Spill, manifest: Manifest
    ) -> tuple[int, Manifest, set[bytes]]:
        """Seal incoming rows, checked; the count, their columns, who opted out in those too old."""
        count, first, out = 0, None, set[bytes]()
        gone = erased(self._people.read(manifest.subjects))
        for table in tables:
            if first is None:
                first = table.schema
                manifest = manifest.with_columns(*schema_parts(first))
            elif not table.schema.equals(first):
                raise DataError("the tables of an upsert must have one schema")
            if not table.num_rows:
                continue
            check_declared(table, manifest.experiments)
            table, late = _parted(table, manifest)  # noqa: PLW2901
            out.update(late["recipient"].filter(late["opted_out"]).to_pylist())
            table = leave_out(table, gone)  # noqa: PLW2901 - who is erased stays so
            keys = (flat(table[name]) for name in ("recipient", "experiment", "sent_at"))
            table = table.append_column(SEND_ORDER, pa.array(self._order.of(*keys)))  # noqa: PLW2901
            spill.add(table)
            count += table.num_rows
        return count, manifest, out

    def _merge(
        self,
        manifest: Manifest,
        spill: Spill,
        written: dict[int, BucketFile],
        opted_out: set[bytes],
        *,
        refuse_two_arms: bool,
    ) -> tuple[int, int, int]:
        """Merge bucket by bucket into new files; counts of new, updated, unchanged sends."""
        schema = stored_schema(manifest)
        totals = [0, 0, 0]
        out = pa.array(sorted(opted_out), RECIPIENT)
        theirs = set(bucket_of(out, manifest.buckets).tolist()) if opted_out else set()
        with self._files.snapshot() as (_, opened):
            held = {file.bucket: (file, handle) for file, handle in opened}
            for bucket in sorted({*spill.buckets(), *(theirs & held.keys())}):
                existing = schema.empty_table()
                if bucket in held:
                    file, handle = held[bucket]
                    existing = self._cryptor.decrypt(
                        self._files.content(file, handle), where=file.name
                    )
                parts = [with_schema(part, schema) for part in spill.rows(bucket)]
                merged = merge(
                    with_schema(existing, schema),
                    pa.concat_tables([schema.empty_table(), *parts]),
                    refuse_two_arms=refuse_two_arms,
                    opted_out=out,
                )
                if merged.table is not None:
                    sealed = self._cryptor.encrypt(merged.table)
                    written[bucket] = self._files.write(bucket, sealed, merged.table.num_rows)
                for place, number in enumerate((merged.new, merged.updated, merged.unchanged)):
                    totals[place] += number
        return totals[0], totals[1], totals[2]

    def _commit(
        self, before: Manifest, written: Mapping[int, BucketFile], source: str | None
    ) -> None:
        """Make the new files the store, and remember the export."""
        if source is not None and source not in before.ingested:
            before = before.model_copy(update={"ingested": (*before.ingested, source)})
        self._manifest = self._files.commit(before, written, renewed=bool(written))


def stored_schema(manifest: Manifest) -> pa.Schema:
    """The stored columns: canonical rows and their send order."""
    schema = canonical_schema(manifest.outcomes, manifest.features)
    return schema.append(pa.field(SEND_ORDER, pa.uint64(), nullable=False))


def _parted(table: pa.Table, manifest: Manifest) -> tuple[pa.Table, pa.Table]:
    """Incoming rows that retention has not removed already, and those that it has."""
    if not manifest.purged_before:
        return table, table.slice(0, 0)
    moment = pa.scalar(moment_of(manifest.purged_before), SENT_AT)
    kept = pc.greater_equal(table["sent_at"], moment)
    return table.filter(kept), table.filter(pc.invert(kept))


def _check_permit(permit: Permit, columns: Sequence[str], manifest: Manifest) -> None:
    """Refuse what the permit doesn't cover or the store can't give."""
    if permit.epoch != manifest.epoch:
        raise Refused("the data changed after the permit was given", code="failed", do="ask again")
    declared = permit.plan.columns()
    held = {*manifest.outcomes, *manifest.features}
    for column in columns:
        if column not in declared:
            raise Refused(f"the plan doesn't declare column {column!r}", code="columns")
        if column not in held:
            raise Refused(f"column {column!r} is not held here", code="columns")
    for condition in permit.plan.population:
        if condition.column not in held and condition.column not in RESERVED_COLUMNS:
            raise Refused(f"column {condition.column!r} is not held here", code="columns")
