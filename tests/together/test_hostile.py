"""A coordinator that lies to silos: wrong keys, other lists, replays, both kinds of share."""

from __future__ import annotations

import numpy as np
import pytest

from abfed.privacy.once import AGREED, OWN, SEALED_BYTES
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import encode
from abfed.protocol.relayed import pack_lists, unpack_lists
from abfed.protocol.tensors import pack, unpack
from abfed.stats.encoding import SCALE
from abfed.stats.layout import Layout
from abfed.stats.once import once_shapes
from tests.silo.asking import model_arrays
from tests.together.kin import SILOS, Kin, exact, once_plan
from tests.together.test_training import training_plan

PLAN = once_plan()
THREE = SILOS[:3]


def resigned(kin: Kin, silo: str, envelope: bytes, signer, **changes) -> bytes:
    """A release signed again by somebody, with other arrays."""
    header, raw = kin.read(silo, envelope)
    arrays = unpack(raw, once_shapes(PLAN, header.step), where="x") | changes
    packed = pack(arrays)
    from abfed.protocol.canonical import sha256_hex

    header = header.model_copy(update={"arrays_digest": sha256_hex(packed)})
    return signer.sign("release", encode(header, packed))


def upto(kin: Kin, last: str, silos: tuple[str, ...] = SILOS) -> dict[str, dict[str, bytes]]:
    """All answers up to a step, given honestly."""
    lists = {"keys": kin.ask_all(PLAN, "keys", None, silos)}
    if last != "keys":
        lists["shares"] = kin.ask_all(PLAN, "shares", lists, silos)
    if last in {"totals", "answered"}:
        lists["totals"] = kin.ask_all(PLAN, "totals", lists, silos)
    if last == "answered":
        lists["answered"] = kin.ask_all(PLAN, "answered", {"masked": lists["totals"]}, silos)
    return lists


def opening(lists):
    """The lists that come with a request for an opening."""
    return {step: lists[step] for step in ("answered", "keys", "shares")}


def test_keys_that_the_coordinator_made_up_are_refused(kin):
    """The pinned key of the silo must have signed; the coordinator's own doesn't do."""
    keys = kin.ask_all(PLAN, "keys")
    middle = resigned(
        kin, "borealis", keys["borealis"], kin.hub, keys=np.ones((3, 32), dtype=np.uint8)
    )
    code = kin.code(
        "aurora", kin.ask(PLAN, "aurora", "shares", {"keys": keys | {"borealis": middle}})
    )
    assert code == ("peer", "borealis")
    swapped = keys | {"borealis": keys["corona"]}
    code = kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": swapped}))
    assert code == ("peer", "borealis")
    assert kin.release("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": keys})).charged == ()


def test_a_silo_that_is_not_in_the_plan_is_no_silo(kin):
    three = once_plan(silos=list(THREE))
    keys = kin.ask_all(three, "keys", None, THREE)
    foreign = keys | {"dawn": kin.ask(PLAN, "dawn", "keys")}
    assert kin.code("aurora", kin.ask(three, "aurora", "shares", {"keys": foreign}))[0] == "peer"


def test_keys_of_another_plan_are_refused(kin):
    other = once_plan(name="autumn")
    keys = kin.ask_all(PLAN, "keys")
    replayed = keys | {"dawn": kin.ask(other, "dawn", "keys")}
    code = kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": replayed}))
    assert code == ("peer", "dawn")


@pytest.mark.parametrize("without", ["aurora", "too many"])
def test_lists_without_the_silo_or_of_too_few_are_refused(kin, without):
    keys = kin.ask_all(PLAN, "keys")
    left = {s: e for s, e in keys.items() if s != "aurora"}
    if without == "too many":
        left = {s: keys[s] for s in ("aurora", "borealis")}
    code = kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": left}))
    assert code == (("peer", "aurora") if without == "aurora" else ("order", ""))


def test_shares_are_given_for_one_list_of_keys_only(kin):
    keys = kin.ask_all(PLAN, "keys")
    first = kin.ask(PLAN, "aurora", "shares", {"keys": keys})
    fewer = {silo: keys[silo] for silo in THREE}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": fewer}))[0] == "step-used"
    kin.reopen("aurora")
    assert kin.ask(PLAN, "aurora", "shares", {"keys": keys}) == first
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": fewer}))[0] == "step-used"


def test_a_value_is_masked_only_for_who_saw_the_same_keys(kin):
    """Two silos that were shown unlike lists of keys don't add up: neither masks for the other."""
    keys = kin.ask_all(PLAN, "keys")
    fewer = {silo: keys[silo] for silo in THREE}
    shares = kin.ask_all(PLAN, "shares", {"keys": keys}, ("aurora", "borealis", "dawn"))
    shares["corona"] = kin.ask(PLAN, "corona", "shares", {"keys": fewer})
    lists = {"keys": keys, "shares": shares}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "totals", lists)) == ("peer", "corona")
    other = {"keys": fewer, "shares": {s: shares[s] for s in THREE}}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "totals", other))[0] == "peer"


def test_one_masked_value_is_given_and_no_second(kin):
    lists = upto(kin, "shares")
    first = kin.ask(PLAN, "aurora", "totals", lists)
    fewer = lists | {"shares": {silo: lists["shares"][silo] for silo in THREE}}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "totals", fewer))[0] == "step-used"
    kin.reopen("aurora")
    assert kin.ask(PLAN, "aurora", "totals", lists) == first


def test_a_lone_silo_cant_be_taken_out_of_its_list(kin):
    """Shown fewer shares than others, a silo masks for fewer; nobody answers for such a value."""
    lists = upto(kin, "shares")
    lone = lists | {"shares": {s: lists["shares"][s] for s in THREE}}
    totals = {silo: kin.ask(PLAN, silo, "totals", lists) for silo in SILOS[1:]}
    totals["aurora"] = kin.ask(PLAN, "aurora", "totals", lone)
    code = kin.code("borealis", kin.ask(PLAN, "borealis", "answered", {"masked": totals}))
    assert code == ("peer", "aurora")


def test_nobody_opens_for_two_stories_of_who_answered(kin):
    """The attack for which there is a step of its own: both kinds of share of one silo."""
    lists = upto(kin, "totals")
    whole, without = lists["totals"], {s: lists["totals"][s] for s in THREE}
    answered = kin.ask_all(PLAN, "answered", {"masked": whole}, ("aurora", "borealis"))
    answered["corona"] = kin.ask(PLAN, "corona", "answered", {"masked": without})
    for one in ("aurora", "corona"):
        told = opening(lists | {"answered": answered})
        assert kin.code(one, kin.ask(PLAN, one, "opening", told))[0] == "peer"
    again = kin.ask(PLAN, "corona", "answered", {"masked": whole})
    assert kin.code("corona", again)[0] == "step-used"
    two = opening(lists | {"answered": {s: answered[s] for s in ("aurora", "borealis")}})
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", two))[0] == "order"


def test_each_silo_gives_one_kind_of_share_and_the_same_after_a_restart(kin):
    lists = upto(kin, "answered")
    told = opening(lists)
    first = kin.ask(PLAN, "aurora", "opening", told)
    arrays = unpack(kin.read("aurora", first).arrays, once_shapes(PLAN, "opening"), where="x")
    assert arrays["kinds"].tolist() == [OWN] * 4
    kin.reopen("aurora")
    assert kin.ask(PLAN, "aurora", "opening", told) == first
    fewer = told | {"answered": {silo: lists["answered"][silo] for silo in THREE}}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", fewer))[0] == "step-used"


def test_of_a_silo_that_dropped_out_only_the_agreement_key_is_given(kin):
    lists = upto(kin, "shares")
    lists["totals"] = kin.ask_all(PLAN, "totals", lists, THREE)
    lists["answered"] = kin.ask_all(PLAN, "answered", {"masked": lists["totals"]}, THREE)
    for silo in THREE:
        answer = kin.ask(PLAN, silo, "opening", opening(lists))
        arrays = unpack(kin.read(silo, answer).arrays, once_shapes(PLAN, "opening"), where="x")
        assert arrays["kinds"].tolist() == [OWN, OWN, OWN, AGREED]


@pytest.mark.privacy
def test_a_crash_before_it_is_settled_gives_nothing_and_after_it_the_same(kin, monkeypatch):
    """What kind was given is in the ledger before a byte leaves."""
    lists = upto(kin, "answered")
    told = opening(lists)
    ledger = kin.services["aurora"].ledger
    settle = ledger.settle
    seen = []

    def killed(key, digest):
        raise OSError("the power is gone")

    monkeypatch.setattr(ledger, "settle", killed)
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", told))[0] == "failed"
    question = {"plan_digest": PLAN.digest, "epoch": kin.services["aurora"].store.epoch}
    assert ledger.answered(**question, step="opening") is None

    def late(key, digest):
        seen.append(settle(key, digest))
        raise OSError("the power is gone, after the disk had it")

    monkeypatch.setattr(ledger, "settle", late)
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", told))[0] == "failed"
    kin.reopen("aurora")
    given = kin.services["aurora"].ledger.answered(**question, step="opening")
    assert given is not None
    assert given[1].digest == seen[0]
    answer = kin.ask(PLAN, "aurora", "opening", told)
    from abfed.protocol.canonical import sha256_hex

    assert sha256_hex(answer) == seen[0]


def test_steps_come_in_order(kin):
    lists = upto(kin, "keys")
    packed = {"keys": lists["keys"], "shares": lists["keys"]}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "totals", packed))[0] == "order"
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", packed))[0] == "order"
    fresh = once_plan(name="fresh")
    assert kin.code("aurora", kin.ask(fresh, "aurora", "shares", lists))[0] == "order"


def test_shares_sealed_to_another_say_nothing(kin):
    """Each holder opens its own line; a line that isn't for it is passed over, not guessed."""
    lists = upto(kin, "shares")
    body = unpack(
        kin.read("dawn", lists["shares"]["dawn"]).arrays, once_shapes(PLAN, "shares"), where="x"
    )
    assert body["shares"].shape == (4, SEALED_BYTES)
    assert len({line.tobytes() for line in body["shares"]}) == 4


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ({"allowed": False}, ("noise-once", "")),
        ({"colluders": 2}, ("noise-once", "")),
        ({"peers": []}, ("peer", "borealis")),
    ],
)
def test_a_policy_that_does_not_allow_it_says_why_and_charges_nothing(kin, section, code):
    kin.allow("aurora", section)
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "keys")) == code
    assert kin.services["aurora"].ledger.reservations() == ()


def test_a_peer_that_is_pinned_under_another_key_is_refused(kin):
    peers = [
        {"name": name, "public_key": one.keys.public_key.hex()}
        for name, one in kin.services.items()
        if name != "aurora"
    ]
    peers[0]["public_key"] = "ab" * 32
    kin.allow("aurora", {"peers": peers})
    keys = kin.ask_all(PLAN, "keys")
    code = kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"keys": keys}))
    assert code == ("peer", "borealis")


def test_lists_have_one_form(kin):
    lists = {"keys": {"aurora": b"one", "borealis": b"two"}}
    packed = pack_lists(lists)
    assert unpack_lists(packed, ("keys",), where="x") == lists
    for broken in (b"", packed[:-1], packed + b"x", packed.replace(b"aurora", b"zurora")):
        with pytest.raises(IntegrityError):
            unpack_lists(broken, ("keys",), where="x")
    with pytest.raises(IntegrityError):
        unpack_lists(packed, ("shares",), where="x")
    raw = kin.ask_all(PLAN, "keys")
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "shares", {"shares": raw}))[0] == "version"


def test_silos_that_were_sent_unlike_models_dont_answer_for_one_another(kin):
    """A coordinator that trains one silo on another model would learn of it by the difference."""
    plan = training_plan()
    kin.ask_all(plan, "keys")
    keys = kin.ask_all(plan, "keys-0001")
    lists = {"keys": keys, "shares": kin.ask_all(plan, "shares-0001", {"keys": keys})}
    model, other = (pack(model_arrays(plan, fill)) for fill in (0.0, 0.5))
    told = {silo: lists | {"model": {"model": model}} for silo in SILOS}
    told["dawn"] = lists | {"model": {"model": other}}
    totals = {silo: kin.ask(plan, silo, "train-0001", told[silo]) for silo in SILOS}
    answer = kin.ask(plan, "aurora", "answered-0001", {"masked": totals})
    assert kin.code("aurora", answer) == ("peer", "dawn")
    broken = lists | {"model": {"model": b"no arrays"}}
    assert kin.code("aurora", kin.ask(plan, "aurora", "train-0002", broken))[0] in {
        "version",
        "order",
    }
    assert kin.code("aurora", kin.ask(plan, "aurora", "train-0002", lists))[0] == "version"


def test_shares_of_another_round_open_nothing(kin):
    plan = training_plan()
    kin.ask_all(plan, "keys")
    first = kin.ask_all(plan, "keys-0001")
    kin.ask_all(plan, "keys-0002")
    code = kin.code("aurora", kin.ask(plan, "aurora", "shares-0002", {"keys": first}))
    assert code == ("peer", "aurora")


def test_a_silo_that_gives_wrong_shares_stops_nobody(kin):
    """Its shares don't fit what their owners were bound to: the others' are enough."""
    honest = kin.services["corona"].answer

    def lying(envelope: bytes) -> bytes:
        answer = honest(envelope)
        header, raw = kin.read("corona", answer)
        if getattr(header, "step", "") != "opening":
            return answer
        shares = unpack(raw, once_shapes(PLAN, "opening"), where="x")["shares"]
        return resigned(kin, "corona", answer, kin.services["corona"].keys, shares=shares ^ 1)

    run = kin.run(PLAN, corona=lying)
    opened, sums = exact(PLAN, kin.tables, run)
    assert opened.answered == SILOS
    widest = max(block.sd for block in Layout.of(PLAN).blocks) * opened.noise * SCALE
    assert np.abs(opened.sums - sums).max() < 10 * widest  # an unmasked sum would be random words
