"""A wheel has what a clone has beside the package: `abfed demo` and `abfed report` read it."""

import sysconfig
from pathlib import Path

import pytest
from setuptools.config.pyprojecttoml import read_configuration

from abfed.lab.reports.notebooks import known_notebooks
from abfed.lab.samples import shipped as beside
from abfed.protocol.errors import WorkspaceError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What installing the wheel puts into an environment, besides packages."""
    made = tmp_path_factory.mktemp("environment")
    read = read_configuration(ROOT / "pyproject.toml")  # as the build does, patterns resolved
    for place, files in read["tool"]["setuptools"]["data-files"]:
        (made / place).mkdir(parents=True)
        for file in files:
            (made / place / Path(file).name).write_bytes((ROOT / file).read_bytes())
    return made


def test_a_wheel_brings_each_notebook_and_each_example(environment, monkeypatch):
    in_clone = known_notebooks()
    found = [*ROOT.glob("experiments/**/*.yaml"), *ROOT.glob("notebooks/**/*.ipynb")]
    kept = [one for one in found if ".ipynb_checkpoints" not in one.parts]  # JupyterLab's copies
    assert len(in_clone) == 7
    assert len(kept) > 15
    monkeypatch.setattr(beside.abfed, "__file__", str(environment / "lib" / "abfed" / "x.py"))
    monkeypatch.setattr(sysconfig, "get_path", {"data": str(environment)}.get)
    installed = known_notebooks()
    assert {one: path.read_bytes() for one, path in installed.items()} == {
        one: path.read_bytes() for one, path in in_clone.items()
    }
    assert not any(path.is_relative_to(ROOT) for path in installed.values())
    for path in kept:
        found = beside.shipped(str(path.relative_to(ROOT)))
        assert found.is_relative_to(environment)
        assert found.read_bytes() == path.read_bytes()


def test_what_did_not_come_is_told_with_where_it_was_looked_for():
    with pytest.raises(WorkspaceError) as refused:
        beside.shipped("experiments/none.yaml")
    assert str(ROOT) in refused.value.where
    assert "share" in refused.value.where
