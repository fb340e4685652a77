"""The documentation's site says which link leads nowhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from abfed.lab.reports.notebooks import known_notebooks
from tests.lab.browser import browser, needs_chromium
from tools.docs import EXECUTED, build_site

ROOT = Path(__file__).resolve().parents[2]


def test_a_link_that_leads_nowhere_ends_the_build_and_is_named(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    settings = tmp_path / "mkdocs.yml"
    settings.write_text("site_name: small\ntheme: null\nplugins: []\n")
    page = tmp_path / "docs" / "index.md"
    page.write_text("# Small\n\n[away](nowhere.md)\n")
    with pytest.raises(SystemExit):
        build_site(settings)
    assert "nowhere.md" in capsys.readouterr().err
    page.write_text("# Small\n")
    build_site(settings)
    assert capsys.readouterr().err == ""


@needs_chromium
def test_on_a_phone_no_name_in_a_table_is_broken_and_nothing_sticks_out(tmp_path):
    """`docs/controls.md` lists modules: broken anywhere, they filled four screens a control."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "site.css", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(
        f"# Wide\n\n|id|asked|in|by|\n|-|-|-|-|\n|1|{'a long question ' * 4}"
        "|`abfed/lab/security/evidence.py`|`tests/lab/test_posture_places.py`|\n"
    )
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    kept = {one: ours[one] for one in ("site_name", "theme", "extra_css", "use_directory_urls")}
    settings = tmp_path / "mkdocs.yml"
    settings.write_text(yaml.safe_dump(kept | {"plugins": [], "site_dir": str(tmp_path / "out")}))
    build_site(settings)
    with browser() as opened:
        page = opened.new_page(viewport={"width": 390, "height": 844})
        page.goto((tmp_path / "out" / "index.html").as_uri())
        lines = "[...document.querySelectorAll('td code')].map(one => one.getClientRects().length)"
        assert page.evaluate(lines) == [1, 1]
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_each_notebook_is_executed_for_the_site_but_the_one_about_a_review():
    assert {*EXECUTED, "security_review"} == set(known_notebooks())


def test_a_second_checkout_uses_the_environment_that_it_links_to(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "first" / "bin").mkdir(parents=True)
    (tmp_path / "first" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv").symlink_to("first")
    for name in ("pyproject.toml", "requirements.lock"):  # newer than the environment
        (tmp_path / name).write_text("")
    command = ["make", "-n", "--no-print-directory", "docs"]  # the suite itself runs under make
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [".venv/bin/python tools/docs.py"]
