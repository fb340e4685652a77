"""Boxes: only the silo reads a request, only this request reads its answer."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.protocol.boxes import MAGIC, box_reply, box_request, unbox_reply, unbox_request
from abfed.protocol.errors import IntegrityError

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


@given(st.binary(max_size=2000))
def test_a_request_and_its_answer_arrive(envelope):
    sent = box_request(PUBLIC, envelope, silo="aurora")
    opened = unbox_request(KEY, sent.box, silo="aurora")
    assert opened.envelope == envelope
    answer = box_reply(opened.reply_key, b"answer", silo="aurora")
    assert unbox_reply(sent.reply_key, answer, silo="aurora") == b"answer"


@pytest.mark.privacy
def test_a_relay_sees_nothing_of_it():
    canary = b"canary-4711-" * 20
    sent = box_request(PUBLIC, canary, silo="aurora")
    assert b"canary-4711" not in sent.box
    assert sent.reply_key not in sent.box
    assert b"canary-4711" not in box_reply(sent.reply_key, canary, silo="aurora")


@settings(max_examples=60)
@given(st.data())
def test_a_changed_byte_breaks_the_seal(data):
    box = bytearray(box_request(PUBLIC, b"a request", silo="aurora").box)
    place = data.draw(st.integers(0, len(box) - 1))
    box[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        unbox_request(KEY, bytes(box), silo="aurora")


@pytest.mark.parametrize("junk", [b"", b"x", MAGIC, MAGIC + b"\0" * 31, MAGIC + b"\0" * 200])
def test_junk_is_not_a_box(junk):
    with pytest.raises(IntegrityError):
        unbox_request(KEY, junk, silo="aurora")


def test_a_box_opens_for_its_silo_only():
    box = box_request(PUBLIC, b"a request", silo="aurora").box
    with pytest.raises(IntegrityError):
        unbox_request(X25519PrivateKey.generate(), box, silo="aurora")
    with pytest.raises(IntegrityError):
        unbox_request(KEY, box, silo="borealis")


def test_the_answer_to_one_request_is_no_answer_to_another():
    first = box_request(PUBLIC, b"the same question", silo="aurora")
    second = box_request(PUBLIC, b"the same question", silo="aurora")
    assert first.box != second.box
    answer = box_reply(first.reply_key, b"answer", silo="aurora")
    with pytest.raises(IntegrityError):
        unbox_reply(second.reply_key, answer, silo="aurora")
    with pytest.raises(IntegrityError):
        unbox_reply(first.reply_key, answer, silo="borealis")
