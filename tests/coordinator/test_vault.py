"""Models at rest: sealed, signed, bound to what they are."""

import numpy as np
import pytest

from abfed.coordinator.vault import Vault, model_digest
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.protocol.tensors import Shape, shapes_of
from abfed.site.keys import SiteKeys

MODEL = {
    "output.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6),
    "output.bias": np.array([0.5], dtype=np.float32),
}
SHAPES = shapes_of(MODEL)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return SiteKeys.create(tmp_path_factory.mktemp("site") / "keys", site="coordinator")


@pytest.fixture(scope="module")
def sealed(keys):
    return Vault(keys).seal(MODEL, name="spring-1", version="final")


def open_it(keys, sealed, name="spring-1", version="final", shapes=SHAPES):
    return Vault(keys).open(sealed, shapes, name=name, version=version)


def test_a_model_comes_back_as_it_was(keys, sealed):
    again = open_it(keys, sealed)
    assert model_digest(again) == model_digest(MODEL)
    assert all((again[name] == MODEL[name]).all() for name in MODEL)


def test_nothing_of_it_can_be_read(sealed):
    for array in MODEL.values():
        assert array.tobytes() not in sealed
    assert b"output.weight" not in sealed


def test_the_same_model_never_seals_alike(keys, sealed):
    assert Vault(keys).seal(MODEL, name="spring-1", version="final") != sealed


def test_every_flipped_byte_is_found(keys, sealed):
    for place in range(0, len(sealed), 3):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(IntegrityError):
            open_it(keys, changed)
    for size in range(0, len(sealed), 7):
        with pytest.raises(IntegrityError):
            open_it(keys, sealed[:size])


def test_another_name_or_version_is_another_model(keys, sealed):
    with pytest.raises(IntegrityError, match="another model"):
        open_it(keys, sealed, name="spring-2")
    with pytest.raises(IntegrityError, match="another model"):
        open_it(keys, sealed, version="train-0001")


def test_another_site_can_neither_make_nor_open_it(keys, sealed, tmp_path):
    other = SiteKeys.create(tmp_path / "keys", site="coordinator")
    with pytest.raises(IntegrityError, match="not trusted"):
        open_it(other, sealed)
    theirs = Vault(other).seal(MODEL, name="spring-1", version="final")
    with pytest.raises(IntegrityError, match="not trusted"):
        open_it(keys, theirs)
    content = open_envelope(sealed, {keys.key_id: keys.public_key}, where="test").content
    with pytest.raises(IntegrityError):  # signed anew by them, sealed by us
        open_it(other, other.sign("model", content))


def test_a_release_is_not_a_model(keys, sealed):
    content = open_envelope(sealed, {keys.key_id: keys.public_key}, where="test").content
    with pytest.raises(IntegrityError, match="does not hold a model"):
        open_it(keys, keys.sign("release", content))


def test_shapes_are_checked(keys, sealed):
    with pytest.raises(IntegrityError, match="wrong type or shape"):
        open_it(keys, sealed, shapes=SHAPES | {"output.bias": Shape("float32", (2,))})
