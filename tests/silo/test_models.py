"""Models that a silo keeps: sealed, and each the one that its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from abfed.protocol.errors import IntegrityError
from abfed.protocol.tensors import pack
from abfed.silo.models import KeptModel, Models
from abfed.site.keys import SiteKeys
from tests.examples import make_model_plan
from tests.silo.asking import model_arrays


@pytest.fixture
def keys(tmp_path: Path) -> SiteKeys:
    return SiteKeys.create(tmp_path / "keys", site="aurora")


@pytest.fixture
def kept(tmp_path: Path, keys: SiteKeys) -> tuple[Models, str, Path]:
    plan = make_model_plan()
    models = Models(tmp_path / "models", keys)
    digest = models.keep(KeptModel(plan, model_arrays(plan, 0.7354), "ada@hub"))
    return models, digest, tmp_path / "models" / f"{digest}.sealed"


def test_nothing_of_it_can_be_read_and_another_key_opens_nothing(
    kept: tuple[Models, str, Path], tmp_path: Path
) -> None:
    models, digest, path = kept
    model = models.load(digest)
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    shown = [array.tobytes()[:16] for array in model.arrays.values()]
    assert all(one in pack(model.arrays) for one in shown)
    shown += [b"ada@hub", model.plan.name.encode(), next(iter(model.arrays)).encode()]
    assert not [one for one in shown if one in content]
    thief = SiteKeys.create(tmp_path / "thief", site="aurora")
    with pytest.raises(IntegrityError, match="seal is broken"):
        Models(tmp_path / "models", thief).load(digest)


def test_every_changed_byte_is_found_and_named(kept: tuple[Models, str, Path]) -> None:
    models, digest, path = kept
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 25)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert list(models.damaged()) == [digest[:16]]
    path.write_bytes(good)
    assert models.damaged() == {}


def test_one_model_is_not_put_in_anothers_place(kept: tuple[Models, str, Path]) -> None:
    models, _, path = kept
    plan = make_model_plan()
    other = models.keep(KeptModel(plan, model_arrays(plan, 0.1), "ada@hub"))
    path.replace(path.with_name(f"{other}.sealed"))
    with pytest.raises(IntegrityError, match="seal is broken"):
        models.load(other)
