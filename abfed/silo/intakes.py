"""An ingest on record, also one that was killed between its commit and its entry in the log (S21).

An entry is written before anything is taken in, and one behind it. Where the second is missing and
the data are no longer what the first one saw, the ingest is logged late, as a change: somebody who
reads a fixed-horizon experiment again would otherwise peek at data that no entry tells of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from abfed.protocol.errors import AbfedError
from abfed.silo.store import Store
from abfed.site.audit import AuditLog

BEGUN, DONE, REFUSED = "data.ingest-begun", "data.ingested", "data.ingest-refused"


@contextmanager
def on_record(store: Store, audit: AuditLog, **facts: Any) -> Iterator[None]:
    """Log an ingest that is made meanwhile.

    Args:
        store: what it goes into.
        audit: the silo's log.
        facts: who, and through what; never what.
    """
    log_if_unlogged(store, audit)
    before = store.epoch
    audit.append(BEGUN, epoch=before, **facts)
    try:
        yield
    except AbfedError:
        audit.append(REFUSED, epoch=before, **facts)
        raise
    audit.append(DONE, epoch=store.epoch, changed=store.epoch != before, **facts)


def log_if_unlogged(store: Store, audit: AuditLog) -> None:
    """Log the last ingest where it was killed after it was done and before it was logged."""
    begun: dict[str, Any] | None = None
    for entry in audit.entries():
        if entry["body"]["event"] == BEGUN:
            begun = entry["body"]["facts"]
        elif entry["body"]["event"] in (DONE, REFUSED):
            begun = None
    if begun is not None and begun["epoch"] != store.epoch:
        audit.append(DONE, **begun | {"epoch": store.epoch, "changed": True, "late": True})
