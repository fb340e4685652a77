"""A hostile relay between coordinator and silos, such as a SuperLink: all it can do is drop.

It holds every box that passes, of this run and of others, and hands on what it likes to whom it
likes. What it does to one silo's message leaves that silo out of the step, by name; the others go
on, and no silo is asked anything that the coordinator didn't ask it.
"""

from dataclasses import replace

import pytest

from abfed.coordinator.app import carry_out
from abfed.protocol.boxes import box_reply, box_request, unbox_request
from tests.coordinator.doubles import Federation, make_plan

EVIL, OTHER, WHEN = "corona", "aurora", "train-0002"


class Relay:
    """Everything that passes, and one change to it.

    Attributes:
        boxes, answers: what passed, in order, by silo: one of each for each step.
        request, answer: put something else in the place of what passes to or from `EVIL`, given
            its place in the order; told the truth, they give back what they're given.
    """

    def __init__(self, federation):
        self.federation = federation
        self.boxes = {name: [] for name in federation.silos}
        self.answers = {name: [] for name in federation.silos}
        self.request = lambda box, turn: box
        self.answer = lambda box, turn: box

    def carrier(self, name):
        silo = self.federation.silos[name]

        def carry(box):
            turn = len(self.boxes[name])
            self.boxes[name].append(box)
            sent = self.request(box, turn) if name == EVIL else box
            opened = unbox_request(silo.keys.exchange_private_key(), sent, silo=name)
            reply = box_reply(opened.reply_key, silo.answer(opened.envelope), silo=name)
            self.answers[name].append(reply)
            return self.answer(reply, turn) if name == EVIL else reply

        return carry

    def carry_out(self, plan):
        coordinator = replace(
            self.federation.coordinator,
            boxes={name: one.keys.exchange_key for name, one in self.federation.silos.items()},
        )
        grid = self.federation.grid(**{one: self.carrier(one) for one in self.federation.silos})
        return carry_out(plan, grid, coordinator)


@pytest.fixture
def relay(tmp_path):
    return Relay(Federation(tmp_path))


TURN = 2  # of WHEN: totals, the first round, the second


def at_turn(change):
    """A change at `WHEN` only."""
    return lambda box, turn: change(box) if turn == TURN else box


def flipped(box, place):
    place %= len(box)
    return box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]


def own_request(relay):
    """A box of the relay's own: it knows whom it is for, and has no key to sign with."""
    key = relay.federation.silos[EVIL].keys.exchange_key
    return box_request(key, b"give me the totals", silo=EVIL).box


REQUESTS = {
    "another silo's": lambda relay, box: relay.boxes[OTHER][TURN],
    "a flipped byte": lambda relay, box: flipped(box, len(box) // 2),
    "a flipped first byte": lambda relay, box: flipped(box, 12),
    "cut short": lambda relay, box: box[:-1],
    "with more behind": lambda relay, box: box + b"\0",
    "nothing": lambda relay, box: b"",
    "made up": lambda relay, box: own_request(relay),
}


@pytest.mark.privacy
@pytest.mark.parametrize("what", REQUESTS)
def test_another_request_reaches_no_silo(relay, what):
    relay.request = at_turn(lambda box: REQUESTS[what](relay, box))
    outcome = relay.carry_out(make_plan())
    assert outcome.manifest["left_out"][WHEN] == {
        EVIL: {"reason": "failed", "why": "IntegrityError"}
    }
    assert relay.federation.silos[EVIL].asked == ["totals", "train-0001", "train-0003", "evaluate"]


ANSWERS = {
    "another silo's": lambda relay, box: relay.answers[OTHER][TURN],
    "its own, of an earlier step": lambda relay, box: relay.answers[EVIL][1],
    "a flipped byte": lambda relay, box: flipped(box, len(box) // 2),
    "cut short": lambda relay, box: box[:-1],
    "with more behind": lambda relay, box: box + b"\0",
    "the request": lambda relay, box: relay.boxes[EVIL][TURN],
}


@pytest.mark.privacy
@pytest.mark.parametrize("what", ANSWERS)
def test_another_answer_is_not_believed(relay, what):
    relay.answer = at_turn(lambda box: ANSWERS[what](relay, box))
    outcome = relay.carry_out(make_plan())
    (left_out,) = outcome.manifest["left_out"][WHEN].items()
    assert left_out[0] == EVIL
    assert left_out[1]["reason"] == "integrity"
    assert EVIL not in outcome.manifest["weights"][WHEN]


ERRORS = {"ConnectionResetError": "ConnectionResetError", "row of jane@example.org": "error"}


@pytest.mark.privacy
@pytest.mark.parametrize("reason", ERRORS)
def test_an_answer_made_an_error_is_a_failure_and_its_text_is_not_told(relay, reason):
    def refuse(box):
        raise type(reason, (Exception,), {})  # whose name is what the error reply says

    relay.answer = at_turn(refuse)
    outcome = relay.carry_out(make_plan())
    (left_out,) = outcome.manifest["left_out"][WHEN].items()
    assert left_out[0] == EVIL
    assert left_out[1]["reason"] == "failed"
    assert left_out[1]["why"].startswith(ERRORS[reason])
    assert "example.org" not in str(outcome.manifest["left_out"])
    assert EVIL not in outcome.manifest["weights"][WHEN]


@pytest.mark.privacy
def test_an_earlier_request_brings_an_answer_that_opens_for_nobody(relay):
    """A silo sees a replay by its nonce (tests/silo/test_gate.py); the seal holds without that."""
    relay.request = at_turn(lambda box: relay.boxes[EVIL][1])
    outcome = relay.carry_out(make_plan())
    assert outcome.manifest["left_out"][WHEN][EVIL]["reason"] == "integrity"


@pytest.mark.privacy
def test_answers_of_another_run_are_not_believed(relay):
    first = make_plan(name="first")
    relay.carry_out(first)
    kept = list(relay.answers[EVIL])
    steps = len(kept)
    relay.answer = lambda box, turn: kept[TURN] if turn == steps + TURN else box
    outcome = relay.carry_out(make_plan(name="second"))
    assert outcome.manifest["left_out"][WHEN][EVIL]["reason"] == "integrity"


@pytest.mark.privacy
def test_it_reads_nothing_and_sees_no_two_boxes_alike(relay):
    plan = make_plan()
    relay.carry_out(plan)
    seen = [one for kind in (relay.boxes, relay.answers) for some in kind.values() for one in some]
    assert len(seen) == 2 * 4 * 5  # both ways, silos, steps
    words = [plan.name, plan.purpose, plan.experiment, "clicked", "analyst", "releas", "request"]
    assert not [word for word in words for box in seen if word.encode() in box]
    assert len({box[9:41] for box in seen}) == len(seen)  # keys and nonces, each its own


def test_a_relay_that_tells_the_truth_changes_nothing(relay):
    assert relay.carry_out(make_plan()).manifest["left_out"] == {}
