"""The bundle: what Flower ships to SuperNodes. It holds the courier and nothing else.

The same courier and Flower make the same bytes on every machine, so a brand computes the digest
from what it installed itself and takes nobody's word for it. Releases of abfed that speak the same
version of the protocol with the same courier have the same bundle.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from flwr.cli.build import build_fab_from_files

from abfed.coordinator import courier
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.messages import PROTOCOL_VERSION

NAME = "abfed-courier"
ORDER = "order"
"""What the run's configuration calls the digest of the order."""

_DESCRIPTION = f"""
[project]
name = "{NAME}"
version = "{PROTOCOL_VERSION}.0.0"
description = "Carries sealed bytes between a SuperNode and its silo service"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={version("flwr")}"]

[tool.flwr.app]
publisher = "abfed"
fab-format-version = 1
flwr-version-target = "{version("flwr")}"
fab-include = ["courier.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "abfed.coordinator.hosted:app"
clientapp = "courier:app"

[tool.flwr.app.config]
{ORDER} = ""
"""
_LICENSE = b"Apache-2.0: see the LICENSE file of abfed.\n"


def make_bundle() -> bytes:
    """The bundle of this installation."""
    source = Path(courier.__file__).read_bytes()
    content, _ = build_fab_from_files(
        {"pyproject.toml": _DESCRIPTION.encode(), "courier.py": source, "LICENSE": _LICENSE}
    )
    return content


def bundle_digest() -> str:
    """SHA-256 (hex) of this installation's bundle: what an executor pins."""
    return sha256_hex(make_bundle())
