"""Words in the pixels of a picture are judged: a kernel draws, its notebook's cells are looked at.

Each word is put together while the notebook runs, so that the cell's own source doesn't hold it.
"""

import json

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.gate import Allowed, findings
from abfed.lab.disclosure.hiding import hide_small
from abfed.lab.disclosure.left_out import LEFT_OUT
from abfed.lab.disclosure.written import Text
from tests.lab.shown import in_a_kernel
from tests.lab.test_disclosure import html, kinds, png, shown, told_of

START = """
import base64, io, tempfile
import matplotlib.pyplot as plt, matplotlib.patheffects as effects, numpy as np, pandas as pd
import matplotlib.dates as dates
from IPython.display import HTML, SVG, Image, display
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import EngFormatter, MultipleLocator
from PIL import Image as Pixels, ImageDraw
%matplotlib inline
plt.rcParams.update({'figure.figsize': (2, 1.5), 'figure.dpi': 50})
jane, word = 'jane.doe' + chr(64) + 'example.org', 'planted' + '-word'
place, token, three = '/'.join(['', 'home', 'jane', 'x']), 'gh' + 'p_' + 'a1B2' * 9, str(2 + 1)
grey = Pixels.new('L', (200, 24), 255)
ImageDraw.Draw(grey).text((2, 2), jane, fill=0)
grey = np.asarray(grey)
inked = np.nonzero(grey < 128)[::-1]
days = pd.date_range('2026-05-01', periods=9)
def by_day(form=None):
    plt.plot(days, range(20, 29))
    if form:
        plt.gca().xaxis.set_major_formatter(form)
def drawn(inner):
    return f'<svg xmlns="http://www.w3.org/2000/svg">{inner}</svg>'
def inner(picture):
    return '<svg' + picture.decode().partition('<svg')[2].strip()
stroke = [effects.withStroke(linewidth=2)]
def forms(*kinds):
    get_ipython().run_line_magic('config', f'InlineBackend.figure_formats = {list(kinds)}')
def saved(kind='png', **more):
    target = io.BytesIO()
    plt.savefig(target, format=kind, **more)
    plt.close()
    return target.getvalue()
def within(picture, kind='png'):
    return HTML(f'<img src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">')
def named(picture, name):
    place = f'{tempfile.mkdtemp()}/{name}'
    with open(place, 'wb') as file:
        file.write(picture)
    return Image(place)
"""
WRITTEN = {
    "a title": ("an e-mail address", "plt.title(jane);"),
    "a canary": ("never shows", "plt.plot([0, 1]); plt.suptitle(word);"),
    "a path": ("an absolute path", "plt.xlabel(place);"),
    "a token": ("an access key", "plt.plot([0, 1]); plt.figtext(0, 0, token);"),
    "a legend's entry": ("e-mail", "plt.plot([0, 9], label=jane); plt.legend();"),
    "ticks": ("e-mail", "plt.bar([jane, 'b'], [30, 40]);"),
    "an annotation": ("e-mail", "plt.annotate(jane, (0, 0));"),
    "letters that nobody sees": ("e-mail", "plt.text(0, 0, jane, color='white');"),
    "invisible characters": ("e-mail", "plt.title(jane.replace('a', 'a\\u200b'));"),
    "letters of full width": ("e-mail", "plt.title(jane.replace(chr(64), '\\uff20'));"),
    "a formula": ("e-mail", "plt.title(jane.replace('doe', r'$\\mathrm{doe}$'));"),
    "an outline": ("e-mail", "plt.title(jane, path_effects=stroke);"),
    "axes within axes": ("e-mail", "plt.gca().inset_axes([0, 0, 1, 1]).set_title(jane);"),
    "a figure within": (
        "e-mail", "part = plt.figure().subfigures(1, 2)[1]; part.subplots(); part.suptitle(jane);",
    ),
    "a figure itself": ("e-mail", "figure = plt.figure(); plt.title(jane); plt.close(); figure"),
    "a table": ("a table that was drawn", "plt.table([['a', '12'], ['b', '14']]);"),
    "a frame's table": ("a table that was drawn", "pd.DataFrame({'a': [12]}).plot(table=True);"),
    "a printed frame": (
        "printed into a picture",
        "plt.text(0, 0, pd.DataFrame({'a': [11, 12], 'b': [13, 14]}).to_string());",
    ),
    "a picture of a saved one": ("e-mail", "plt.title(jane); Image(saved())"),
    "a saved one in markup": ("e-mail", "plt.title(jane); within(saved())"),
    "pixels of a canvas": (
        "nobody can read",
        (
            "canvas = plt.figure().canvas; plt.title(jane); canvas.draw(); target = io.BytesIO()\n"
            "Pixels.fromarray(np.asarray(canvas.buffer_rgba())).save(target, 'png'); plt.close()\n"
            "Image(target.getvalue())"
        ),
    ),
    "a picture of a picture": (
        "nobody can read", "plt.title(jane); plt.imshow(plt.imread(io.BytesIO(saved())));",
    ),
    "a canvas in a picture": (
        "nobody can read",
        (
            "canvas = plt.figure().canvas; plt.title(jane); canvas.draw(); plt.close()\n"
            "plt.figimage(np.asarray(canvas.buffer_rgba())); plt.axes();"
        ),
    ),
    "two pictures in an SVG": (
        "nobody can read",
        (
            "forms('svg'); plt.title(jane); one = plt.imread(io.BytesIO(saved()))\n"
            "plt.imshow(one); plt.imshow(one, alpha=.5);"
        ),
    ),
    **{name: ("400 cells", source) for name, source in {
        "a grey image": "plt.imshow(grey, cmap='gray');",
        "a grey image in a figure": "plt.figimage(grey); plt.axes();",
        "a grey image in an SVG": "forms('svg'); plt.matshow(grey);",
        "uneven pixels": "plt.gca().pcolorfast(np.arange(201) ** 2, np.arange(25), grey);",
        "an uneven image": (
            "from matplotlib.image import NonUniformImage\nuneven = NonUniformImage("
            "plt.gca(), extent=(0, 200, 0, 24))\n"
            "uneven.set_data(np.arange(200), np.arange(24), grey); plt.gca().add_image(uneven);"
        ),
        "a mesh": "plt.pcolormesh(grey[::-1]);",
        "a mesh of patches": "plt.pcolor(grey[::-1]);",
        "a histogram of places": "plt.hist2d(*inked, bins=(200, 24));",
        "hexagons": "plt.hexbin(*inked, gridsize=60);",
        "triangles": "plt.tripcolor(*inked, inked[0]);",
        "blended triangles": "plt.tripcolor(*inked, inked[0], shading='gouraud');",
        "where a matrix isn't empty": "plt.spy(grey < 128);",
        "marks where it isn't": "plt.spy(grey < 128, markersize=1);",
        "points on a grid": "plt.scatter(*inked, s=1);",
    }.items()},
    "a mesh of colours": ("pixels within", "plt.pcolormesh(np.dstack([grey / 255] * 3));"),
    "an SVG's drawing in markup": (
        "written in a picture",
        "plt.title(jane, path_effects=stroke); HTML(inner(saved('svg')))",
    ),
    "a name of a mark": ("e-mail", "forms('svg'); plt.plot([0, 1])[0].set_gid(jane);"),
    "an address of a mark": (
        "e-mail", "forms('svg'); plt.scatter([0], [1]).set_urls(['https://x.org/?' + jane]);",
    ),
    "an SVG's title": ("e-mail", "plt.axes(); SVG(saved('svg', metadata={'Title': jane}))"),
    "words in the file": ("words inside", "plt.title('x'); Image(saved(metadata={'Title': 'x'}))"),
    "an SVG": ("e-mail", "forms('svg'); plt.title(jane);"),
    "an SVG's outline": ("e-mail", "forms('svg'); plt.title(jane, path_effects=stroke);"),
    "an SVG's pixels": ("e-mail", "forms('svg'); plt.title(jane).set_rasterized(True);"),
    "an SVG on another way": (
        "e-mail", "plt.title(jane, path_effects=stroke); SVG(saved('svg'))",
    ),
    "twice as sharp": ("e-mail", "forms('retina'); plt.title(jane);"),
    "a PDF": ("looked into", "forms('pdf'); plt.title('x');"),
    "a JPEG": ("looked into", "forms('jpeg'); plt.title('x');"),
    "letters as a shape": (
        "e-mail", "plt.gca().add_patch(PathPatch(TextPath((0, 0), jane, size=.1)));",
    ),
    "a mark": ("never shows", "plt.plot([0, 1], marker=f'${word}$');"),
}  # fmt: skip
"""What the gate says of a cell, and its source."""
SMALL = {
    "bars": "plt.bar_label(plt.bar(['a', 'b'], [3, 40]));",
    "bars of a frame": (
        "axes = pd.DataFrame({'opened': [3, 40]}).plot.bar(); axes.bar_label(axes.containers[0]);"
    ),
    "a legend": "plt.plot([0, 9], label=f'warm: {three}'); plt.legend();",
    "a legend's number": "plt.plot([0, 9], label=three); plt.xlabel('day'); plt.ylabel('ε');"
    "plt.legend(title='buyers');",
    "an annotation": "plt.annotate(f'n = {three}', (0, 0));",
    "a formula": "plt.text(0, 0, rf'$\\mathbf{{{three}}}$ buyers');",
    "ticks": "plt.bar([0, 1], [30, 40]); plt.xticks([0, 1], [three, '8']);",
    "ticks in words": "plt.bar([f'warm\\nn = {three}', 'cold'], [30, 40]);",
    "a pie": "plt.pie([3, 40], labels=[f'warm ({three})', 'cold']);",
    "two forms": "forms('svg', 'png'); plt.bar_label(plt.bar(['a', 'b'], [3, 40]));",
    "markup": "plt.bar_label(plt.bar(['a', 'b'], [3, 40])); within(saved())",
    "an SVG in markup": "plt.bar_label(plt.bar([1, 2], [3, 40])); within(saved('svg'), 'svg+xml')",
    "an SVG written anew": "plt.bar_label(plt.bar(['a', 'b'], [3, 41])); SVG(saved('svg'))",
    "an SVG as markup": "plt.bar_label(plt.bar(['a', 'b'], [3, 41])); HTML(inner(saved('svg')))",
    "an SVG's own words": "plt.axes(); SVG(saved('svg', metadata={'Description': '3 buyers'}))",
    "a name of a mark": "forms('svg'); plt.plot([0, 1])[0].set_gid('3 buyers');",
    "a drawing by hand": "SVG(drawn(f'<text>{three}</text>'))",
    "a drawing by hand in markup": "HTML(drawn(f'<text>{three} buyers</text>'))",
    "a drawing by hand in an image": "within(drawn(f'<text>{three}</text>').encode(), 'svg+xml')",
    "days, and a count": "by_day(dates.DateFormatter('%d')); plt.text(days[0], 22, three);",
    "days, and a count among them": (
        "by_day(dates.DateFormatter('%d')); plt.xticks([days[2], days[5]], [three, '8']);"
    ),
    "days set shortly, and a count": (
        "by_day(dates.ConciseDateFormatter(dates.AutoDateLocator())); plt.text(days[0], 22, three);"
    ),
    "days by themselves, and a count": "by_day(); plt.title(f'n = {three}');",
    "a figure's title": "plt.axes(); plt.suptitle(f'{three} buyers');",
    "a colour bar's name": "plt.imshow(np.eye(4)); plt.colorbar(label=f'{three} buyers');",
    "a colour bar's ticks": (
        "plt.imshow(np.eye(4)); plt.colorbar(ticks=[0, 1]).set_ticklabels([three, '8']);"
    ),
    "a format with words": "by_day(dates.DateFormatter('3 buyers on %d'));",
    "powers, and a count": "plt.plot([0, 3e-4]); plt.text(0, 0, three);",
    "a little above a count": (
        "plt.plot([4, 5]); axis = plt.gca().yaxis; axis.set_ticks([4, 5], ['a', 'b'])\n"
        "axis.get_major_formatter().set_offset_string(three);"
    ),
    "logarithms, and a count": "plt.loglog([1, 10, 1000]); plt.legend(title=f'{three} buyers');",
    "ticks between ticks": (
        "plt.plot([20, 90]); plt.gca().set_yticks([32, 35], [three, '8'], minor=True);"
    ),
    "ticks of a third axis": (
        "plt.figure().add_subplot(projection='3d').set_zticks([0, 1], [three, '8']);"
    ),
    "bars of a count": "plt.bar_label(plt.bar([1, 2], [3, 40])); plt.xlabel('round');",
    "bars with words of one's own": (
        "plt.bar_label(plt.bar(['a', 'b'], [40, 50]), ['3', '8']); plt.ylabel('rounds');"
    ),
    "a histogram's": "plt.bar_label(plt.hist([1, 1, 2, 3, 3, 3])[2]);",
    "pixels beside markup": (
        "plt.text(0, 0, three); display({'text/html': '<p>x</p>', 'image/png': "
        "base64.b64encode(saved()).decode()}, raw=True)"
    ),
}
FINE = {
    "lines": "plt.plot([0, 8], [0, 4], label='warm'); plt.legend(); plt.ylabel('opened');",
    "shares": "plt.bar_label(plt.bar(['a', 'b'], [0.25, 0.5]));",
    "percent": "plt.bar_label(plt.bar(['a', 'b'], [3, 4]), fmt='%d%%');",
    "parameters": "plt.bar_label(plt.bar([1, 2], [3, 4])); plt.xlabel('day'); plt.ylabel('ε');",
    "a legend": "plt.plot([0, 9], label=three); plt.legend(title='ε');",
    "large": "plt.bar_label(plt.bar(['a', 'b'], [30, 40])); plt.ylabel('opened');",
    "logarithms": "plt.loglog([1, 10, 1000], [1, 10, 1000]);",
    "deciles": "plt.bar(list('12345678'), range(20, 28));",
    "days": "by_day(dates.DateFormatter('%d')); plt.xticks([days[2], days[6]]);",
    "days as matplotlib sets them": "by_day();",
    "days, set shortly": "by_day(dates.ConciseDateFormatter(dates.AutoDateLocator()));",
    "days of a frame": "pd.Series(range(20, 29), index=days).plot();",
    "hours": "by_day(dates.DateFormatter('%H')); plt.xlim(days[0], days[1]);",
    "powers": "plt.plot([0, 3e-5, 5e-5]); plt.yticks([3e-5]);",
    "millions": "plt.plot([0, 5e6]); plt.yticks([3e6]); plt.ylabel('opened');",
    "far from nought": "plt.plot([1e6 + 3, 1e6 + 5]); plt.yticks([1e6 + 3]);",
    "a little above three": "plt.plot([4, 5]); plt.ticklabel_format(useOffset=3);",
    "in formulas": "plt.plot([0, 5e6]); plt.ticklabel_format(useMathText=True);",
    "powers of two": "plt.plot([1, 2, 64]); plt.yscale('log', base=2);",
    "three days": "plt.plot(days[:3], range(20, 23));",
    "logarithms of few": "plt.plot([1.5, 3, 8]); plt.yscale('log');",
    "logarithms by their letters": (
        "plt.loglog([1, 5e6]); plt.gca().yaxis.set_major_formatter(EngFormatter());"
    ),
    "ticks between": (
        "plt.plot([0, 9]); axis = plt.gca().yaxis; axis.set_minor_locator(MultipleLocator(1));"
        "axis.set_minor_formatter('{x:.0f}');"
    ),
    "bars of rounds": "plt.bar_label(plt.bar(['a', 'b'], [3, 40])); plt.ylabel('rounds');",
    "bars that lie": "plt.bar_label(plt.barh(['a', 'b'], [3, 40])); plt.xlabel('lift (%)');",
    "a histogram": "plt.hist([1, 1, 2, 3, 3, 3]); plt.ylabel('opened');",
    "all words of one that is left out": (
        "forms('svg'); plt.text(0, 0, three); plt.xlabel('rounds'); plt.ylabel('rounds');"
    ),
    "a drawing by hand": "HTML(drawn('<text>3 rounds</text><!-- a logo --><path d=\"M 3 4\"/>'))",
    "a heat map": "plt.pcolormesh(np.arange(371.).reshape(7, 53)); plt.colorbar();",
    "a stripe": "plt.imshow(np.arange(999.)[None], aspect='auto');",
    "few hexagons": "plt.hexbin(*np.random.rand(2, 999), gridsize=15);",
    "a cloud": "plt.scatter(*np.random.rand(2, 2000));",
    "points by arm": "plt.plot(np.arange(999) % 3, np.random.rand(999), 'o');",
    "a line with marks": "plt.plot(np.arange(999), np.arange(999) // 100, '.-');",
    "a surface": (
        "plt.figure().add_subplot(projection='3d').plot_surface("
        "*np.mgrid[:30, :30], np.add.outer(np.arange(30), np.arange(30)), cmap='viridis');"
    ),
    "marks of any shape": (
        "plt.plot(range(5), marker=[(0, 0), (1, 1)]); plt.plot(range(5), marker=(5, 1));"
        "plt.plot(range(5), marker=np.eye(2)); plt.plot([], [], 'o');"
    ),
    "levels": "plt.contourf(np.add.outer(np.arange(60), np.arange(60)));",
    "a frame": "pd.DataFrame({'opened': [300, 40]}).plot.bar();",
    "a map of colours": "plt.imshow(np.arange(16.).reshape(4, 4)); plt.colorbar();",
    "one in an SVG": "forms('svg'); plt.imshow(np.arange(16.).reshape(4, 4));",
    "three dimensions": "plt.figure().add_subplot(projection='3d').plot([0, 5], [0, 5], [0, 3]);",
    "twice as sharp": "forms('retina'); plt.plot([0, 1]);",
    "a saved one": "plt.plot([0, 1]); Image(saved())",
    "one from a file": "plt.plot([0, 1]); named(saved(), 'a.png')",
}
ALLOWED = Allowed(frozenset(), ("planted-word",))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One kernel's outputs for all cells, and what it told of its pictures."""
    cells = [new_code_cell(START)]
    for name, source in _sources():
        cells += [new_code_cell("forms('png')"), new_code_cell(source, metadata={"name": name})]
    cells_shown, done = in_a_kernel(tmp_path_factory.mktemp("drawn"), cells)
    return cells_shown, done.told


def _sources():
    """Last those whose letters become shapes: all pictures after them may hold these."""
    yield from ((f"fine: {name}", source) for name, source in FINE.items())
    yield from ((f"small: {name}", source) for name, source in SMALL.items())
    yield from ((f"written: {name}", source) for name, (_, source) in WRITTEN.items())


def looked_at(drawn, name):
    """A cell's document, with the outputs alone, and what the gate finds in it."""
    cells, told = drawn
    cell = new_code_cell("x", outputs=cells[name].outputs)
    assert cell.outputs
    document = new_notebook(cells=[cell])
    allowed = Allowed(ALLOWED.sources, ALLOWED.never, told=told)
    return document, {one.what for one in findings(document, allowed)}


@pytest.mark.privacy
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_in_a_picture_is_judged_as_text_is(drawn, name):
    _, found = looked_at(drawn, f"written: {name}")
    assert any(WRITTEN[name][0] in one for one in found), found
    assert not any("jane" in one for one in found)


@pytest.mark.privacy
@pytest.mark.parametrize("name", SMALL)
def test_a_picture_in_which_a_small_count_is_written_is_left_out(drawn, name):
    document, found = looked_at(drawn, f"small: {name}")
    assert not found
    (output,) = hide_small(document, Counted(), drawn[1]).cells[0].outputs
    assert set(output.data) == {"text/html"}
    assert output.data["text/html"] in {LEFT_OUT, "<p>x</p>"}


@pytest.mark.parametrize("name", FINE)
def test_a_picture_without_any_stays(drawn, name):
    document, found = looked_at(drawn, f"fine: {name}")
    assert not found
    before = json.dumps(document)
    assert json.dumps(hide_small(document, Counted(), drawn[1])) == before


@pytest.mark.privacy
def test_a_picture_that_a_notebook_brings_along_cannot_be_read():
    attached = new_markdown_cell("see ![](attachment:a.png)")
    attached["attachments"] = {"a.png": {"image/png": png()}}
    typed = new_markdown_cell(f'<img src="data:image/png;base64,{png()}">')
    brought = [new_notebook(cells=[one]) for one in (attached, typed)]
    for document in [*brought, shown(**{"image/png": png()}), html(f"<svg>{_image()}</svg>")]:
        assert any("nobody can read" in what for what in kinds(document))


@pytest.mark.privacy
@pytest.mark.parametrize(
    "markup",
    ["<img src='data:text/plain;base64,{}'>", "<img src='data:;base64,{}'>",
     "<img src='data:image/svg+xml;base64,{}'>", "<img src='da\nta:image/png;base64,{}'>",
     "<img src='da&Tab;ta:image/png;base64,{}'>", "<p background='&#100;ata:image/png;base64,{}'>",
     "<img src='data:image/svg+xml;base64,R0lGODlhAQABAAAAACw='>", "<img src='data:image/png,{}'>"],
)  # fmt: skip
def test_pixels_by_another_name_are_found(markup):
    told = told_of(png())  # whatever it is
    assert kinds(html(markup.format(png())), told)


@pytest.mark.privacy
def test_a_drawing_is_markup():
    assert kinds(shown(**{"image/svg+xml": "GIF89a"}))
    assert not kinds(shown(**{"image/svg+xml": "\ufeff\n<svg><title>x</title></svg>"}))


def _image():
    return f'<image href="data:image/png;base64,{png()}"/>'


@pytest.mark.privacy
def test_what_a_picture_says_is_looked_for_wherever_it_is_packed():
    small = told_of(png(), texts=(Text("3 buyers"),))
    for markup in (f"<svg>{_image()}</svg>", f"<p style='background:url({_data()})'>x</p>"):
        document = html(markup)
        data = hide_small(document, Counted(), small).cells[0].outputs[0].data
        assert png() not in data["text/html"]
        assert kinds(html(markup), told_of(png(), texts=(Text("/home/jane/x"),)))


def _data():
    return f"data:image/png;base64,{png()}"
