"""One byte string for one value: canonical JSON and its SHA-256 digest.

Digests name plans, releases and models, so the same value must give the same bytes on each
machine: keys sorted, no white space, UTF-8, shortest round-trip floats, and neither NaN nor
infinity (RFC 8785 in spirit; numbers are written the way Python's `repr` writes them).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from abfed.protocol.errors import IntegrityError


def canonical_bytes(value: Any) -> bytes:
    """Encode a JSON-able value canonically.

    Raises:
        ValueError: the value holds NaN, an infinity or a type JSON doesn't have.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse_canonical(data: bytes, *, where: str) -> Any:
    """Decode bytes that must be canonical JSON: any other spelling is refused.

    Raises:
        IntegrityError: not JSON, or not in canonical form.
    """
    try:
        value = json.loads(data)
        again = canonical_bytes(value)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("not canonical JSON", where=where) from error
    if again != data:
        raise IntegrityError("JSON is not in canonical form", where=where)
    return value


def sha256_hex(data: bytes) -> str:
    """The SHA-256 digest of `data` in lower-case hex (64 characters)."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 digest of a value's canonical bytes."""
    return sha256_hex(canonical_bytes(value))
