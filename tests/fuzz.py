"""Fuzz a parser of `tests.parsers`, guided by coverage of ours, a fixed number of times.

pip install atheris        # not locked: there are wheels for some Pythons only
PYTHONPATH=. python tests/fuzz.py envelope 100000
"""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["abfed.protocol", "abfed.site"]):
    from tests.parsers import SEEDS, tried

PARSER, TIMES = sys.argv[1:]


def main(corpus: Path) -> None:
    """Give it what it takes, then what comes of that: the fuzzer begins with these, not empty."""
    for number, seed in enumerate(SEEDS):
        tried(PARSER, seed)
        (corpus / str(number)).write_bytes(seed)
    arguments = [sys.argv[0], f"-runs={TIMES}", "-max_len=4096", "-seed=1", str(corpus)]
    atheris.Setup(arguments, lambda data: tried(PARSER, bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(tempfile.mkdtemp(prefix="fuzz-")))  # left behind: the fuzzer ends the process
