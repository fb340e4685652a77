"""A key that lives in a PKCS#11 token, rotated and moved by processes that are killed (S2)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from abfed.site.kms import Pkcs11Kms
from tests.conformance.test_kms import token

__all__ = ["token"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.privacy
def test_killed_at_any_act_the_site_opens_and_the_token_holds_one_key(
    token: Pkcs11Kms, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("rotating_in_a_token.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    acts = [line.split() for line in done.stdout.splitlines()]
    assert [way for way, _ in acts] == ["into", "inside", "out"]
    assert all(int(count) > 14 for _, count in acts), acts
