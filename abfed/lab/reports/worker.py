"""A worker of a batch: jobs in, results out, a line of JSON each. It holds no key, signs nothing.

A job that fails is an answer, not an end; a worker that dies is replaced by those who feed it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from abfed.protocol.errors import AbfedError

if TYPE_CHECKING:
    from abfed.lab.reports.kernels import Kernels
    from abfed.lab.reports.subjects import Subject


def serve(jobs: BinaryIO, results: BinaryIO, settings: Mapping[str, Any]) -> None:
    """Work until there are no more jobs.

    Args:
        jobs: a line each.
        results: a line for each job.
        settings: `nursery`, the socket of the warm process; kernels are spawned without.
    """
    kernels: Kernels
    if at := settings.get("nursery"):
        from abfed.lab.reports.forking import Forked

        kernels = Forked(Path(at))
    else:
        from abfed.lab.reports.kernels import Spawned

        kernels = Spawned()
    for line in jobs:
        result = work(json.loads(line), kernels)
        results.write(json.dumps(result).encode() + b"\n")
        results.flush()


def work(job: Mapping[str, Any], kernels: Kernels) -> dict[str, Any]:
    """Make one report of a batch and write its files.

    Returns:
        `manifest` to be signed, `seconds`; or `error` and `partial`, a file's name.
    """
    from abfed.lab.reports.execution import Limits
    from abfed.lab.reports.exporting import without_folders
    from abfed.lab.reports.report import FAILED, make_report, order
    from abfed.site.files import write_private

    started = time.monotonic()
    folder = Path(job["folder"])
    try:
        asked = order(
            subject_of(job), notebook=job["notebook"], parameters=job["parameters"],
            formats=tuple(job["formats"]), name=job["name"],
        )  # fmt: skip
        made = make_report(asked, kernels, limits=Limits(report=job["timeout"]))
        for name, content in made.files.items():
            write_private(folder / name, content)
    except AbfedError as error:  # it will stand on the batch's index: no path is shown there
        said = without_folders(str(error))
        return {"error": said, "partial": "", "seconds": time.monotonic() - started}
    except OSError as error:  # such as a full disk; its text names files, the kind doesn't
        said = f"files couldn’t be read or written: {os.strerror(error.errno or errno.EIO)}"
        return {"error": said, "partial": "", "seconds": time.monotonic() - started}
    except Exception as error:  # noqa: BLE001 - one failure stops no other; its text may hold data
        said = f"a defect of abfed: {type(error).__name__}"
        return {"error": said, "partial": "", "seconds": time.monotonic() - started}
    result: dict[str, Any] = {"seconds": time.monotonic() - started}
    if made.failure is not None:
        partial = f"{job['name']}{FAILED}.html"
        return result | {"error": f"{made.failure} ({made.failure.reason})", "partial": partial}
    for ending in ("html", "ipynb"):
        (folder / f"{job['name']}{FAILED}.{ending}").unlink(missing_ok=True)
    return result | {"manifest": made.manifest}


def subject_of(job: Mapping[str, Any]) -> Subject:
    """What a job is about, its manifest verified by this very process.

    Figures are read by the kernel only, which verifies each release that they come from.
    """
    from abfed.lab.finished import open_finished
    from abfed.lab.reports.subjects import of_plan, of_run, of_runs
    from abfed.protocol.plan import Plan

    key = bytes.fromhex(job["public_key"])
    about = job["about"]
    match about["kind"]:
        case "run":
            return of_run(open_finished(Path(about["folder"]), key))
        case "runs":
            folder = Path(about["folder"])
            names = sorted(about["runs"])
            runs = [open_finished(folder / name, key) for name in names]
            return of_runs(runs, folder)
        case _:
            file = Path(about["file"])
            return of_plan(Plan.load(file), file.read_bytes(), Path(about["workspace"]))


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, {})
