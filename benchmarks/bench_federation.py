"""What a round costs by itself: four silos that sign at once, a small model, ten rounds.

Prints seconds from the first import to the signed manifest, CPU seconds, seconds per round and
memory. The silos are those of the tests: they sign real releases and compute on no rows.
"""

import time

started, cpu = time.perf_counter(), time.process_time()

import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

from peak import peak  # type: ignore[import-not-found]  # noqa: E402

from abfed.coordinator.app import carry_out  # noqa: E402
from abfed.coordinator.beside import TIMINGS, read_beside  # noqa: E402
from tests.coordinator.doubles import Federation, make_plan  # noqa: E402

ROUNDS = 10


def main() -> None:
    """Carry the run out and print what it took."""
    imported = time.perf_counter()
    plan = make_plan(training={"rounds": ROUNDS, "local_steps": 2})
    closed: dict[str, float] = {}

    def note(event: object) -> None:
        if getattr(event, "stage", "") == "closed":
            closed[getattr(event, "step", "")] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder))
        outcome = carry_out(plan, federation.grid(), federation.coordinator, progress=note)
        timings = read_beside(outcome.folder / TIMINGS, federation.coordinator.keys.public_key)
        done = time.perf_counter()
        again = time.perf_counter()
        carry_out(plan, federation.grid(), federation.coordinator)
        found = time.perf_counter() - again
    rounds = [seconds for step, seconds in timings.items() if step.startswith("train-")]
    print(f"import                  {imported - started:6.2f} s")
    print(f"until totals are closed {closed['totals'] - started:6.2f} s")
    print(f"until round 1 is closed {closed['train-0001'] - started:6.2f} s")
    print(f"one round, median       {statistics.median(rounds) * 1e3:6.1f} ms")
    print(f"one round, slowest      {max(rounds) * 1e3:6.1f} ms")
    print(
        f"import to manifest      {done - started:6.2f} s ({time.process_time() - cpu:.2f} CPU s)"
    )
    print(f"found again in          {found:6.2f} s")
    print(f"peak memory             {peak():6.0f} MiB")


if __name__ == "__main__":
    main()
