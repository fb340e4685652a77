"""Nothing that an attacker would guess bit by bit is compared by `==`: that ends at the first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "abfed"
SECRET = {
    "challenge", "cookie", "mac", "mark", "passphrase", "password", "pin", "root", "secret",
    "signature", "typed",
}  # fmt: skip


def guessable(source: str) -> Iterator[str]:
    """Each comparison of something that is called like a secret, or like what proves one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(one, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for one in node.ops):
            continue
        for side in (node.left, *node.comparators):
            called = side.func if isinstance(side, ast.Call) else side
            name = getattr(called, "attr", getattr(called, "id", ""))
            if name.strip("_") in SECRET:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def test_secrets_are_compared_in_a_time_that_tells_nothing() -> None:
    found = {str(path): list(guessable(path.read_text())) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 300
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line", ["mark(ring) == ring.mark", "root != found", "self._password in known"]
)
def test_such_a_comparison_would_be_found(line: str) -> None:
    assert list(guessable(line))
