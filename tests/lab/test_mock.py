"""Mock brands of a plan's schema: a plan and its notebooks work before a silo is asked."""

import csv

import pytest
import yaml

from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.mock import outcomes, write_mock
from abfed.lab.samples.shipped import shipped
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError
from abfed.protocol.plan import Plan
from abfed.silo.mapping import ExportMapping


@pytest.mark.parametrize("name", ["spring", "spring-waves", "hillstrom"])
def test_every_shipped_plan_has_a_mock(name, tmp_path):
    plan = Plan.load(shipped(f"experiments/{name}.yaml"))
    brands = write_mock(plan, tmp_path, seed=1, recipients=60)
    assert [one.name for one in brands] == list(plan.silos)
    for brand in brands:
        mapping = ExportMapping.load(brand.mapping)
        assert {arm.name for arm in plan.arms} == set(mapping.arm.values)
        assert set(mapping.features) == {one.name for one in plan.features}
        rows = list(csv.DictReader(brand.export.read_text().splitlines()))
        assert {row["arm"] for row in rows} == {arm.name for arm in plan.arms}
        for feature in plan.features:
            if feature.kind == "category":
                assert {row[feature.name] for row in rows} <= set(feature.values)
            else:
                seen = [float(row[feature.name]) for row in rows]
                assert min(seen) >= feature.low
                assert max(seen) <= feature.high
        if "clicked" in outcomes(plan):
            assert not any(row["clicked"] == "1" and row["opened"] == "0" for row in rows)


def test_a_model_finds_its_texts_in_a_mock(tmp_path):
    """Else each silo refused the plan: it asked for a column that the mock had left out."""
    values = yaml.safe_load(shipped("experiments/spring.yaml").read_text())
    values["model"] |= {"texts": [{"name": "subject"}, {"name": "preheader"}]}
    plan = Plan.from_values(values)
    for brand in write_mock(plan, tmp_path, seed=1, recipients=60):
        features = ExportMapping.load(brand.mapping).features
        rows = list(csv.DictReader(brand.export.read_text().splitlines()))
        for name in ("subject", "preheader"):
            assert features[name].kind == "category"
            assert len({row[name] for row in rows}) > 3
            assert all(" " in row[name] for row in rows)


def test_the_same_seed_is_the_same_people(tmp_path):
    plan = Plan.load(shipped("experiments/spring.yaml"))
    first, again, other = (
        write_mock(plan, tmp_path / str(n), seed=seed, recipients=30)[0].export.read_bytes()
        for n, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert first != other


def test_a_mock_goes_into_a_silo_that_says_it_is_synthetic(tmp_path):
    plan = Plan.load(shipped("experiments/spring-waves.yaml"))
    workspace = Workspace.create(tmp_path / "workspace")
    brand = write_mock(plan, workspace.data, seed=1, recipients=80)[0]
    report = found_and_ingest(
        workspace, brand.name, brand.export, brand.mapping, synthetic=True,
        purposes=(plan.purpose,),
    )  # fmt: skip
    with workspace.silo(brand.name) as silo:
        assert silo.policy().synthetic
    assert report.accepted > 80
    assert not report.rejected


def test_too_few_recipients_are_refused(tmp_path):
    plan = Plan.load(shipped("experiments/spring.yaml"))
    with pytest.raises(InputError, match="0 recipients"):
        write_mock(plan, tmp_path, seed=1, recipients=0)
    with pytest.raises(InputError, match="3 recipients"):
        write_mock(plan, tmp_path, seed=1, recipients=3)
