"""A bucket in portions: some rows at a time, each with all rows of its recipients. Rows; sensitive.

1. A file's row groups are read one after the other, so that memory doesn't grow with a bucket.
2. Whoever stands across two row groups goes into the later portion, wholly.
3. Nobody comes twice: recipients rise from portion to portion, or nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abfed.protocol.errors import IntegrityError
from abfed.silo.encryption import Cryptor
from abfed.silo.rows import flat, stored_words


def whole_recipients(groups: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, cut between recipients.

    Args:
        groups: rows in which those of a recipient stand together, also from group to group.
    """
    rest: pa.Table | None = None
    for group in groups:
        if not group.num_rows:
            continue
        rows = group if rest is None else pa.concat_tables([rest, group])
        words = stored_words(flat(rows["recipient"]))
        others = np.flatnonzero((words != words[-1]).any(axis=1))
        last = int(others[-1]) + 1 if len(others) else 0
        rest = rows.slice(last)
        if last:
            yield rows.slice(0, last)
    if rest is not None:
        yield rest


def opted_out(cryptor: Cryptor, data: bytes, where: str) -> pa.Array:
    """Who in a bucket opted out on any send; an unknown opt-out counts as one.

    Flags cost a twentieth of what pseudonyms do, which are read where there is such a flag.

    Args:
        cryptor: of the site.
        data: the bucket's file, its digest compared.
        where: its name, for errors.
    """
    flags = cryptor.groups(data, ("opted_out",), where=where)
    some = [number for number, group in enumerate(flags) if pc.any(_out(group)).as_py()]
    found = [
        group["recipient"].filter(_out(group)).unique()
        for group in cryptor.groups(data, ("recipient", "opted_out"), where=where, only=some)
    ]
    return pa.concat_arrays(found).unique() if found else pa.array([], pa.binary(16))


def _out(group: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(group["opted_out"], True)  # noqa: FBT003 - Arrow's signature


def rising(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, those without rows left out.

    Args:
        tables: selected rows of one experiment, each sorted by recipient.

    Raises:
        IntegrityError: somebody in one table isn't behind everybody in the tables before.
    """
    behind = b""
    for table in tables:
        if not table.num_rows:
            continue
        if table["recipient"][0].as_py() <= behind:
            raise IntegrityError(
                "rows are not sorted by recipient",
                why="a recipient who counts twice isn't covered by the noise",
                do="report it: the store promises this order",
            )
        behind = table["recipient"][-1].as_py()
        yield table
