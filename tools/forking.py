"""Runs pytest in forks of a process that has loaded what is slow to load, and nothing of abfed.

Started by `tools/breaks.py`, which asks for one run a line, as JSON: in which tree, with which
words, for how many seconds, and where what is said goes. It answers with the exit code, a line
each; null where the time was over.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

LOADED = ("pytest", "numpy", "scipy.stats", "pandas", "pyarrow.parquet", "duckdb",
          "torch", "pydantic", "yaml", "typer", "rich", "cryptography.x509")  # fmt: skip


def in_a_fork(tree: str, words: list[str], said: str, seconds: float) -> int | None:
    """The exit code of pytest; None where it was not done in time."""
    child = os.fork()
    if not child:
        os.setsid()  # so that all that it starts is ended with it
        code = 3  # pytest's own for an internal error
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = tree
            sys.path[0] = tree  # in the place of this file's folder
            code = int(sys.modules["pytest"].main(words))
        except BaseException:  # noqa: BLE001 - whatever it is, it is said, and this process ends
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Answer until nobody asks any more."""
    here = Path(__file__).resolve().parents[1]
    sys.path[1:] = [one for one in sys.path[1:] if Path(one).resolve() != here]
    for name in LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(in_a_fork(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
