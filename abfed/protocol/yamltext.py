"""YAML in, plain values out, without YAML's surprises.

Only `true` and `false` are booleans (`no` stays Norway), `1e-6` is a number, dates stay text,
a key given twice is an error, and tags, anchors and aliases are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from abfed.protocol.errors import InputError

MAX_TEXT = 1_048_576  # bytes; a plan or mapping is a page, not a book


class _Loader(yaml.SafeLoader):
    """A safe loader with YAML 1.2's scalars and unique keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases (a few lines of them can stand for gigabytes), anchors and tags."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not allowed"
        elif getattr(event, "anchor", None) is not None:
            problem = "anchors (&name) are not allowed"
        elif getattr(event, "tag", None) is not None:
            problem = "tags (!name) are not allowed"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's signature
    ) -> dict[Hashable, Any]:
        """Build a mapping, refusing a key that stands twice or isn't text."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = "a key must be text (quote it)"
            elif key in seen:
                problem = f"key {key!r} stands twice"
            else:
                seen.add(key)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        (
            r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
            r"|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|nan))$"
        ),
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def parse_yaml(data: bytes, *, where: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """Parse a YAML document whose top level is a mapping.

    Args:
        data: the document, UTF-8.
        where: what to call it in an error, such as its path.
        error: the error class to raise.

    Raises:
        InputError: (or `error`) not UTF-8, too long, not YAML, empty, or not a mapping.
    """
    if len(data) > MAX_TEXT:
        raise error(f"it is longer than {MAX_TEXT} bytes", where=where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(
            f"not UTF-8 text (byte {cause.start})", where=where, do="save the file as UTF-8"
        ) from cause
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader of ours
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise error(f"not valid YAML: {cause.problem}{place}", where=where) from cause
    except yaml.reader.ReaderError as cause:
        line = text.count("\n", 0, cause.position) + 1
        problem = (
            f"not valid YAML: character U+{cause.character:04X} can't stand in it (line {line})"
        )
        raise error(problem, where=where) from cause
    except RecursionError as cause:
        raise error("not valid YAML: nested too deep", where=where) from cause
    except (yaml.YAMLError, ValueError) as cause:
        raise error("not valid YAML", where=where) from cause
    if value is None:
        raise error("it is empty", where=where, do="see experiments/ for examples")
    if not isinstance(value, dict):
        raise error("the top level must be a mapping of keys to values", where=where)
    return value


def nodes(text: str) -> yaml.Node | None:
    """The nodes of a text that `parse_yaml` has read, to tell on which line something stands."""
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    return node
