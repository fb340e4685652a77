"""The documentation's site says which link leads nowhere."""

import pytest

from tools.docs import build_site


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
