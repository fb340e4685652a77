"""Hostile bytes: each parser that meets them raises our own error, and nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abfed.lab.reports.notebooks import parse_notebook
from abfed.protocol.errors import InputError
from tests.parsers import PARSERS, SEEDS, tried

pytestmark = pytest.mark.filterwarnings("ignore")
"""nbformat warns of what is malformed, beside refusing it."""

CASES = {"policy-yaml": 60, "notebook": 60, "plan-yaml": 100}
"""For parsers that take milliseconds; 250 for each other one."""


@st.composite
def changed(draw):
    """Bytes that a parser takes, with a few changes: cut, doubled, flipped, put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "flip", "put", "double"])):
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "flip" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "put":
                data[at:at] = draw(st.binary(max_size=12))
            case _:
                data[at:at] = data[at : at + 30]
    return bytes(data)


@pytest.mark.parametrize("parser", sorted(PARSERS))
def test_any_bytes_raise_our_own_error_or_are_taken(parser):
    @settings(
        max_examples=CASES.get(parser, 250),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(data=st.one_of(changed(), st.binary(max_size=200)))
    def give(data):
        tried(parser, data)

    give()


@pytest.mark.parametrize(
    "data",
    [
        b"[]", b"3", b"{}", b"[" * 100_000, b"\xff", b'{"nbformat": "x"}', b'{"nbformat": 1}',
        b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [{"ell_type": "code"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [{"cell_type": "code"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    ],
)  # fmt: skip
def test_what_is_no_notebook_is_said_to_be_none(data):
    with pytest.raises(InputError, match="isn't a notebook"):
        parse_notebook(data, where="x")


@pytest.mark.parametrize("parser", sorted(PARSERS))
def test_what_one_takes_others_refuse_cleanly(parser):
    for seed in SEEDS:
        tried(parser, seed)
