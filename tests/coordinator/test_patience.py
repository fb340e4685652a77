"""Waiting: asked again when it failed, closed at the quorum, ended by the clock."""

import time

import httpx
import pytest
from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from abfed.coordinator import patience
from abfed.coordinator.conduct import Conduct
from abfed.coordinator.courier import make_courier
from abfed.coordinator.desk import addresses_of
from abfed.coordinator.grid import EmbeddedGrid
from abfed.coordinator.patience import PatientGrid
from abfed.protocol.errors import RunFailed
from abfed.protocol.waiting import Waiting
from tests.coordinator.doubles import Federation, statistics_plan

SILOS = ("aurora", "borealis")


class Unsteady(EmbeddedGrid):
    """Delivers, but loses what it's told to: an error instead of an answer, or no node at all."""

    def __init__(self, clients):
        super().__init__(clients)
        self.failures = {}
        self.absences = {}
        self.lost = set()
        self.asked = []
        self.outages = []
        self.pull_outages = []
        self.gone = []
        self.listings = 0
        self.list_outages = []

    def get_nodes(self):
        if self.list_outages:
            raise self.list_outages.pop(0)
        self.listings += 1
        nodes = []
        for node in super().get_nodes():
            left = self.absences.get(node.name, 0)
            self.absences[node.name] = left - 1
            if left <= 0:
                nodes.append(node)
        return nodes

    def _silo(self, message):
        return self._clients[message.metadata.dst_node_id][0]

    def _answer(self, message):
        silo = self._silo(message)
        self.asked.append(silo)
        if self.failures.get(silo, 0) > 0:
            self.failures[silo] -= 1
            return Message(Error(code=2, reason="ConnectionResetError"), reply_to=message)
        return super()._answer(message)

    def push_messages(self, messages):
        if self.outages:
            raise self.outages.pop(0)
        if self.gone:
            return self.gone.pop(0)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        if self.pull_outages:
            raise self.pull_outages.pop(0)
        return [
            reply
            for reply in super().pull_messages(message_ids)
            if self._clients[reply.metadata.src_node_id][0] not in self.lost
        ]


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path, SILOS)


@pytest.fixture
def grid(federation):
    return Unsteady({name: make_courier(one.answer) for name, one in federation.silos.items()})


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(patience, "SLOWEST_LOOK", 0.02)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(patience, "LONGEST_UNTIL_LOOK", 0.05)


def carry(federation, grid, minimum=2, **rules):
    """Carry a plan of one step out, waiting by these rules."""
    plan = statistics_plan(silos=list(SILOS), minimum_silos=minimum, waiting=rules)
    outcomes = []
    conduct = Conduct(plan, federation.coordinator)
    app = ServerApp()

    @app.main()
    def main(inner: Grid, context):
        outcomes.append(conduct.run(PatientGrid(inner, plan.waiting)))

    grid.carry_out(app)
    return outcomes[0]


def test_a_silo_that_fails_is_asked_again(federation, grid):
    grid.failures["aurora"] = 3
    outcome = carry(federation, grid)
    assert grid.asked == ["aurora", "borealis", "aurora", "aurora", "aurora"]
    assert not outcome.missing_now


def test_a_silo_of_which_nothing_is_heard_is_asked_again(federation, grid, monkeypatch):
    deliver, carried = grid._deliver, []

    def swallow_the_first(message):
        silo = grid._silo(message)
        carried.append(silo)
        name, reply, seconds = deliver(message)
        if silo == "aurora" and carried.count("aurora") == 1:
            monkeypatch.setattr(grid, "pull_messages", hiding(name))
        return name, reply, seconds

    def hiding(lost):
        pull = type(grid).pull_messages
        return lambda names: pull(grid, [name for name in names if name != lost])

    monkeypatch.setattr(grid, "_deliver", swallow_the_first)
    started = time.monotonic()
    outcome = carry(federation, grid, retries=0, silent_seconds=1, step_seconds=60)
    assert not outcome.missing_now
    assert grid.asked == ["aurora", "borealis", "aurora"]
    assert 1 <= time.monotonic() - started < 30


def test_a_superlink_that_goes_in_the_middle_of_a_call_is_waited_for(federation, grid):
    grid.outages = [ObjectPushError("x", 1, "s"), httpx.ReadError("gone")]
    grid.pull_outages = [httpx.ConnectError("not yet back")]
    outcome = carry(federation, grid)
    assert not outcome.missing_now
    assert not grid.outages
    assert not grid.pull_outages


def test_a_superlink_that_is_away_between_steps_is_waited_for_as_long_as_a_step_may_take(
    federation, grid
):
    """Nodes are listed before a step's messages are made: nothing else would bear with it there."""
    grid.list_outages = [httpx.ConnectTimeout("stopped"), httpx.ReadTimeout("stopped")]
    assert not carry(federation, grid).missing_now
    grid.list_outages = [httpx.ConnectTimeout("stopped")] * 100_000
    started = time.monotonic()
    with pytest.raises(RunFailed, match="SuperLink does not answer") as failed:
        carry(federation, grid, step_seconds=1)
    assert time.monotonic() - started < 60
    assert "--resume" in failed.value.do


@pytest.mark.parametrize("said", [[], [None], [""]])
def test_a_message_that_is_not_taken_is_sent_again_to_where_its_silo_is_then(
    federation, grid, said
):
    """What grids say of a node that has gone since it was listed: nothing, or no name."""
    grid.gone = [said]
    outcome = carry(federation, grid)
    assert grid.asked == ["borealis", "aurora"]
    assert grid.listings == 2
    assert not outcome.missing_now


def test_a_silo_that_comes_later_is_asked_then(federation, grid):
    grid.absences["borealis"] = 3
    outcome = carry(federation, grid)
    assert "borealis" in grid.asked
    assert not outcome.missing_now


def test_a_node_that_is_away_uses_up_none_of_its_silos_tries(federation, grid):
    """Whatever was restarted needs longer to come back than two short pauses."""
    grid.absences["borealis"] = 8
    grid.outages = [httpx.ConnectError("just gone")]
    grid.gone = [[]]
    grid.failures = {"aurora": 1, "borealis": 1}
    outcome = carry(federation, grid, retries=1)
    assert sorted(grid.asked) == ["aurora", "aurora", "borealis", "borealis"]
    assert not outcome.missing_now


def test_a_node_that_never_comes_is_given_up_after_its_silent_seconds(federation, grid):
    grid.absences["borealis"] = 1_000_000
    started = time.monotonic()
    outcome = carry(federation, grid, minimum=1, retries=0, silent_seconds=1)
    assert 1 <= time.monotonic() - started < 60
    assert outcome.missing_now["borealis"] == ("absent", "not connected")


def test_a_silo_that_failed_and_went_is_asked_when_it_is_back(federation, grid, monkeypatch):
    """A killed node is away when its silo's next try is due; in an outage everyone is."""
    grid.failures["aurora"] = 1
    looks = []

    def addresses(self):
        looks.append(len(grid.asked))
        return {} if len(looks) < 3 else addresses_of(grid)

    monkeypatch.setattr(PatientGrid, "addresses", addresses)
    outcome = carry(federation, grid)
    assert grid.asked == ["aurora", "borealis", "aurora"]
    assert looks == [2, 2, 2]
    assert not outcome.missing_now


def test_it_is_asked_as_often_as_the_plan_says_and_no_more(federation, grid):
    grid.failures["aurora"] = 100
    with pytest.raises(RunFailed, match="1 of at least 2") as failed:
        carry(federation, grid, retries=4)
    assert grid.asked.count("aurora") == 5
    assert "its silo service gave no answer" in failed.value.why


def test_a_refusal_is_an_answer_and_is_not_asked_again(federation, grid):
    federation.silos["aurora"].refuses = "budget"
    outcome = carry(federation, grid, minimum=1)
    assert grid.asked.count("aurora") == 1
    assert outcome.missing_now["aurora"].reason == "refused"


def test_a_step_ends_when_its_time_is_over(federation, grid):
    grid.lost.add("aurora")
    started = time.monotonic()
    outcome = carry(federation, grid, minimum=1, step_seconds=1)
    assert 1 <= time.monotonic() - started < 60
    assert outcome.missing_now["aurora"].why == "no answer in time"


def test_stragglers_have_their_seconds_once_the_quorum_has_answered(federation, grid):
    grid.lost.add("aurora")
    started = time.monotonic()
    outcome = carry(
        federation, grid, minimum=1, step_seconds=100, quorum=0.5, straggler_seconds=0.3
    )
    assert 0.3 <= time.monotonic() - started < 30
    assert set(outcome.missing_now) == {"aurora"}


def test_by_default_all_are_waited_for():
    assert Waiting().quorum == 1


def bare_step(rules):
    step = patience._Step.__new__(patience._Step)
    step._grid = PatientGrid.__new__(PatientGrid)
    step._grid._waiting, step._grid._gone = rules, {}
    step._tries, step._looks, step._due = {str(n): 1 for n in range(50)}, {}, {}
    return step


def test_a_node_that_is_away_is_looked_for_every_few_seconds(monkeypatch):
    """Back after a pause, it was found up to a minute later: pauses doubled, as between tries."""
    monkeypatch.setattr(patience, "LONGEST_UNTIL_LOOK", 10.0)
    step, silo = bare_step(Waiting()), "1"
    for _ in range(12):
        step._absent(silo)
    assert step._due[silo] - time.monotonic() <= 15


def test_pauses_are_not_all_alike(monkeypatch):
    """Jitter: many coordinators, or many silos, don't ask again in step."""
    step = bare_step(Waiting(retry_seconds=1))
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 60.0)
    now = time.monotonic()
    for silo in step._tries:
        step._later(silo)
    due, later = step._due.values(), time.monotonic()
    assert min(due) - now >= 0.5
    assert max(due) - later <= 1.5
    assert max(due) - min(due) > 0.3 + (later - now)  # of fifty: less but once in 1e24 runs


def test_a_plan_that_waits_longer_is_the_same_question():
    patient = statistics_plan(silos=list(SILOS), waiting={"step_seconds": 60})
    assert patient.digest == statistics_plan(silos=list(SILOS)).digest


def test_node_info_has_the_names_that_addresses_go_by():
    assert NodeInfo(name="aurora").name == "aurora"


def test_looking_costs_the_same_for_each_however_many_are_asked(tmp_path, monkeypatch):
    """Answers that come one by one: each is looked for a few times, not once for every other."""

    monkeypatch.setattr(patience, "SLOWEST_LOOK", 2.0)

    class Slow(EmbeddedGrid):
        looked = 0

        def pull_messages(self, message_ids):
            names = list(message_ids)
            self.looked += len(names)
            since = time.monotonic() - began
            return super().pull_messages([n for n in names if places[n] < since * 40])

        def push_messages(self, messages):
            names = super().push_messages(messages)
            places.update({name: len(places) for name in names})
            return names

    silos = tuple(f"silo-{number:03d}" for number in range(60))
    federation = Federation(tmp_path, silos)
    grid = Slow({n: make_courier(one.answer) for n, one in federation.silos.items()})
    places, began = {}, time.monotonic()
    plan = statistics_plan(silos=list(silos))
    app = ServerApp()

    @app.main()
    def main(inner: Grid, context):
        Conduct(plan, federation.coordinator).run(PatientGrid(inner, plan.waiting))

    grid.carry_out(app)
    assert len(places) == len(silos)
    assert grid.looked < 8 * len(silos), grid.looked
