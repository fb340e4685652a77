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


def layout_problems(pages):
    """What is wrong with pages (name to markup) at desktop and at phone width, in words."""
    problems = []
    with browser() as opened:
        for width in (1280, 375):
            context = opened.new_context(
                viewport={"width": width, "height": 900}, bypass_csp=True, offline=True
            )
            for name, html in pages.items():
                page = context.new_page()
                page.set_content(html)
                problems += [f"{name} at {width}: {one}" for one in _problems_of(page)]
                page.close()
            context.close()
    return problems


def _problems_of(page):
    """What is wrong with a page, in words."""
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if wide > 0:
        yield f"{wide} pixels stick out"
    broken = page.evaluate(
        "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    )
    if broken:
        yield f"{broken} pictures are broken"
    page.add_script_tag(path=str(AXE / "axe.min.js"))
    for one in page.evaluate("axe.run()")["violations"]:
        first = one["nodes"][0]["html"][:120]
        yield f"{one['id']}: {one['help']} ({len(one['nodes'])} times, as in {first})"
