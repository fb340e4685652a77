"""What several looks ask of a design: against published inflation factors, and against drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from abfed.stats.adjusting import forecast, moments_help
from abfed.stats.design import outlooks
from abfed.stats.horizon import ONE_LOOK, Horizon
from tests.stats.simulated import CLICKED, SPEND, plan_of


def test_one_look_is_the_textbooks() -> None:
    z = stats.norm.ppf(0.975)
    assert ONE_LOOK.boundaries(0.05) == pytest.approx((z,))
    assert ONE_LOOK.reach(0.05, 0.8) == pytest.approx(z + stats.norm.ppf(0.8), abs=1e-4)
    assert ONE_LOOK.power(0.0, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("spending", "inflation"),
    [("obrien-fleming", 1.03), ("pocock", 1.21)],  # Jennison and Turnbull (2000), five looks
)
def test_the_sample_grows_as_published(spending: str, inflation: float) -> None:
    looks = Horizon(5, spending)  # type: ignore[arg-type]
    grown = (looks.reach(0.05, 0.9) / ONE_LOOK.reach(0.05, 0.9)) ** 2
    assert grown == pytest.approx(inflation, abs=0.02)
    assert looks.power(0.0, 0.05) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock", "always-valid"])
def test_power_is_how_often_some_look_crosses(spending: str) -> None:
    looks, drift, times = Horizon(3, spending), 2.6, 40_000  # type: ignore[arg-type]
    rng = np.random.default_rng(2)
    steps = rng.normal(drift / 3, math.sqrt(1 / 3), (times, 3))
    z = np.cumsum(steps, axis=1) / np.sqrt(np.array([1, 2, 3]) / 3)
    crossed = (np.abs(z) > looks.boundaries(0.05)).any(axis=1).mean()
    error = 4 * math.sqrt(0.25 / times)
    assert looks.power(drift, 0.05) == pytest.approx(crossed, abs=error)


def test_waves_have_noise_of_their_own_and_a_third_of_the_recipients() -> None:
    believed = [
        {"metric": "clicked", "mean": 0.15, "lift": 0.1, "r_squared": 0.22},
        {"metric": "spend", "mean": 1.0, "sd": 12.0},
    ]
    analysis = {
        "recipients": 24_000,
        "expected": believed,
        "adjust": [{"metric": "clicked", "covariate": "keen"}],
    }
    waves = [{"name": f"w{n}", "until": f"2026-03-0{n}"} for n in range(1, 4)]
    keen = {"name": "keen", "kind": "numeric", "low": 0.0, "high": 1.0}
    once = plan_of(CLICKED, SPEND, features=[keen], analysis=analysis)
    thrice = plan_of(
        CLICKED, SPEND, features=[keen], analysis=analysis | {"sequential": {"waves": waves}}
    )
    plain, looked = outlooks(once)[0], outlooks(thrice)[0]
    sampling = plain.variance(24_000, 0.0)
    noise = plain.variance(24_000, 4.22) - sampling
    assert looked.variance(24_000, 4.22) == pytest.approx(sampling + 3 * noise)
    assert looked.power(24_000, 4.22, alpha=0.05) < plain.power(24_000, 4.22, alpha=0.05)
    of_once, of_thrice = (forecast(one, one.analysis.adjust[0]) for one in (once, thrice))
    assert of_thrice.ratio > of_once.ratio
    assert "in a brand and wave" in of_thrice.why
    assert moments_help(once, once.metrics[1], 0.5)
    assert not moments_help(thrice, thrice.metrics[1], 0.02)
