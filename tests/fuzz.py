"""Fuzz a parser of `tests.parsers`, guided by coverage of ours, a fixed number of times.

pip install atheris        # not locked: there are wheels for some Pythons only
PYTHONPATH=. python tests/fuzz.py envelope 100000
"""

import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["abfed.protocol", "abfed.site"]):
    from tests.parsers import SEEDS, tried

PARSER, TIMES = sys.argv[1:]


def main() -> None:
    """Give it what it takes, then what comes of that."""
    for seed in SEEDS:
        tried(PARSER, seed)
    arguments = [sys.argv[0], f"-runs={TIMES}", "-max_len=4096", "-seed=1"]
    atheris.Setup(arguments, lambda data: tried(PARSER, bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
