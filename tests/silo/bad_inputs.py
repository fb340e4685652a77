"""Malformed mappings and exports, and what each must be told.

An entry: a name, the mapping, the export's bytes, the kind of error, and words that the message
must hold. `SECRETS` stand in rows of these exports and in no message.
"""

from __future__ import annotations

from typing import NamedTuple

from abfed.protocol.errors import DataError, InputError, MappingError
from tests.silo.made import HEADER, MAPPING, export_text, line

SECRETS = ("person1@example.com", "person2@example.com", "secret-value", "7331")

GOOD = [line(person) for person in range(1, 41)]


class Bad(NamedTuple):
    """One malformed input."""

    name: str
    mapping: str
    export: bytes
    error: type[InputError]
    told: tuple[str, ...]


def _mapping(name: str, old: str, new: str, *told: str) -> Bad:
    """The good mapping with one part replaced."""
    assert old in MAPPING, old
    return Bad(name, MAPPING.replace(old, new, 1), export_text(*GOOD).encode(), MappingError, told)


def _export(name: str, export: str | bytes, *told: str, mapping: str = MAPPING) -> Bad:
    """A bad file for a good mapping."""
    data = export.encode() if isinstance(export, str) else export
    return Bad(name, mapping, data, DataError, told)


def _rows(name: str, told: str, mapping: str = MAPPING, **changes: str) -> Bad:
    """Three bad rows in forty: above the 5 % that may be rejected."""
    bad = [line(person, **changes) for person in (1, 2, 3)]
    return _export(name, export_text(*GOOD, *bad), told, "too many rows", mapping=mapping)


OPENED = '  opened: {column: opened, yes: ["1"], no: ["0"]}'
REGION = "region: {column: country}"
BASIS = "basis: {column: legal, values: {C: consent, LI: legitimate-interests}}"
OPT_OUT = 'opted_out: {column: optout, yes: ["Y"], no: ["N"]}'
ARM = "arm: {column: variant, values: {A: control, B: warm}}"
RECIPIENT = "recipient: {columns: [email]}"
SENT = 'sent_at: {column: sent, format: "%Y-%m-%d %H:%M"}'
TIER = "  tier: {kind: category, column: tier, values: {g: gold, b: basic}}"
AGE = "  age: {kind: numeric, column: age}"
EXPERIMENT = "experiment: {column: campaign, values: {Spring: spring, Autumn: autumn}}"

MAPPINGS = [
    Bad("empty mapping", "", b"", MappingError, ("empty",)),
    Bad("not a mapping", "- a\n", b"", MappingError, ("top level",)),
    _mapping("broken YAML", "arm: {column", "arm: {{column", "not valid YAML", "line"),
    _mapping("a key twice", REGION, f"{REGION}\n{REGION}", "stands twice"),
    _mapping("unknown key", "recipient:", "recipent:", "recipent", "did you mean 'recipient'"),
    _mapping("unknown inner key", "sent, format", "sent, formt", "did you mean 'format'"),
    _mapping("no basis (S1)", BASIS, "", "basis: is missing"),
    _mapping("no opt-out (S1)", OPT_OUT, "", "opted_out: is missing"),
    _mapping("no region", REGION, "", "region: is missing"),
    _mapping("unknown basis", "C: consent", "C: because", "basis", "consent"),
    _mapping("basis without values", BASIS, "basis: {column: legal}", "basis", "needs values"),
    _mapping("opt-out without texts", OPT_OUT, "opted_out: {column: optout}", "yes and no"),
    _mapping("neither column nor constant", REGION, "region: {}", "either column or constant"),
    _mapping("column and constant", REGION, "region: {column: a, constant: b}", "either column or"),
    _mapping("arm without values", ARM, "arm: {column: variant}", "arm.values: is missing"),
    _mapping("arm of a bad name", "B: warm", "B: Warm!", "arm.values.B"),
    _mapping(
        "undeclared experiments", EXPERIMENT, "experiment: {column: campaign}", "needs values"
    ),
    _mapping("no recipient column", RECIPIENT, "recipient: {columns: []}", "either columns, or"),
    _mapping(
        "columns and row number",
        RECIPIENT,
        "recipient: {columns: [email], row_number: true}",
        "either columns, or",
    ),
    _mapping("unknown outcome", "  opened:", "  openned:", "did you mean 'opened'"),
    _mapping("outcome without texts", OPENED, "  opened: {column: opened}", "yes and no"),
    _mapping("only yes", OPENED, '  opened: {column: opened, yes: ["1"]}', "both yes and no"),
    _mapping(
        "yes is no",
        OPENED,
        '  opened: {column: opened, yes: ["1"], no: ["1"]}',
        "under both yes and no",
    ),
    _mapping("texts for an amount", "column: spend", "column: spend, present: true", "an amount"),
    _mapping("no outcomes", MAPPING[MAPPING.index("outcomes") : MAPPING.index("features")], ""),
    _mapping("feature of an outcome", "column: age", "column: clicked_at", "outcome 'clicked'"),
    _mapping("feature of the arm", "column: age", "column: variant", "is the arm"),
    _mapping("canonical feature", AGE, "  arm: {kind: numeric, column: age}", "canonical column"),
    _mapping("unknown kind", "kind: numeric", "kind: number", "features.age.kind"),
    _mapping("values of a number", AGE, AGE.replace("}", ", values: {a: b}}"), "for categories"),
    _mapping("unknown zone", "sent, format", "sent, timezone: Mars/Base, format", "Mars/Base"),
    _mapping("format without a day", "%Y-%m-%d", "%Y-%m", "strptime"),
    _mapping("bad constant date", SENT, "sent_at: {constant: yesterday}", "ISO 8601"),
    _mapping("two characters", REGION, f"{REGION}\nsource: {{delimiter: ';;'}}", "delimiter"),
    _mapping("other encoding", REGION, f"{REGION}\nsource: {{encoding: utf-16}}", "encoding"),
    _mapping("share above one", REGION, f"{REGION}\nmax_rejected_share: 1.5", "max_rejected"),
    _mapping("unknown two_arms", REGION, f"{REGION}\ntwo_arms: keep", "two_arms"),
]

EXPORTS = [
    _export("empty file", "", "empty"),
    _export("header only", HEADER + "\n", "header but no rows"),
    _export("UTF-16", export_text(*GOOD).encode("utf-16-le"), "line 1", "NUL"),
    _export(
        "not UTF-8",
        export_text(*GOOD[:3]).encode() + line(9, country="Österreich").encode("latin-1"),
        "line 5 is not UTF-8",
    ),
    _export("cut in a character", export_text(*GOOD).encode() + b"\xc3", "not UTF-8", "line 42"),
    _export("NUL byte", export_text(*GOOD).replace("EU", "E\0U", 1), "line 2", "NUL"),
    _export("missing column", export_text(*GOOD).replace("email,", "e_mail,", 1), "'e_mail'"),
    _export("another file", "a,b\n1,2\n", "none of the columns"),
    _export("no header", "\n".join(GOOD), "none of the columns", "first line"),
    _export(
        "one name twice", export_text(*GOOD).replace("country", "country,age", 1), "'age'", "twice"
    ),
    _export("semicolons", export_text(*GOOD).replace(",", ";"), "separated by ';'"),
    _export("ragged row", export_text(*GOOD, line(50) + ",extra"), "row 42", "13 fields", "12"),
    _export("short row", export_text(line(1), "person2@example.com,Spring"), "row 3", "2 fields"),
    _export("open quote", export_text(*GOOD) + '"' + line(2), "row 42"),
    _export(
        "nothing is ours",
        export_text(*GOOD),
        "`where` keeps no row",
        mapping=MAPPING + "where: [{column: country, one_of: [XX]}]\n",
    ),
    _export(
        "all rejected",
        export_text(*(line(person, sent="secret-value") for person in range(1, 9))),
        "sent_at: not a date",
        "doesn't fit the file",
    ),
    _rows("bad date", "sent_at: not a date in the declared format", sent="2026-02-30 08:00"),
    _rows("no date", "sent_at: missing", sent=""),
    _rows("impossible year", "sent_at: before 1990", sent="0026-03-01 08:00"),
    _rows("unknown arm", "arm: not a value that the mapping names", variant="secret-value"),
    _rows("no arm", "arm: missing", variant=""),
    _rows("unknown experiment", "experiment: not a value", campaign="secret-value"),
    _rows("no recipient", "recipient: missing", email="  "),
    _rows("not a number", "revenue: not a number", spend="secret-value"),
    _rows("NaN", "revenue: not a number", spend="nan"),
    _rows("infinite", "revenue: infinite", spend="-inf"),
    _rows("too large", "revenue: infinite", spend="1e999"),
    _rows("decimal comma", "age: not a number", age='"7331,5"'),
    _rows("neither yes nor no", "opened: neither yes nor no", opened="secret-value"),
    _rows("unknown category", "tier: not a value", tier="secret-value"),
    _rows("unknown lawful basis", "basis: not a value", legal="secret-value"),
    _rows("no lawful basis", "basis: missing", legal=""),
    _rows("unknown opt-out", "opted_out: neither yes nor no", optout="secret-value"),
    _rows("no opt-out", "opted_out: missing", optout=""),
    _rows("no region", "region: missing", country=""),
    _export(
        "the first bad row",
        export_text(*GOOD, line(1, age="secret-value")),
        "on_bad_row: refuse",
        "age: not a number",
        mapping=MAPPING + "on_bad_row: refuse\n",
    ),
    _export(
        "two arms",
        export_text(*GOOD, line(1, sent="2026-03-09 08:00", variant="A")),
        "two arms",
        "experiment spring",
        "two_arms: exclude",
    ),
    _export("contradicting arms", export_text(*GOOD, line(1, variant="A")), "two different arms"),
    _export(
        "a CSV as Parquet",
        export_text(*GOOD),
        "not a Parquet file",
        mapping=MAPPING + "source: {format: parquet}\n",
    ),
]

BAD = MAPPINGS + EXPORTS
