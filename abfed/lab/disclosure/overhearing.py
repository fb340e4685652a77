"""What is written in the pictures that a kernel draws, told to the disclosure gate.

Pixels can't be read. So matplotlib is watched while it draws: each text that becomes part of a PNG
or an SVG is noted in the kernel's private folder, with the picture's digest. The gate, outside,
lets a picture of pixels through only where it is one of these, and judges what is written in it.

1. A text is noted when it is drawn (`Text.draw`): titles, labels, ticks, legends, annotations,
   tables, of each axes and each figure within a figure, whatever the picture is shown by.
2. With it goes what a number in it would be called by: the names of its axes or of its legend; of
   one axis where `bar_label` writes how long a bar is. Ticks are noted with their places, and
   whether matplotlib itself says them, so that a scale is told from figures that somebody typed.
3. Of what is drawn cell by cell (an image, a mesh, marks on a grid) it is noted how many cells it
   has: letters can be written in many (`raster`).
4. Text that becomes a shape (`TextPath`, a `$…$` as a mark) belongs to every picture after it.
5. Words that an SVG has as shapes only, such as those with an outline, stand in it as a comment, as
   matplotlib's other words do: they stay readable wherever the drawing goes, and are a part of what
   it is known by (`drawings`). What its file says besides, as it was given, is noted too.

It watches from inside the process that it watches: against what slips, not against a notebook that
sets out to lie (decision 198).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.machinery
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape, unescape
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from abfed.lab.disclosure.drawings import attributes_of, drawings_in, print_of
from abfed.lab.disclosure.places import says_places
from abfed.lab.disclosure.raster import cells_of, is_of_colours

FILE = "written.jsonl"
"""In a kernel's private folder: a line of JSON for each picture that was drawn."""
_INSIDE = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)")


class _Heard:
    """What is written in one picture, while it is drawn."""

    def __init__(self) -> None:
        self.texts: list[dict[str, Any]] = []
        self.scales: list[dict[str, Any]] = []
        self.table = False
        self.pixels = False
        self.cells = 0
        self._axis: object = None

    def text(self, said: str, under: list[str]) -> None:
        """Some text; whatever comes behind the ticks of an axis ends them."""
        self._axis = None
        if said.strip():
            self.texts.append({"said": said, "under": under})

    def tick(self, said: str, tick: Any) -> None:
        """The label of a tick, and where it stands on its axis; some are smaller than others."""
        along, major = _axis_of(tick), tick._major  # noqa: SLF001 - said nowhere else
        axis = (id(along), major)
        if axis != self._axis:
            writes = along.get_major_formatter() if major else along.get_minor_formatter()
            name = along.label.get_text()
            self.scales.append({"name": name, "ticks": [], "own": says_places(writes)})
            self._axis = axis
        if said.strip():
            self.scales[-1]["ticks"].append([said, float(tick.get_loc())])

    def common(self, said: str, axis: Any) -> None:
        """What is common to all ticks of an axis, at its end: a power of ten, a month."""
        own = says_places(axis.get_major_formatter())
        if said.strip():
            name = axis.label.get_text()
            self.scales.append({"name": name, "ticks": [[said, 0.0]], "own": own})

    def words(self) -> Iterator[str]:
        """All of it."""
        yield from (one["said"] for one in self.texts)
        yield from (said for scale in self.scales for said, _ in scale["ticks"])


class _Watch:
    """What is being drawn, and where it is told."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self._drawing: list[_Heard] = []
        self._shapes: dict[str, None] = {}
        self._along: Any = None
        self._tick: Any = None
        self._legend: str | None = None
        self._lengths: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    @contextmanager
    def drawing(self) -> Iterator[_Heard]:
        """Hear what is drawn meanwhile."""
        heard = _Heard()
        self._drawing.append(heard)
        try:
            yield heard
        finally:
            self._drawing.remove(heard)
            for said in self._shapes:
                heard.text(said, [])

    def tell(self, heard: _Heard, digests: Sequence[str]) -> None:
        """Note it."""
        line = {
            "digests": digests,
            "texts": heard.texts, "scales": heard.scales, "table": heard.table,
            "pixels": heard.pixels, "cells": heard.cells,
        }  # fmt: skip
        with self._told.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def on_text(self, draw: Callable[..., Any], text: Any, *given: Any, **more: Any) -> Any:
        """`Text.draw`."""
        if text.get_visible():
            for heard in self._drawing:
                self._note(heard, text)
        return draw(text, *given, **more)

    def _note(self, heard: _Heard, text: Any) -> None:
        said = text.get_text()
        if self._tick is not None:
            heard.tick(said, self._tick)
        elif self._legend is not None:
            heard.text(said, [self._legend])
        elif self._along is not None and text is self._along.offsetText:
            heard.common(said, self._along)
        elif (axes := getattr(text, "axes", None)) is None:
            heard.text(said, [])
        elif text in self._lengths:
            heard.text(said, [getattr(axes, self._lengths[text]).label.get_text()])
        else:
            heard.text(said, [axes.xaxis.label.get_text(), axes.yaxis.label.get_text()])

    def on_lengths(self, make: Callable[..., Any], axes: Any, *given: Any, **more: Any) -> Any:
        """`Axes.bar_label`: without words of its author's, it writes how long each bar is."""
        texts, said = make(axes, *given, **more), inspect.signature(make).bind(axes, *given, **more)
        if said.arguments.get("labels") is None:
            along = getattr(said.arguments["container"], "orientation", None)
            for text in texts if along in {"vertical", "horizontal"} else ():
                self._lengths[text] = "yaxis" if along == "vertical" else "xaxis"
        return texts

    def on_axis(self, draw: Callable[..., Any], axis: Any, *given: Any, **more: Any) -> Any:
        """`Axis.draw`."""
        before, self._along = self._along, axis
        try:
            return draw(axis, *given, **more)
        finally:
            self._along = before

    def on_tick(self, draw: Callable[..., Any], tick: Any, *given: Any, **more: Any) -> Any:
        """`Tick.draw`."""
        before, self._tick = self._tick, tick
        try:
            return draw(tick, *given, **more)
        finally:
            self._tick = before

    def on_legend(self, draw: Callable[..., Any], legend: Any, *given: Any, **more: Any) -> Any:
        """`Legend.draw`."""
        before, self._legend = self._legend, legend.get_title().get_text()
        try:
            return draw(legend, *given, **more)
        finally:
            self._legend = before

    def on_table(self, draw: Callable[..., Any], table: Any, *given: Any, **more: Any) -> Any:
        """`Table.draw`."""
        for heard in self._drawing:
            heard.table = heard.table or table.get_visible()
        return draw(table, *given, **more)

    def on_cells(self, draw: Callable[..., Any], drawn: Any, *given: Any, **more: Any) -> Any:
        """What may be drawn cell by cell; a map of colours, not of values, is one of pixels."""
        if self._drawing and drawn.get_visible():
            of_colours, cells = is_of_colours(drawn), cells_of(drawn)
            for heard in self._drawing:
                heard.pixels, heard.cells = heard.pixels or of_colours, max(heard.cells, cells)
        return draw(drawn, *given, **more)

    def on_shape(self, make: Callable[..., Any], path: Any, *given: Any, **more: Any) -> Any:
        """`TextPath(xy, s, …)`."""
        said = given[1] if len(given) > 1 else more.get("s", "")
        self._shapes[str(said)] = None
        return make(path, *given, **more)

    def on_print(self, draw: Callable[..., Any], canvas: Any, *given: Any, **more: Any) -> Any:
        """`print_png`, `print_svg`: the file is made in memory, noted, and then written."""
        bound = inspect.signature(draw).bind(canvas, *given, **more)
        target = list(bound.arguments)[1]
        wanted, made = bound.arguments[target], io.BytesIO()
        bound.arguments[target] = made
        with self.drawing() as heard:
            result = draw(*bound.args, **bound.kwargs)
        content = made.getvalue()
        drawing = draw.__name__ == "print_svg"
        if drawing:
            content = _with_comments(content, heard.words())
            for said in (
                *_given(bound.arguments.get("metadata")),
                *attributes_of(content.decode()),
            ):
                heard.text(said, [])
        inside = [base64.b64decode(one[1]) for one in _INSIDE.finditer(content)]
        known = [hashlib.sha256(one).hexdigest() for one in (content, *inside)]
        self.tell(heard, [*known, *(_prints(content.decode()) if drawing else ())])
        _write(content, wanted)
        return result


def _axis_of(tick: Any) -> Any:
    """The axis that a tick stands on; those of a third dimension are called as the first's are."""
    every = [getattr(tick.axes, one, None) for one in ("xaxis", "yaxis", "zaxis")]
    for axis in filter(None, every):
        if any(tick is one for one in (*axis.majorTicks, *axis.minorTicks)):
            return axis
    return tick.axes.yaxis if tick.__name__ == "ytick" else tick.axes.xaxis


def _given(metadata: Any) -> Iterator[str]:
    """What an SVG's file is to say of itself, as `savefig(metadata=…)` has it."""
    left = [metadata]
    while left:
        match left.pop():
            case None:
                pass
            case dict() as held:
                left += held.values()
            case list() | tuple() as held:
                left += held
            case said:
                yield str(said)


def _prints(drawing: str) -> Iterator[str]:
    return (print_of(drawing[start:end]) for start, end in drawings_in(drawing))


def _with_comments(drawing: bytes, words: Iterator[str]) -> bytes:
    """An SVG with the words that it has as shapes only."""
    whole = drawing.decode()
    said = unescape(whole)
    unread = [one for one in dict.fromkeys(words) if any(x not in said for x in one.splitlines())]
    notes = "".join(f"<!-- {escape(one).replace('--', '- ')} -->\n" for one in unread)
    before, end, behind = whole.rpartition("</svg>")
    return f"{before}{notes}{end}{behind}".encode()


def _write(content: bytes, target: Any) -> None:
    """To a path, or to a file that takes bytes or text."""
    from matplotlib import cbook

    with cbook.open_file_cm(target, "wb") as file:
        file.write(content.decode() if cbook.file_requires_unicode(file) else content)


def _hook(owner: Any, name: str, hear: Callable[..., Any]) -> None:
    original = owner.__dict__[name]

    @functools.wraps(original)  # matplotlib asks for signature, module and what it marked there
    def heard(*given: Any, **more: Any) -> Any:
        return hear(original, *given, **more)

    setattr(owner, name, heard)


def _hooks(watch: _Watch) -> dict[str, list[Callable[[ModuleType], None]]]:
    """What is hooked in each of matplotlib's modules, when it has been imported."""
    own: list[tuple[str, str, str, Callable[..., Any]]] = [
        ("image", "_ImageBase", "_make_image", watch.on_cells),
        ("image", "NonUniformImage", "make_image", watch.on_cells),
        ("image", "PcolorImage", "make_image", watch.on_cells),
        ("collections", "Collection", "draw", watch.on_cells),
        ("collections", "QuadMesh", "draw", watch.on_cells),
        ("collections", "TriMesh", "draw", watch.on_cells),
        ("lines", "Line2D", "draw", watch.on_cells),
        ("text", "Text", "draw", watch.on_text),
        ("axes._axes", "Axes", "bar_label", watch.on_lengths),
        ("axis", "Axis", "draw", watch.on_axis),
        ("axis", "Tick", "draw", watch.on_tick),
        ("legend", "Legend", "draw", watch.on_legend),
        ("table", "Table", "draw", watch.on_table),
        ("textpath", "TextPath", "__init__", watch.on_shape),
        ("backends.backend_agg", "FigureCanvasAgg", "print_png", watch.on_print),
        ("backends.backend_svg", "FigureCanvasSVG", "print_svg", watch.on_print),
    ]
    hooks: dict[str, list[Callable[[ModuleType], None]]] = {}

    def hooking(owner: str, name: str, hear: Callable[..., Any]) -> Callable[[ModuleType], None]:
        return lambda module: _hook(getattr(module, owner), name, hear)

    for module, owner, name, hear in own:
        hooks.setdefault(f"matplotlib.{module}", []).append(hooking(owner, name, hear))
    return hooks


class _Afterwards(MetaPathFinder):
    """Finds the modules that are to be hooked as Python does, and hooks them once they are there.

    Importing them beforehand would take half of a new kernel's start where nothing is drawn.
    """

    def __init__(self, hooks: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._hooks = hooks

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """See `importlib`."""
        spec = None
        if name in self._hooks:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = functools.partial(self._executed, loader.exec_module)
        return spec

    def _executed(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        for hook in self._hooks[module.__name__]:
            hook(module)


def watch(folder: Path) -> None:
    """From now on, note what is written in each picture that this process draws."""
    hooks = _hooks(_Watch(folder / FILE))
    for name, own in hooks.items():
        if module := sys.modules.get(name):
            for hook in own:
                hook(module)
    sys.meta_path.insert(0, _Afterwards(hooks))
