"""Frames that know where they are from, and how they show themselves in a report.

A frame that was computed from a run carries its source in `attrs`; pandas hands it on to what is
selected from it. Shown in a notebook, it becomes a table of the house with that source on it, and
its counts of recipients are marked as such. Any other frame shows itself as pandas does, and the
disclosure gate refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from abfed.lab.page import STYLE, roomy, table
from abfed.lab.units import NONE, percent

if TYPE_CHECKING:
    from abfed.learning.evaluation import Estimate

LEVEL = 0.95
SOURCE = "source"
COUNTS = {"recipients", "count", "counts", "n", "people", "sends"}
"""Names of columns that count people or what they did."""


def marked(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The frame, saying what it was computed from."""
    frame.attrs[SOURCE] = source
    return frame


def in_parts(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Columns of an estimate: its interval, and what of it is chance and what is noise.

    Returns:
        By name and ending: the value (no ending), _low and _high of its 95 % interval, _se,
        _se_sampling (chance alone) and _privacy_share (the noise's part of the variance). All
        missing where there is no estimate.
    """
    value = low = high = se = sampling = share = math.nan
    if estimate is not None:
        value, se, sampling = estimate.value, estimate.standard_error, estimate.sampling_error
        reach, share = float(stats.norm.ppf(0.5 + LEVEL / 2)) * se, estimate.noise_share
        low, high = value - reach, value + reach
    return {
        name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_se": se,
        f"{name}_se_sampling": sampling, f"{name}_privacy_share": share,
    }  # fmt: skip


def noises_part(row: Mapping[Any, Any], name: str) -> str:
    """The noise's part of an estimate's variance, as it stands below the estimate."""
    share = float(row.get(f"{name}_privacy_share", math.nan))
    return f"noise {percent(share)}" if math.isfinite(share) else ""


def frame_table(frame: pd.DataFrame) -> str:
    """A frame as markup."""
    source = frame.attrs.get(SOURCE)
    if not isinstance(source, str):
        return str(frame._repr_html_())  # type: ignore[operator]
    names = [str(name) for name in frame.columns]
    head = ["Row", *names]
    rows = [
        [escape(str(index)), *(_cell(value) for value in row)]
        for index, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True)
    ]
    numeric = [
        place + 1
        for place, kind in enumerate(frame.dtypes)
        if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
    ]
    counts = [place + 1 for place, name in enumerate(names) if name.casefold() in COUNTS]
    shown = table(head, rows, source=source, numeric=numeric, counts=counts)
    return f'<style>{STYLE}</style><div class="abfed">{shown}</div>'


def _cell(value: Any) -> str:
    """A value as text: four significant digits, a dash for what is missing."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else NONE
    if value is None or value is pd.NA:
        return NONE
    return roomy(escape(str(value)))
