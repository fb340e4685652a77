"""From plain values to a declared record, with errors that a person can act on."""

from __future__ import annotations

import difflib
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.errors import InputError

Record = TypeVar("Record", bound=BaseModel)

FORMS = {
    r"^[a-z][a-z0-9_-]{0,47}$": "a small letter first, then small letters, digits, - and _; "
    "48 characters at most",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits in small letters",
    r"^[0-9a-f]{32}$": "32 hexadecimal digits in small letters",
}
"""Forms that people write by hand, in words."""

KEYS, ITEMS = "must be keys with their values, as in `key: value`", "must be a list"
KINDS = {
    "model_type": KEYS,
    "model_attributes_type": KEYS,
    "dict_type": KEYS,
    "tuple_type": ITEMS,
    "list_type": ITEMS,
}
"""What stands where something of another kind was given, in YAML's words rather than JSON's."""

MOST_SAID = 20
"""Problems named in one error; of ten thousand nobody reads more, and each is looked up."""


class Problem(NamedTuple):
    """Something that doesn't fit: where in the values, and what is wrong and right."""

    path: tuple[str | int, ...]
    said: str
    missing: bool = False


def parse_record(
    model: type[Record], value: Any, *, where: str, error: type[InputError] = InputError
) -> Record:
    """Validate `value` as `model`; problems are named at once, with the nearest known key.

    Raises:
        InputError: (or `error`) with what is said of each problem, of the first 20 where there
            are more.
    """
    try:
        return model.model_validate_json(canonical_bytes(value))
    except ValidationError as cause:
        found = list(itertools.islice(problems(model, cause), MOST_SAID + 1))
        lines = [one.said for one in found[:MOST_SAID]]
        if len(found) > MOST_SAID:
            lines.append("and more")
        raise error("; ".join(lines), where=where) from cause
    except (TypeError, ValueError, RecursionError) as cause:
        bad = _bad_number(value)  # looked for only now: most of a long plan's time would go there
        if bad is not None:
            raise error(f"{_dotted(bad)}: must be a finite number", where=where) from cause
        raise error(
            "holds a value that is neither text, number, list nor mapping", where=where
        ) from cause


def parse_canonical_record(model: type[Record], data: bytes, *, where: str) -> Record:
    """Validate canonical bytes as `model`, without writing them again as `parse_record` must.

    Raises:
        IntegrityError: the bytes are not canonical JSON.
        InputError: with one line for each problem.
    """
    value = parse_canonical(data, where=where)
    try:
        return model.model_validate_json(data)
    except ValidationError:
        return parse_record(model, value, where=where)  # says what is wrong, in words


def problems(model: type[BaseModel], cause: ValidationError) -> Iterator[Problem]:
    """What is wrong, each in words. What only follows from another problem is left out.

    A list whose items don't fit counts as too short besides, though it isn't.
    """
    errors = cause.errors(include_url=False)
    deep = {one["loc"][:size] for one in errors for size in range(len(one["loc"]))}
    for one in errors:
        if one["type"] == "too_short" and one["loc"] in deep and _long_enough(one):
            continue
        yield Problem(one["loc"], _line(model, one), one["type"] == "missing")


def _long_enough(problem: Any) -> bool:
    """Whether a list has as many items as it must, fitting or not."""
    given = problem["input"]
    return isinstance(given, list) and len(given) >= problem["ctx"]["min_length"]


def _line(model: type[BaseModel], problem: Any) -> str:
    """One problem in words."""
    path = _dotted(problem["loc"])
    if problem["type"] == "extra_forbidden":
        unknown = str(problem["loc"][-1])
        names = _names_at(model, problem["loc"][:-1])
        near = difflib.get_close_matches(unknown, names, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{path}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{path}: is missing"
    if problem["type"] == "string_pattern_mismatch":
        pattern = str(problem["ctx"]["pattern"])
        return f"{path}: must be {FORMS.get(pattern, 'of the form ' + pattern)}"
    message = _words(problem)
    return f"{path}: {message}" if path else message


def _words(problem: Any) -> str:
    """What is wrong, whatever the place."""
    kind, told = problem["type"], problem.get("ctx", {})
    if kind in KINDS:
        return KINDS[kind]
    if kind == "union_tag_invalid":
        tag, known = str(told["tag"]), str(told["expected_tags"])
        near = difflib.get_close_matches(tag, known.replace("'", "").split(", "), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"its kind must be one of {known}, not {tag!r}{hint}"
    if kind == "union_tag_not_found":
        return "its kind is missing"
    if kind == "too_short":
        return f"must hold at least {told['min_length']}, not {told['actual_length']}"
    if kind == "too_long":
        return f"must hold at most {told['max_length']}, not {told['actual_length']}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


@functools.lru_cache(maxsize=64)
def _names_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """Names of the fields that a record may have at a place in it, sorted."""
    schema = _schema(model)
    nodes = _resolved([schema], schema)
    for part in place:
        nodes = _resolved([inner for node in nodes for inner in _inside(node, part)], schema)
    return sorted({name for node in nodes for name in node.get("properties", {})})


@functools.lru_cache(maxsize=16)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A record's JSON Schema: making a plan's takes 20 ms."""
    return model.model_json_schema()


def _inside(node: dict[str, Any], part: Any) -> list[dict[str, Any]]:
    """What stands under a key or number of a JSON Schema's node; a form's tag stands for itself."""
    if isinstance(part, int):
        return (
            [node["items"]] if isinstance(node.get("items"), dict) else node.get("prefixItems", [])
        )
    if part in node.get("properties", {}):
        return [node["properties"][part]]
    named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    found = [one for one in named if isinstance(one, dict)]
    kind = node.get("properties", {}).get("kind", {})
    return found or ([node] if part in (kind.get("const"), *kind.get("enum", ())) else [])


def _resolved(nodes: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes with references followed and alternatives laid side by side."""
    found: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            found += _resolved([schema["$defs"][node["$ref"].rpartition("/")[2]]], schema)
        elif "anyOf" in node or "oneOf" in node:
            found += _resolved([*node.get("anyOf", ()), *node.get("oneOf", ())], schema)
        else:
            found.append(node)
    return found


def _dotted(path: tuple[Any, ...]) -> str:
    """`('arms', 0, 'share')` as `arms[0].share`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text


def _bad_number(value: Any) -> tuple[Any, ...] | None:
    """Where a NaN or an infinity stands; None where none does, or where it lies too deep to say."""
    try:
        return _not_finite(value, ())
    except RecursionError:
        return None


def _not_finite(value: Any, path: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Where a NaN or an infinity stands, if one does."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        found = _not_finite(inner, (*path, key))
        if found is not None:
            return found
    return None
