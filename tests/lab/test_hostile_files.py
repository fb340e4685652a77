"""Files that come from elsewhere: any bytes raise our own error, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.lab.upkeep.auditing import check_export, read_anchors
from abfed.protocol.errors import AbfedError
from abfed.site.ring import FILE, read_ring

KEY = "ab" * 32
NEARLY = st.sampled_from(
    [
        b'{"statement":{},"signature":"00"}\n',
        b'{"pruned":{}}\n',
        b"ABFED1\x00\x00\x00\x02{}",
        b"[]\n",
    ]
)
HOSTILE = st.one_of(
    st.binary(max_size=300), st.tuples(NEARLY, st.binary(max_size=50)).map(b"".join)
)


@settings(max_examples=300, deadline=None)
@given(HOSTILE)
def test_hostile_bytes_raise_our_own_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.touch(mode=0o600)
        path.write_bytes(data)
        for read in (
            lambda: read_ring(path.parent),
            lambda: read_anchors(path, KEY),
            lambda: check_export(path, KEY),
        ):
            try:
                read()
            except AbfedError:
                continue
            raise AssertionError("hostile bytes were believed")
