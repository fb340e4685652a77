"""Changing what a store holds about people: erase, bar, export, purge (S1, S1b).

Everything is wholly or not at all, like an upsert: new bucket files beside the old ones, then the
manifest, then the old files go, and with them what was made of their rows (caches). Only buckets
that hold one of the people are rewritten; many people take one pass. Memory is bounded by a bucket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from abfed.silo.buckets import BucketFiles
from abfed.silo.encryption import Cryptor
from abfed.silo.manifest import BucketFile, Manifest
from abfed.silo.merging import opt_out
from abfed.silo.rows import RECIPIENT, flat
from abfed.silo.spill import bucket_of
from abfed.silo.tombstones import State, Tombstones, leave_out, with_state, without_state
from abfed.site.clock import stamp
from abfed.site.keys import SiteKeys


class Changed(NamedTuple):
    """What was done.

    Attributes:
        held: pseudonyms that the store had rows of. Sensitive.
        buckets: files that were rewritten.
        epoch: the state of the data from now on.
    """

    held: frozenset[bytes]
    buckets: int
    epoch: str


class Rewriting:
    """Changes a store, for the silo's own people.

    Args:
        folder: the store's.
        keys: the silo's keys.
    """

    def __init__(self, folder: Path, keys: SiteKeys) -> None:
        self._files = BucketFiles(folder, keys)
        self._cryptor = Cryptor(keys)
        self._people = Tombstones(folder, keys)

    def erase(
        self,
        who: Iterable[bytes],
        before: Callable[[frozenset[bytes]], None] = lambda _: None,
    ) -> Changed:
        """Remove everything about these people, and keep them from coming back.

        On disk when this returns; killed at any moment, it was done wholly or not at all.

        Args:
            who: pseudonyms.
            before: told whom the store had rows of, before they are gone: nobody can tell then.
        """
        wanted = frozenset(who)

        def change(manifest: Manifest, held: frozenset[bytes]) -> Manifest:
            before(held)
            people = with_state(self._people.read(manifest.subjects), wanted, "erased")
            return manifest.model_copy(
                update={
                    "subjects": self._people.write(people),
                    # an act that found nobody leaves the data as they were
                    "erasures": manifest.erasures + bool(held),
                }
            )

        return self._rewrite(wanted, change, lambda rows: leave_out(rows, _array(wanted)))

    def bar(self, who: Iterable[bytes], state: State, *, lift: bool = False) -> Changed:
        """Keep these people's rows from being read, or let them be read again."""
        wanted = frozenset(who)
        change = without_state if lift else with_state
        with self._files.exclusive(wait=True):
            self._files.sweep()
            manifest = self._files.manifest()
            people = change(self._people.read(manifest.subjects), wanted, state)
            after = manifest.model_copy(update={"subjects": self._people.write(people)})
            held = self.holds(wanted)
            after = self._files.commit(after, {}, renewed=bool(held))
        return Changed(held, 0, after.epoch)

    def holds(self, who: Iterable[bytes]) -> frozenset[bytes]:
        """Those of these people that the store has rows of. Sensitive."""
        found: set[bytes] = set()
        wanted = frozenset(who)
        by_bucket = self._by_bucket(wanted)
        with self._files.snapshot() as (_, opened):
            for file, handle in opened:
                if file.bucket in by_bucket:
                    rows = self._cryptor.decrypt(
                        self._files.content(file, handle), ["recipient"], where=file.name
                    )
                    found |= _among(rows, by_bucket[file.bucket])
        return frozenset(found)

    def export(self, who: bytes) -> pa.Table | None:
        """All rows of one person, every column; None where there are none. Sensitive."""
        with self._files.snapshot() as (_, opened):
            bucket = self._by_bucket(frozenset({who}))
            for file, handle in opened:
                if file.bucket in bucket:
                    rows = self._cryptor.decrypt(self._files.content(file, handle), where=file.name)
                    own = rows.filter(pc.is_in(rows["recipient"], value_set=_array({who})))
                    return own if own.num_rows else None
        return None

    def states_of(self, who: bytes) -> tuple[State, ...]:
        """The states that one person is in."""
        people = self._people.read(self._files.manifest().subjects)
        return tuple(state for state, those in people.items() if who in those)

    def purge(self, before: datetime) -> Changed:
        """Remove all sends before a moment, by the policy's retention.

        Who opted out on one of them is not read because it is gone: their other sends say it now.
        """
        moment = pa.scalar(before, pa.timestamp("us", tz="UTC"))

        def change(manifest: Manifest, held: frozenset[bytes]) -> Manifest:
            del held
            return manifest.model_copy(update={"purged_before": stamp(before)})

        def keep(rows: pa.Table) -> pa.Table:
            late = pc.less(rows["sent_at"], moment)
            out = rows.filter(pc.and_(late, rows["opted_out"]))
            return opt_out(rows.filter(pc.invert(late)), flat(out["recipient"]))

        return self._rewrite(None, change, keep)

    def _rewrite(
        self,
        wanted: frozenset[bytes] | None,
        change: Callable[[Manifest, frozenset[bytes]], Manifest],
        keep: Callable[[pa.Table], pa.Table],
    ) -> Changed:
        """Rewrite the buckets of these people, or all, keeping some rows; in one commit."""
        with ExitStack() as stack:
            stack.enter_context(self._files.exclusive(wait=True))
            self._files.sweep()
            written: dict[int, BucketFile | None] = {}
            held: set[bytes] = set()
            try:
                manifest, opened = stack.enter_context(self._files.snapshot())
                by_bucket = None if wanted is None else self._by_bucket(wanted)
                for file, handle in opened:
                    if by_bucket is not None and file.bucket not in by_bucket:
                        continue
                    data = self._files.content(file, handle)
                    rows = self._cryptor.decrypt(data, where=file.name)
                    kept = keep(rows)
                    if kept.num_rows == rows.num_rows:
                        continue
                    if by_bucket is not None:
                        held |= _among(rows, by_bucket[file.bucket])
                    written[file.bucket] = (
                        self._files.write(file.bucket, self._cryptor.encrypt(kept), kept.num_rows)
                        if kept.num_rows
                        else None
                    )
                    del data, rows, kept
                changed = change(manifest, frozenset(held))
                after = self._files.commit(changed, written, renewed=bool(written))
            except BaseException:
                self._files.sweep()
                raise
        return Changed(frozenset(held), len(written), after.epoch)

    def _by_bucket(self, who: frozenset[bytes]) -> dict[int, frozenset[bytes]]:
        """People by the bucket that their rows are in."""
        ordered = sorted(who)
        places = bucket_of(_array(ordered), self._files.manifest().buckets).tolist() if who else []
        found: dict[int, set[bytes]] = defaultdict(set)
        for bucket, one in zip(places, ordered, strict=True):
            found[bucket].add(one)
        return {bucket: frozenset(those) for bucket, those in found.items()}


def _array(who: Iterable[bytes]) -> pa.Array:
    return pa.array(sorted(who), RECIPIENT)


def _among(rows: pa.Table, who: frozenset[bytes]) -> set[bytes]:
    """Those of these people who are in the rows."""
    seen = flat(rows["recipient"]).unique()
    found: set[bytes] = set(seen.filter(pc.is_in(seen, value_set=_array(who))).to_pylist())
    return found
