"""Public data to try abfed on: where it comes from, and how it is told from a damaged copy.

Hillstrom's MineThatData E-Mail Analytics challenge (2008) is a real randomised e-mail test with
64,000 customers. It is fetched from its publisher and never part of abfed. Copies differ in how
they write numbers, so what is checked is the content: columns and parsed values.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import urllib.request
from pathlib import Path

import pandas as pd

from abfed.protocol.documents import read_document
from abfed.protocol.errors import DataError, InputError
from abfed.site.files import write_private

# As published, without TLS: the content is compared with the digest below before it is used.
HILLSTROM_ADDRESS = (
    "http://www.minethatdata.com/"
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
HILLSTROM_CONTENT = "85f0ad9c11c34ceccfa8ce150cc7bb785193ccbebfb881a2dac73cd2d78b7d90"
"""SHA-256 of the parsed content, as `content_digest` computes it."""

HILLSTROM_COLUMNS = (
    "recency",
    "history_segment",
    "history",
    "mens",
    "womens",
    "zip_code",
    "newbie",
    "channel",
    "segment",
    "visit",
    "conversion",
    "spend",
)
HILLSTROM_SILOS = ("phone-order", "rural", "suburban-online", "urban-online")
"""The preset's four brands; `experiments/hillstrom/` has a mapping for each."""

TIMEOUT = 60.0  # seconds
MAX_DOWNLOAD = 64 * 1024 * 1024  # bytes; the file has 4 MB


def fetch_hillstrom(target: Path, *, source: Path | None = None) -> Path:
    """Get the data set, checked, as a private file.

    Args:
        target: where to put it.
        source: a local copy; downloaded from the publisher where none is given.

    Raises:
        InputError: it can't be read or downloaded.
        DataError: it isn't the data set.
    """
    data = (
        read_document(source, "copy", most=MAX_DOWNLOAD)
        if source is not None
        else _download(HILLSTROM_ADDRESS)
    )
    where = str(source or HILLSTROM_ADDRESS)
    digest = content_digest(data, where=where)
    if digest != HILLSTROM_CONTENT:
        raise DataError(
            "this is not Hillstrom's data set, or a changed copy of it",
            where=where,
            why=f"its content has the digest {digest[:16]}…, not {HILLSTROM_CONTENT[:16]}…",
            do="get the original from the publisher",
        )
    write_private(target, data)  # only now: what is there may be good
    return target


def content_digest(data: bytes, *, where: str) -> str:
    """SHA-256 of columns and values, whatever way numbers are written.

    Raises:
        DataError: it isn't a CSV with Hillstrom's columns.
    """
    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8")
    except (ValueError, pd.errors.ParserError) as cause:
        raise DataError("can't be read as CSV", where=where) from cause
    if tuple(frame.columns) != HILLSTROM_COLUMNS:
        raise DataError("does not have the columns of Hillstrom's data set", where=where)
    try:
        for name in ("history", "spend"):  # also empty and infinite ones are no amounts
            cents = (pd.to_numeric(frame[name]) * 100).round()
            frame[name] = cents.astype("int64").astype(str)
    except ValueError as cause:
        raise DataError("has an amount that is not a number", where=where) from cause
    text = frame.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - the address above
            data: bytes = answer.read(MAX_DOWNLOAD + 1)
    except (OSError, http.client.HTTPException) as cause:
        raise InputError(
            "the publisher's site can't be reached",
            where=address,
            why=type(cause).__name__,
            do="download the file elsewhere and name it with --from FILE",
        ) from cause
    if len(data) > MAX_DOWNLOAD:
        raise DataError("the download is far too large to be the data set", where=address)
    return data
