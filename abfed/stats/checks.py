"""Checks that an experiment was carried out as planned, from noised totals only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from abfed.protocol.plan import Plan
from abfed.stats.totals import Floats, SiloTotals

SRM_ALARM = 0.001
"""A sample-ratio p-value below this is an alarm (the usual level: checks run on every report)."""


class SampleRatio(NamedTuple):
    """The test that arms have the planned shares of recipients."""

    chi_squared: float
    p_value: float


def sample_ratio(counts: Floats, shares: Floats, noise_sd: float) -> SampleRatio:
    """Sample-ratio mismatch test on noised counts.

    Under the plan the counts' residuals have covariance n(diag π − ππᵀ) + σ²AAᵀ, A = I − π1ᵀ; the
    naive χ² leaves the second term out and raises false alarms (Gaboardi et al. 2016; Kifer and
    Rogers 2017).

    Args:
        counts: noised recipients by arm.
        shares: planned shares, adding up to one.
        noise_sd: standard deviation of each count's noise.
    """
    size = max(float(counts.sum()), 1.0)
    residual = counts - float(counts.sum()) * shares
    project = np.eye(len(shares)) - np.outer(shares, np.ones(len(shares)))
    covariance = size * (np.diag(shares) - np.outer(shares, shares))
    covariance += noise_sd**2 * project @ project.T
    chi_squared = float(residual @ np.linalg.pinv(covariance, hermitian=True) @ residual)
    return SampleRatio(chi_squared, float(special.chdtrc(len(shares) - 1, chi_squared)))


def sample_ratios(plan: Plan, totals: Mapping[str, SiloTotals]) -> pd.DataFrame:
    """The sample-ratio test in each brand and in all together.

    Returns:
        One row a scope: scope, one column an arm (noised counts), noise_sd, p_value, alarm.
    """
    planned = plan.wave_shares()
    shares = np.array(planned) / sum(planned)
    scopes: dict[str, SiloTotals] = dict(sorted(totals.items()))
    if len(scopes) > 1:
        first, *others = scopes.values()
        scopes = {**scopes, "these brands": sum(others, start=first)}
    rows = []
    for scope, one in scopes.items():
        counts, noise_sd = one.counts()
        test = sample_ratio(counts, shares, noise_sd)
        row: dict[str, object] = {"scope": scope}
        row |= {arm.name: float(count) for arm, count in zip(plan.arms, counts, strict=True)}
        row |= {"noise_sd": noise_sd, "p_value": test.p_value, "alarm": test.p_value < SRM_ALARM}
        rows.append(row)
    return pd.DataFrame(rows)
