"""A silo that lies to the others with its own good signature: left out by name, or no sum at all.

What can't be told from a truth isn't here: docs/noise-once.md says what that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from abfed.coordinator.plausible import REACH, check_gradient, check_totals
from abfed.coordinator.together import Opened
from abfed.privacy.charges import noise_multipliers, silo_share
from abfed.privacy.once import AGREED, LARGEST_SHARE, split
from abfed.privacy.secure_sum import PRIME, agreeable
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.messages import encode
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import pack, unpack
from abfed.silo.releasing import expected_shapes
from abfed.stats.encoding import SCALE
from abfed.stats.layout import Layout
from tests.together.kin import SILOS, Kin, exact, once_plan
from tests.together.test_hostile import opening, resigned, upto
from tests.together.test_training import training_plan

PLAN = once_plan()
LIAR = "corona"
Arrays = dict[str, Any]
Lie = Callable[[Arrays, dict[str, float]], None]


def lying(kin: Kin, plan: Plan, step: str, lie: Lie) -> Callable[[bytes], bytes]:
    """A silo that computes as it should, and then signs something else in one step."""
    service = kin.services[LIAR]

    def answer(envelope: bytes) -> bytes:
        honest = service.answer(envelope)
        header, raw = kin.read(LIAR, honest)
        if getattr(header, "step", "") != step:
            return honest
        arrays = {
            n: a.copy() for n, a in unpack(raw, expected_shapes(plan, step), where="x").items()
        }
        noise = dict(header.noise)
        lie(arrays, noise)
        packed = pack(arrays)
        header = header.model_copy(update={"noise": noise, "arrays_digest": sha256_hex(packed)})
        return service.keys.sign("release", encode(header, packed))

    return answer


def put(name: str, value: Callable[[Any], Any]) -> Lie:
    """A lie in one of the arrays."""

    def lie(arrays: Arrays, noise: dict[str, float]) -> None:
        del noise
        arrays[name] = value(arrays[name])

    return lie


def said(name: str, value: float) -> Lie:
    """A lie about the noise."""
    return lambda arrays, noise: noise.update({name: value})


def added(many: int) -> Callable[[Any], Any]:
    """One number moved, modulo 2⁶⁴."""

    def move(words: Any) -> Any:
        flat = words.view(np.uint64).ravel().copy()
        flat[:1] += np.array([many % 2**64], dtype=np.uint64)
        return flat.view(np.int64).reshape(words.shape)

    return move


def other_masks(words: Any) -> Any:
    """As if masked with other keys than were given."""
    return np.random.default_rng(1).integers(-(2**63), 2**63, words.shape, dtype=np.int64)


def reserved(kin: Kin) -> dict[str, float]:
    """What each silo has spent."""
    return {name: one.ledger.spent(one.policy().budget) for name, one in kin.services.items()}


LEFT_OUT = {
    "counts of 2⁶⁰": ("keys", put("counts", lambda a: a + 2**60), "than there are people"),
    "half the noise": ("totals", said("share", 0.5 * silo_share(PLAN)), "less noise"),
    "a third kind": ("opening", put("kinds", lambda a: a + 7), "of a kind that there isn't"),
    "a key that everybody has": ("keys", put("keys", np.zeros_like), "is secret"),
    "counts of −2⁶⁰": ("keys", put("counts", lambda a: a - 2**60), "than there are people"),
    "no noise": ("totals", said("share", 0.0), "less noise"),
    "noise without end": ("totals", said("share", 1e300), "more noise than a policy can ask"),
    "flags of seven": ("answered", put("answered", lambda a: a + 7), "neither who answered"),
    "no number": ("opening", put("shares", lambda a: a | 255), "no number of the field"),
}


def some(cases: dict[str, Any], quick: int) -> list[Any]:
    """All cases, those behind the first ones only where there is time."""
    later = (pytest.mark.slow, pytest.mark.privacy)
    return [pytest.param(one, marks=later if n >= quick else ()) for n, one in enumerate(cases)]


@pytest.mark.parametrize("what", some(LEFT_OUT, 3))
def test_a_silo_that_says_what_cant_be_is_left_out_by_name(kin, what):
    step, lie, why = LEFT_OUT[what]
    run = kin.run(PLAN, **{LIAR: lying(kin, PLAN, step, lie)})
    (left,) = (one for one in run.left_out.to_dict("records") if one["step"] == step)
    assert (left["silo"], left["reason"]) == (LIAR, "integrity")
    assert why in left["why"]
    opened, sums = exact(PLAN, kin.tables, run)
    late = step in {"answered", "opening"}  # its masked sum was in by then, and is right
    assert opened.answered == (SILOS if late else tuple(s for s in SILOS if s != LIAR))
    _is_right(opened, sums)


STOP_NOBODY = {
    "flags for everybody, or nobody": ("answered", put("answered", lambda a: 1 - a)),
    "the wrong kind": ("opening", put("kinds", lambda a: np.full_like(a, AGREED))),
    "shares of nothing": ("opening", put("shares", np.zeros_like)),
}


@pytest.mark.parametrize("what", some(STOP_NOBODY, 1))
def test_a_silo_that_opens_wrongly_changes_no_figure(kin, what):
    """Others hold enough right shares, and each believes its own list of who answered."""
    step, lie = STOP_NOBODY[what]
    opened, sums = exact(PLAN, kin.tables, kin.run(PLAN, **{LIAR: lying(kin, PLAN, step, lie)}))
    assert opened.answered == SILOS
    _is_right(opened, sums)


NO_SUM = {
    "2⁵⁵ more": ("totals", put("masked", added(2**55)), "more than all recipients together"),
    "masks of other keys": ("totals", put("masked", other_masks), "more than all recipients"),
    "recipients that weren't counted": (
        "totals",
        put("masked", added(1_200 * SCALE)),
        "other recipients than were counted",
    ),
    "2⁵⁵ fewer": ("totals", put("masked", added(-(2**55))), "more than all recipients together"),
    "shares that nobody can open": ("shares", put("shares", np.zeros_like), "doesn't open"),
}


@pytest.mark.parametrize("what", some(NO_SUM, 3))
def test_a_sum_that_cant_be_is_refused_in_the_log_and_stays_charged(kin, what):
    step, lie, why = NO_SUM[what]
    carrier = {LIAR: lying(kin, PLAN, step, lie)}
    with pytest.raises(IntegrityError) as first:
        kin.carry(PLAN, **carrier)
    assert why in first.value.what
    logged = [one["body"]["facts"] for one in kin.coordinator.audit.entries()]
    (told,) = (facts for facts in logged if why in str(facts.get("why", "")))
    assert told["step"] == "opening"
    spent = reserved(kin)
    assert all(one > 0 for one in spent.values())
    with pytest.raises(IntegrityError, match=first.value.what):  # the same answers, the same no
        kin.carry(PLAN, **carrier)
    assert reserved(kin) == spent
    assert not list(kin.folder.glob("runs/*/manifest.sig"))


def test_keys_with_which_nothing_is_secret_are_refused_by_silos_too(kin):
    """A coordinator that is in league with the liar passes them on."""
    keys = kin.ask_all(PLAN, "keys")
    liar = kin.services[LIAR].keys
    keys[LIAR] = resigned(kin, LIAR, keys[LIAR], liar, keys=np.zeros((3, 32), dtype=np.uint8))
    answer = kin.ask(PLAN, "aurora", "shares", {"keys": keys})
    assert kin.code("aurora", answer) == ("peer", LIAR)


def test_points_of_small_order_agree_on_nothing():
    """All of Curve25519's (its paper's section on validation lists them), with 0 and 1 first."""
    small = [
        0,
        1,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    ]
    assert not any(agreeable(one.to_bytes(32, "little")) for one in small)
    assert agreeable((9).to_bytes(32, "little"))


def test_shares_given_in_another_round_open_nothing(kin):
    lists = upto(kin, "answered")
    other = once_plan(name="autumn")
    kept = {}
    told = {"keys": kin.ask_all(other, "keys")}
    told["shares"] = kin.ask_all(other, "shares", told)
    kept = told["shares"]
    swapped = opening(lists) | {"shares": lists["shares"] | {LIAR: kept[LIAR]}}
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "opening", swapped)) == ("peer", LIAR)


@pytest.mark.slow
@pytest.mark.privacy
@pytest.mark.parametrize("what", ["2⁵⁵ more", "masks of other keys"])
def test_a_gradient_that_cant_be_trains_nothing(kin, what):
    plan = training_plan()
    _, lie, _ = NO_SUM[what]
    with pytest.raises(IntegrityError, match="gradient is longer"):
        kin.carry(plan, **{LIAR: lying(kin, plan, "train-0002", lie)})
    facts = [one["body"]["facts"] for one in kin.coordinator.audit.entries()]
    (told,) = (one for one in facts if "gradient is longer" in str(one.get("why", "")))
    assert told["step"] == "opening-0002"
    assert not list(kin.folder.glob("runs/*/manifest.sig"))


@pytest.mark.slow
@pytest.mark.privacy
def test_an_earlier_rounds_answer_is_left_out_of_a_later_one(kin):
    plan = training_plan()
    kept: dict[str, bytes] = {}

    def replaying(envelope: bytes) -> bytes:
        answer = kin.services[LIAR].answer(envelope)
        step = getattr(kin.read(LIAR, answer).header, "step", "")
        kept[step] = answer
        return kept["train-0001"] if step == "train-0002" else answer

    run = kin.run(plan, **{LIAR: replaying})
    left = {one["step"]: one for one in run.left_out.to_dict("records")}
    assert left["train-0002"]["why"] == "it answers another step"
    assert "train-0003" not in left


@pytest.mark.slow
@pytest.mark.privacy
def test_where_each_noises_its_own_a_fault_is_left_out_and_stays_charged(kin):
    """The round's charge was reserved before the silo computed: what it sent then is nothing."""
    each = training_plan().privacy.model_dump(mode="json", exclude={"unprotected", "colluders"})
    plan = training_plan(privacy=each | {"noise": "each"})
    name = "update/output.bias"
    lie = put(name, lambda array: np.full_like(array, np.nan))
    run = kin.run(plan, **{LIAR: lying(kin, plan, "train-0002", lie)})
    (left,) = run.left_out.to_dict("records")
    assert (left["silo"], left["step"], left["reason"]) == (LIAR, "train-0002", "integrity")
    charged = reserved(kin)
    assert charged[LIAR] == charged["aurora"] > 0


@pytest.mark.parametrize("brands", [2, 5, 40])
def test_honest_sums_are_never_refused_and_the_bound_is_as_near_as_it_can_be(brands):
    """Brands of any size, with the noise that they add; then one beyond what is left open."""
    names = [f"brand-{place:02d}" for place in range(brands)]
    plan = once_plan(silos=names, minimum_silos=max(3, brands - 1)) if brands > 2 else None
    plan = plan or once_plan(silos=names, minimum_silos=2, privacy=_none_collude())
    layout, draw = Layout.of(plan), np.random.default_rng(brands)
    counting = split(plan, noise_multipliers(plan).statistics)[0]
    share = silo_share(plan)
    arms = draw.integers(1_000, 100_000, (brands, len(layout.arms)))
    counts = {
        name: np.rint((arms[place] + draw.normal(0, counting, arms.shape[1])) * SCALE).astype(int)
        for place, name in enumerate(names)
    }
    from abfed.stats.once import weights_of

    weights = weights_of(plan, counts)
    sums = np.zeros(layout.shape)
    for place, name in enumerate(names):
        for block in layout.blocks:
            parts = draw.dirichlet(np.ones(block.size * block.cells), len(layout.arms))
            whole = (weights[name] / SCALE * arms[place])[:, None] * parts
            sums[:, block.columns] += whole + draw.normal(0, share * block.sd, whole.shape)
    noise = share * np.sqrt(brands)
    honest = Opened(np.rint(sums * SCALE).astype(np.int64), counts, tuple(names), float(noise))
    check_totals(plan, honest)
    open_to = 2 * brands * REACH * counting + 2 * REACH * noise * 10
    for many in (open_to, -open_to):
        moved = honest.sums.copy()
        moved[:, 0] += int(many * SCALE)
        with pytest.raises(IntegrityError):
            check_totals(plan, honest._replace(sums=moved))


def test_the_longest_honest_gradient_is_believed_and_hardly_more():
    plan = training_plan()
    people = {name: np.array([40_000, 60_000]) * SCALE for name in SILOS}
    settings = plan.schedule
    batch = 400_000 * settings.sampling_rate * (1 - settings.holdout)
    sums = np.zeros(50, dtype=np.int64)
    sums[7] = int(batch) << 40  # everybody pulls one way
    honest = Opened(sums, people, SILOS, 2.0 * silo_share(plan, step="train-0001"))
    check_gradient(plan, honest, "0001")
    with pytest.raises(IntegrityError, match="opening-0001"):
        check_gradient(plan, honest._replace(sums=sums + sums // 10), "0001")


def test_a_policy_asks_for_no_more_noise_than_is_believed(kin):
    kin.allow("aurora", {"least_share": 2 * LARGEST_SHARE})
    assert kin.code("aurora", kin.ask(PLAN, "aurora", "keys"))[0] not in {"", "peer"}
    assert PRIME.bit_length() == 521


def _none_collude() -> dict[str, Any]:
    return PLAN.privacy.model_dump(mode="json", exclude={"unprotected"}) | {"colluders": 0}


def _is_right(opened: Opened, sums: Any) -> None:
    """The sum of those who answered, with the noise that they say; else it'd be random words."""
    widest = max(block.sd for block in Layout.of(PLAN).blocks) * opened.noise * SCALE
    assert np.abs(opened.sums - sums).max() < 10 * widest
