"""Everything at once in a release: nobody adds more than one release, whatever their rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.protocol.plan import Plan
from abfed.protocol.schema import NumericFeature
from abfed.silo.totals import columns_needed, compute_totals
from abfed.stats.encoding import SCALE, encode_share, encode_tensor
from abfed.stats.layout import Layout, cells_of
from tests.statistical.people import permit
from tests.statistical.worlds import Silent
from tests.stats.simulated import CLICKED, CONVERTED, RATIO, SPEND, plan_of

SENDS = 4
OPENS = {"name": "opens", "kind": "count", "column": "opened", "most": SENDS}
SOON = {
    "name": "soon",
    "kind": "quantile",
    "column": "hours_to_open",
    "quantile": 0.3,
    "edges": [0.0, 1.0, 8.0, 24.0],
}
FEATURES = [
    {"name": "age", "kind": "numeric", "low": 18.0, "high": 90.0},
    {"name": "channel", "kind": "category", "values": ["web", "store"]},
]
EVERYTHING: dict[str, Any] = {
    "recipients": 50_000,
    "adjust": [
        {"metric": "clicked", "covariate": "age", "use": "yes"},
        {"metric": "spend", "covariate": "age", "use": "yes"},
        {"metric": "opens", "covariate": "age", "use": "no"},
    ],
    "segments": [
        {"name": "by-channel", "feature": "channel", "share": 0.2},
        {"name": "by-age", "feature": "age", "edges": [30.0, 60.0], "share": 0.1},
    ],
    "balance": ["age", "channel"],
    "clicks_without_opens": "open",
    "budget": [{"metric": "spend", "share": 3.0}],
}
PLAN = plan_of(
    CLICKED, CONVERTED, SPEND, RATIO, OPENS, SOON,
    features=FEATURES, analysis=EVERYTHING, sends_per_recipient=SENDS,
)  # fmt: skip
LAYOUT = Layout.of(PLAN)

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.none()
flags = st.booleans() | st.none()


@st.composite
def recipients(draw: Any) -> pd.DataFrame:
    """The sends of one recipient, with values that no bound was kept for."""
    many = draw(st.integers(1, SENDS))
    kinds = {"revenue": numbers, "hours_to_open": numbers, "age": numbers}
    texts = st.sampled_from(["web", "store", "elsewhere"]) | st.none()
    columns = {
        name: draw(st.lists(kinds.get(name, flags), min_size=many, max_size=many))
        for name in columns_needed(PLAN)
        if name != "channel"
    }
    columns["channel"] = draw(st.lists(texts, min_size=many, max_size=many))
    return pd.DataFrame(columns, dtype=object)


def added(plan: Plan, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """What a recipient of the first arm adds to the totals."""
    many = len(rows)
    numeric = {"revenue", "hours_to_open", "age"}
    kinds = {name: pa.float64() for name in numeric} | {"channel": pa.string()}
    columns = {
        name: pa.array(list(rows[name]), kinds.get(name, pa.bool_()))
        for name in columns_needed(plan)
    }
    table = pa.table(
        {
            "recipient": pa.array([bytes(16)] * many, pa.binary(16)),
            "arm": pa.array([plan.arms[0].name] * many),
            **columns,
        }
    )
    totals = compute_totals(permit(plan, 1.0, Silent()), [table]).arrays["totals"]
    assert not totals[1:].any()
    return totals[0]


def weighed(plan: Plan, row: np.ndarray[Any, Any]) -> float:
    """Σ squared norm over noise variance, in units of one release with noise multiplier 1."""
    blocks = Layout.of(plan).blocks
    norms = [sum(int(x) ** 2 for x in row[block.columns]) for block in blocks]
    assert all(norm <= SCALE**2 for norm in norms)
    return sum(norm / (block.sd * SCALE) ** 2 for norm, block in zip(norms, blocks, strict=True))


@pytest.mark.privacy
@settings(max_examples=60, deadline=None)
@given(recipients())
def test_nobody_adds_more_than_one_release(rows: pd.DataFrame) -> None:
    """Every kind of block together, through the silo's own computation."""
    assert weighed(PLAN, added(PLAN, rows)) <= 1 + 1e-12


@pytest.mark.privacy
def test_extreme_recipients_reach_the_bound_and_no_more() -> None:
    """Brute force over corners: the bound is kept, and it is not slack."""
    worst = 0.0
    for flag in (False, True):
        for revenue in (0.0, 100.0, 200.0, 1e9):
            for age in (-5.0, 18.0, 50.0, 90.0):
                for channel in ("web", "elsewhere"):
                    row = pd.DataFrame(
                        {
                            "opened": [flag], "clicked": [flag], "converted": [flag],
                            "revenue": [revenue], "hours_to_open": [0.5 if flag else None],
                            "age": [age], "channel": [channel],
                        },
                        dtype=object,
                    )  # fmt: skip
                    worst = max(worst, weighed(PLAN, added(PLAN, row)))
    assert worst <= 1 + 1e-12
    assert worst > 0.85


def test_blocks_spend_at_most_one_release() -> None:
    assert sum(1 / block.sd**2 for block in LAYOUT.blocks) == pytest.approx(1.0)


@given(st.integers(0, SCALE), st.integers(0, SCALE))
def test_a_tensor_is_a_simplex_with_its_margins(u: int, v: int) -> None:
    first, second = np.array([[u, SCALE - u]]), np.array([[v, SCALE - v]])
    tensor = encode_tensor(first, second)[0]
    assert (tensor >= 0).all()
    assert tensor.sum() == SCALE
    assert tensor[0] + tensor[1] == u
    assert tensor[0] + tensor[2] == v
    assert abs(tensor[0] - u * v / SCALE) <= 0.5


def test_cells_are_disjoint_and_hold_everybody() -> None:
    rows = pd.DataFrame(
        {name: [None] for name in columns_needed(PLAN)}, dtype=object
    )  # unknown in everything
    row = added(PLAN, rows)
    for block in LAYOUT.blocks:
        if block.segment and block.counts:
            cells = [row[block.cell(index)].sum() for index in range(block.cells)]
            assert cells == [0] * (block.cells - 1) + [SCALE]
    by_age = PLAN.analysis.segments[1]
    assert cells_of(by_age, PLAN.features) == ("below 30", "30 to 60", "from 60", "unknown")


def test_a_covariate_is_used_only_where_it_was_chosen() -> None:
    roles = {(block.metric, block.role) for block in LAYOUT.blocks if not block.segment}
    assert ("clicked", "tensor") in roles
    assert ("opens", "simplex") in roles
    assert isinstance(PLAN.features[0], NumericFeature)
    assert math.isclose(
        LAYOUT.block("spend").sd ** 2 * 3, plan_without_share().block("spend").sd ** 2 * 8 / 6
    )


def plan_without_share() -> Layout:
    """The same with equal shares: spend had 3 of 8, now 1 of 6."""
    values = PLAN.model_dump(mode="json")
    values["analysis"]["budget"] = []
    return Layout.of(Plan.from_values(values))


def test_encoded_shares_keep_their_bounds() -> None:
    assert encode_share(np.array([np.nan, -1.0, 2.0])).tolist() == [
        [0, SCALE],
        [0, SCALE],
        [SCALE, 0],
    ]


@pytest.mark.parametrize(
    ("epsilon", "recipients", "sd", "helps"),
    [(0.1, 16_000, 11.0, False), (1.0, 64_000, 11.0, True), (0.1, 16_000, None, True)],
)
def test_second_moments_are_left_out_where_noise_would_hide_them(
    epsilon: float, recipients: int, sd: float | None, *, helps: bool
) -> None:
    """By what the plan expects; their tenth of the budget then goes to the first moments."""
    believed = {"metric": "spend", "mean": 0.9} | ({} if sd is None else {"sd": sd})
    plan = plan_of(
        SPEND,
        analysis={"recipients": recipients, "expected": [believed]},
        privacy={"epsilon": epsilon, "split": {"statistics": epsilon}},
    )
    layout = Layout.of(plan)
    assert (layout.find("spend", "moments") is not None) == helps
    assert layout.block("spend").sd == pytest.approx(1 / math.sqrt(0.9 if helps else 1.0))
