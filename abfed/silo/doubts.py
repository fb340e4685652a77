"""What is doubtful about an export that can be read: told to the silo's own people, stops nothing.

Each doubt is a sentence in declared names and a count of rows. Sensitive: the counts are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.schema import NUMERIC_OUTCOMES
from abfed.silo.mapping import ExportMapping
from abfed.silo.policy import Policy


@dataclass(slots=True)
class Seen:
    """Counts over the accepted rows so far.

    Attributes:
        rows: how many.
        arms: by experiment and arm.
        bases: of those who have not opted out, by lawful basis.
        opted_out: rows of people who have.
        below: negative values by numeric outcome.
        known: values that aren't missing, by outcome and feature.
    """

    rows: int = 0
    arms: Counter[tuple[str, str]] = field(default_factory=Counter)
    bases: Counter[str] = field(default_factory=Counter)
    opted_out: int = 0
    below: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table, mapping: ExportMapping) -> None:
        """Count canonical rows. Sensitive."""
        self.rows += table.num_rows
        pairs = table.select(["experiment", "arm"]).group_by(["experiment", "arm"])
        for one in pairs.aggregate([([], "count_all")]).to_pylist():
            self.arms[one["experiment"], one["arm"]] += one["count_all"]
        self.opted_out += pc.sum(table["opted_out"]).as_py() or 0
        lawful = table.filter(pc.invert(table["opted_out"]))["basis"]
        for one in pc.value_counts(lawful).to_pylist():
            self.bases[one["values"]] += one["counts"]
        for name in (*mapping.outcomes, *mapping.features):
            self.known[name] += table.num_rows - table[name].null_count
        for name in NUMERIC_OUTCOMES:
            if name in mapping.outcomes:
                self.below[name] += pc.sum(pc.less(table[name], 0.0)).as_py() or 0

    def doubts(self, mapping: ExportMapping, policy: Policy | None) -> Mapping[str, int]:
        """Sentences, each with the rows that it is about."""
        return {**self._of_rows(mapping), **(self._of_policy(mapping, policy) if policy else {})}

    def _of_rows(self, mapping: ExportMapping) -> dict[str, int]:
        found: dict[str, int] = {}
        for experiment, arms in mapping.experiments().items():
            here = {arm: self.arms[experiment, arm] for arm in arms}
            for arm, rows in here.items():
                if not rows and any(here.values()):
                    found[f"arm {arm!r} of {experiment!r} has no row: was it lost?"] = 0
            if not any(here.values()):
                found[f"experiment {experiment!r} has no row"] = 0
        for name, rows in self.below.items():
            if rows:
                found[f"{name} is below zero: refunds? a plan's bounds clip it"] = rows
        for name, known in self.known.items():
            if not known and self.rows:
                found[f"{name} is missing in every row"] = self.rows
        return found

    def _of_policy(self, mapping: ExportMapping, policy: Policy) -> dict[str, int]:
        found: dict[str, int] = {}
        allowed = {basis for purpose in policy.purposes for basis in purpose.bases}
        for basis, rows in sorted(self.bases.items()):
            if basis not in allowed:
                found[f"basis {basis!r} serves no purpose of the policy: never read"] = rows
        if self.opted_out:
            found["opted out or objected: never read"] = self.opted_out
        for name in (*mapping.outcomes, *mapping.features):
            if name not in policy.columns:
                found[f"{name} is not among the policy's columns: no plan may use it"] = self.rows
        return found
