"""A kernel that was taken over: what it sends, says and leaves breaks no report, and goes."""

from __future__ import annotations

import inspect
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from abfed.cli.batch import ReportsBar
from abfed.lab.disclosure.written import Told
from abfed.lab.paper.pdf import as_pdf
from abfed.lab.reports import execution, kernels
from abfed.lab.reports.batch_run import Outcome
from abfed.lab.reports.engine import execute
from abfed.lab.reports.kernels import Place, Spawned
from abfed.lab.reports.passing import remove
from abfed.lab.reports.showing import BoundedClient, well_formed
from abfed.protocol.errors import InputError
from abfed.protocol.printable import in_a_line

DEEP = 120
SHOWN: dict[str, Any] = {"data": {"text/plain": "a"}, "metadata": {}}
GOOD = {
    "a line": ("stream", {"name": "stdout", "text": "a"}),
    "a table": ("display_data", {**SHOWN, "transient": {"display_id": "b"}}),
    "no place": ("display_data", {**SHOWN, "transient": None}),
    "JSON": ("execute_result", {"data": {"application/json": {"a": [1]}}, "metadata": {},
                                "execution_count": 3}),
    "lines": ("display_data", {"data": {"text/html": ["<p>", "</p>"]}, "metadata": {}}),
    "an error": ("error", {"ename": "E", "evalue": "", "traceback": ["a"]}),
    "no output": ("clear_output", {"wait": True}),
}  # fmt: skip
BAD: dict[str, tuple[str, Any]] = {
    "a list": ("stream", [1]),
    "no text": ("stream", {"name": "stdout"}),
    "a number printed": ("stream", {"name": "stdout", "text": 5}),
    "a stream without name": ("stream", {"name": 7, "text": "a"}),
    "nothing shown": ("display_data", {"metadata": {}}),
    "no mapping": ("display_data", {"data": [1], "metadata": {}}),
    "a number shown": ("display_data", {"data": {"image/png": 5}, "metadata": {}}),
    "a mapping as markup": ("display_data", {"data": {"text/html": {"a": 1}}, "metadata": {}}),
    "metadata that are none": ("display_data", {"data": {}, "metadata": [1]}),
    "a place that is none": ("update_display_data", {**SHOWN, "transient": 5}),
    "a list of places": ("update_display_data", {**SHOWN, "transient": {"display_id": [1]}}),
    "words as a number": ("execute_result", {**SHOWN, "execution_count": "jane"}),
    "an error without words": ("error", {"ename": 5, "evalue": None, "traceback": 7}),
    "an error without lines": ("error", {"ename": "E", "evalue": ""}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_kernels_send_is_an_output(name: str) -> None:
    kind, content = GOOD[name]
    assert well_formed({"msg_type": kind, "content": content})


@pytest.mark.parametrize("name", BAD)
def test_what_no_notebook_can_hold_is_none(name: str) -> None:
    kind, content = BAD[name]
    assert not well_formed({"msg_type": kind, "content": content})


def test_nor_what_lies_deeper_than_python_follows() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": [deep]}
    content = {"data": {"application/json": deep}, "metadata": {}}
    assert not well_formed({"msg_type": "display_data", "content": content})


TAKEN_OVER = """
import json, os, pathlib, tempfile
kernel, home = get_ipython().kernel, pathlib.Path(tempfile.gettempdir())
(home / "state.json").write_text(json.dumps({"confinement": "whatever it likes"}))
session, said = kernel.session, {"name": "stdout", "text": "a"}
parts = session.serialize(session.msg("stream", said, parent=kernel.get_parent()))
parts[-1] = b"\\xff{"
parts[-5] = session.sign(parts[-4:])
kernel.iopub_socket.send_multipart([b"stream", *parts])
"""


def test_a_kernel_that_sends_no_messages_fails_and_says_nothing_of_itself() -> None:
    done = execute(new_notebook(cells=[new_code_cell(TAKEN_OVER)]), {}, Place(cwd=None), Spawned())
    assert done.failure is not None
    assert str(done.failure) == "cell 1 of the notebook sent what is no output"
    assert done.confinement in {
        "operating-system",
        "interpreter",
    }  # as it said before its first cell


def test_an_output_too_large_to_be_read_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LARGEST", 1 << 20)
    monkeypatch.setattr(execution, "UNHEARD", 2)
    document = new_notebook(cells=[new_code_cell("print('x' * 2_000_000)")])
    done = execute(document, {}, Place(cwd=tmp_path), Spawned())
    assert done.failure is not None
    assert done.failure.reason == "a single output of more than 1 MiB"
    assert done.document.cells[0].outputs == []


def test_no_output_is_lost_where_a_kernel_is_faster_than_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zmq drops what is a thousand messages ahead on each side, and says nothing."""
    process = BoundedClient.process_message

    def slowly(self: Any, msg: dict[str, Any], *where: Any) -> Any:
        if msg["msg_type"] == "display_data":
            time.sleep(0.3 if "0" in msg["content"]["data"].values() else 0)
        return process(self, msg, *where)

    monkeypatch.setattr(BoundedClient, "process_message", slowly)
    shown = "from IPython.display import display\nfor n in range(3500): display(n)"
    document = new_notebook(cells=[new_code_cell(shown)])
    done = execute(document, {}, Place(cwd=tmp_path), Spawned())
    assert done.failure is None
    assert len(done.document.cells[0].outputs) == 3500


def test_what_it_tells_of_pictures_may_be_no_number(tmp_path: Path) -> None:
    line = '{"digests": ["a"], "texts": [], "scales": [], "table": 0, "cells": 1e999}'
    (tmp_path / "told").write_text(line)
    assert Told.read(tmp_path / "told").by_digest == {}


def fill(folder: Path) -> None:
    """A link, and folders within one another; the last allows nothing."""
    (folder / "link").symlink_to(folder.parent)
    at = folder
    for number in range(DEEP):
        at /= f"d{number % 7}"
        at.mkdir()
    (at / "closed").mkdir(0)


def test_a_kernels_folder_goes_however_deep_it_is_and_whatever_it_allows(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("")
    tempfile.tempdir, before = str(tmp_path), tempfile.tempdir
    limit = sys.getrecursionlimit()
    try:
        with kernels.kernel_folder(Place(cwd=None)) as folder:
            fill(folder)
            # a thousand and more folders within one another take a second; fewer are as good
            sys.setrecursionlimit(len(inspect.stack(0)) + DEEP)
    finally:
        sys.setrecursionlimit(limit)
        tempfile.tempdir = before
    assert list(tmp_path.iterdir()) == [kept]
    remove(folder)  # it is gone


def test_elements_deep_within_one_another_go_on_no_paper() -> None:
    with pytest.raises(InputError, match="can’t be laid out on paper"):
        as_pdf(f"<style></style>{'<div>' * 900}a{'</div>' * 900}")


def test_a_reason_is_one_line_that_steers_no_terminal() -> None:
    assert in_a_line("a\n\n  b\t\x1b]0;t\x07\u202e", 80) == "a b \\x1b]0;t\\x07\\u202e"
    assert in_a_line("a" * 600, 500) == "a" * 500 + " …"


def test_nor_does_one_that_a_batch_tells_of(capsys: pytest.CaptureFixture[str]) -> None:
    item = SimpleNamespace(order=SimpleNamespace(name="a"))
    with ReportsBar(1, quiet=False) as tell:
        tell(Outcome(item, "failed", reason="b\x1b[2J\u202ec"))  # type: ignore[arg-type]
    assert "failed: a: b\\x1b[2J\\u202ec" in capsys.readouterr().err
