"""Of how many cells something in a figure is, where it is drawn cell by cell.

Letters can be written in cells: a picture of words, made grey, is a matrix of numbers, and is shown
as one by an image, by a mesh, or by marks on a grid. Nobody can read them here; how many cells
there are is told, and the gate allows as many as a map of values takes (`written`). Marks that lie
on no grid, such as those of a cloud of points, are none; nor are lines, bars and levels.
"""

from __future__ import annotations

from typing import Any

LOWEST = 5
"""Rows, and columns, that a letter takes at the least: a stripe of fewer spells nothing."""
_FILLED = 5
"""Of so many places of a grid one has a mark at the least: of those around letters, 27 to 33 in a
hundred do (PIL's own letters, of 10 to 40 points)."""


def is_of_colours(drawn: Any) -> bool:
    """Whether its cells have colours of their own: it is pixels, not a map of values."""
    return getattr(getattr(drawn, "_A", None), "ndim", 2) > 2


def cells_of(drawn: Any) -> int:
    """How many cells an artist of matplotlib draws on a grid; 0 where it has none."""
    from matplotlib import collections, image, lines

    cells = 0
    match drawn:
        case image._ImageBase():  # noqa: SLF001 - what all images have in common
            cells = _for_letters(*getattr(getattr(drawn, "_A", None), "shape", (0, 0))[:2])
        case collections.QuadMesh() | collections.PolyQuadMesh():
            corners: Any = drawn.get_coordinates()
            cells = _for_letters(*(one - 1 for one in corners.shape[:2]))
        case collections.TriMesh():
            cells = len(drawn.get_paths())
        case collections.PathCollection():
            cells = _on_grid(drawn.get_offsets())
        case collections.PolyCollection() if not hasattr(drawn, "do_3d_projection"):
            values = drawn.get_array()  # a surface in space is seen from aside
            cells = 0 if values is None else int(values.size)
        case lines.Line2D() if str(drawn.get_marker()).strip() not in {"", "None", "none"}:
            cells = _on_grid(drawn.get_xydata())
    return cells


def _for_letters(rows: int, columns: int) -> int:
    return rows * columns if min(rows, columns) >= LOWEST else 0


def _on_grid(points: Any) -> int:
    """Places of the grid that marks lie on, if they do: several in its rows and columns."""
    import numpy as np

    given: Any = np.ma.filled(np.ma.asarray(points, dtype=float), np.nan).reshape(-1, 2)
    given = given[np.isfinite(given).all(axis=1)]
    marks = len(np.unique(given[:, 0] + 1j * given[:, 1]))
    columns, rows = (len(np.unique(given[:, at])) for at in (0, 1))
    filled = marks >= 2 * max(rows, columns) and marks * _FILLED >= rows * columns
    return _for_letters(rows, columns) if filled else 0
