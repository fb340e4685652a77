"""What lies beside a run's manifest: how the run is shown, how long its steps took.

Both may change after the run was signed, so neither is bound by its manifest. Each is a file of its
own, signed by the coordinator and bound to the run's name; anything else in the folder is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import key_id, open_envelope
from abfed.protocol.errors import IntegrityError
from abfed.site.files import read_private, write_private
from abfed.site.keys import SiteKeys

REPORT = "report.signed"
TIMINGS = "timings.signed"


def write_beside(path: Path, keys: SiteKeys, run: str, value: Any) -> None:
    """Write such a file; one that says so already stays as it is.

    Args:
        path: in the run's folder.
        keys: the coordinator's.
        run: the run's name.
        value: plain values.
    """
    signed = keys.sign("shown", canonical_bytes(_content(path, run, value)))
    if not path.exists() or read_private(path) != signed:  # Ed25519: the same content and key
        write_private(path, signed)


def read_beside(path: Path, coordinator: bytes) -> Any:
    """What such a file says; None where there is none.

    Args:
        path: in the run's folder, which has the run's name.
        coordinator: the public key that must have signed it.

    Raises:
        IntegrityError: it was changed, is of another run, or another key signed it.
    """
    if not path.exists():
        return None
    trusted = {key_id(coordinator): coordinator}
    opened = open_envelope(read_private(path), trusted, kind="shown", where=str(path))
    content = parse_canonical(opened.content, where=str(path))
    run = path.resolve().parent.name
    if not isinstance(content, dict) or content != _content(path, run, content.get("value")):
        raise IntegrityError("is of another run, or another file of it", where=str(path))
    return content["value"]


def _content(path: Path, run: str, value: Any) -> dict[str, Any]:
    return {"file": path.name, "run": run, "value": value}
