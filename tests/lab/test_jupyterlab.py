"""The tutorial in JupyterLab, as a newcomer meets it: opened in a browser and run through."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.browser import browser, needs_chromium

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 420_000  # milliseconds: three silos are founded and asked


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on loopback; it and its kernels end with the test."""
    shutil.copy(ROOT / "notebooks" / "tutorial" / "welcome.ipynb", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--IdentityProvider.token=tutorial", "--allow-root", f"--notebook-dir={tmp_path}",
        "--ServerApp.port_retries=0",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}/lab/tree/welcome.ipynb?token=tutorial", tmp_path
    finally:
        process.terminate()  # it ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_chromium
def test_the_tutorial_runs_and_shows_its_forest_plot(lab):
    address, folder = lab
    with browser() as opened:
        # Tall: Lab draws only those cells that are in sight.
        page = opened.new_page(viewport={"width": 1280, "height": 6000})
        page.set_default_timeout(PATIENCE)
        _go(page, address)
        page.locator(".jp-Notebook").wait_for()
        page.get_by_text("| Idle").first.wait_for()  # before that, Lab would ask for a kernel
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
        if shot := os.environ.get("ABFED_SCREENSHOT"):
            page.screenshot(path=shot)
    assert (folder / "tutorial" / "runs").is_dir()


def _overlapping(page):
    """Cells of our tables whose text is wider than they are: Lab's own style fixes widths."""
    return page.locator(".abfed td, .abfed th").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )


def _go(page, address):
    """Open the address once the server listens."""
    from playwright.sync_api import Error

    until = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            page.goto(address)
            return
        except Error:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
