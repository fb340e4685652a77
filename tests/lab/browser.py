"""Debian's Chromium, driven by Playwright; absent where it isn't installed."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).resolve().parents[2] / "build" / "browser" / "node_modules" / "axe-core"
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-sandbox"]  # fmt: skip

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium isn't installed (Debian: apt-get install chromium)"
)
needs_axe = pytest.mark.skipif(
    not (AXE / "axe.min.js").is_file(),
    reason="axe-core isn't there (npm install --prefix build/browser axe-core, as .ci/run does)",
)


@contextmanager
def browser():
    """A browser that talks to nobody but the pages it is given."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            yield opened
        finally:
            opened.close()
