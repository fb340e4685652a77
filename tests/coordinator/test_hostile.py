"""Silos that lie, fail, refuse or are late: each is left out and named, and the others go on."""

import time

import numpy as np
import pytest

from abfed.coordinator.app import carry_out
from abfed.coordinator.vault import Vault
from abfed.learning.shapes import parameter_shapes
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError, Refused, RunFailed
from abfed.protocol.messages import PROTOCOL_VERSION, decode
from abfed.site.keys import SiteKeys
from tests.coordinator.doubles import Federation, SiloDouble, make_plan, statistics_plan

EVIL = "corona"
WHEN = "train-0002"


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def request_of(federation, envelope):
    trusted = {federation.keys.key_id: federation.keys.public_key}
    opened = open_envelope(envelope, trusted, kind="request", where="test")
    return decode("request", opened.content, where="test").header


def forged(**changes):
    """Lies in the header of one step."""

    def forge(fields, arrays):
        if fields["step"] == WHEN:
            fields |= changes

    return forge


def bent(change):
    """Lies in the arrays of one step."""

    def forge(fields, arrays):
        if fields["step"] == WHEN:
            change(arrays)

    return forge


def put(name, value):
    def change(arrays):
        arrays[name] = value(arrays[name])

    return change


def nan(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


FORGERIES = {
    "the plan's digest": (forged(plan_digest="f" * 64), "it answers another plan"),
    "the step": (forged(step="train-0001"), "it answers another step"),
    "the model": (forged(incoming_digest="f" * 64), "it answers for another model"),
    "the payload": (forged(payload="totals"), "its payload is not what the step asks for"),
    "the epoch": (forged(epoch="f" * 64), "the silo's data changed within the run"),
    "simulated": (
        forged(simulated=True),
        "it is simulated and the plan is not, or the other way round",
    ),
    "the silo": (forged(silo="aurora"), "it was made by another silo"),
    "the version": (
        forged(version=PROTOCOL_VERSION + 1),
        "it speaks another version of the protocol",
    ),
    "nan": (
        bent(put("update/output.bias", nan)),
        "array 'update/output.bias' holds a number that is not finite",
    ),
    "a shape": (
        bent(put("update/output.bias", lambda array: np.zeros((1, 1), np.float32))),
        "array 'update/output.bias' has the wrong type or shape",
    ),
    "a name": (
        bent(lambda arrays: arrays.pop("histogram")),
        "the arrays are not the expected ones",
    ),
    "too large a model": (
        bent(put("update/output.bias", lambda array: np.full_like(array, 3.4e38))),
        "its update leaves the range of parameters",
    ),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_lie_is_left_out_and_named(federation, what):
    forge, why = FORGERIES[what]
    federation.silos[EVIL].forge = forge
    outcome = carry_out(make_plan(), federation.grid(), federation.coordinator)
    reason = "outlier" if what == "too large a model" else "integrity"
    expect_left_out(federation, outcome, reason, why)


def expect_left_out(federation, outcome, reason, why):
    assert outcome.manifest["left_out"][WHEN][EVIL] == {"reason": reason, "why": why}
    assert EVIL not in outcome.manifest["weights"][WHEN]
    assert WHEN not in outcome.manifest["releases"][EVIL]
    assert EVIL in outcome.manifest["weights"]["train-0003"]
    assert "train-0001" not in outcome.manifest["left_out"]
    model = Vault(federation.keys).open(
        (outcome.folder / "model.sealed").read_bytes(),
        parameter_shapes(make_plan()),
        name=outcome.run,
        version="final",
    )
    assert all(np.isfinite(array).all() for array in model.values())
    logged = [
        entry["body"]["facts"]
        for entry in federation.coordinator.audit.entries()
        if entry["body"]["event"] == "answer.left-out"
    ]
    assert any((one["silo"], one["step"], one["why"]) == (EVIL, WHEN, why) for one in logged)


def during(federation, step, instead):
    """A carrier that answers `instead` for one step, honestly otherwise."""

    def carry(envelope):
        answer = federation.silos[EVIL].answer
        if request_of(federation, envelope).step != step:
            return answer(envelope)
        return instead(envelope)

    return {EVIL: carry}


def flip(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def earlier(federation):
    """Plays the answer to the first round again in the second."""
    kept = {}

    def carry(envelope):
        step = request_of(federation, envelope).step
        kept[step] = federation.silos[EVIL].answer(envelope)
        return kept["train-0001"] if step == WHEN else kept[step]

    return {EVIL: carry}


def by_key_of(federation, other):
    def instead(envelope):
        impostor = SiloDouble(other, federation.keys)
        request = request_of(federation, envelope)
        fields = federation.silos[EVIL].fields(make_plan(), WHEN, request.incoming_digest)
        return impostor.signed(fields, {})

    return during(federation, WHEN, instead)


BYTES = {
    "a flipped byte": (
        lambda f, tmp: during(f, WHEN, lambda e: flip(f.silos[EVIL].answer(e))),
        "the signature does not hold",
    ),
    "cut short": (
        lambda f, tmp: during(f, WHEN, lambda e: f.silos[EVIL].answer(e)[:-1]),
        "the signature does not hold",
    ),
    "nothing": (lambda f, tmp: during(f, WHEN, lambda e: b""), "not an envelope"),
    "its own request": (
        lambda f, tmp: during(f, WHEN, lambda e: e),
        "signed by a key that is not trusted here",
    ),
    "another silo's key": (
        lambda f, tmp: by_key_of(f, f.silos["aurora"].keys),
        "signed by a key that is not trusted here",
    ),
    "a stranger's key": (
        lambda f, tmp: by_key_of(f, SiteKeys.create(tmp / "stranger", site=EVIL)),
        "signed by a key that is not trusted here",
    ),
    "another silo's answer": (
        lambda f, tmp: during(f, WHEN, f.silos["aurora"].answer),
        "signed by a key that is not trusted here",
    ),
    "an earlier answer": (lambda f, tmp: earlier(f), "it answers another step"),
    "a huge answer": (
        lambda f, tmp: during(f, WHEN, lambda e: bytes(3_000_000)),
        "it is larger than any answer to this step",
    ),
}


@pytest.mark.parametrize("what", BYTES)
def test_wrong_bytes_are_left_out_and_named(federation, tmp_path, what):
    make, why = BYTES[what]
    grid = federation.grid(**make(federation, tmp_path))
    outcome = carry_out(make_plan(), grid, federation.coordinator)
    expect_left_out(federation, outcome, "integrity", why)


def test_a_silo_that_raises_is_left_out(federation):
    def raising(envelope):
        raise MemoryError("row of jane@example.org")

    grid = federation.grid(**during(federation, WHEN, raising))
    outcome = carry_out(make_plan(), grid, federation.coordinator)
    expect_left_out(federation, outcome, "failed", "MemoryError")


def test_a_silo_that_refuses_is_left_out(federation):
    def refusing(envelope):
        return federation.silos[EVIL].refusal(make_plan(), WHEN, "failed")

    grid = federation.grid(**during(federation, WHEN, refusing))
    outcome = carry_out(make_plan(), grid, federation.coordinator)
    expect_left_out(federation, outcome, "refused", "failed")


def test_a_late_silo_is_left_out(federation):
    def late(envelope):
        time.sleep(2.1)
        return federation.silos[EVIL].answer(envelope)

    grid = federation.grid(**during(federation, WHEN, late))
    outcome = carry_out(make_plan(), grid, federation.coordinator, timeout=2.0)
    expect_left_out(federation, outcome, "absent", "no answer in time")


def test_a_silo_that_is_not_connected_is_left_out(federation):
    plan = statistics_plan()
    grid = federation.grid()
    grid._clients = {node: one for node, one in grid._clients.items() if one[0] != EVIL}
    outcome = carry_out(plan, grid, federation.coordinator)
    left_out = outcome.manifest["left_out"]["totals"]
    assert left_out == {EVIL: {"reason": "absent", "why": "not connected"}}


def test_fewer_than_the_minimum_ends_the_run_with_reasons(federation):
    def raising(envelope):
        raise OSError("no")

    grid = federation.grid(aurora=raising, borealis=raising)
    federation.silos[EVIL].refuses = "budget"
    with pytest.raises(RunFailed, match="1 of at least 2 silos answered") as caught:
        carry_out(make_plan(), grid, federation.coordinator)
    for said in ("aurora: failed: OSError", "corona: refused (budget)", "spring, totals"):
        assert said in str(caught.value)
    assert not list(federation.folder.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("code", "advice"),
    [("budget", "ask for less"), ("stale", "compare the clocks"), ("untrusted", "provision join")],
)
def test_refused_by_all_is_a_refusal_that_says_what_to_do(federation, code, advice):
    for silo in federation.silos.values():
        silo.refuses = code
    with pytest.raises(Refused, match="0 of at least 2") as caught:
        carry_out(make_plan(), federation.grid(), federation.coordinator)
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    assert advice in caught.value.do


def test_too_few_in_a_wave_asks_first_whether_its_rows_are_there(federation):
    """A wave that was asked too early is no reason to ask about larger groups."""
    for silo in federation.silos.values():
        silo.refuses = "too-few"
    waves = [
        {"name": name, "until": day} for name, day in (("one", "2026-03-04"), ("two", "2026-03-11"))
    ]
    plan = make_plan(analysis={"sequential": {"waves": waves}})
    for asked, said in (
        (plan.at_wave(2), "the rows of wave 2 (two) ingested"),
        (plan, "ask about"),
    ):
        with pytest.raises(Refused) as caught:
            carry_out(asked, federation.grid(), federation.coordinator)
        assert caught.value.do.partition(said)[0] in {"are ", ""}
        assert "ask about larger groups" in caught.value.do


def test_believed_by_none_is_an_integrity_error(federation):
    carriers = {name: (lambda envelope: b"") for name in federation.silos}
    with pytest.raises(IntegrityError, match="0 of at least 2"):
        carry_out(make_plan(), federation.grid(**carriers), federation.coordinator)


def test_damage_at_a_silo_is_no_refusal(federation):
    """Its own word that it is damaged ends a run as an integrity failure, where it is needed."""
    federation.silos[EVIL].refuses = "damaged"
    outcome = carry_out(make_plan(), federation.grid(), federation.coordinator)
    assert outcome.missing_now[EVIL].reason == "integrity"
    for silo in federation.silos.values():
        silo.refuses = "damaged"
    with pytest.raises(IntegrityError) as failed:
        carry_out(make_plan(name="other"), federation.grid(), federation.coordinator)
    assert "changed or is missing" in failed.value.why


def test_a_no_says_what_it_is_about_and_where_to_look(federation):
    for silo in federation.silos.values():
        silo.refuses, silo.about = "columns", "clicked"
    with pytest.raises(Refused) as refused:
        carry_out(make_plan(), federation.grid(), federation.coordinator)
    assert "(it is about 'clicked')" in refused.value.why
    assert "abfed silo show aurora" in refused.value.do
    federation.silos[EVIL].about = "nothing-of-the-plan"  # no channel for other words
    with pytest.raises(RunFailed) as failed:
        carry_out(make_plan(), federation.grid(), federation.coordinator)
    assert "a name that the plan doesn't hold" in failed.value.why


def test_too_few_in_a_round_ends_the_run_and_it_goes_on_later(federation):
    plan = make_plan(minimum_silos=4)
    broken = federation.grid(**during(federation, WHEN, lambda envelope: b""))
    with pytest.raises(IntegrityError, match="3 of at least 4"):
        carry_out(plan, broken, federation.coordinator)
    outcome = carry_out(plan, federation.grid(), federation.coordinator)
    assert outcome.resumed_after == "train-0001"
    assert outcome.manifest["left_out"] == {}


def test_a_reply_in_anothers_name_takes_nothing_from_it(federation, monkeypatch):
    """A node that replies to a message it was never sent."""
    from abfed.coordinator import exchange

    plan = statistics_plan()
    judge = exchange.judge

    def both(desk, requests, replies):
        replies = list(replies)
        false = replies[1]
        false.metadata.__dict__["_reply_to_message_id"] = replies[0].metadata.reply_to_message_id
        return judge(desk, requests, [false, *replies, false])

    monkeypatch.setattr("abfed.coordinator.conduct.judge", both)
    outcome = carry_out(plan, federation.grid(), federation.coordinator)
    assert outcome.manifest["releases"]["aurora"]
    assert outcome.manifest["left_out"] == {
        "totals": {"borealis": {"reason": "absent", "why": "no answer in time"}}
    }


def test_what_a_silo_claims_has_no_weight(federation):
    plan = make_plan()
    honest = carry_out(plan, federation.grid(), federation.coordinator)
    (federation.folder / "runs").rename(federation.folder / "before")

    def boast(fields, arrays):
        fields["noise"] = {"noise_multiplier": 1.0, "examples": 1e12, "weight": 1e12}

    federation.silos[EVIL].forge = boast
    boasting = carry_out(plan, federation.grid(), federation.coordinator)
    assert boasting.manifest["weights"] == honest.manifest["weights"]
    assert boasting.manifest["model"]["digest"] == honest.manifest["model"]["digest"]
    assert boasting.manifest["releases"][EVIL] != honest.manifest["releases"][EVIL]
    assert sha256_hex(b"") not in boasting.manifest["releases"][EVIL].values()
