"""What the coordinator spends on one silo in one round, by size of the model; and what that means.

CPU seconds of this process for: making, signing and sealing a request; opening and verifying the
answer; putting it on disk; adding it to the mean. The silo's own side is left out. Prints a line
for each size, the line through them, what one more silo adds to each request, which names all, and
the estimate for 10,000 silos that docs/federation.md has.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from abfed.coordinator.aggregation import Aggregation  # noqa: E402
from abfed.coordinator.desk import Desk  # noqa: E402
from abfed.coordinator.exchange import Requests  # noqa: E402
from abfed.coordinator.inbox import Accepted, Inbox, expected_shapes  # noqa: E402
from abfed.coordinator.spool import Spool  # noqa: E402
from abfed.coordinator.strategy import pack_model  # noqa: E402
from abfed.learning.shapes import initial_arrays  # noqa: E402
from abfed.protocol.boxes import box_reply, box_request, unbox_reply, unbox_request  # noqa: E402
from tests.coordinator.doubles import Federation, make_front, make_plan  # noqa: E402

SIZES = ((64, 32), (400, 230), (1000, 996))  # about 2 k, 95 k and 1 M parameters
TIMES = 9
SILOS, SHARE = 10_000, 0.1
NAMED = 1000  # silos that a long request names


def spent(folder: Path, hidden: tuple[int, ...]) -> tuple[int, float, int]:
    """Parameters, median CPU seconds of a silo-round, and bytes both ways."""
    federation = Federation(folder, ("aurora",))
    plan = make_plan(
        silos=["aurora"],
        minimum_silos=1,
        model={"outcome": "clicked", "hidden": list(hidden)},
        training={"rounds": 1, "local_steps": 2},
    )
    site, silo = federation.coordinator, federation.silos["aurora"]
    model = dict(initial_arrays(plan))
    incoming = pack_model(model)
    inbox = Inbox(site.silos, plan, lambda step: expected_shapes(plan, step))
    inbox.bind({"aurora": silo.fields(plan, "totals", "")["epoch"]})
    desk = Desk(plan, site.keys, site.audit, inbox, site.front, site.clock)
    aggregation = Aggregation(plan.schedule)
    seconds, size = [], 0
    for _ in range(TIMES):
        started = time.process_time()
        requests = Requests(desk, "train-0001", incoming, {"aurora": 1}, ["aurora"])
        sent = box_request(silo.keys.exchange_key, requests._envelope("aurora"), silo="aurora")  # noqa: SLF001
        asking = time.process_time() - started
        opened = unbox_request(silo.keys.exchange_private_key(), sent.box, silo="aurora")
        answer = box_reply(opened.reply_key, silo.answer(opened.envelope), silo="aurora")
        started = time.process_time()
        envelope = unbox_reply(sent.reply_key, answer, silo="aurora")
        accepted = inbox.accept("aurora", "train-0001", requests.incoming_digest, envelope)
        if not isinstance(accepted, Accepted):
            raise SystemExit("the silo refused")
        kept = Spool().keep(accepted)
        aggregation.round(model, {"aurora": kept}, {"aurora": 1.0}, 1)
        seconds.append(asking + time.process_time() - started)
        size = len(sent.box) + len(answer)
    return sum(array.size for array in model.values()), statistics.median(seconds), size


def named(folder: Path, silos: int) -> tuple[float, int]:
    """Median CPU seconds of making and sealing a request without a model, and its bytes."""
    names = [f"brand{number:03d}" for number in range(silos)]
    federation = Federation(folder, ("aurora",))
    site, silo = federation.coordinator, federation.silos["aurora"]
    plan = make_plan(silos=names, minimum_silos=1)
    inbox = Inbox(
        dict.fromkeys(names, silo.keys.public_key), plan, lambda step: expected_shapes(plan, step)
    )
    front = make_front(site.keys, names)
    desk = Desk(plan, site.keys, site.audit, inbox, front, site.clock)
    requests = Requests(desk, "totals", b"", {names[0]: 1}, names[:1])
    seconds, size = [], 0
    for _ in range(10 * TIMES):
        started = time.process_time()
        envelope = requests._envelope(names[0])  # noqa: SLF001
        size = len(box_request(silo.keys.exchange_key, envelope, silo=names[0]).box)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), size


def main() -> None:
    """Print what was measured, and the estimate."""
    rows = []
    print(f"{'parameters':>10} {'CPU ms a silo-round':>20} {'bytes both ways':>16}")
    for hidden in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(spent(Path(folder), hidden))
        print(f"{rows[-1][0]:10,} {1e3 * rows[-1][1]:20.1f} {rows[-1][2]:16,}")
    slope = (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0])
    fixed = rows[0][1] - slope * rows[0][0]
    print(f"CPU seconds = {fixed:.4f} + {slope * 1e6:.3f} × million parameters")
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        (less, smaller), (more, larger) = named(Path(few), 10), named(Path(many), NAMED)
    longer, dearer = (larger - smaller) / (NAMED - 10), (more - less) / (NAMED - 10)
    print(
        f"one more silo of eight letters: {longer:.0f} bytes, {1e6 * dearer:.2f} CPU µs a request"
    )
    asked, size = int(SILOS * SHARE), rows[-1][2] + longer * SILOS
    cpu = asked * (fixed + slope * 1e6 + dearer * SILOS)
    print(
        f"{SILOS:,} silos, {SHARE:.0%} a round, 1 M parameters: {asked * size / 1e9:.1f} GB and "
        f"{cpu:.0f} CPU s a round; {asked * size * 8 / 1e9:.0f} s at 1 Gbit/s"
    )


if __name__ == "__main__":
    main()
