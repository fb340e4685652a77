from __future__ import annotations

import http.client
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from abfed.lab.samples import sources
from abfed.lab.samples.sources import (
    HILLSTROM_COLUMNS,
    HILLSTROM_CONTENT,
    HILLSTROM_SILOS,
    content_digest,
    fetch_hillstrom,
)
from abfed.protocol.errors import DataError, InputError
from abfed.protocol.plan import Plan
from abfed.silo.ingest import ingest
from abfed.silo.mapping import ExportMapping
from abfed.silo.store import Store
from abfed.site.keys import SiteKeys
from tests.silo.made import permit

ROOT = Path(__file__).resolve().parents[2]
COPIES = (os.environ.get("ABFED_HILLSTROM", ""), str(ROOT / "../shared/data/hillstrom.csv"))
ROW = "10,2) $100 - $200,142.44,1,0,Rural,0,Phone,No E-Mail,0,0,0.0\n"
HEADER = ",".join(HILLSTROM_COLUMNS) + "\n"


@pytest.fixture(scope="module")
def copy() -> Path:
    for name in COPIES:
        if name and Path(name).is_file():
            return Path(name)
    pytest.skip("no copy of Hillstrom's data here: name one in ABFED_HILLSTROM")


def test_the_digest_is_of_values_not_of_how_they_are_written():
    def of(text: str) -> str:
        return content_digest(text.encode(), where="test")

    written = of(HEADER + ROW)
    assert of(HEADER + ROW.replace("142.44", "142.440").replace(",0.0", ",0")) == written
    assert of((HEADER + ROW).replace("\n", "\r\n")) == written
    assert of(HEADER + ROW.replace("142.44", "142.45")) != written
    assert of(HEADER + ROW.replace("Phone", "Web")) != written
    assert of(HEADER + ROW + ROW) != written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "can't be read as CSV"),
        ("a,b\n1,2\n", "does not have the columns"),
        (HEADER + ROW.replace("142.44", "much"), "not a number"),
        (HEADER + ROW.replace("142.44", ""), "not a number"),
        (HEADER + ROW.replace(",0.0", ",1e400"), "not a number"),
        (HEADER + ROW, "not Hillstrom's data set"),
    ],
)
def test_another_file_is_refused_and_what_is_there_stays(tmp_path, text, told):
    source, target = tmp_path / "other.csv", tmp_path / "target.csv"
    source.write_text(text)
    target.write_bytes(b"good")
    with pytest.raises(DataError, match=told):
        fetch_hillstrom(target, source=source)
    assert target.read_bytes() == b"good"


def test_no_copy_and_no_network_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="can't be read"):
        fetch_hillstrom(tmp_path / "target.csv", source=tmp_path / "none.csv")
    # a port of this machine on which nothing listens
    monkeypatch.setattr(sources, "HILLSTROM_ADDRESS", "https://127.0.0.1:9/hillstrom.csv")
    with pytest.raises(InputError, match="can't be reached") as refused:
        fetch_hillstrom(tmp_path / "target.csv")
    assert "--from" in refused.value.do
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_answers_something_else_is_no_publisher(tmp_path, monkeypatch):
    def answer(*_, **__):
        raise http.client.BadStatusLine("<html>sign in to this network</html>")

    monkeypatch.setattr(sources.urllib.request, "urlopen", answer)
    with pytest.raises(InputError, match="can't be reached"):
        fetch_hillstrom(tmp_path / "target.csv")


@pytest.mark.real_data
def test_the_real_file_is_accepted_however_its_numbers_are_written(copy, tmp_path):
    data = copy.read_bytes()
    assert content_digest(data, where="copy") == HILLSTROM_CONTENT
    rewritten = tmp_path / "rewritten.csv"
    frame = pd.read_csv(copy)
    frame.to_csv(rewritten, index=False, float_format="%.3f", lineterminator="\r\n")
    assert rewritten.read_bytes() != data
    target = fetch_hillstrom(tmp_path / "kept.csv", source=rewritten)
    assert target.stat().st_mode & 0o777 == 0o600
    changed = data.replace(b"No E-Mail", b"Mens E-Mail", 1)
    rewritten.write_bytes(changed)
    with pytest.raises(DataError, match="not Hillstrom's"):
        fetch_hillstrom(tmp_path / "other.csv", source=rewritten)


@pytest.mark.real_data
def test_the_four_brands_take_the_file_apart(copy, tmp_path):
    """Every customer is in exactly one brand, and the published table comes back."""
    plan = Plan.load(ROOT / "experiments" / "hillstrom.yaml")
    assert plan.silos == HILLSTROM_SILOS
    raw = pd.read_csv(copy)
    arms: Counter[str] = Counter()
    visits: Counter[str] = Counter()
    spend = 0.0
    sizes = []
    for name in HILLSTROM_SILOS:
        keys = SiteKeys.create(tmp_path / name / "keys", site=name)
        store = Store.create(tmp_path / name / "store", keys, buckets=2)
        mapping = ExportMapping.load(ROOT / "experiments/hillstrom" / f"{name}.mapping.yaml")
        report = ingest(store, keys, mapping, copy)
        assert (report.rows, report.rejected) == (64_000, {})
        sizes.append(report.new)
        for part in store.read(permit(store, plan), plan.columns()):
            frame = part.to_pandas()
            arms.update(frame["arm"])
            visits.update(frame["arm"][frame["visited"]])
            spend += frame["revenue"].sum()
    assert sum(sizes) == len(raw) == 64_000
    assert len(set(sizes)) == 4
    assert arms == {"none": 21_306, "mens": 21_307, "womens": 21_387}
    assert visits["mens"] / arms["mens"] == pytest.approx(0.182757, abs=1e-6)
    assert visits["none"] / arms["none"] == pytest.approx(0.106167, abs=1e-6)
    assert spend == pytest.approx(raw["spend"].sum())
