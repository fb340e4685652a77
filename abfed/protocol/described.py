"""JSON Schemas of declared records, each field described: an editor explains what it offers.

A field is described where its record is: under `Attributes:` of the class's docstring. There is no
second text to keep in step.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTION = "Attributes:"
_ENTRY = re.compile(r"^([\w, ]+): (.*)$")


def described_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON Schema of a record and of all records in it."""
    made = model.model_json_schema(schema_generator=_Described)
    return {"$schema": DIALECT, **made, "title": title}


def attributes_of(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a record, and of those it stands on, say of each field."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        found |= _attributes(inspect.cleandoc(cls.__doc__ or ""))
    return found


class _Described(GenerateJsonSchema):
    """Adds to each record what its docstring says."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """One record's schema."""
        made = super().model_schema(schema)
        cls = schema["cls"]
        text = inspect.cleandoc(cls.__doc__ or "").partition(_SECTION)[0]
        made["description"] = " ".join(text.split()).replace("`", "")
        properties: dict[str, dict[str, Any]] = made.get("properties", {})
        for name, said in attributes_of(cls).items():
            if name in properties:
                properties[name]["description"] = said
        if "const" in properties.get("kind", {}) or "enum" in properties.get("kind", {}):
            properties["kind"].setdefault("description", "which form this is.")
        return made


def _attributes(docstring: str) -> dict[str, str]:
    """The entries of a docstring's section: `name: text`, or `name, name: text`, lines joined."""
    _, found, section = docstring.partition(f"{_SECTION}\n")
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines() if found else ():
        if line and not line.startswith(" "):
            break  # the section is over
        text = line.strip()
        entry = _ENTRY.match(text) if line.startswith("    ") and line[4:5] != " " else None
        if entry is not None:
            names = [name.strip() for name in entry[1].split(",")]
            text = entry[2]
        for name in names:
            entries[name] = f"{entries.get(name, '')} {text}".strip().replace("`", "")
    return entries
