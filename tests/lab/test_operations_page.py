"""The page on operations and the files beside it say what the code does."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import click
import yaml

from abfed.cli import main as entry
from abfed.cli.ondemand import load
from abfed.lab.incidents.responding import load_vendor
from abfed.lab.watch.rehearsing import rehearse, spoken
from abfed.lab.watch.watching import Settings
from abfed.protocol.declared import parse_record
from abfed.site.alarms import CHECKS, RULES, STATES
from abfed.site.connectors import FILE as CONNECTORS
from abfed.site.connectors import find_connector
from abfed.site.files import write_private
from abfed.site.health import Metrics
from abfed.site.vendors import LOWEST_SCORE
from tools.watch_files import FILES, FOLDER

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_has_every_rule_with_its_threshold() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+ \| \d+) \|", PAGE, re.MULTILINE))
    assert rows == {rule.name: f"{rule.severity} | {rule.most}" for rule in RULES}


def test_the_table_says_how_soon_each_rule_finds_its_anomaly_and_what_it_cries() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(?:[^|]+\|){3} ([^|]+) \|$", PAGE, re.MULTILINE))
    told = rehearse(timedelta(seconds=60), 10)
    assert rows == {one.rule.name: spoken(one.after) for one in told if one.after}
    assert sum(one.false_alarms for one in told) == 1, "the page says once"


def test_the_table_has_every_alarm_about_a_state() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+) \| [^\d|]", PAGE, re.MULTILINE))
    assert rows == STATES


def test_every_alarm_has_a_rule_for_prometheus() -> None:
    alerts = yaml.safe_load((FOLDER / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    told = {
        rule["labels"]["severity"]: re.compile(named[0])
        for rule in rules
        if (named := re.findall(r"alarm-\(([^)]*)\)", rule["expr"]))
    }
    every = {rule.name: rule.severity for rule in RULES} | dict(STATES) | {"check-drift": CHECKS}
    for name, severity in every.items():
        assert told[severity].fullmatch(name), name


def test_the_files_are_what_the_tool_writes() -> None:
    for name, made in FILES.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == made(), "run tools/watch_files.py"


def test_their_expressions_name_metrics_that_are_served() -> None:
    metrics = Metrics()
    metrics.note("look")
    metrics.state.labels(state="alarms-high").set(1)
    served = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    alerts = yaml.safe_load((FOLDER / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(expressions) >= 8
    for expression in expressions:
        named = set(re.findall(r"abfed_\w+", expression))
        assert named
        assert named <= served, expression


def test_the_example_of_settings_is_one() -> None:
    block, *_ = EXAMPLES
    settings = parse_record(Settings, yaml.safe_load(block), where="page")
    assert [one.kind for one in settings.sinks] == ["log", "webhook", "mail"]


def test_the_example_of_a_vendor_is_one_and_has_the_webhook_above(tmp_path: Path) -> None:
    settings, block, _ = EXAMPLES
    (tmp_path / "postbox.yaml").write_text(block)
    vendor = load_vendor(tmp_path / "postbox.yaml")
    assert vendor.services[0].address in settings
    assert vendor.score >= LOWEST_SCORE


def test_the_example_of_connectors_is_one(tmp_path: Path) -> None:
    *_, block = EXAMPLES
    write_private(tmp_path / CONNECTORS, block.encode())
    assert find_connector(tmp_path, "esp").url.startswith("https://")


def test_every_command_that_an_alarm_names_is_one() -> None:
    named = {one for rule in RULES for one in re.findall(r"`abfed ([^`]+)`", rule.do)}
    assert len(named) >= 5
    for text in named:
        words = text.split()
        command = load(words[0], entry.COMMANDS[words[0]])
        for word in words[1:]:
            if not isinstance(command, click.Group):
                break  # from here on they are arguments
            assert word in command.commands, text
            command = command.commands[word]
