"""Writes the Grafana dashboard and the Prometheus alert rules of docs/operations from the rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from abfed.site.alarms import CHECKS, RULES, STATES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "operations"
LOOKS = 'abfed_events_total{event="look"}'
WITHIN = "10m"
SEVERITIES = ("critical", "high", "medium", "low")


def alert_rules() -> str:
    """Alert rules: one for each severity, one for each rule, one for a watch that is silent."""
    rules: list[dict[str, Any]] = [
        {
            "alert": f"Abfed{severity.capitalize()}Alarms",
            "expr": _raised(f'abfed_events_total{{event=~"alarm-({names})"}}'),
            "labels": {"severity": severity},
            "annotations": {"summary": "abfed watch raised {{ $labels.event }}"},
        }
        for severity in SEVERITIES
        if (names := "|".join(_named(severity)))
    ]
    rules += [
        {
            "alert": "AbfedWatchSilent",
            "expr": f"increase({LOOKS}[15m]) == 0 or absent({LOOKS})",
            "for": "5m",
            "labels": {"severity": "high"},
            "annotations": {"summary": "abfed watch has not looked for 15 minutes"},
        },
        {
            "alert": "AbfedSinkFails",
            "expr": _raised('abfed_events_total{event="sink-failed"}'),
            "labels": {"severity": "high"},
            "annotations": {"summary": "a sink of abfed watch does not take alarms"},
        },
    ]
    head = (
        "# Prometheus alert rules for `abfed watch --metrics`. Written by tools/watch_files.py.\n"
    )
    groups = {"groups": [{"name": "abfed", "rules": rules}]}
    return head + yaml.safe_dump(groups, sort_keys=False, width=1000)


def _raised(counter: str) -> str:
    """Whether a counter grew of late.

    Prometheus counts nothing for a series that it sees for the first time, and an alarm that is the
    first of its rule makes one: what was not there before, and isn't zero, grew too.
    """
    new = f"({counter} > 0 unless {counter} offset {WITHIN})"
    return f"increase({counter}[{WITHIN}]) > 0 or {new}"


def _named(severity: str) -> list[str]:
    """Every alarm of a severity: by what it counts, by what it finds, by an experiment's checks."""
    named = [rule.name for rule in RULES if rule.severity == severity]
    named += [name for name, one in STATES.items() if one == severity]
    return [*named, "check-.*"] if severity == CHECKS else named


def dashboard() -> str:
    """A Grafana dashboard: alarms that stand, alarms by rule, budgets, looks, ages."""
    panels = [
        _panel(0, "Alarms that stand", 'abfed_state{state=~"alarms-.*"}', "stat"),
        _panel(1, "Alarms raised, by rule", 'abfed_events_total{event=~"alarm-.*"} > 0'),
        _panel(2, "Budget left", 'abfed_state{state=~"budget-left-.*"}'),
        _panel(
            3, "Looks and failed sinks", 'rate(abfed_events_total{event=~"look|sink-failed"}[5m])'
        ),
        _panel(
            4,
            "Days since check-ups and the lock",
            'abfed_state{state=~"(checkup|lock)-age-days.*"}',
        ),
    ]
    board = {
        "title": "abfed watch",
        "uid": "abfed-watch",
        "schemaVersion": 39,
        "time": {"from": "now-7d", "to": "now"},
        "refresh": "1m",
        "panels": panels,
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
    }
    return json.dumps(board, indent=2) + "\n"


def _panel(place: int, title: str, expression: str, kind: str = "timeseries") -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    legend = "{{state}}{{event}}"
    return {
        "id": place + 1,
        "title": title,
        "type": kind,
        "datasource": source,
        "gridPos": {"x": 12 * (place % 2), "y": 8 * (place // 2), "w": 12, "h": 8},
        "targets": [
            {"refId": "A", "expr": expression, "legendFormat": legend, "datasource": source}
        ],
    }


FILES = {"prometheus-alerts.yml": alert_rules, "grafana-dashboard.json": dashboard}


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    for name, made in FILES.items():
        (FOLDER / name).write_text(made(), encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
