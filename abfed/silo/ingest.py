"""Ingest: from a brand's export to its encrypted store.

1. The file is looked over as a whole (`exports.look_over`), then the mapping is tried on its first
   1,000 rows; only then is anything taken in.
2. Bad rows are left out and counted by reason; too many of them, and nothing is stored.
3. Whatever goes wrong, the store stays byte for byte as it was.

The report is for the silo's own people: its counts are of rows. The audit log gets what it needs to
show that an ingest took place, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from abfed.protocol.errors import DataError
from abfed.silo.converting import Converter
from abfed.silo.doubts import Seen
from abfed.silo.exports import Export, Progress, look_over
from abfed.silo.mapping import ExportMapping
from abfed.silo.policy import Policy
from abfed.silo.pseudonyms import Pseudonyms
from abfed.silo.store import Store
from abfed.site.keys import SiteKeys

SAMPLE_ROWS = 1_000
SAMPLE_LIMIT = 0.5
"""Share of the sample that may be rejected: above it the mapping is wrong, not the rows."""

SHOWN_REASONS = 5


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did, for the silo's own people. Sensitive: exact counts of rows.

    Attributes:
        rows: in the file.
        left_out: of them, given to somebody else by the mapping's `where`.
        accepted: of them, converted.
        rejected: the others, by reason.
        new: sends that weren't known.
        updated: known sends that got a new value.
        unchanged: known sends that didn't.
        kept_out: accepted rows that the store takes no more: of erased people, past retention.
        digest: keyed digest of the file, hex.
        known: whether this very file was taken in before.
        doubts: what is odd about accepted rows, in words, and how many rows it is about.
    """

    rows: int
    left_out: int
    accepted: int
    rejected: Mapping[str, int]
    new: int
    updated: int
    unchanged: int
    kept_out: int
    digest: str
    known: bool
    doubts: Mapping[str, int] = field(default_factory=dict)

    @property
    def repeated(self) -> int:
        """Accepted rows that name a send which the file has already named."""
        return self.accepted - self.kept_out - self.new - self.updated - self.unchanged


@dataclass(slots=True)
class _Tally:
    """Rows so far."""

    rows: int = 0
    left_out: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    seen: Seen = field(default_factory=Seen)
    opted_out: set[bytes] = field(default_factory=set)


def ingest(
    store: Store,
    keys: SiteKeys,
    mapping: ExportMapping,
    path: Path,
    progress: Progress | None = None,
    policy: Policy | None = None,
) -> IngestReport:
    """Take an export in.

    The same export again changes nothing; a later one updates known sends.

    Args:
        store: the silo's store.
        keys: the silo's keys, the same that the store was opened with.
        mapping: of this export.
        path: of the export.
        progress: told now and then how many bytes are done, and of how many.
        policy: the silo's, to tell which rows no plan may ever read.

    Raises:
        DataError: the file can't be read as the mapping says; the store stays as it was.
        IntegrityError: the store is damaged.
    """
    export = look_over(path, mapping.source, mapping.columns(), keys)
    converter = Converter(mapping, Pseudonyms(keys))
    known = store.has_ingested(export.digest)
    tally = _Tally()
    result = store.upsert(
        _tables(export, mapping, converter, tally, progress),
        experiments=mapping.experiments(),
        two_arms=mapping.two_arms,
        source=export.digest,
        opted_out=tally.opted_out,
    )
    return IngestReport(
        rows=tally.rows,
        left_out=tally.left_out,
        accepted=tally.accepted,
        rejected=dict(sorted(tally.rejected.items())),
        new=result.new,
        updated=result.updated,
        unchanged=result.unchanged,
        kept_out=tally.accepted - result.rows,
        digest=export.digest,
        known=known,
        doubts=tally.seen.doubts(mapping, policy),
    )


def _tables(
    export: Export,
    mapping: ExportMapping,
    converter: Converter,
    tally: _Tally,
    progress: Progress | None,
) -> Iterator[pa.Table]:
    """Canonical rows, batch by batch; the last word on how many may be rejected. Sensitive."""
    done = 0
    for batch in export.batches():
        if not tally.rows:
            _check_sample(converter, batch.slice(0, SAMPLE_ROWS), export.path)
        converted = converter.convert(batch, tally.rows)
        tally.rows += batch.num_rows
        tally.left_out += converted.left_out
        tally.accepted += converted.table.num_rows
        tally.rejected.update(converted.rejected)
        tally.opted_out |= converted.opted_out
        tally.seen.add(converted.table, mapping)
        if converted.rejected and mapping.on_bad_row == "refuse":
            _refuse(
                tally.rejected,
                export.path,
                "the mapping says `on_bad_row: refuse`, so one is too many",
            )
        yield converted.table
        if progress is not None:
            done = min(export.size, done + batch.nbytes)
            progress(done, export.size)
    _check_shares(tally, mapping, export.path)
    if progress is not None:
        progress(export.size, export.size)


def _check_sample(converter: Converter, sample: pa.RecordBatch, path: Path) -> None:
    """Try the mapping on the first rows."""
    tried = converter.convert(sample, 0)
    rejected = tried.rejected.total()
    if rejected > SAMPLE_LIMIT * (sample.num_rows - tried.left_out):
        _refuse(
            tried.rejected,
            path,
            f"more than half of the first {SAMPLE_ROWS:,} rows can't be used, so the mapping "
            "doesn't fit the file",
        )


def _check_shares(tally: _Tally, mapping: ExportMapping, path: Path) -> None:
    """Refuse a file with nothing for this brand, or with too many bad rows."""
    ours = tally.rows - tally.left_out
    if not ours:
        raise DataError(
            "the mapping's `where` keeps no row of this file",
            where=str(path),
            do="check its columns and values",
        )
    rejected = tally.rejected.total()
    if rejected > mapping.max_rejected_share * ours:
        limit = f"{mapping.max_rejected_share:.1%}"
        _refuse(tally.rejected, path, f"at most {limit} of the rows may be rejected")


def _refuse(rejected: Counter[str], path: Path, why: str) -> None:
    """Refuse a file, with the reasons, the most frequent first; how often is nobody's business."""
    shown = [reason for reason, _ in rejected.most_common(SHOWN_REASONS)]
    raise DataError(
        f"too many rows can't be used: {'; '.join(shown)}",
        where=str(path),
        why=why,
        do="correct the mapping or the export; nothing was stored",
    )
