"""Frames that know where they are from, and how they show themselves in a report.

A frame that was computed from a run carries its source in `attrs`; pandas hands it on to what is
selected from it. Shown in a notebook, it becomes a table of the house with that source on it, in
which the gate looks for small counts. Any other frame shows itself as pandas does, and the
disclosure gate refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from abfed.lab.disclosure.hiding import UNNAMED
from abfed.lab.paper.page import STYLE, roomy, table
from abfed.lab.views.units import NONE, percent

if TYPE_CHECKING:
    from abfed.learning.evaluation import Estimate

LEVEL = 0.95
SOURCE, COUNTS = "source", "counts"
_LARGE, _HUGE = 1e3, 1e12
"""Between them a figure is written out without decimals."""


def marked(frame: pd.DataFrame, source: str, *, counts: Iterable[str] = ()) -> pd.DataFrame:
    """The frame, saying what it was computed from, and which columns count people by any name."""
    frame.attrs[SOURCE] = source
    if names := list(counts):
        frame.attrs[COUNTS] = names
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
    levels = [frame.index.get_level_values(place) for place in range(frame.index.nlevels)]
    head = [_level(level, alone=len(levels) == 1) for level in levels]
    head += [_column(name, frame.columns) for name in frame.columns]
    rows = [
        [*(_cell(label) for label in labels), *(_cell(value) for value in row)]
        for labels, row in zip(
            zip(*levels, strict=True), frame.itertuples(index=False, name=None), strict=True
        )
    ]
    numeric = [
        place + len(levels)
        for place, kind in enumerate(frame.dtypes)
        if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
    ]
    known = frame.attrs.get(COUNTS, ())
    counts = [place + len(levels) for place, name in enumerate(frame.columns) if name in known]
    shown = table(head, rows, source=source, numeric=numeric, counts=counts, judged=True)
    return f'<style>{STYLE}</style><div class="abfed">{shown}</div>'


def _level(labels: pd.Index[Any], *, alone: bool) -> str:
    """What stands above the names of rows; pandas' own numbers of rows are known by `UNNAMED`."""
    if labels.name is not None:
        return str(labels.name)
    return UNNAMED if alone and labels.is_unique else ""


def _column(name: Any, columns: pd.Index[Any]) -> str:
    """A column's heading; a number says what it is the number of, so that it can be judged."""
    if isinstance(name, tuple):
        return ": ".join(map(str, name))
    named = isinstance(name, Real) and columns.name is not None
    return f"{columns.name}: {name}" if named else str(name)


def _cell(value: Any) -> str:
    """A value as text: four significant digits at least, a dash for what is missing."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return NONE
        return f"{value:,.0f}" if _LARGE <= abs(value) < _HUGE else f"{value:.4g}"
    if value is None or value is pd.NA:
        return NONE
    return roomy(escape(str(value)))
