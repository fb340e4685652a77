"""Weights that a test does not choose: in CI they follow from the test alone, as examples do."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def weights(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks that a test makes are others each time, but for where a change is judged."""
    if not os.environ.get("CI"):
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))
        yield
