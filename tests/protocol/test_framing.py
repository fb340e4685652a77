"""Frames: what goes in comes out, and nothing else is taken."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abfed.protocol.errors import IntegrityError
from abfed.protocol.framing import frame, read_frame


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 97))
def test_a_frame_comes_out_as_it_went_in_however_it_is_cut(content, piece):
    stream = io.BytesIO(frame(content) + b"more")
    assert read_frame(lambda count: stream.read(min(count, piece))) == content


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_frame_that_ends_early_is_an_error(content, data):
    whole = frame(content)
    stream = io.BytesIO(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(IntegrityError, match="cut short"):
        read_frame(stream.read)


@pytest.mark.parametrize("announced", [0, 101, 1 << 40, (1 << 64) - 1])
def test_a_length_that_is_not_taken_is_refused_before_anything_is_read(announced):
    asked = []

    def receive(count):
        asked.append(count)
        return announced.to_bytes(8, "big") if len(asked) == 1 else pytest.fail("it read on")

    with pytest.raises(IntegrityError, match="not taken"):
        read_frame(receive, limit=100)


def test_memory_grows_with_what_came_not_with_what_was_announced():
    asked = []
    stream = io.BytesIO((1 << 28).to_bytes(8, "big") + b"x")

    def receive(count):
        asked.append(count)
        return stream.read(count)

    with pytest.raises(IntegrityError):
        read_frame(receive)
    assert max(asked) <= 1 << 18


def test_an_end_before_a_frame_is_an_end():
    assert read_frame(lambda count: b"") == b""


def test_what_is_too_large_is_not_sent():
    with pytest.raises(IntegrityError, match="larger"):
        frame(b"x" * 11, limit=10)
