"""How each synthetic brand's e-mail tool writes: its own columns, codes and dates.

A dialect is said once. From it follow both the export and the mapping that reads it, so that the
two can't drift apart; the mapping is written as a person would, because it is an example of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

EXPERIMENT = "spring-2026"
ARMS = ("control", "warm", "urgent")
BASES = ("consent", "legitimate-interests")
FLAGS = ("opened", "clicked", "converted", "unsubscribed", "opted_out")
MOMENTS = ("sent_at", "opened_at")
NUMBERS = ("tenure_days", "past_opens", "past_orders")
CATEGORIES = ("channel", "device")
ISO = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True)
class Dialect:
    """What sets a brand's exports apart.

    Attributes:
        note: the mapping's first line.
        columns: its own name of each canonical column, in the order of the file.
        yes, no: its texts for true and false.
        codes: by column, what it writes for each value; values themselves where it has no codes.
        time: how it writes a moment, as in `strftime`.
        upper: whether it writes addresses in capitals.
    """

    note: str
    columns: Mapping[str, str]
    yes: str
    no: str
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    time: str = ISO
    upper: bool = False

    def export(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows in canonical columns, as this brand's tool writes them."""
        return pd.DataFrame({own: self._written(name, rows) for name, own in self.columns.items()})

    def _written(self, name: str, rows: pd.DataFrame) -> pd.Series[Any]:
        column: pd.Series[Any] = rows[name]
        if name in MOMENTS:
            column = column.dt.strftime(self.time)
        elif name in FLAGS:
            column = column.map({True: self.yes, False: self.no})
        elif name in self.codes:
            column = column.map(self.codes[name])
        elif name == "recipient" and self.upper:
            column = column.str.upper()
        return column

    def mapping(self) -> str:
        """The mapping that reads such an export, as YAML."""
        own = self.columns
        experiment = "constant: " + EXPERIMENT
        if "experiment" in own:
            experiment = f"column: {own['experiment']}, values: {{{EXPERIMENT}: {EXPERIMENT}}}"
        written = "" if self.time == ISO else f', format: "{self.time}"'
        moment = "iso8601" if self.time == ISO else f'"{self.time}"'
        lines = [
            f"# {self.note}",
            f"experiment: {{{experiment}}}",
            f"recipient: {{columns: [{own['recipient']}]}}",
            f"arm: {self._values('arm', ARMS)}",
            f"sent_at: {{column: {own['sent_at']}{written}}}",
            "outcomes:",
            *(f"  {name}: {self._flag(name)}" for name in FLAGS[:-1]),
            f"  revenue: {{column: {own['revenue']}}}",
            f"  hours_to_open: {{column: {own['opened_at']}, moment: {moment}}}",
            "features:",
            *(f"  {name}: {{kind: numeric, column: {own[name]}}}" for name in NUMBERS),
            *(f"  {name}: {self._category(name)}" for name in CATEGORIES),
            f"basis: {self._values('basis', BASES)}",
            f"opted_out: {self._flag('opted_out')}",
            f"region: {{column: {own['region']}}}",
        ]
        return "\n".join(lines) + "\n"

    def _values(self, name: str, values: tuple[str, ...]) -> str:
        codes = self.codes.get(name, dict(zip(values, values, strict=True)))
        listed = ", ".join(f"{code}: {value}" for value, code in codes.items())
        return f"{{column: {self.columns[name]}, values: {{{listed}}}}}"

    def _flag(self, name: str) -> str:
        yes, no = json.dumps([self.yes]), json.dumps([self.no])  # JSON is YAML, and quotes
        return f"{{column: {self.columns[name]}, yes: {yes}, no: {no}}}"

    def _category(self, name: str) -> str:
        values = ""
        if name in self.codes:
            listed = ", ".join(f"{code}: {value}" for value, code in self.codes[name].items())
            values = f", values: {{{listed}}}"
        return f"{{kind: category, column: {self.columns[name]}{values}}}"


DIALECTS: dict[str, Dialect] = {
    "aurora": Dialect(
        note="Aurora's e-mail tool writes nearly what abfed reads.",
        columns={
            "recipient": "email", "experiment": "campaign", "arm": "variant", "sent_at": "sent",
            "opened": "opened", "opened_at": "opened_at", "clicked": "clicked",
            "converted": "ordered", "revenue": "order_value", "unsubscribed": "unsubscribed",
            "tenure_days": "tenure_days",
            "past_opens": "past_opens", "past_orders": "past_orders", "channel": "channel",
            "device": "device", "basis": "basis", "opted_out": "opt_out", "region": "region",
        },
        yes="1",
        no="0",
        time="%Y-%m-%d %H:%M:%S",
    ),
    "borealis": Dialect(
        note="Borealis exports codes, German dates and upper-case addresses.",
        columns={
            "recipient": "Subscriber", "experiment": "Test", "arm": "Cell", "sent_at": "SendTime",
            "opened": "Open", "opened_at": "OpenTime", "clicked": "Click",
            "converted": "Purchase", "revenue": "Revenue",
            "unsubscribed": "Unsub", "tenure_days": "Tenure", "past_opens": "OpensBefore",
            "past_orders": "OrdersBefore", "channel": "Channel", "device": "Device",
            "basis": "LawfulBasis", "opted_out": "DoNotSell", "region": "Country",
        },
        yes="yes",
        no="no",
        codes={
            "arm": {"control": "A", "warm": "B", "urgent": "C"},
            "channel": {"web": "W", "store": "S", "app": "P"},
            "device": {"mobile": "M", "desktop": "D", "tablet": "T"},
            "basis": {"consent": "C", "legitimate-interests": "LI"},
        },
        time="%d.%m.%Y %H:%M:%S",
        upper=True,
    ),
    "corvid": Dialect(
        note="Corvid's export has no campaign column: a file is a campaign.",
        columns={
            "recipient": "contact_id", "arm": "ab_group", "sent_at": "ts", "opened": "open_flag",
            "opened_at": "open_ts",
            "clicked": "click_flag", "converted": "order_flag", "revenue": "spend",
            "unsubscribed": "unsub_flag", "tenure_days": "days_known", "past_opens": "n_opens",
            "past_orders": "n_orders", "channel": "channel", "device": "device",
            "basis": "legal_basis", "opted_out": "ccpa_opt_out", "region": "region",
        },
        yes="Y",
        no="N",
        codes={"arm": {"control": "Control", "warm": "Warm", "urgent": "Urgent"}},
    ),
}  # fmt: skip
