"""Parquet modular encryption under a site's keys (S2).

1. Each file has a fresh 256-bit data key, wrapped through the site's `wrap`/`unwrap` (the two
   calls of a key management service) and kept in the file itself.
2. AES-GCM for every module: footer, column metadata, pages. One data key for all of a file
   (uniform encryption), so that no column can be left out by mistake.
3. Bytes go in and come out in memory: plain rows are never written anywhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from abfed.protocol.errors import IntegrityError
from abfed.silo.rows import SEND_ORDER
from abfed.site.keys import SiteKeys

MASTER_KEY = "store"
"""Name of the master key, part of what a wrapped data key is bound to."""

ROW_GROUP = 131_072  # rows; a few MB of columns


class SiteKms(pe.KmsClient):  # type: ignore[misc]
    """Parquet's key management interface, answered by a site's keys."""

    def __init__(self, keys: SiteKeys) -> None:
        super().__init__()
        self._keys = keys

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        """Wrap a data key; base64, because it is kept in JSON inside the footer's metadata."""
        wrapped = self._keys.wrap(key_bytes, name=f"parquet:{master_key_identifier}")
        return base64.b64encode(wrapped)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        """Unwrap a data key.

        Raises:
            IntegrityError: it belongs to another site, or was changed.
        """
        try:
            wrapped = base64.b64decode(wrapped_key, validate=True)
        except binascii.Error as cause:
            raise IntegrityError("not a wrapped data key", where="parquet footer") from cause
        return self._keys.unwrap(wrapped, name=f"parquet:{master_key_identifier}")


class Cryptor:
    """Turns canonical rows into encrypted Parquet bytes and back. Holds the site's keys."""

    __slots__ = ("_connection", "_factory")

    def __init__(self, keys: SiteKeys) -> None:
        self._factory = pe.CryptoFactory(lambda _connection: SiteKms(keys))
        self._connection = pe.KmsConnectionConfig()

    def encrypt(self, table: pa.Table) -> bytes:
        """The rows as an encrypted Parquet file. Rows in, sealed bytes out."""
        properties = self._factory.file_encryption_properties(
            self._connection,
            pe.EncryptionConfiguration(
                footer_key=MASTER_KEY,
                uniform_encryption=True,
                encryption_algorithm="AES_GCM_V1",
                plaintext_footer=False,
                double_wrapping=False,
                internal_key_material=True,
                data_key_length_bits=256,
            ),
        )
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            encryption_properties=properties,
            row_group_size=ROW_GROUP,
            compression="snappy",
            use_dictionary=[name for name in table.column_names if name != SEND_ORDER],
            write_statistics=False,
        )
        sealed: bytes = sink.getvalue().to_pybytes()
        return sealed

    def decrypt(
        self,
        data: bytes,
        columns: Sequence[str] | None = None,
        *,
        where: str,
        coded: Sequence[str] = (),
    ) -> pa.Table:
        """Rows of an encrypted Parquet file, of these columns only. Sensitive.

        Columns that the file doesn't hold are left out.

        Args:
            data: the file; its digest should have been compared already.
            columns: which to decrypt; None for all.
            where: the file's name, for errors.
            coded: text columns that are to be handed out as codes and a list of texts, as the file
                has them: few texts stand for many rows, and needn't be written out.

        Raises:
            IntegrityError: wrong key or changed bytes.
        """
        groups = list(self.groups(data, columns, where=where, coded=coded))
        return pa.concat_tables(groups)

    def groups(
        self,
        data: bytes,
        columns: Sequence[str] | None = None,
        *,
        where: str,
        coded: Sequence[str] = (),
        only: Collection[int] | None = None,
    ) -> Iterator[pa.Table]:
        """The same, one row group at a time; at least one table, also of a file without rows.

        Args:
            data: see `decrypt`.
            columns: see `decrypt`.
            where: see `decrypt`.
            coded: see `decrypt`.
            only: the numbers of the row groups that are wanted; None for all.

        Raises:
            IntegrityError: wrong key or changed bytes.
        """
        properties = self._factory.file_decryption_properties(self._connection)
        with _decrypting(where):
            file = pq.ParquetFile(
                pa.BufferReader(data),
                decryption_properties=properties,
                read_dictionary=list(coded),
            )
            held = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in held]
        if not file.num_row_groups:
            with _decrypting(where):
                rows = file.read(wanted)
            yield rows
        for number in range(file.num_row_groups):
            if only is not None and number not in only:
                continue
            with _decrypting(where):
                rows = file.read_row_group(number, wanted)
            yield rows
            del rows  # else two are held while the next one is read


@contextmanager
def _decrypting(where: str) -> Iterator[None]:
    """Say of what goes wrong what it means."""
    try:
        yield
    except (OSError, ValueError, IntegrityError) as cause:
        raise IntegrityError(
            "the rows can't be decrypted",
            where=where,
            why="wrong key, or changed bytes",
            do="restore it from a backup, or find out who changed it",
        ) from cause
