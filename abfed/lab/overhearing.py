"""What is written in the pictures that a kernel draws, told to the disclosure gate.

Pixels can't be read. So matplotlib is watched while it draws: each text that becomes part of a PNG
or an SVG is noted in the kernel's private folder, with the picture's digest. The gate, outside,
lets a picture of pixels through only where it is one of these, and judges what is written in it.

1. A text is noted when it is drawn (`Text.draw`): titles, labels, ticks, legends, annotations,
   tables, of each axes and each figure within a figure, whatever the picture is shown by.
2. With it goes what a number in it would be called by: the names of its axes or of its legend.
   Ticks are noted with their places, so that a scale is told from figures that somebody typed.
3. Text that becomes a shape (`TextPath`, a `$…$` as a mark) belongs to every picture after it.
4. Words that an SVG has as shapes only, such as those with an outline, stand in it as a comment, as
   matplotlib's other words do: they stay readable wherever the drawing goes.

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
        self._axis: object = None

    def text(self, said: str, under: list[str]) -> None:
        """Some text; whatever comes behind the ticks of an axis ends them."""
        self._axis = None
        if said.strip():
            self.texts.append({"said": said, "under": under})

    def tick(self, said: str, tick: Any) -> None:
        """The label of a tick, and where it stands on its axis."""
        upright = tick.__name__ == "ytick"
        axis = (id(tick.axes), upright)
        if axis != self._axis:
            along = tick.axes.yaxis if upright else tick.axes.xaxis
            self.scales.append({"name": along.label.get_text(), "ticks": []})
            self._axis = axis
        if said.strip():
            self.scales[-1]["ticks"].append([said, float(tick.get_loc())])

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
        self._tick: Any = None
        self._legend: str | None = None

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

    def tell(self, heard: _Heard, pictures: Sequence[bytes]) -> None:
        """Note it."""
        line = {
            "digests": [hashlib.sha256(one).hexdigest() for one in pictures],
            "texts": heard.texts, "scales": heard.scales, "table": heard.table,
            "pixels": heard.pixels,
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
        elif (axes := getattr(text, "axes", None)) is not None:
            heard.text(said, [axes.xaxis.label.get_text(), axes.yaxis.label.get_text()])
        else:
            heard.text(said, [])

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

    def on_image(self, draw: Callable[..., Any], image: Any, *given: Any, **more: Any) -> Any:
        """An image in a figure: one that isn't a map of values to colours may be of words."""
        if getattr(getattr(image, "_A", None), "ndim", 2) > 2:
            for heard in self._drawing:
                heard.pixels = True
        return draw(image, *given, **more)

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
        if draw.__name__ == "print_svg":
            content = _with_comments(content, heard.words())
        inside = [base64.b64decode(one[1]) for one in _INSIDE.finditer(content)]
        self.tell(heard, [content, *inside])
        _write(content, wanted)
        return result


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


def _hooks(watch: _Watch) -> dict[str, Callable[[ModuleType], None]]:
    """What is hooked in each of matplotlib's modules, when it has been imported."""
    own: dict[str, tuple[str, str, Callable[..., Any]]] = {
        "image": ("_ImageBase", "_make_image", watch.on_image),
        "text": ("Text", "draw", watch.on_text),
        "axis": ("Tick", "draw", watch.on_tick),
        "legend": ("Legend", "draw", watch.on_legend),
        "table": ("Table", "draw", watch.on_table),
        "textpath": ("TextPath", "__init__", watch.on_shape),
        "backends.backend_agg": ("FigureCanvasAgg", "print_png", watch.on_print),
        "backends.backend_svg": ("FigureCanvasSVG", "print_svg", watch.on_print),
    }

    def hooking(owner: str, name: str, hear: Callable[..., Any]) -> Callable[[ModuleType], None]:
        return lambda module: _hook(getattr(module, owner), name, hear)

    return {f"matplotlib.{module}": hooking(*what) for module, what in own.items()}


class _Afterwards(MetaPathFinder):
    """Finds the modules that are to be hooked as Python does, and hooks them once they are there.

    Importing them beforehand would take half of a new kernel's start where nothing is drawn.
    """

    def __init__(self, hooks: dict[str, Callable[[ModuleType], None]]) -> None:
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
        self._hooks[module.__name__](module)


def watch(folder: Path) -> None:
    """From now on, note what is written in each picture that this process draws."""
    hooks = _hooks(_Watch(folder / FILE))
    for name, hook in hooks.items():
        if module := sys.modules.get(name):
            hook(module)
    sys.meta_path.insert(0, _Afterwards(hooks))
