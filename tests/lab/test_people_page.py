"""docs/people.md says what happens: its commands are run, in order, and what they say compared."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from abfed.cli.main import main
from abfed.site.factors import STEP_SECONDS, otp_code
from abfed.site.files import write_private
from tests.examples import plan_values

PAGE = Path(__file__).parents[2] / "docs" / "people.md"


def commands() -> Iterator[tuple[list[str], str]]:
    """Each command of the page with what it prints."""
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            words = shlex.split(line)
            assert words[0] == "abfed", line
            yield words[1:], output


def plain(text: str) -> str:
    """Output without what differs from run to run: digests, dates, durations."""
    text = re.sub(r"\b[0-9a-f]{16,}\b", "#", text)
    text = re.sub(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?", "#", text)
    return re.sub(r"\d+\.\d ms", "#", text).strip()


def test_the_page_tells_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_private(Path("pw"), b"a long enough passphrase")
    Path("plan.yaml").write_text(yaml.safe_dump(plan_values(silos=["aurora"])))
    used: dict[str, int] = {}
    person = ""

    def code(_: str) -> str:
        """What the authenticator shows; a person waits where it was typed already."""
        step = int(datetime.now(UTC).timestamp()) // STEP_SECONDS
        step = used[person] = max(step, used.get(person, 0) + 1)
        secret = json.loads(Path(f"{person}.json").read_bytes())["otp_secret"]
        return otp_code(secret, datetime.fromtimestamp(step * STEP_SECONDS, UTC))

    monkeypatch.setattr("typer.prompt", code)
    count = 0
    for words, output in commands():
        if words[0] == "login" and "--development" not in words:
            person = words[1]
        capsys.readouterr()
        main(words)
        told = capsys.readouterr()
        said = "".join(
            line + "\n"
            for line in (told.out + told.err).splitlines()
            if line.strip() and "|" not in line and ": without " not in line  # the bar of a run
        )
        assert plain(said) == plain(output), words
        count += 1
        if words[:2] == ["silo", "create"]:
            _ask_for_a_second_person()
    assert count > 15


def _ask_for_a_second_person() -> None:
    """What the page's piece of YAML does, as an editor would."""
    (wanted,) = [
        yaml.safe_load(block)["access"]
        for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if block.startswith("access:")
    ]
    file = Path("workspace/silos/aurora/policy.yaml")
    policy = yaml.safe_load(file.read_text())
    policy["access"] |= wanted
    write_private(file, yaml.safe_dump(policy).encode())


def test_the_pages_provider_is_one() -> None:
    from abfed.protocol.declared import parse_record
    from abfed.site.openid import Provider

    (block,) = re.findall(r"```yaml\n(issuer:.*?)```", PAGE.read_text(), re.DOTALL)
    assert parse_record(Provider, yaml.safe_load(block), where="page").required_amr == ("mfa",)
