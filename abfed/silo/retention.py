"""Retention (S1): sends older than the policy keeps are removed, in whole days of UTC.

`abfed silo purge` does it on schedule. Where that is more than a day late, the next request does it
before anything is read, so that no computation reads what should be gone. Purged sends don't come
back with a later export: the store remembers how far it was purged.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from abfed.silo.rewriting import Rewriting
from abfed.silo.store import Store
from abfed.site.audit import AuditLog
from abfed.site.clock import moment_of, stamp
from abfed.site.keys import SiteKeys

GRACE = timedelta(days=1)
"""How late the schedule may be before a request purges by itself."""


def cutoff_of(days: int, now: datetime) -> datetime:
    """Sends before this moment are past retention.

    >>> cutoff_of(30, datetime(2026, 3, 31, 14, tzinfo=UTC)).isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    day = (now - timedelta(days=days)).date()
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def late_by(store: Store, days: int, now: datetime) -> timedelta:
    """How far what was purged is behind what should be; nothing where it is not."""
    held = store.describe().purged_before
    cutoff = cutoff_of(days, now)
    if not held:
        return timedelta.max
    return max(timedelta(), cutoff - moment_of(held))


def purge(store: Store, folder: Path, keys: SiteKeys, audit: AuditLog, cutoff: datetime) -> bool:
    """Remove sends before a moment, durably and logged; whether there were any."""
    changed = Rewriting(folder, keys).purge(cutoff)
    store.refresh()
    audit.append(
        "data.purged", before=stamp(cutoff), epoch=changed.epoch, changed=changed.buckets > 0
    )
    return changed.buckets > 0


def log_if_unlogged(store: Store, audit: AuditLog) -> None:
    """Log the last purge where it was killed after it was done and before it was logged."""
    held = store.describe().purged_before
    logged = {
        entry["body"]["facts"].get("before")
        for entry in audit.entries()
        if entry["body"]["event"] == "data.purged"
    }
    if held and held not in logged:
        audit.append("data.purged", before=held, epoch=store.epoch, changed=True)
