"""Four eyes: whose approval counts, for what, and how often (S12)."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from abfed.lab.session import sign_in_with_key
from abfed.protocol.errors import Refused
from abfed.protocol.identity import Countersigned, Presented
from abfed.silo.access import Access
from abfed.silo.policy import Policy
from abfed.site.accounts import add_account, keep_key
from abfed.site.foureyes import Approvals, Question, reasons
from abfed.site.grants import new_grant
from abfed.site.keys import SiteKeys
from abfed.site.rights import FourEyes
from abfed.site.stops import Stops
from tests.examples import make_model_plan, make_plan
from tests.signing import make_people, make_session
from tests.silo.asking import SILO, SetClock, policy_values

EPOCH = "e1" * 32
PLAN = make_plan()


class Silo:
    """A silo that asks for a second person above ε = 0.5, and the people around it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        self.hub = SiteKeys.create(folder / "hub", site="hub")
        self.keys = SiteKeys.create(folder / "silo", site=SILO)
        self.hub_people = make_people(folder / "hub-people", self.hub, self.clock)
        self.own_people = make_people(folder, self.keys, self.clock)
        self.analyst = make_session(self.hub_people, audience=("hub", SILO))
        self.officer = make_session(self.own_people, "olga", ("privacy-officer",), audience=(SILO,))
        self.policy = self.with_four_eyes(epsilon_above=0.5)

    def with_four_eyes(self, **four_eyes: Any) -> Policy:
        values = policy_values(self.hub.public_key)
        values["access"]["four_eyes"] = four_eyes
        return Policy.model_validate_json(json.dumps(values))

    def question(self, **changes: str) -> Question:
        asked = {"plan": PLAN.digest, "epoch": EPOCH, "policy": self.policy.version}
        return Question(**(asked | changes))

    def approval(self, who: Any = None, silo: str = SILO, **changes: Any) -> Countersigned:
        runs, days = changes.pop("runs", 1), changes.pop("days", 7)
        session = who or self.officer
        question = self.question(**changes)
        return session.approve(question, silo, runs=runs, lasts=timedelta(days=days))

    def ask(self, *approvals: Countersigned, again: bool = False) -> Any:
        """Ask the plan; each time as another run unless it is the same again."""
        if not again:
            self.analyst._submissions.clear()
            self.clock.forward(seconds=1)
        shown = self.analyst.present(PLAN)
        shown = Presented(
            token=shown.token, submission=shown.submission, approvals=tuple(approvals)
        )
        access = Access(self.keys, self.folder, self.clock)
        return access.judge(shown, PLAN, self.policy, EPOCH)

    def refusal(self, *approvals: Countersigned) -> Refused:
        with pytest.raises(Refused) as caught:
            self.ask(*approvals)
        assert caught.value.code == "approval"
        return caught.value


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_an_approval_lets_the_plan_in_and_is_named(silo: Silo) -> None:
    assert "there is none" in silo.refusal().why
    assert silo.ask(silo.approval()).approvers == (f"olga@{SILO}",)


def test_it_counts_runs_and_the_same_run_once(silo: Silo) -> None:
    approval = silo.approval(runs=2)
    silo.ask(approval)
    silo.ask(approval, again=True)
    silo.ask(approval)
    assert "used up" in silo.refusal(approval).what


@pytest.mark.parametrize(
    "changes", [{"plan": "a" * 64}, {"epoch": "a" * 64}, {"policy": "a" * 64}, {"silo": "borealis"}]
)
def test_it_is_bound_to_plan_data_policy_and_silo(silo: Silo, changes: dict[str, str]) -> None:
    assert "another plan, data or policy" in silo.refusal(silo.approval(**changes)).why


def test_another_policy_voids_it(silo: Silo) -> None:
    approval = silo.approval()
    silo.policy = silo.with_four_eyes(epsilon_above=0.4)
    silo.refusal(approval)


def test_it_runs_out_and_lasts_no_longer_than_the_policy_says(silo: Silo) -> None:
    assert "lasts too long" in silo.refusal(silo.approval(days=31)).why
    approval = silo.approval(days=0.1, runs=9)
    silo.clock.forward(hours=2)
    silo.ask(approval)
    silo.clock.forward(hours=1)
    assert "run out" in silo.refusal(approval).why


def test_the_officers_session_may_end_meanwhile(silo: Silo) -> None:
    approval = silo.approval(days=7, runs=5)
    silo.clock.forward(hours=7)
    assert silo.ask(approval)


def test_nobody_approves_their_own(silo: Silo) -> None:
    """Not even with the right: the analyst is a privacy officer too here."""
    both = make_session(
        silo.own_people, "max", ("analyst", "privacy-officer"), audience=("hub", SILO)
    )
    approval = silo.approval(both)
    silo.analyst = both
    assert "may not plan.approve" in silo.refusal(approval).why


def test_nobody_approves_for_a_service_account_that_they_made(silo: Silo) -> None:
    """Under whatever site's word: olga made the job at the hub, and is an officer of the silo."""
    for maker, fine in (("olga@hub", False), ("ann@hub", True)):
        name = f"nightly-of-{maker[:3]}"
        now, lasts = silo.clock(), timedelta(days=9)
        given = new_grant("service-account", owner=maker, reason="t", lasts=lasts, now=now)
        key = add_account(
            silo.hub_people, name, [PLAN.digest], hours=None, by=maker, grants=[given]
        )
        keep_key(silo.folder / name, name, key)
        silo.analyst = sign_in_with_key(silo.hub_people, silo.folder / name, audience=("hub", SILO))
        assert silo.analyst.facts.behind == (f"{name}@hub", maker)
        if fine:
            assert silo.ask(silo.approval()).approvers == (f"olga@{SILO}",)
        else:
            assert "may not plan.approve" in silo.refusal(silo.approval()).why


def test_an_analyst_or_a_stranger_is_no_second_person(silo: Silo) -> None:
    other = make_session(silo.hub_people, "bob", ("analyst",), audience=("hub", SILO))
    assert "may not plan.approve" in silo.refusal(silo.approval(other)).why
    foreign = SiteKeys.create(silo.folder / "foreign", site="foreign")
    people = make_people(silo.folder / "foreign-people", foreign, silo.clock)
    stranger = make_session(people, "eve", ("privacy-officer",), audience=(SILO,))
    assert "not trusted" in silo.refusal(silo.approval(stranger)).why


def test_the_second_factor_must_be_fresh(silo: Silo) -> None:
    silo.clock.forward(minutes=6)
    refused = silo.refusal(silo.approval())
    assert "may not plan.approve" in refused.why


def test_an_approval_of_somebody_who_was_stopped_is_void(silo: Silo) -> None:
    approval = silo.approval()
    Stops(silo.folder, silo.keys, silo.clock).stop(
        f"olga@{SILO}", silo.own_people.audit, by="test", reason="left"
    )
    assert "revoked" in silo.refusal(approval).why


def test_another_sessions_signature_does_not_do(silo: Silo) -> None:
    mine, other = silo.approval(), make_session(silo.hub_people, "bob", audience=("hub", SILO))
    forged = silo.approval(other)
    mixed = Countersigned(token=mine.token, approval=forged.approval)
    assert "not trusted" in silo.refusal(mixed).why
    broken = mine.model_copy(update={"approval": mine.approval[:-8] + "AAAAAAA="})
    silo.refusal(broken)


def test_two_people_where_two_are_asked_for(silo: Silo) -> None:
    silo.policy = silo.with_four_eyes(epsilon_above=0.5, approvers=2)
    second = make_session(silo.own_people, "oleg", ("privacy-officer",), audience=(SILO,))
    first = silo.approval()
    assert "1 of 2" in silo.refusal(first, silo.approval()).what  # the same person twice
    assert len(silo.ask(first, silo.approval(second)).approvers) == 2


def test_what_needs_a_second_person() -> None:
    model = make_model_plan()
    assert reasons(FourEyes(), model) == ()
    assert reasons(FourEyes(epsilon_above=3.0), model) == ()
    assert "ε is above 2.9" in reasons(FourEyes(epsilon_above=2.9), model)[0]
    assert "purpose" in reasons(FourEyes(settled_purposes=()), model)[0]
    assert reasons(FourEyes(settled_purposes=("email-optimisation",)), model) == ()
    assert "'age' is new" in reasons(FourEyes(settled_columns=("clicked", "revenue")), model)[0]
    assert reasons(FourEyes(settled_columns=model.columns()), model) == ()


def test_runs_are_counted_on_disk(silo: Silo) -> None:
    approval = silo.approval(runs=3)
    silo.ask(approval)
    register = Approvals(silo.folder, silo.keys)
    (name,) = register._read().runs
    assert register.used(name) == 1
    assert name.encode() not in (silo.folder / "approvals-used.sealed").read_bytes()


def test_a_role_that_was_taken_back_takes_its_approvals_along(silo: Silo) -> None:
    """Also one that is signed afterwards and dated back: the lost role's token is at hand."""
    approval = silo.approval(runs=9)
    assert silo.ask(approval)
    silo.own_people.take_back("olga", "privacy-officer", by="sam")
    assert "may not plan.approve" in silo.refusal(approval).why
    assert "may not plan.approve" in silo.refusal(silo.approval()).why


def test_a_role_that_ran_out_leaves_what_it_approved(silo: Silo) -> None:
    silo.own_people.grant(
        "olga", "privacy-officer", owner="sam", reason="a day", lasts=timedelta(days=1)
    )
    approval = silo.approval(days=7, runs=9)
    silo.clock.forward(days=2)
    silo.analyst = make_session(silo.hub_people, "ann", audience=("hub", SILO))
    assert silo.ask(approval)


def test_two_approvals_of_one_run_are_two_runs(silo: Silo) -> None:
    first, second = silo.approval(), silo.approval()
    silo.ask(first, second)
    silo.ask(first, second)
    assert "used up" in silo.refusal(first, second).what


def test_the_same_name_at_another_site_is_no_second_person(silo: Silo) -> None:
    twin = make_session(silo.own_people, "ada", ("privacy-officer",), audience=(SILO,))
    assert "may not plan.approve" in silo.refusal(silo.approval(twin)).why


def test_runs_at_the_same_time_are_no_more_than_were_approved(silo: Silo) -> None:
    """Eight runs at once, by as many processes, on an approval of three."""
    approval = silo.approval(runs=3)
    shown = []
    for _ in range(8):
        silo.analyst._submissions.clear()
        silo.clock.forward(seconds=1)
        one = silo.analyst.present(PLAN)
        shown.append(one.model_copy(update={"approvals": (approval,)}))
    start_read, start_write = os.pipe()
    children = []
    for one in shown:
        child = os.fork()
        if child == 0:
            os.close(start_write)
            os.read(start_read, 1)  # all at the same moment: when the test closes its end
            code = 1
            try:
                Access(silo.keys, silo.folder, silo.clock).judge(one, PLAN, silo.policy, EPOCH)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(start_read)
    os.close(start_write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] * 3 + [1] * 5
