"""Every command of `abfed`: which right it asks for at which site, or why it asks for none.

A command that stands in neither table fails `test_authorised.py`: say here what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from abfed.cli import main as entry
from abfed.cli.ondemand import load
from abfed.protocol.identity import Right

HUB, SILO = "coordinator", "delta"


class Gated(NamedTuple):
    """A command that asks for a right.

    Attributes:
        words: what is typed; `{…}` are paths and names of the test.
        right: what it needs.
        site: where that is judged.
        allowed_is_tried: whether somebody who may is tried too; not where that takes long.
    """

    words: str
    right: Right
    site: str = HUB
    allowed_is_tried: bool = True


GATED: dict[str, Gated] = {
    "run": Gated("run {plan}", "plan.submit"),
    "report reader": Gated(f"report reader ada {'ab' * 32}", "people.manage"),
    "report share": Gated("report share spring --to ada", "run.read"),
    "silo create": Gated("silo create epsilon", "policy.change"),
    "silo ingest": Gated("silo ingest {silo} {plan} -m {mapping}", "data.ingest", SILO),
    "silo pull": Gated("silo pull {silo} esp", "data.ingest", SILO),
    "silo score": Gated(
        "silo score {silo} spring --list {plan} -m {mapping} --purpose x", "model.score", SILO
    ),
    "silo pin": Gated(
        f"silo pin {{silo}} other {'ab' * 32} --fingerprint x", "policy.change", SILO
    ),
    "ledger settle": Gated("ledger settle {plan} --silo {silo}", "budget.raise", SILO),
    "people add": Gated(
        "people add eve --role auditor --reason x -s {silo} --password-file {password}"
        " --secrets-file {out}",
        "people.manage",
        SILO,
    ),
    "people service": Gated(
        "people service nightly --plan {plan} --key {out}.key --reason x -s {silo}",
        "people.manage",
        SILO,
    ),
    "people grant": Gated("people grant ada auditor --reason x -s {silo}", "people.manage", SILO),
    "people leave": Gated("people leave ada --reason x -s {silo}", "people.manage", SILO),
    "people attest": Gated("people attest ada basics -s {silo}", "people.manage", SILO),
    "access approve": Gated("access approve {plan} -s {silo}", "plan.approve", SILO),
    "access revoke": Gated("access revoke ada -s {silo} --reason x", "incident.contain", SILO),
    "access restore": Gated("access restore ada -s {silo}", "freeze.lift", SILO),
    "access review": Gated("access review -s {silo} --template {out}", "access.review", SILO),
    "provision found": Gated("provision found {federation}", "policy.change"),
    "provision join": Gated(
        "provision join {plan} --silo {silo} --fingerprint x", "policy.change", SILO
    ),
    "provision admit": Gated("provision admit {plan}", "policy.change"),
    "provision revoke": Gated("provision revoke {silo}", "policy.change"),
    "incident open": Gated(
        "incident open t --playbook leaked-report -s {silo}", "incident.contain", SILO
    ),
    "incident contain": Gated(
        "incident contain {incident} person ada@{silo} -s {silo}", "incident.contain", SILO
    ),
    "incident lift": Gated(
        "incident lift {incident} person ada@{silo} -s {silo}", "freeze.lift", SILO
    ),
    "incident note": Gated("incident note {incident} x -s {silo}", "incident.contain", SILO),
    "incident told": Gated("incident told {incident} x -s {silo}", "incident.contain", SILO),
    "incident evidence": Gated(
        "incident evidence {incident} {out}.zip -s {silo}", "audit.read", SILO
    ),
    "incident close": Gated("incident close {incident} x -s {silo}", "incident.contain", SILO),
    "incident show": Gated("incident show -s {silo}", "audit.read", SILO),
    "incident drill": Gated(
        "incident drill leaked-report -s {silo}",
        "incident.contain",
        SILO,
        allowed_is_tried=False,
    ),
    "vendor approve": Gated("vendor approve mail -s {silo}", "vendor.approve", SILO),
    "vendor offboard": Gated("vendor offboard mail -s {silo}", "vendor.approve", SILO),
    "silo subject export": Gated(
        "silo subject export {silo} x@example.org {out}-answers", "subject.export", SILO
    ),
    "silo subject erase": Gated("silo subject erase {silo} x@example.org", "subject.erase", SILO),
    "silo subject opt-out": Gated(
        "silo subject opt-out {silo} x@example.org", "subject.erase", SILO
    ),
    "silo subject restrict": Gated(
        "silo subject restrict {silo} x@example.org", "subject.erase", SILO
    ),
    "silo subject receive": Gated(
        "silo subject receive {silo} erase x@example.org", "subject.erase", SILO
    ),
    "silo subject receipts": Gated(
        "silo subject receipts {silo} x@example.org", "subject.export", SILO
    ),
    "silo subject carry": Gated("silo subject carry {silo} {out}.carried", "subject.erase", SILO),
    "silo subject due": Gated("silo subject due {silo}", "subject.export", SILO),
    "records show": Gated("records show {silo}", "audit.read", SILO),
    "records write": Gated("records write {silo} {out}-records", "audit.read", SILO),
    "review": Gated("review", "audit.read"),
    "watch": Gated("watch", "audit.read"),
    "audit query": Gated("audit query -s {silo}", "audit.read", SILO),
    "audit export": Gated("audit export {out}.jsonl -s {silo}", "audit.read", SILO),
    "audit prune": Gated("audit prune --before 2020-01-01 -s {silo}", "policy.change", SILO),
    "model approve": Gated("model approve subject-lines --reason x", "plan.approve"),
    "model countersign": Gated("model countersign subject-lines", "plan.approve"),
    "model retire": Gated("model retire subject-lines --reason x", "model.delete"),
    "model export": Gated(
        "model export subject-lines {out}.safetensors --purpose x",
        "model.export",
        allowed_is_tried=False,  # who submitted it may: tests/lab/test_models.py
    ),
    "silo restore": Gated(
        "silo restore epsilon {out}.backup --passphrase-file {password}", "policy.change"
    ),
    "silo backup": Gated(
        "silo backup {silo} {out}.backup --passphrase-file {password}", "keys.rotate", SILO
    ),
    "keys rotate": Gated("keys rotate -s {silo}", "keys.rotate", SILO),
    "keys rewrap": Gated("keys rewrap --to file -s {silo}", "keys.rotate", SILO),
    "federation stop": Gated("federation stop", "plan.submit"),
}

FREE: dict[str, str] = {
    "init": "there is no site yet",
    "demo": "signs in itself; each of its acts is judged",
    "login": "is how a person comes in",
    "logout": "ends the session that is kept here",
    "report make": "reads releases that are here, and asks nobody",
    "report verify": "makes a page again from the same releases",
    "report reader-key": "makes the reader's own key",
    "report open": "opens what was sealed to the reader's own key",
    "evaluate": "reads a run's releases, and asks nobody",
    "batch": "makes reports",
    "plan check": "reads a file",
    "plan schema": "prints what a plan may hold",
    "design": "reads a plan",
    "allocate": "reads a run",
    "attack": "people are made up, and no silo is asked",
    "explain": "reads a release",
    "data synth": "people are made up; `--ingest` is judged as `silo ingest` is",
    "data mock": "people are made up, of a plan's schema",
    "data fetch": "public data; `--ingest` is judged as `silo ingest` is",
    "silo show": "names and budgets, to whoever has the silo's folder and key; changes nothing",
    "silo peers": "as `silo show`: public keys only",
    "silo verify": "as `silo show`: says which part is damaged",
    "incident verify": "reads a bundle that was handed over",
    "incident playbooks": "reads files of the workspace",
    "vendor propose": "proposes only, by whoever is signed in; another one approves",
    "vendor schema": "prints what a register may hold",
    "vendor show": "as `silo show`",
    "silo purge": "removes what the policy says, as the next request does; for a schedule",
    "silo serve": "the silo's own service, under its own user; it judges whoever asks",
    "model list": "reads what runs made; changes nothing",
    "model show": "as `model list`",
    "model card": "as `model list`",
    "model lineage": "as `model list`",
    "model verify": "opens models to check them, and gives nothing out",
    "silo schema": "prints what a file may hold",
    "records verify": "reads a record that was handed over",
    "doctor": "looks; `--fix` closes files to others and removes what a crash left, nothing else",
    "keys status": "as `silo show`",
    "ledger show": "as `silo show`",
    "ledger preview": "as `silo show`",
    "ledger history": "as `silo show`",
    "audit verify": "prints digests only; changes nothing",
    "audit anchors": "digests only, for the site that they are of",
    "audit check": "reads a file that was handed over",
    "people list": "as `silo show`",
    "people password": "asks for the old password and a one-time code",
    "people add-key": "as `people password`",
    "people remove-key": "as `people password`",
    "people recover": "asks for the password and a recovery code, once each",
    "access show": "prints the policy",
    "access why": "explains the policy",
    "access stopped": "as `silo show`",
    "provision renew": "the silo's own request again, for the same keys",
    "provision fingerprint": "reads a file",
    "federation up": "the coordinator's own service, under its own user",
    "federation node": "a brand's own service, under its own user",
    "federation status": "names and dates of certificates",
    "federation logs": "hold names and codes only",
    "federation bundle": "digest of what is installed",
}


def all_commands() -> Iterator[str]:
    """Every command by what is typed for it."""
    for name, one in entry.COMMANDS.items():
        command = load(name, one)
        yield from _below(name, command)


def _below(name: str, command: click.Command) -> Iterator[str]:
    """A command, or all that a group holds."""
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            yield from _below(f"{name} {verb}", inner)
    else:
        yield name
