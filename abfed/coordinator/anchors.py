"""The newest audit head that each silo showed, named to it in each request (S21).

A silo's log, ledger and store can be put back as a whole from an old backup, and nothing inside it
would tell: its charges since then would be forgotten. Somebody outside has to remember. Each
release carries the head of its silo's log; the coordinator keeps every one it sees for the first
time and names the newest in each request. A silo whose log doesn't hold that head refuses to
answer. What the heads prove against a whole log is in `site/anchors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.chain import GENESIS
from abfed.site.files import alone, make_private_folder, read_private, write_private

FILE = "anchors.json"  # beside the runs
KEPT = 1000  # heads a silo; the newest matter most


class Anchors:
    """The heads that a coordinator saw.

    Args:
        runs: the folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._path = runs / FILE
        self._heads = self._read()

    def newest(self, silo: str) -> str:
        """The newest head of a silo; `GENESIS` where none was seen."""
        return (self._heads.get(silo) or [GENESIS])[-1]

    def note(self, heads: Mapping[str, str]) -> None:
        """Keep heads that are new, durably."""
        if all(head in self._heads.get(silo, ()) for silo, head in heads.items()):
            return
        if not self._path.parent.is_dir():
            make_private_folder(self._path.parent)
        with alone(self._path.with_name(f".{FILE}.lock")):
            known = self._read()
            for silo, head in sorted(heads.items()):
                seen = known.setdefault(silo, [])
                if head not in seen:
                    known[silo] = [*seen, head][-KEPT:]
            write_private(self._path, canonical_bytes(known))
            self._heads = known

    def _read(self) -> dict[str, list[str]]:
        if not self._path.exists():
            return {}
        found: dict[str, list[str]] = parse_canonical(
            read_private(self._path), where=str(self._path)
        )
        return found
