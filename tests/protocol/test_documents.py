"""Files that people name: whatever it is, a clear error at once, and never a wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from abfed.protocol.documents import read_document
from abfed.protocol.errors import InputError, MappingError, PlanError
from abfed.protocol.plan import Plan
from abfed.protocol.yamltext import MAX_TEXT
from abfed.silo.mapping import ExportMapping


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MAX_TEXT)
    assert read_document(tmp_path / "a", "plan") == b"x" * MAX_TEXT


@pytest.mark.parametrize("load", [(Plan.load, PlanError), (ExportMapping.load, MappingError)])
@pytest.mark.timeout(20)
def test_what_is_no_document_is_told_apart(tmp_path: Path, load) -> None:
    read, error = load
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)  # sparse: reading it whole would take all memory
    said = {
        "/dev/zero": "a pipe or a device",
        str(tmp_path / "pipe"): "a pipe or a device",
        str(tmp_path): "a folder",
        str(tmp_path / "huge"): "longer than",
        str(tmp_path / "none"): "No such file",
        str(tmp_path / "huge" / "below"): "Not a directory",
        "a\0b": "not a name of a file",
        "n" * 5000: "File name too long",
    }
    for path, told in said.items():
        with pytest.raises(error, match=told) as caught:
            read(path)
        assert isinstance(caught.value, InputError)
