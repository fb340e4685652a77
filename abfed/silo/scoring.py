"""Scoring a brand's own list with a kept model: inside the silo, and never out of it.

1. A permit for the step `score` comes from the gate, which judged freezes, purpose and columns, and
   which releases nothing under it.
2. Of the brand's list only those are scored who have a lawful basis for the purpose, have not opted
   out there, and are not opted out, restricted or erased here, however the list's mapping
   normalises; who stands twice is scored once.
3. What is written is the list that the brand's e-mail tool imports: the identifier as the brand
   gave it, arm, expected uplift and exploration. It lies in the silo's folder, readable by the
   silo's user only; nothing of it is logged.
"""

from __future__ import annotations

import csv
import io
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abfed.learning.counterfactual import chances, further_chances
from abfed.learning.design_matrix import Design
from abfed.learning.networks import network_for, one_thread
from abfed.learning.personal import with_own_head
from abfed.learning.recommending import recommend
from abfed.learning.shapes import MODEL, unprefixed
from abfed.protocol.errors import DataError, IntegrityError
from abfed.protocol.modelling import SendTime
from abfed.silo.converting import Converter
from abfed.silo.exports import look_over
from abfed.silo.heldout import BLOCK
from abfed.silo.lists import COLUMNS, plain
from abfed.silo.mapping import ExportMapping
from abfed.silo.models import KeptModel
from abfed.silo.permit import Permit
from abfed.silo.prepared import PreparedRows, encoded_features
from abfed.silo.pseudonyms import HOW, SEPARATOR, Pseudonyms
from abfed.silo.rows import SENT_AT
from abfed.site.keys import SiteKeys

FIGURE = "{:.9f}"
"""Readers divide by a chance: with 4 digits it was off by a part of itself, or 0, where little is
explored; and of a complaint's uplift nothing was left. No exponents: tools take them for text."""


class Wanted(NamedTuple):
    """What is to be scored.

    Attributes:
        export: the brand's list of recipients.
        mapping: how to read it; outcomes, arm and time of sending aren't needed.
        explore: the largest share of sends in which a random arm is drawn, in [0, 1].
        send_at: when it will be sent, for models that know the hour.
    """

    export: Path
    mapping: ExportMapping
    explore: float
    send_at: datetime


@dataclass(frozen=True, slots=True)
class Scored:
    """A scored list. For the silo's own people only.

    Attributes:
        text: the list as CSV. Rows: sensitive.
        recipients: how many are in it.
        left_out: how many aren't, by reason.
    """

    text: str
    recipients: int
    left_out: Mapping[str, int]


class Scorer:
    """Scores lists with one model.

    Args:
        permit: of the gate, for the step `score`.
        model: a kept one; the permit must be for its plan.
        keys: the silo's.
        barred: pseudonyms that the silo must leave out (`silo.barred`).
    """

    def __init__(
        self, permit: Permit, model: KeptModel, keys: SiteKeys, barred: frozenset[bytes]
    ) -> None:
        if permit.key or permit.plan != model.plan:
            raise IntegrityError("the permit is for something else", where=permit.step)
        self._permit = permit
        self._model = model
        self._keys = keys
        self._barred = barred
        self._pseudonyms = Pseudonyms(keys)
        self._design = Design.of(model.plan)
        self._network = network_for(model.plan, unprefixed(MODEL, model.arrays))
        self._correction = model.correction

    def personalise(self, prepared: PreparedRows) -> None:
        """Fit the last layer to the brand's own people who aren't held out; kept in memory only."""
        prepared.require(self._permit)
        self._network = with_own_head(
            self._network, lambda: prepared.training.blocks(BLOCK), self._design.heads
        )
        self._correction = (1.0, 0.0)  # the head is fitted to these people already

    def score(self, wanted: Wanted) -> Scored:
        """Score a list.

        Raises:
            DataError: the file can't be read as the mapping says, or nobody is left.
        """
        mapping = wanted.mapping
        wants = [one.name for one in self._design.features if not isinstance(one, SendTime)]
        missing = [name for name in wants if name not in mapping.features]
        if missing:
            raise DataError(
                f"the mapping has no feature {missing[0]!r}",
                where=str(wanted.export),
                why="the model was trained with it",
                do="name its column in the mapping; its values may be missing",
            )
        left_out: Counter[str] = Counter()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        identifiers = mapping.recipient.columns or ("row",)
        heads = self._design.heads
        names = (*heads.outcomes[1:], *(("revenue",) if heads.bound else ()))
        writer.writerow((*identifiers, *COLUMNS, *(f"expected_{name}" for name in names)))
        recipients = 0
        for people, table in self._lawful(wanted, left_out):
            for line in self._lines(people, table, wanted.explore):
                writer.writerow(line)
                recipients += 1
        if not recipients:
            reasons = "; ".join(sorted(left_out)) or "the list is empty"
            raise DataError("nobody is left to score", where=str(wanted.export), why=reasons)
        return Scored(out.getvalue(), recipients, dict(sorted(left_out.items())))

    def _lawful(
        self, wanted: Wanted, left_out: Counter[str]
    ) -> Iterator[tuple[list[tuple[str, ...]], pa.Table]]:
        """Identifiers and features of those who may be scored, batch by batch. Rows: sensitive."""
        mapping = wanted.mapping
        export = look_over(wanted.export, mapping.source, mapping.audience_columns(), self._keys)
        converter = Converter(mapping, Pseudonyms(self._keys))
        seen: set[bytes] = set()
        first = 0
        for batch in export.batches():
            audience = converter.audience(batch, first)
            first += batch.num_rows
            left_out.update(audience.rejected)
            table = audience.table
            moment = pa.scalar(wanted.send_at, SENT_AT)
            table = table.append_column("sent_at", pa.repeat(moment, table.num_rows))
            pseudonyms = table["recipient"].to_pylist()
            basis = pc.is_in(
                table["basis"], value_set=pa.array(self._permit.lawful_bases, pa.string())
            ).to_numpy()
            opted_out = table["opted_out"].to_numpy()
            keep = np.zeros(len(pseudonyms), dtype=np.bool_)
            for place, pseudonym in enumerate(pseudonyms):
                if opted_out[place] or self._is_barred(pseudonym, audience.identifiers[place]):
                    left_out["opted out, restricted or erased"] += 1
                elif not basis[place]:
                    left_out["no lawful basis for this purpose"] += 1
                elif pseudonym in seen:
                    left_out["stands in the list already"] += 1
                else:
                    keep[place] = True
                    seen.add(pseudonym)
            chosen = np.flatnonzero(keep)
            yield [audience.identifiers[place] for place in chosen], table.take(pa.array(chosen))

    def _is_barred(self, pseudonym: bytes, name: tuple[str, ...]) -> bool:
        """Whether somebody must be left out, as the list's mapping or another one writes them."""
        others = (self._pseudonyms.of(SEPARATOR.join(name), normalise=how) for how in HOW)
        return bool(self._barred) and (
            pseudonym in self._barred or any(one in self._barred for one in others)
        )

    def _lines(
        self, names: list[tuple[str, ...]], table: pa.Table, explore: float
    ) -> Iterator[tuple[str, ...]]:
        """The list's lines. Rows: sensitive."""
        if not names:
            return
        with one_thread():
            features = encoded_features(self._design, table)
            chance = corrected(chances(self._network, self._design, features), self._correction)
            further = further_chances(self._network, self._design, features)
        made = recommend(chance, self._design.control, explore, _uniforms)
        arms = self._design.arms
        for place, name in enumerate(names):
            yield (
                *(plain(part) for part in name),
                arms[made.best[place]],
                arms[made.send[place]],
                FIGURE.format(made.chance[place]),
                FIGURE.format(made.uplift[place]),
                FIGURE.format(made.explore[place]),
                *(FIGURE.format(each[place, made.best[place]]) for each in further.values()),
            )


def corrected(
    chance: npt.NDArray[np.float64], correction: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Chances after the logit's slope and shift that fit best here."""
    slope, shift = correction
    bounded = np.clip(chance, 1e-9, 1 - 1e-9)
    logit = slope * np.log(bounded / (1 - bounded)) + shift
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)), dtype=np.float64)


def _uniforms(count: int) -> npt.NDArray[np.float64]:
    """Draws of [0, 1) from the operating system."""
    words = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
