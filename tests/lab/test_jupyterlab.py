"""JupyterLab, as a newcomer meets it: in a browser.

The tutorial is run through; a plan is judged while it is typed; a run is interrupted, and its
kernel restarted.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.lab.browser import AXE, browser, needs_chromium

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 420_000  # milliseconds: three silos are founded and asked

WRONG = """\
name: tiny
purpose: email-optimisation
experiment: spring-2026
silos: [aurora]
arms: [{name: control, share: 0.5, control: true}, {name: warm, share: 0.5}]
metrics: [{name: clicked, kind: proportion, column: clicked}]
privacy: {epsilon: 1.0, delta: 1.0e-6, split: {statistics: 1.0}}
primary: clickd"""
TYPED = ["%load_ext abfed", "", "1 + 1", f"%%plan\n{WRONG}"]

STOPPED = [
    """\
%load_ext abfed
import abfed
from pathlib import Path
from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.synth import write_brands
folder = Path("asked")
there = (folder / "abfed.yaml").exists()
workspace = abfed.Workspace(folder) if there else abfed.Workspace.create(folder, development=True)
brand = write_brands(workspace.data, seed=2026, scale=0.05)[0]
found_and_ingest(workspace, brand.name, brand.export, brand.mapping, synthetic=True)
workspace.sign_in_development()""",
    """\
%%plan plan
name: stopped
purpose: email-optimisation
experiment: spring-2026
silos: [aurora]
arms:
- {name: control, share: 0.34, control: true}
- {name: warm, share: 0.33}
- {name: urgent, share: 0.33}
metrics: [{name: clicked, kind: proportion, column: clicked}]
primary: clicked
features: [{name: past_opens, kind: numeric, low: 0, high: 12}]
model: {outcome: clicked}
training: {rounds: 60}
privacy: {epsilon: 3.0, delta: 1.0e-6, split: {statistics: 1.0, training: 1.5, evaluation: 0.5}}""",
    "workspace.run(plan)",
    "import time; time.sleep(60)",
    "6 * 7",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on loopback, as `make lab` starts it; it and its kernels end with the tests."""
    folder = tmp_path_factory.mktemp("lab")
    for name, cells in (("welcome", None), ("typed", TYPED), ("stopped", STOPPED)):
        (folder / name).mkdir()
        if cells is not None:
            (folder / name / f"{name}.ipynb").write_text(json.dumps(_notebook(cells)))
    for place in ("welcome", "lab"):
        (folder / place).mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / "tutorial" / "welcome.ipynb", folder / place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--IdentityProvider.token=tutorial", "--allow-root", f"--notebook-dir={folder}",
        "--ServerApp.port_retries=0", *_of_make_lab(),
    ]  # fmt: skip
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()  # it ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _of_make_lab():
    """What `make lab` tells JupyterLab: our extension, where it opens, that it asks nobody."""
    found = re.findall(r"--LabApp\.\w+=\S+", (ROOT / "Makefile").read_text())
    assert len(found) == 4
    return [one.replace("'", "").replace("$(CURDIR)", str(ROOT)) for one in found]


def _notebook(cells):
    made = [
        {"cell_type": "code", "id": f"c{place}", "metadata": {}, "source": text, "outputs": [],
         "execution_count": None} for place, text in enumerate(cells)
    ]  # fmt: skip
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.slow
def test_the_address_that_is_printed_opens_the_tutorial(lab):
    address, _ = lab
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{address}/?token=tutorial") as opened:
                settings = opened.read().decode()
                assert urllib.parse.urlsplit(opened.url).path == "/lab/tree/lab/welcome.ipynb"
                assert re.search(r'"news": \{"disabled": true\}', settings)
            return
        except urllib.error.HTTPError:
            raise
        except OSError:  # it doesn't listen yet
            assert time.monotonic() < until
            time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_chromium
def test_the_tutorial_runs_and_shows_its_forest_plot(lab):
    address, folder = lab
    with browser() as opened:
        # Tall: Lab draws only those cells that are in sight.
        page = opened.new_page(viewport={"width": 1280, "height": 6000})
        page.set_default_timeout(PATIENCE)
        _go(page, address, "welcome")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        card = page.locator(".jp-OutputArea-output .abfed.card")
        card.filter(has_text="Which subject line gets more clicks?").first.wait_for()
        forest = page.locator('.jp-RenderedImage img[src^="data:image/png"]').first
        forest.wait_for(state="attached")
        last = page.locator(".jp-OutputArea-output").get_by_text(re.compile("^True$"))
        last.first.wait_for(state="attached")
        assert forest.evaluate("one => one.complete && one.naturalWidth > 400")
        assert page.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0
        bar = page.locator(".jp-OutputArea-output .progress-bar-success").first  # tqdm's, full
        bar.wait_for(state="attached")
        assert _overlapping(page) == []
        assert page.locator('.abfed.card[role="alert"]').count() == 0
        _shoot(page, "tutorial")
    assert (folder / "welcome" / "tutorial" / "runs").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_chromium
def test_a_plan_is_judged_while_it_is_typed(lab):
    address, _ = lab
    with browser() as opened:
        page = opened.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(60_000)
        outside = []
        page.on("request", lambda one: outside.append(one.url))
        _go(page, address, "typed")
        told = _cell(page, 1).locator(".abfed-typed")
        _cell(page, 3).locator(".abfed-typed", has_text="run %load_ext abfed first").wait_for()
        _run(page, 0)
        _cell(page, 3).locator(".abfed-typed", has_text="line 9: primary: 'clickd'").wait_for()

        _cell(page, 1).locator(".cm-content").click()
        assert told.count() == 0
        page.keyboard.type("%%plan mine\n" + WRONG, delay=3)
        told.filter(has_text="line 9: primary: 'clickd' is not one of the metrics").wait_for()
        assert told.get_attribute("data-state") == "wrong"
        assert (told.get_attribute("role"), told.get_attribute("aria-live")) == ("status", "polite")
        page.keyboard.press("Backspace")
        page.keyboard.type("ed", delay=3)  # the focus is where it was
        told.filter(has_text="✓ ok").filter(has_text="plan tiny: 1 brand, 2 arms").wait_for()
        _shoot(page, "typed")
        page.keyboard.type("\n<img src=x onerror=alert(1)>: 1")
        told.filter(has_text="line 10: <img src=x onerror=alert(1)>: unknown key").wait_for()
        assert told.locator("img").count() == 0
        for theme in ("Dark", "Light"):
            _theme(page, theme)
            assert _hard_to_read(page) == []
        _cell(page, 1).locator(".cm-line").first.click(position={"x": 2, "y": 5})
        page.keyboard.type("#")
        told.wait_for(state="detached")
        page.keyboard.press("Backspace")
        told.filter(has_text="unknown key").wait_for()

        _outlives(page, told)
        ours = (address, "data:", "blob:")
        assert [one for one in outside if not one.startswith(ours)] == []


def _outlives(page, told):
    """Nothing was run, counted or kept meanwhile; a restart and a new page are got over."""
    _run(page, 2)
    page.locator(".jp-OutputPrompt", has_text="[2]:").wait_for()

    _restart(page)
    told.filter(has_text="run %load_ext abfed first").wait_for()
    _run(page, 0)
    told.filter(has_text="unknown key").wait_for()
    page.reload()  # a new page finds the comm that is open; what wasn't saved is gone from it
    _cell(page, 3).locator(".abfed-typed", has_text="line 9: primary: 'clickd'").wait_for()


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_chromium
def test_a_run_is_stopped_and_goes_on_and_a_restart_leaves_nothing(lab):
    address, folder = lab[0], lab[1] / "stopped"
    with browser() as opened:
        page = opened.new_page(viewport={"width": 1280, "height": 2400})
        page.set_default_timeout(120_000)
        _go(page, address, "stopped")
        asking, busy = _cell(page, 2), page.get_by_text("| Busy").first
        training = asking.locator(".jp-OutputArea-output", has_text=re.compile(r"train-\d+"))
        for place in (0, 1):
            _run(page, place)
            _cell(page, place).locator(".jp-OutputPrompt, .abfed.card").first.wait_for()
        _run(page, 2)
        training.first.wait_for()
        _interrupt(page)
        asking.locator('.abfed.card[role="alert"]', has_text="interrupted").wait_for()
        assert _tracebacks(page) == 0
        # Until it has ended, Jupyter drops what is asked besides.
        asking.locator(".jp-InputPrompt", has_text="[*]").wait_for(state="hidden")
        _shoot(page, "stopped")
        _run(page, 4)  # the kernel is as usable as before
        _cell(page, 4).get_by_text("42", exact=True).wait_for()

        _run(page, 2)
        training.first.wait_for()
        before = _working_in(folder)
        _restart(page)
        _gone(before)
        _cell(page, 1).locator(".abfed-typed", has_text="run %load_ext abfed first").wait_for()
        for place in (0, 1, 2):
            _run(page, place)
        asking.locator(".abfed.card", has_text="stopped").filter(
            has_not_text="interrupted"
        ).wait_for()
        assert len(list((folder / "asked" / "runs").glob("*/manifest.sig"))) == 1

        _run(page, 3)  # not ours: Python's own words
        busy.wait_for()
        _interrupt(page)
        _cell(page, 3).get_by_text("KeyboardInterrupt").first.wait_for()
        assert _cell(page, 3).locator(".abfed.card").count() == 0
        assert len(_working_in(folder)) == 1  # the kernel


def _cell(page, place):
    return page.locator(".jp-Notebook .jp-Cell").nth(place)


def _run(page, place):
    _cell(page, place).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def _interrupt(page):
    _press(page, "Escape", "i", "i")
    page.get_by_text("| Idle").first.wait_for()


def _restart(page):
    _press(page, "Escape", "0", "0")
    page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    page.get_by_text("| Idle").first.wait_for()


def _press(page, *keys):
    """Keys for the notebook that was worked in last."""
    for key in keys:
        page.keyboard.press(key)


def _theme(page, name):
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text(f"JupyterLab {name}", exact=True).first.click()
    page.locator(f"body[data-jp-theme-name='JupyterLab {name}']").wait_for(state="attached")
    _shoot(page, f"typed-{name.lower()}")


def _hard_to_read(page):
    """What axe-core finds wrong with our lines; nothing where it isn't installed."""
    if not (AXE / "axe.min.js").is_file():
        return []
    page.add_script_tag(path=str(AXE / "axe.min.js"))
    found = page.evaluate("axe.run('.abfed-typed')")
    assert found["passes"], "it judged nothing"
    return [f"{one['id']}: {one['help']}" for one in found["violations"]]


def _tracebacks(page):
    return page.locator(".jp-RenderedText[data-mime-type*=stderr], [data-mime-type*=error]").count()


def _working_in(folder):
    """Processes whose working folder this is: a notebook's kernel, and what it started."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve(strict=True) == folder.resolve():
                found.add(int(process.name))
        except OSError:  # it has ended, or isn't ours
            continue
    return found


def _gone(processes):
    """Wait until none of these processes is there."""
    assert processes
    until = time.monotonic() + 20
    while any(Path(f"/proc/{one}").exists() for one in processes):
        assert time.monotonic() < until, "a process of the old kernel is still there"
        time.sleep(0.1)


def _shoot(page, name):
    if folder := os.environ.get("LAB_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def _overlapping(page):
    """Cells of our tables whose text is wider than they are: Lab's own style fixes widths."""
    return page.locator(".abfed td, .abfed th").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )


def _go(page, address, name):
    """Open a notebook once the server listens."""
    from playwright.sync_api import Error

    until = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            # In a workspace of its own: Lab opens again what was open before.
            page.goto(f"{address}/lab/workspaces/{name}/tree/{name}/{name}.ipynb?token=tutorial")
            page.locator(".jp-Notebook").wait_for()
            page.get_by_text("| Idle").first.wait_for()  # before that, Lab would ask for a kernel
            return
        except Error:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
