"""Noise once, from the plan to the effects: the sum, its noise, who drops out, what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from abfed.coordinator.app import RunOutcome
from abfed.lab.runs import Run
from abfed.lab.together import counted_on, guarantee, in_this_run
from abfed.privacy.accounting import epsilon_of
from abfed.privacy.charges import (
    epsilon_alone,
    noise_multipliers,
    plan_charges,
    plan_epsilon,
    silo_share,
)
from abfed.privacy.once import split
from abfed.protocol.errors import IntegrityError, Refused, RunFailed
from abfed.protocol.messages import EMPTY_DIGEST
from abfed.stats.layout import Layout
from abfed.stats.totals import SCALE
from tests.together.kin import SILOS, Kin, exact, once_plan, table

SURE = 1e-7  # chance that an honest run fails a test of its noise


def standardised(plan, run, kin):
    """What the opened sum differs from the exact one by, over the noise that it should have."""
    opened, sums = exact(plan, kin.tables, run)
    layout = Layout.of(plan)
    sd = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    return opened, (opened.sums - sums) / (sd * opened.noise * SCALE)


def agrees(scores) -> bool:
    """Whether scores are standard normal, by their sum of squares."""
    low, high = stats.chi2.interval(1 - SURE, scores.size)
    return low < float((scores**2).sum()) < high


def failing(kin: Kin, silo: str, steps: tuple[str, ...]):
    """A silo that is gone in some steps."""

    def answer(envelope: bytes) -> bytes:
        from abfed.protocol.envelope import open_envelope
        from abfed.protocol.messages import decode

        opened = open_envelope(envelope, {kin.hub.key_id: kin.hub.public_key}, where="request")
        if decode("request", opened.content, where="request").header.step in steps:
            raise ConnectionResetError
        return kin.services[silo].answer(envelope)

    return answer


def test_the_sum_opens_and_holds_the_noise_that_it_should(kin):
    plan = once_plan()
    run = kin.run(plan)
    opened, scores = standardised(plan, run, kin)
    assert opened.answered == SILOS
    assert agrees(scores)
    needed = split(plan, noise_multipliers(plan).statistics)[1]
    assert opened.noise == pytest.approx(needed * math.sqrt(4 / (3 - 1)))
    assert all(one["totals"].release.noise["share"] >= needed / math.sqrt(2) for one in
               run.releases.values())  # fmt: skip


def test_with_many_figures_the_noise_is_that_of_two_silos_not_of_four(tmp_path):
    """Four silos, one tolerated: σ²·4/(3 − 1), where noise each would be 4σ²."""
    arms = tuple("abcdefghijklm")
    plan = once_plan(
        arms=[{"name": one, "share": 1 / 13, "control": one == "a"} for one in arms],
        metrics=[
            {"name": f"clicked-{n}", "kind": "proportion", "column": "clicked"} for n in range(20)
        ],
        primary="clicked-0",
        guardrails=None,
    )
    kin = Kin.found(tmp_path, {name: table(2600, arms=arms) for name in SILOS})
    run = kin.run(plan)
    opened, scores = standardised(plan, run, kin)
    assert scores.size == 520  # enough to tell one noise from the other but once in 1e8 runs
    assert agrees(scores)
    sigma = split(plan, noise_multipliers(plan).statistics)[1]
    assert not agrees(scores * opened.noise / (2 * sigma))  # not that of noise each
    assert not agrees(scores * opened.noise / (sigma * math.sqrt(4 / 7)))
    kin.close()


def test_effects_are_of_these_brands_and_say_what_is_not_there(kin):
    plan = once_plan()
    run = kin.run(plan)
    frame = run.effects
    assert set(frame["scope"]) == {"these brands"}
    assert frame["note"].str.contains("noise once").all()
    assert run.heterogeneity["q"].isna().all()
    assert run.heterogeneity["note"].str.contains("noise once").all()
    assert set(run.checks["scope"]) <= {"these brands", "all brands"}
    clicked = frame[frame["metric"] == "clicked"].iloc[0]
    truth: dict[str, list[float]] = {"a": [], "b": []}
    for rows in kin.tables.values():
        people = rows.to_pandas()
        for arm, means in truth.items():
            mine = people[people["arm"] == arm]
            means.append(len(people) * float(mine["clicked"].mean()))
    whole = sum(len(rows) for rows in kin.tables.values())
    difference = (sum(truth["b"]) - sum(truth["a"])) / whole
    assert abs(clicked["estimate"] - difference) < 6 * clicked["se_privacy"] + 1e-3
    again = Run.open(run.folder, coordinator_key=kin.hub.public_key)
    assert again.effects.equals(frame)


@pytest.mark.privacy
def test_a_plan_that_promises_its_shares_is_summed_unweighed_at_the_same_cost(kin):
    """A hundredth of the cost counts, the rest is of the sums; it says what it rests on."""
    privacy = {"epsilon": 1.0, "split": {"statistics": 1.0}, "noise": "once", "shares": "planned"}
    plan = once_plan(privacy=privacy)
    sigma = noise_multipliers(plan).statistics
    counts, sums = split(plan, sigma)
    assert (counts, sums) == pytest.approx((10 * sigma, sigma / math.sqrt(0.99)))
    assert 1 / counts**2 + 1 / sums**2 == pytest.approx(1 / sigma**2)
    assert plan_epsilon(plan) == pytest.approx(plan_epsilon(once_plan()))
    run = kin.run(plan)
    _, scores = standardised(plan, run, kin)
    assert agrees(scores)
    exact_counts = np.zeros(2)
    for rows in kin.tables.values():
        arms = rows.to_pandas()["arm"].value_counts()
        exact_counts += [arms["a"], arms["b"]]
    counted, sd = run.totals["these brands"].counts()  # of the sums: none was weighed
    assert np.all(np.abs(counted - exact_counts) < 6 * sd)
    assert sd < counts
    assert run.effects["note"].str.contains("kept the planned shares").all()
    assert (run.effects["se_privacy"] > 0).all()


@pytest.mark.privacy
def test_each_ledger_says_what_was_paid_and_on_whom_it_counts(kin):
    """Spent where one other tells; alone, by this silo's own share, as `epsilon_alone` has it."""
    plan = once_plan()
    kin.allow("aurora", {"least_share": 2 * silo_share(plan)})
    assert counted_on(kin.services["dawn"]) is None
    kin.run(plan)
    for silo, floor in (("aurora", 2 * silo_share(plan)), ("dawn", 0.0)):
        service = kin.services[silo]
        (charge,) = service.ledger.reservations()
        assert charge.once is not None
        assert charge.once.colluders == 1
        assert epsilon_of(charge.charges, plan.privacy.delta) == plan_epsilon(plan)
        assert epsilon_of(charge.alone, plan.privacy.delta) == epsilon_alone(plan, floor)
        counted = counted_on(service)
        assert counted is not None
        assert (counted.charges, counted.colluders) == (1, 1)
        assert counted.spent == service.ledger.spent(service.policy().budget)
        assert (counted.alone > counted.spent) == (silo == "dawn")
        assert "at most 1 other silo tells" in counted.said


def test_it_is_found_again_and_charged_once(kin):
    plan = once_plan()
    first = kin.carry(plan)
    spent = {name: one.ledger.head for name, one in kin.services.items()}
    again = kin.carry(plan)
    assert isinstance(again, RunOutcome)
    assert (again.folder, again.found) == (first.folder, True)
    assert {name: one.ledger.head for name, one in kin.services.items()} == spent
    (charge,) = kin.services["dawn"].ledger.reservations()
    charged = [one for step in plan_charges(plan).values() for one in step]
    assert sorted(one.noise_multiplier for one in charge.charges) == sorted(
        one.noise_multiplier for one in charged
    )
    assert plan_epsilon(plan) <= plan.privacy.epsilon


@pytest.mark.parametrize(
    ("steps", "inside"),
    [
        (("keys", "shares", "totals", "answered", "opening"), False),
        (("shares", "totals", "answered", "opening"), False),
        (("totals", "answered", "opening"), False),  # its masks are taken off by others' shares
        (("answered", "opening"), True),
        (("opening",), True),
    ],
)
def test_a_silo_that_drops_out_costs_at_most_its_own_part(kin, steps, inside):
    plan = once_plan()
    run = kin.run(plan, corona=failing(kin, "corona", steps))
    opened, scores = standardised(plan, run, kin)
    assert ("corona" in opened.answered) == inside
    assert set(SILOS) - {"corona"} <= set(opened.answered)
    assert agrees(scores)
    assert run.effects["estimate"].notna().all()


@pytest.mark.slow
def test_fewer_than_must_be_in_the_sum_end_the_run_and_it_goes_on_later(kin):
    plan = once_plan()
    gone = {one: failing(kin, one, ("totals",)) for one in ("aurora", "dawn")}
    with pytest.raises(RunFailed, match="2 of at least 3"):
        kin.carry(plan, **gone)
    run = kin.run(plan)
    opened, scores = standardised(plan, run, kin)
    assert opened.answered == SILOS
    assert agrees(scores)


def test_what_crosses_is_uniform_and_never_the_sums(kin):
    run = kin.run(once_plan())
    hidden = np.concatenate(
        [one["totals"].arrays["masked"].ravel() for one in run.releases.values()]
    )
    # Sums of so few people would be below 2³⁰ units: of 64 bits the upper half would be alike.
    assert np.mean(np.abs(hidden.astype(np.float64)) > 2.0**40) > 0.99
    top = (hidden.view(np.uint64) >> np.uint64(60)).astype(np.int64)
    counts = np.bincount(top, minlength=16)
    assert stats.chisquare(counts).pvalue > SURE


def test_a_brand_with_few_recipients_is_left_out_by_its_noised_counts(kin, tmp_path):
    kin.allow("dawn", minimum_recipients=100_000)
    run = kin.run(once_plan())
    assert run.silos == SILOS[:3]
    assert run.left_out["why"].tolist()[0] == "too-few"
    assert kin.code("dawn", kin.ask(once_plan(), "dawn", "keys"))[0] == "too-few"
    few = Kin.found(tmp_path / "few", {name: table(40) for name in SILOS})
    with pytest.raises(Refused) as refused:
        few.carry(once_plan())  # twenty in an arm: noise hides them, whatever the policy
    assert refused.value.code == "too-few"
    few.close()


def test_a_silo_never_adds_less_than_its_floor(kin):
    plan = once_plan()
    floor = 2 * silo_share(plan)
    kin.allow("aurora", {"least_share": floor})
    run = kin.run(plan)
    opened, scores = standardised(plan, run, kin)
    for silo, least in (("aurora", floor), ("dawn", 0.0)):
        release = run.releases[silo]["totals"].release
        assert release.noise["share"] == max(least, silo_share(plan))
        assert guarantee(plan, least) in in_this_run(run, release)
    assert opened.noise == pytest.approx(math.sqrt(floor**2 + 3 * silo_share(plan) ** 2))
    assert agrees(scores)


def test_a_silo_that_adds_less_is_not_believed(kin, monkeypatch):
    plan = once_plan()
    monkeypatch.setattr(
        "abfed.silo.adding.silo_share", lambda plan, least, step: 0.5 * silo_share(plan)
    )
    with pytest.raises(IntegrityError) as few:
        kin.run(plan)
    assert "less noise than the plan needs" in few.value.why


def test_a_second_noise_needs_a_second_charge(kin):
    """The masks of a plan on one state of the data hide one value only."""
    plan = once_plan()
    run = kin.run(plan)
    incoming = run.releases["aurora"]["totals"].release.incoming_digest
    assert incoming != EMPTY_DIGEST
    answered = kin.services["aurora"].ledger.answered(
        plan_digest=plan.digest, epoch=kin.services["aurora"].store.epoch, step="totals"
    )
    assert answered is not None
    assert answered[1].state == "kept"


def test_every_silos_word_for_its_noise_is_checked_against_the_permit(kin, monkeypatch):
    from abfed.silo import together

    masks = together.Party.mask

    def louder(self, computed):
        done = masks(self, computed)
        return done.__class__(done.payload, done.arrays, {**done.noise, "share": 9.0})

    monkeypatch.setattr(together.Party, "mask", louder)
    with pytest.raises((RunFailed, Refused, IntegrityError)):
        kin.run(once_plan())
