"""The inbox believes what holds and names what doesn't."""

import struct
from typing import Any

import numpy as np
import pytest

from abfed.coordinator.inbox import Accepted, Inbox
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.identity import Presented
from abfed.protocol.messages import PROTOCOL_VERSION, Refusal, Request, encode, payload_of
from abfed.protocol.tensors import Shape
from abfed.site.keys import SiteKeys
from tests.coordinator.doubles import AT, Federation, make_plan

EMPTY = sha256_hex(b"")
MODEL = "a" * 64
SHAPES = {
    "totals": {"totals": Shape("int64", (2, 4))},
    "train-0001": {"update/w": Shape("float32", (3,)), "histogram": Shape("int64", (2, 10))},
    "train-0002": {"update/w": Shape("float32", (3,)), "histogram": Shape("int64", (2, 10))},
    "evaluate": {"histogram": Shape("int64", (2, 10))},
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return Federation(tmp_path_factory.mktemp("federation"), ("aurora", "borealis"))


@pytest.fixture(scope="module")
def plan():
    return make_plan(silos=["aurora", "borealis"])


@pytest.fixture
def inbox(federation, plan):
    """Bound to aurora's data, with both silos' keys pinned."""
    known = {name: silo.keys.public_key for name, silo in federation.silos.items()}
    box = Inbox(known, plan, lambda step: SHAPES[step])
    silo = federation.silos["aurora"]
    box.bind({"aurora": silo.fields(plan, "totals", EMPTY)["epoch"]})
    return box


def arrays_for(step):
    return {name: np.ones(shape.shape, shape.dtype) for name, shape in SHAPES[step].items()}


def release(silo, plan, step="train-0001", arrays=None, /, **changes):
    fields = silo.fields(plan, step, EMPTY if step == "totals" else MODEL) | changes
    return silo.signed(fields, arrays_for(step) if arrays is None else arrays)


@pytest.mark.parametrize("step", ["totals", "train-0001", "evaluate"])
def test_an_honest_release_is_believed(federation, inbox, plan, step):
    silo = federation.silos["aurora"]
    envelope = release(silo, plan, step)
    accepted = inbox.accept("aurora", step, EMPTY if step == "totals" else MODEL, envelope)
    assert isinstance(accepted, Accepted)
    assert accepted.release.payload == payload_of(step)
    assert accepted.envelope == envelope
    assert set(accepted.arrays) == set(SHAPES[step])


def test_a_release_of_the_version_before_is_believed_with_its_own_bins(federation, inbox, plan):
    """Runs of before are read, and a silo gives again what it gave; no mixture of both."""
    silo = federation.silos["aurora"]
    arrays = arrays_for("train-0001") | {"histogram": np.ones((2, 32), np.int64)}
    envelope = release(silo, plan, "train-0001", arrays, version=4)
    accepted = inbox.accept("aurora", "train-0001", MODEL, envelope)
    assert isinstance(accepted, Accepted)
    assert accepted.arrays["histogram"].shape == (2, 32)
    mixed = release(silo, plan, "train-0001", arrays, version=PROTOCOL_VERSION)
    with pytest.raises(IntegrityError, match="wrong type or shape"):
        inbox.accept("aurora", "train-0001", MODEL, mixed)


def test_payloads_of_steps():
    assert [payload_of(step) for step in ("totals", "train-0007", "evaluate")] == [
        "totals",
        "training",
        "evaluation",
    ]


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another plan": ({"plan_digest": "b" * 64}, "another plan"),
    "another step": ({"step": "train-0002"}, "another step"),
    "another model": ({"incoming_digest": "b" * 64}, "another model"),
    "another payload": ({"payload": "evaluation"}, "payload"),
    "another silo": ({"silo": "borealis"}, "another silo"),
    "another state of the data": ({"epoch": "b" * 64}, "data changed within the run"),
    "a simulation": ({"simulated": True}, "simulated"),
    "another version": ({"version": PROTOCOL_VERSION + 1}, "version"),
    "another key": ({"key": "b" * 64}, "key"),
    "no charge": ({"charged": ()}, "charged"),
    "less noise": ({"noise": {"noise_multiplier": 1e-12}}, "charged"),
    "no noise": ({"noise": {}}, "charged"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_lie_in_the_header_is_named(federation, inbox, plan, lie):
    changes, said = LIES[lie]
    envelope = release(federation.silos["aurora"], plan, **changes)
    with pytest.raises(IntegrityError, match=said) as caught:
        inbox.accept("aurora", "train-0001", MODEL, envelope)
    assert caught.value.where.startswith("aurora, train-0001")


ARRAYS = {
    "nan": ({"update/w": np.array([0, np.nan, 0], np.float32)}, "not finite"),
    "infinity": ({"update/w": np.array([0, np.inf, 0], np.float32)}, "not finite"),
    "shape": ({"update/w": np.zeros((1, 3), np.float32)}, "wrong type or shape"),
    "broadcastable": ({"update/w": np.zeros(1, np.float32)}, "wrong type or shape"),
    "everybody's histogram": (
        {"histogram": np.full((2, 10), 2**60, np.int64)},
        "more recipients than there are people",
    ),
    "type": ({"update/w": np.zeros(3, np.float64)}, "wrong type or shape"),
    "one more": ({"more": np.zeros(1, np.float32)}, "not the expected ones"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_wrong_arrays_are_named(federation, inbox, plan, case):
    changes, said = ARRAYS[case]
    arrays = arrays_for("train-0001") | changes
    envelope = release(federation.silos["aurora"], plan, "train-0001", arrays)
    with pytest.raises(IntegrityError, match=said):
        inbox.accept("aurora", "train-0001", MODEL, envelope)


@pytest.mark.parametrize("many", [2**60, -(2**60), -(2**63)])
def test_more_recipients_than_there_are_people_have_no_weight(federation, inbox, plan, many):
    """Weights are noised sizes: a silo that claims 2⁴⁴ recipients would be all of the model."""
    totals = {"totals": np.full((2, 4), many, dtype=np.int64)}
    envelope = release(federation.silos["aurora"], plan, "totals", totals)
    with pytest.raises(IntegrityError, match="more recipients than there are people"):
        inbox.accept("aurora", "totals", EMPTY, envelope)


def test_a_missing_array_is_named(federation, inbox, plan):
    arrays = {"histogram": arrays_for("train-0001")["histogram"]}
    with pytest.raises(IntegrityError, match="not the expected ones"):
        inbox.accept(
            "aurora",
            "train-0001",
            MODEL,
            release(federation.silos["aurora"], plan, "train-0001", arrays),
        )


def test_one_silos_key_can_not_answer_for_another(federation, inbox, plan):
    theirs = federation.silos["borealis"]
    mine = federation.silos["aurora"].fields(plan, "train-0001", MODEL)
    envelope = theirs.signed(mine, arrays_for("train-0001"))
    with pytest.raises(IntegrityError, match="key that is not trusted"):
        inbox.accept("aurora", "train-0001", MODEL, envelope)


def test_a_stranger_is_not_believed(federation, inbox, plan, tmp_path):
    stranger = SiteKeys.create(tmp_path / "keys", site="aurora")
    header = federation.silos["aurora"].fields(plan, "totals", EMPTY)
    federation_silo = type(federation.silos["aurora"])(stranger, federation.keys)
    envelope = federation_silo.signed(header, arrays_for("totals"))
    with pytest.raises(IntegrityError, match="key that is not trusted"):
        inbox.accept("aurora", "totals", EMPTY, envelope)
    with pytest.raises(IntegrityError, match="no key is pinned"):
        inbox.accept("corona", "totals", EMPTY, envelope)


def test_every_flipped_byte_and_every_cut_is_found(federation, inbox, plan):
    envelope = release(federation.silos["aurora"], plan)
    for place in range(len(envelope)):
        changed = envelope[:place] + bytes([envelope[place] ^ 1]) + envelope[place + 1 :]
        with pytest.raises(IntegrityError):
            inbox.accept("aurora", "train-0001", MODEL, changed)
    for size in range(0, len(envelope), 5):
        with pytest.raises(IntegrityError):
            inbox.accept("aurora", "train-0001", MODEL, envelope[:size])


def test_a_huge_header_is_refused(federation, inbox):
    keys = federation.silos["aurora"].keys
    content = struct.pack(">I", 0xFFFFFFFF) + b"{}"
    with pytest.raises(IntegrityError, match="cut short"):
        inbox.accept("aurora", "totals", EMPTY, keys.sign("release", content))
    content = struct.pack(">I", 2_000_000) + b" " * 2_000_000
    with pytest.raises(IntegrityError, match="larger than any answer"):
        inbox.accept("aurora", "totals", EMPTY, keys.sign("release", content))


def test_an_answer_of_any_size_is_not_even_hashed(inbox):
    with pytest.raises(IntegrityError, match="larger than any answer"):
        inbox.accept("aurora", "totals", EMPTY, bytes(3_000_000))


def test_a_request_or_a_manifest_is_not_an_answer(federation, inbox, plan):
    keys = federation.silos["aurora"].keys
    request = Request(
        plan=plan.canonical_bytes().decode(),
        step="totals",
        silo="aurora",
        incoming_digest=EMPTY,
        nonce="0" * 32,
        issued_at=AT,
        head="0" * 64,
        presented=Presented(token="YQ==", submission="YQ=="),
    )
    for kind in ("request", "manifest", "model", "audit"):
        with pytest.raises(IntegrityError, match="is not an answer"):
            inbox.accept("aurora", "totals", EMPTY, keys.sign(kind, encode(request)))
    with pytest.raises(IntegrityError, match="not a release"):
        inbox.accept("aurora", "totals", EMPTY, keys.sign("release", encode(request)))


def test_a_refusal_is_believed_if_it_is_about_this(federation, inbox, plan):
    silo = federation.silos["aurora"]
    refusal = inbox.accept("aurora", "totals", EMPTY, silo.refusal(plan, "totals", "budget"))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "budget"
    with pytest.raises(IntegrityError, match="refuses something else"):
        inbox.accept("aurora", "totals", EMPTY, silo.refusal(plan, "evaluate", "budget"))
    other = make_plan(name="summer")
    with pytest.raises(IntegrityError, match="refuses something else"):
        inbox.accept("aurora", "totals", EMPTY, silo.refusal(other, "totals", "budget"))
    unread = Refusal(silo="aurora", plan_digest="", step="", code="untrusted", head="0" * 64)
    assert isinstance(
        inbox.accept("aurora", "totals", EMPTY, silo.keys.sign("refusal", encode(unread))), Refusal
    )


def test_nothing_is_learned_from_a_silo_without_totals(federation, inbox, plan):
    envelope = release(federation.silos["borealis"], plan)
    with pytest.raises(IntegrityError, match="no totals of this silo"):
        inbox.accept("borealis", "train-0001", MODEL, envelope)


def test_a_run_is_bound_to_one_state_of_the_data(inbox):
    with pytest.raises(IntegrityError, match="data changed"):
        inbox.bind({"aurora": "c" * 64})


def test_a_simulation_takes_simulated_releases_only(federation):
    simulated = make_plan(silos=["aurora", "borealis"], simulation={"seed": 1})
    silo = federation.silos["aurora"]
    inbox = Inbox({"aurora": silo.keys.public_key}, simulated, lambda step: SHAPES[step])
    assert isinstance(
        inbox.accept("aurora", "totals", EMPTY, release(silo, simulated, "totals")), Accepted
    )
    with pytest.raises(IntegrityError, match="simulated"):
        inbox.accept("aurora", "totals", EMPTY, release(silo, simulated, "totals", simulated=False))
