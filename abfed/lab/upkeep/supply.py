"""What this installation is made of (S18): bill of materials, drift from the lock, advisories.

The bill is CycloneDX 1.6, made by its reference library from what is installed. Drift compares that
with `requirements.lock`, where a clone has it. Advisories are asked by pip-audit: where its service
does not answer, the finding says that nothing was checked, never that all is well.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from abfed import __version__
from abfed.protocol.printable import counted
from abfed.site.checkups import Finding
from abfed.site.files import check_new, write_private

LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
SECONDS = 120.0
OLD = 180  # days: a lock older than this is behind on fixes
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def installed() -> dict[str, str]:
    """Version of each package that is installed here, by its normalised name."""
    return {
        _normal(one.name): one.version for one in importlib.metadata.distributions() if one.name
    }


def bill_of_materials() -> str:
    """A CycloneDX 1.6 bill of what is installed, as JSON."""
    bom = Bom()
    bom.metadata.component = Component(
        name="abfed", version=__version__, type=ComponentType.APPLICATION, bom_ref="abfed"
    )
    bom.metadata.timestamp = datetime.now(UTC)
    for name, version in sorted(installed().items()):
        if name != "abfed":
            purl = PackageURL(type="pypi", name=name, version=version)
            made = Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=str(purl),
            )
            bom.components.add(made)
            bom.register_dependency(bom.metadata.component, [made])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)


def write_bill(path: Path) -> int:
    """Write the bill of materials; returns the number of components.

    Raises:
        WorkspaceError: there is a file already, or none can be made there.
    """
    check_new(path)
    text = bill_of_materials()
    write_private(path, text.encode())
    return len(json.loads(text)["components"])


def pins(lock: Path = LOCK) -> dict[str, str]:
    """Version of each package in the lock, by its normalised name."""
    text = lock.read_text(encoding="utf-8")
    return {_normal(name): version for name, version in _PINNED.findall(text)}


def lock_drift(lock: Path = LOCK) -> Iterator[Finding]:
    """Where what is installed is not what the lock says."""
    if not lock.is_file():
        yield Finding(
            check="lock-drift",
            severity="low",
            what="this installation came without requirements.lock, so nothing was compared",
            fix="install from a clone: `make install`",
        )
        return
    here = installed()
    wrong = [
        f"{name} {here.get(name, 'missing')} (lock: {version})"
        for name, version in sorted(pins(lock).items())
        if here.get(name) != version
    ]
    if wrong:
        yield Finding(
            check="lock-drift",
            severity="high",
            what=f"{counted(len(wrong), 'package')} unlike the lock: {', '.join(wrong)}"[:500],
            fix="`make clean install`",
        )


def lock_made(lock: Path = LOCK) -> date | None:
    """The day on which the lock says it was made; None where there is none, or it doesn't say."""
    text = lock.read_text("utf-8") if lock.is_file() else ""
    found = re.search(r"^# Resolved on (\d{4}-\d\d-\d\d)\.", text, re.MULTILINE)
    return None if found is None else date.fromisoformat(found.group(1))


def lock_age(today: date, lock: Path = LOCK) -> Iterator[Finding]:
    """Whether the lock is so old that fixes are missing from it, by the day it says it was made."""
    if not lock.is_file():
        return
    made = lock_made(lock)
    if made is None:
        yield Finding(
            check="lock-age", severity="low", what="the lock does not say when it was made"
        )
        return
    days = (today - made).days
    if days > OLD:
        yield Finding(
            check="lock-age",
            severity="medium",
            what=f"the lock was resolved {days} days ago",
            fix="`make lock ARGS=--upgrade`, run the tests, install it everywhere",
        )


def advisories(seconds: float = SECONDS, *, executable: str = sys.executable) -> Iterator[Finding]:
    """Known weaknesses of what is installed, by pip-audit; or that they could not be asked."""
    command = [executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
        report = json.loads(done.stdout)
        packages = [one for one in report["dependencies"] if one.get("vulns")]
        skipped = sum("vulns" not in one for one in report["dependencies"])
        every = len(report["dependencies"])
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError, TypeError):
        yield Finding(
            check="advisories",
            severity="medium",
            what="the advisory service did not answer: known weaknesses were NOT checked",
            fix="run `abfed doctor` where it can be reached",
        )
        return
    if skipped or not every:
        yield Finding(
            check="advisories",
            severity="medium",
            what=f"{skipped} of {every} packages were NOT checked: the service does not know them",
            fix="run `abfed doctor` where the advisory service can be reached",
        )
    for one in packages:
        names = ", ".join(weakness["id"] for weakness in one["vulns"])
        better = sorted({v for weakness in one["vulns"] for v in weakness.get("fix_versions", ())})
        yield Finding(
            check="advisories",
            severity="high",
            what=f"{one['name']} {one['version']}: {names}"[:500],
            fix=f"fixed in {', '.join(better)}" if better else "no fix is known yet",
        )


def _normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
