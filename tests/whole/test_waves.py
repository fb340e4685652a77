"""Waves end to end: exports that grow, `abfed run` after each, one experiment read over them.

Two small synthetic brands; the truth about their people is known.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import multivariate_normal

from abfed.cli.main import main
from abfed.lab.intake import found_and_ingest
from abfed.lab.runs import Run
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.stats.effects import THESE

ENDS = (date(2026, 3, 9), date(2026, 3, 16), date(2026, 5, 1))
SILOS = ("aurora", "borealis")
PRIOR_SD = 0.03


def plan_file(path: Path, spending: str) -> Path:
    names = ("first", "second", "third")
    waves = [{"name": a, "until": b} for a, b in zip(names, ENDS, strict=True)]
    values: dict[str, Any] = {
        "name": f"waves-{spending}" if spending else "whole",
        "purpose": "email-optimisation",
        "experiment": "spring-2026",
        "silos": list(SILOS),
        "arms": [
            {"name": "control", "share": 0.34, "control": True},
            {"name": "warm", "share": 0.33},
            {"name": "urgent", "share": 0.33},
        ],
        "metrics": [
            {"name": "clicked", "kind": "proportion", "column": "clicked"},
            {
                "name": "half-opened",
                "kind": "quantile",
                "column": "hours_to_open",
                "quantile": 0.3,
                "edges": [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 48, 96],
            },
        ],
        "primary": "clicked",
        "sends_per_recipient": 4,
        "analysis": {"priors": [{"metric": "clicked", "sd": PRIOR_SD}]},
        "privacy": {"epsilon": 1.0, "split": {"statistics": 1.0}},
    }
    if spending:
        values["analysis"]["sequential"] = {"spending": spending, "waves": waves}
    path.write_text(yaml.safe_dump(values))
    return path


def ask_for_more_people(policy: Path) -> None:
    """Noised counts (sd 8) of a wave with nobody in it reach 10 in one of four hundred runs."""
    text = policy.read_text()
    policy.write_text(text.replace("minimum_recipients: 10\n", "minimum_recipients: 75\n"))
    assert "minimum_recipients: 75\n" in policy.read_text()


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The story told once: three exports, a run of two designs after each; what was printed."""
    folder = tmp_path_factory.mktemp("waves")
    options = ["-w", str(folder / "workspace")]
    assert main(["init", *options]) == 0
    assert main(["login", "--development", *options]) == 0
    opened = Workspace(folder / "workspace")
    plans = [plan_file(folder / f"{one}.yaml", one) for one in ("pocock", "always-valid")]
    refused = []
    for number, end in enumerate(ENDS):
        for brand in write_brands(folder / f"data-{number}", seed=5, scale=0.2, until=end):
            if brand.name in SILOS:
                found_and_ingest(opened, brand.name, brand.export, brand.mapping, synthetic=True)
                ask_for_more_people(folder / "workspace/silos" / brand.name / "policy.yaml")
        for plan in plans:
            assert main(["run", str(plan), *options]) == 0
        if number == 0:
            refused.append(main(["run", str(plans[0]), *options]))
    assert main(["run", str(plan_file(folder / "whole.yaml", "")), *options]) == 0
    return {
        "workspace": opened,
        "options": options,
        "plans": plans,
        "data": folder / "data-2",
        "refused": refused,
    }


def run_of(told: dict[str, Any], spending: str) -> Run:
    found: Run = told["workspace"].find_run(f"waves-{spending}")
    return found


def test_each_run_adds_a_wave_to_the_same_experiment(waves: dict[str, Any]) -> None:
    last = run_of(waves, "pocock")  # of three runs of this name, the last wave's
    assert last.plan.analysis.wave == 3
    assert [one.plan.analysis.wave for one in last.earlier] == [1, 2]
    assert waves["refused"] == [3]  # a wave without recipients yet: nothing was released
    sizes = [
        [run.effects.set_index(["scope", "metric", "arm"]).loc[(THESE, "clicked", "warm"), "se"]]
        for run in (*last.earlier, last)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
    people = [sum(one.counts()[0].sum() for one in wave.values()) for wave in last.waves]
    assert sum(people) == pytest.approx(0.2 * 33_000 * 0.99, rel=0.05)  # each in one wave only


def test_looks_spend_alpha_and_the_sequence_is_valid_at_any(waves: dict[str, Any]) -> None:
    widths = {}
    for spending in ("pocock", "always-valid"):
        frame = run_of(waves, spending).effects
        row = frame[(frame["scope"] == THESE) & (frame["metric"] == "clicked")].iloc[0]
        assert f"look 3 of 3, {spending}" in row["note"]
        widths[spending] = (row["ci_high"] - row["ci_low"]) / 2 / row["se"]
    assert 1.96 < widths["pocock"] < 2.4  # Pocock's three looks: 2.29 where waves are alike
    assert widths["always-valid"] > widths["pocock"] + 0.3


def test_time_to_open_is_read_from_two_moments_in_the_export(waves: dict[str, Any]) -> None:
    """From mapping to effect, all data read once: near the truth of these very people."""
    frame = waves["workspace"].find_run("whole").effects
    rows = frame[frame["metric"] == "half-opened"].set_index(["scope", "arm"])
    seen = 0
    for brand in SILOS:
        truth = json.loads((waves["data"] / brand / "truth.json").read_text())
        for arm in ("warm", "urgent"):
            row = rows.loc[(brand, arm)]
            if row["decision"] == "suppressed":
                continue
            seen += 1
            assert abs(row["mean_arm"] - truth[arm]["half-opened"]) < 5 * row["se"]
            assert row["mean_arm"] > 1
    assert seen


def test_a_run_that_is_found_again_charges_nothing(
    waves: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(waves["plans"][0]), *waves["options"]]) == 0
    said = capsys.readouterr().out
    assert "was found: nothing was charged" in said
    assert "Wave 3 of 3 (third)" in said
    assert "half-opened (hours" in said


def test_the_next_allocation_follows_from_all_waves(waves: dict[str, Any], tmp_path: Path) -> None:
    told = ["allocate", "waves-pocock", "--floor", "0.1", "--out", str(tmp_path / "next.json")]
    assert main([*told, *waves["options"]]) == 0
    written = json.loads((tmp_path / "next.json").read_text())
    assert written["run"] == run_of(waves, "pocock").name
    assert sum(written["shares"].values()) == pytest.approx(1)
    assert min(written["shares"].values()) >= 0.1
    # The chance that the control is best is that of both effects being negative: a formula of its
    # own, from the same frame. What the noise of this release makes of the truth isn't asserted.
    frame = run_of(waves, "pocock").effects
    rows = frame[(frame["scope"] == THESE) & (frame["metric"] == "clicked")]
    effects, errors = rows["estimate"].to_numpy(), rows["se"].to_numpy()
    shared = float(rows["var_control"].iloc[0])
    likelihood = np.diag(errors**2 - shared) + shared
    precision = np.linalg.inv(likelihood) + np.eye(2) / PRIOR_SD**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ np.linalg.inv(likelihood) @ effects
    worst = multivariate_normal(mean, covariance).cdf(np.zeros(2))
    assert written["shares"]["control"] == pytest.approx(0.1 + 0.7 * worst, abs=0.01)
