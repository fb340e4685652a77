"""Noise may drown any figure, scope or arm: the read-out says so, and is still a page."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from abfed.lab.disclosure.gate import Allowed, findings
from abfed.lab.sections import readout, soundness
from abfed.lab.views.display import run_card
from abfed.lab.views.frames import in_parts
from abfed.privacy.charges import noise_multipliers
from abfed.stats.totals import SCALE, Layout, SiloTotals
from tests.lab.example import example_values, made_up_totals, make_run

SIZES = (0, 1, 3, 10, 40, 200, 2_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "workspace"
    return make_run(folder, example_values(simulation={"seed": 5}), size=50)


def tiny(run, seed):
    """The run with other totals: few recipients or none in each brand, and the plan's own noise."""
    random = np.random.default_rng(seed)
    sigma = noise_multipliers(run.plan).statistics
    layout = Layout.of(run.plan)
    sds = np.concatenate([np.full(block.width, block.sd) for block in layout.blocks])
    totals = {}
    for silo in run.silos:
        exact = made_up_totals(run.plan, f"{silo}{seed}", int(random.choice(SIZES)))
        strength = random.choice([0.0, 1.0, 10.0, 100.0])
        noise = random.normal(0.0, 1.0, exact.shape) * sds * sigma * SCALE * strength
        drowned = np.rint(exact + noise).astype(np.int64)
        totals[silo] = SiloTotals.of(run.plan, drowned, sigma)
    other = replace(run)
    vars(other)["totals"] = totals
    last = {"model": 0, "silos": 3, "recipients": -4.0, "majority_log_loss": np.nan}
    last |= in_parts("auc", None) | in_parts("log_loss", None)
    if random.random() < 0.5:
        vars(other)["training"] = pd.DataFrame([last, last | {"model": 1}])
    return other


def page_of(run, alpha, brand, *, figures):
    parts = [
        readout.headline(run, alpha=alpha), readout.one_brand(run, brand, alpha=alpha),
        readout.asked(run), readout.took_part(run), readout.results(run, alpha=alpha),
        readout.guardrails(run, alpha=alpha), readout.sample_ratio(run),
        readout.provenance(run), run_card(run), soundness.checks(run), soundness.agreement(run),
        soundness.segments(run, alpha=alpha),
    ]  # fmt: skip
    if figures:
        parts += [readout.metric_by_metric(run, alpha=alpha), readout.training(run),
                  readout.privacy(run)]  # fmt: skip
    return parts


@pytest.mark.parametrize("seed", range(12))
def test_a_read_out_never_fails_for_noise(run, seed):
    other = tiny(run, seed)
    brand = other.silos[seed % 3] if seed % 2 else ""
    parts = page_of(other, (0.05, 0.2)[seed % 2], brand, figures=seed % 6 == 0)
    text = "".join(parts)
    assert "nan" not in text.lower().replace("finance", "")
    assert "inf" not in text.lower().replace("information", "").split("<code>")[0]
    assert text.count("<table") > 3
    assert not list(findings_of(text, other))


def findings_of(markup, run):
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    output = new_output("display_data", data={"text/html": markup})
    document = new_notebook(cells=[new_code_cell("x", outputs=[output])])
    return findings(document, Allowed(frozenset({run.source})))
