"""A review's decisions, from a person at a terminal or from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from abfed.protocol.declared import parse_record
from abfed.protocol.documents import read_document
from abfed.protocol.errors import InputError
from abfed.protocol.printable import printable
from abfed.protocol.yamltext import parse_yaml
from abfed.site.files import check_new, write_private
from abfed.site.reviews import Line, Verdict, Verdicts


def write_template(path: Path, lines: Iterable[Line]) -> None:
    """A file with every grant and why it is to be looked at; marked ones must be decided.

    Raises:
        WorkspaceError: there is a file already, maybe with decisions, or none can be made there.
    """
    check_new(path)
    rows = [
        {
            "person": line.person,
            "role": line.role,
            "decision": "keep, or revoke" if line.marks else "keep",
            "reason": f"marked: {', '.join(line.marks)}" if line.marks else "",
        }
        for line in lines
    ]
    text = "# Decide each: keep or revoke. Then: abfed access review --decisions THIS\n"
    write_private(path, (text + yaml.safe_dump({"verdicts": rows}, sort_keys=False)).encode())


def read_verdicts(path: Path) -> tuple[Verdict, ...]:
    """The decisions of such a file.

    Raises:
        InputError: it can't be read, or a decision is neither keep nor revoke.
    """
    where = str(path)
    data = read_document(path, "file of decisions")
    values = parse_yaml(data, where=where, error=InputError)
    return parse_record(Verdicts, values, where=where).verdicts


def ask_verdicts(
    lines: Iterable[Line],
    reviewer: str,
    site: str,
    tell: Callable[[str], None],
    ask: Callable[[str], str],
) -> tuple[Verdict, ...]:
    """Ask about each marked grant but the reviewer's own, until the answer is keep or revoke.

    What it is about is told above the question: a terminal can't go back over a question of
    several lines, and shows parts of it again.
    """
    verdicts: list[Verdict] = []
    for line in lines:
        if not line.marks or f"{line.person}@{site}" == reviewer:
            continue
        given = line.grant
        text = (
            f"{line.person}: {line.role}, by {given.owner} ({given.reason}), until "
            f"{given.expires_at[:10]}. {', '.join(line.marks)}."
        )
        tell(printable(text))
        answer = ""
        while answer not in ("keep", "revoke"):
            answer = ask("  keep or revoke").strip().lower()
        decision = "keep" if answer == "keep" else "revoke"
        verdicts.append(
            Verdict.model_validate({"person": line.person, "role": line.role, "decision": decision})
        )
    return tuple(verdicts)
