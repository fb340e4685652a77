from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abfed.cli.main import main
from abfed.lab.samples.synth import ARMS, BRANDS, EXPERIMENT, LARGEST_ORDER, SHARES, write_brands
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.silo.ingest import ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.store import Store
from abfed.site.keys import SiteKeys
from tests.silo.made import contents, permit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def brands(tmp_path_factory):
    """The three brands, ingested; canonical rows by brand."""
    folder = tmp_path_factory.mktemp("brands")
    plan = Plan.load(ROOT / "experiments" / "spring.yaml")
    made = {}
    for brand in write_brands(folder, seed=5):
        keys = SiteKeys.create(folder / brand.name / "keys", site=brand.name)
        store = Store.create(folder / brand.name / "store", keys, buckets=2)
        report = ingest(store, keys, ExportMapping.load(brand.mapping), brand.export)
        parts = store.read(permit(store, plan), plan.columns())
        rows = pd.concat([part.to_pandas() for part in parts], ignore_index=True)
        made[brand.name] = (brand, store, report, rows)
    return made


def test_the_same_seed_makes_the_same_files_and_another_makes_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_brands(tmp_path / name, seed=seed, scale=0.02)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first, third = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert all(first[f"{name}/export.csv"] != third[f"{name}/export.csv"] for name in BRANDS)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 0.0, 1e9])
def test_a_scale_that_is_none_is_refused_and_makes_nothing(tmp_path, capsys, scale):
    with pytest.raises(InputError, match="scale"):
        write_brands(tmp_path / "brands", seed=1, scale=scale)
    assert not (tmp_path / "brands").exists()
    workspace = str(tmp_path / "workspace")
    assert main(["init", "-w", workspace, "--no-development-person"]) == 0
    assert main(["data", "synth", "--scale", str(scale), "-w", workspace]) == 2
    assert not list((tmp_path / "workspace" / "data").iterdir())


def test_each_brand_exports_in_its_own_words(tmp_path):
    headers = [
        set(brand.export.read_text().splitlines()[0].split(","))
        for brand in write_brands(tmp_path, seed=1, scale=0.01)
    ]
    assert len(headers) == 3
    assert len(headers[0] & headers[1]) == 0
    assert all(len(a & b) <= 4 for a, b in pairwise(headers))


def test_every_row_is_taken_in_and_becomes_the_same_columns(brands):
    for name, (_, store, report, _) in brands.items():
        assert report.rejected == {}, name
        assert report.new == report.rows == report.accepted
        facts = store.describe()
        assert set(facts.experiments[EXPERIMENT]) == set(ARMS)
        assert facts.outcomes == (
            "opened", "clicked", "converted", "unsubscribed", "revenue", "hours_to_open",
        )  # fmt: skip
        assert sorted(facts.features) == [
            "channel",
            "device",
            "past_opens",
            "past_orders",
            "tenure_days",
        ]


def test_sizes_and_shares_are_as_planned(brands):
    sizes = {name: rows["recipient"].nunique() for name, (_, _, _, rows) in brands.items()}
    for name, size in sizes.items():
        planned = BRANDS[name].recipients
        assert 0.97 * planned < size < planned, name  # one in a hundred opted out
    arms = brands["aurora"][3].groupby("recipient")["arm"].first()
    assert arms.value_counts(normalize=True)[list(ARMS)].to_numpy() == pytest.approx(
        SHARES, abs=0.03
    )
    sends = brands["aurora"][3].groupby("recipient").size()
    assert (sends.min(), sends.max()) == (1, 4)


def test_rates_agree_with_the_recorded_truth(brands):
    """Each arm's mean lies within four standard errors of the truth that was written down."""
    for name, (brand, _, _, rows) in brands.items():
        truth = json.loads(brand.truth.read_text())
        sums = rows.groupby(["arm", "recipient"])[["opened", "clicked", "unsubscribed"]].max()
        sums["revenue"] = rows.groupby(["arm", "recipient"])["revenue"].sum()
        for arm in ARMS:
            for metric, expected in truth[arm].items():
                if metric == "half-opened":
                    continue  # a quantile; tests/whole has it
                values = sums.loc[arm][metric].astype(float)
                # the second moment: p for a share; an order is uniform, so two thirds of its bound
                square = expected * (LARGEST_ORDER * 2 / 3 if metric == "revenue" else 1)
                error = np.sqrt(square / len(values))
                assert abs(values.mean() - expected) < 4 * error, (name, arm, metric)


def test_the_arms_differ_and_who_reacts_depends_on_features(brands):
    rows = brands["aurora"][3]
    truth = json.loads(brands["aurora"][0].truth.read_text())
    assert truth["warm"]["clicked"] > truth["control"]["clicked"] + 0.01
    clicked = rows.assign(app=rows["channel"] == "app").groupby(["app", "arm"])["clicked"].mean()
    lift = {app: clicked[app, "warm"] - clicked[app, "control"] for app in (True, False)}
    assert lift[True] > lift[False] + 0.02


def test_revenue_is_bounded_and_mostly_zero(brands):
    revenue = brands["aurora"][3]["revenue"]
    assert revenue.min() >= 0
    assert revenue.max() <= LARGEST_ORDER
    assert 0.9 < (revenue == 0).mean() < 1


def test_addresses_are_of_the_reserved_domain(brands):
    for brand, *_ in brands.values():
        text = brand.export.read_text().casefold()
        assert text.count("@") == text.count("@example.com") > 0
