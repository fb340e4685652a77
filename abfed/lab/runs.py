"""A run, opened for reading: verified releases in, tables out. Nothing here can reach a silo.

Opening checks the manifest's signature, the digest of each file it names, and each release's own
signature by the silo whose key the manifest binds. What is shown is computed from releases only,
so it can be computed again at any time, at no cost, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from abfed.coordinator.beside import TIMINGS, read_beside
from abfed.coordinator.inbox import Accepted, Inbox, expected_shapes
from abfed.lab.finished import PINNED, SIGNATURE, Finished, open_finished
from abfed.lab.together import counted, pooled
from abfed.lab.views.cards import Releases
from abfed.lab.views.frames import in_parts, marked
from abfed.lab.waves import earlier_folders
from abfed.learning.evaluation import (
    ScoreHistogram,
    area_under_curve,
    log_loss,
    majority_loss,
    pool,
)
from abfed.privacy.charges import plan_epsilon
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.protocol.plan import Plan
from abfed.site.files import read_private
from abfed.stats.between import differences
from abfed.stats.checklist import checklist
from abfed.stats.checks import sample_ratios
from abfed.stats.effects import DEFAULT_ALPHA, effects
from abfed.stats.once import TOGETHER
from abfed.stats.soundness import balance, dead_cells, novelty, orphans
from abfed.stats.totals import Floats, SiloTotals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTEGRITY = "integrity"
"""The reason for which a silo that can't be believed is left out."""


@dataclass(frozen=True, repr=False)
class Run(Finished):
    """A complete run, with what silos released.

    Attributes:
        releases: verified releases by silo and step.
        found: it was complete before it was asked for again.
        missing: silos that did not answer this time, and why; also those that are in the run.
    """

    releases: Mapping[str, Mapping[str, Accepted]]
    found: bool = False
    missing: Mapping[str, str] | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        coordinator_key: bytes | None = None,
        found: bool = False,
        missing: Mapping[str, str] | None = None,
    ) -> Run:
        """Open and verify a run.

        Args:
            folder: the run's folder.
            coordinator_key: the public key that must have signed it; where none is given, the one
                that the workspace keeps beside its runs.
            found: whether it was complete before it was asked for again.
            missing: silos that did not answer this time, and why.

        Raises:
            WorkspaceError: it isn't a finished run.
            IntegrityError: a byte of it was changed, or another coordinator signed it.
        """
        if coordinator_key is None:
            coordinator_key = _pinned_key(folder)
        one = open_finished(folder, coordinator_key)
        releases = Releases(_verified(folder, one.plan, one.manifest), one.source)
        return cls(folder, one.plan, one.report, one.manifest, releases, found, missing)

    def __repr__(self) -> str:
        """Which run, of what, over whom: one line."""
        steps = max((len(one) for one in self.releases.values()), default=0)
        return f"Run({self.name!r}, silos={self.silos}, steps={steps}, found={self.found})"

    @property
    def silos(self) -> tuple[str, ...]:
        """Silos whose totals are in the run."""
        return tuple(sorted(silo for silo, one in self.releases.items() if "totals" in one))

    @property
    def absent(self) -> dict[str, str]:
        """Silos that aren't in the run and did not answer this time, and why."""
        return {silo: why for silo, why in (self.missing or {}).items() if silo not in self.silos}

    @property
    def unheard(self) -> dict[str, str]:
        """Silos that did not answer this time, and why; what they released is in the run."""
        return {silo: why for silo, why in (self.missing or {}).items() if silo in self.silos}

    @property
    def damaged(self) -> dict[str, str]:
        """Silos of which something did not hold this time, and what; nobody may miss that."""
        now = {s: why for s, why in (self.missing or {}).items() if why.startswith(INTEGRITY)}
        if not self.found:
            rows = self.left_out[self.left_out["reason"] == INTEGRITY]
            now |= dict(zip(rows["silo"], rows["why"], strict=True))
        return now

    @functools.cached_property
    def totals(self) -> dict[str, SiloTotals]:
        """Noised totals by silo; under one name where noise was added once, to all together."""
        if self.plan.noise_once:
            return {TOGETHER: pooled(self)}
        return {
            silo: SiloTotals.of(
                self.plan,
                steps["totals"].arrays["totals"],
                steps["totals"].release.noise["noise_multiplier"],
            )
            for silo, steps in self.releases.items()
        }

    def counts(self, silo: str) -> tuple[Floats, float]:
        """A silo's noised recipients by arm, and the noise sd of each."""
        return counted(self, silo) if self.plan.noise_once else self.totals[silo].counts()

    @property
    def effects(self) -> pd.DataFrame:
        """All effects: one row for metric × scope × arm (see `stats.effects.effects`)."""
        return self.effects_at(DEFAULT_ALPHA)

    def effects_at(self, alpha: float) -> pd.DataFrame:
        """The same at another level; read once for each, as a page asks for them many times."""
        if alpha not in self._by_level:
            before = [one.totals for one in self.earlier]
            table = effects(self.plan, self.totals, alpha=alpha, earlier=before)
            self._by_level[alpha] = marked(table, self.source)
        return self._by_level[alpha]

    @functools.cached_property
    def _by_level(self) -> dict[float, pd.DataFrame]:
        """What `effects_at` has read."""
        return {}

    @property
    def segments(self) -> pd.DataFrame:
        """Effects in each cell of the plan's segmentations: the rows of `effects` that have one."""
        frame = self.effects
        return marked(frame[frame["segment"] != ""].reset_index(drop=True), self.source)

    @functools.cached_property
    def heterogeneity(self) -> pd.DataFrame:
        """How much effects differ between brands, and between a segmentation's cells.

        Cochran's Q, I² and τ by metric × arm (see `stats.between.differences`). They follow from
        estimates and their errors, which are the same at each level: whichever was read will do.
        """
        read = next(iter(self._by_level.values()), None)
        frame = self.effects if read is None else read
        return marked(differences(self.plan, frame), self.source)

    @functools.cached_property
    def checks(self) -> pd.DataFrame:
        """Every check, each with what it found in a sentence (see `stats.checklist`)."""
        return marked(checklist(self.plan, self.waves), self.source)

    @functools.cached_property
    def earlier(self) -> tuple[Run, ...]:
        """Runs of the waves before this one, first wave first; none where the plan has no waves."""
        return tuple(Run.open(one) for one in earlier_folders(self.folder, self.plan))

    @functools.cached_property
    def waves(self) -> list[dict[str, SiloTotals]]:
        """Noised totals of each wave so far, by silo; one where the plan has no waves."""
        return [*(one.totals for one in self.earlier), self.totals]

    @functools.cached_property
    def balance(self) -> pd.DataFrame:
        """Whether arms are alike in what was known before the send (`stats.soundness`)."""
        return marked(balance(self.plan, self.totals), self.source)

    @functools.cached_property
    def orphans(self) -> pd.DataFrame:
        """Recipients with a click on a send that wasn't opened, by arm."""
        return marked(orphans(self.plan, self.totals), self.source)

    @functools.cached_property
    def dead_cells(self) -> pd.DataFrame:
        """Arms of a brand or segment in which a metric is all zero, or doesn't vary."""
        return marked(dead_cells(self.plan, self.totals), self.source)

    @functools.cached_property
    def novelty(self) -> pd.DataFrame:
        """Whether effects (novelty) or the control (drift) change from wave to wave."""
        return marked(novelty(self.plan, self.waves), self.source)

    @functools.cached_property
    def sample_ratios(self) -> pd.DataFrame:
        """The sample-ratio test in each brand and in all together."""
        arms = [arm.name for arm in self.plan.arms]
        return marked(sample_ratios(self.plan, self.totals), self.source, counts=arms)

    @functools.cached_property
    def training(self) -> pd.DataFrame:
        """Training by round, from noised histograms on recipients held out.

        Returns:
            One row for each model that was evaluated: model (rounds behind it), silos, recipients
            (noised), auc and log_loss with their parts (`frames.in_parts`), and the log-loss of
            everybody's mean chance (majority_log_loss). Missing where noise drowns a figure; empty
            where the plan has no model.
        """
        steps = [*{s for one in self.releases.values() for s in one if is_scored(s)}]
        rows: list[dict[str, Any]] = []
        for step in sorted(steps, key=lambda s: (s == "evaluate", s)):
            parts = [
                ScoreHistogram.of_release(one[step].arrays["histogram"], one[step].release.noise)
                for one in self.releases.values()
                if step in one
            ]
            scores = pool(parts)
            rounds, majority = len(rows), majority_loss(scores)
            rows.append(
                {
                    "model": rounds,
                    "silos": len(parts),
                    "recipients": float(scores.counts.sum()),
                    "majority_log_loss": majority.value if majority else np.nan,
                }
                | in_parts("auc", area_under_curve(scores))
                | in_parts("log_loss", log_loss(scores))
            )
        return marked(pd.DataFrame(rows), self.source)

    @functools.cached_property
    def ledger(self) -> pd.DataFrame:
        """What the run cost each silo's recipients, and what its budget looked like afterwards.

        Returns:
            One row a silo that may have charged something: silo, epsilon_run (PLD at delta, of all
            that it charged: the whole plan, from the first step on, whether its releases arrived
            or not), delta, budget_delta, epsilon_spent and epsilon_total (of the silo's Rényi
            filter over all plans) and epsilon_left; the last four are missing where the silo's
            policy doesn't show them, or nothing of it arrived.
        """
        rows = []
        first = self.plan.first_step
        left_out = self.manifest["left_out"].get(first, {})
        for silo in self.plan.silos:
            steps = self.releases.get(silo)
            if steps is None and _charged_nothing(**left_out.get(silo, {})):
                continue
            budget = steps[first].release.budget if steps else None
            rows.append(
                {
                    "silo": silo,
                    "epsilon_run": plan_epsilon(self.plan),
                    "delta": self.plan.privacy.delta,
                    "budget_delta": budget.delta if budget else np.nan,
                    "epsilon_spent": budget.epsilon_spent if budget else np.nan,
                    "epsilon_total": budget.epsilon_total if budget else np.nan,
                    "epsilon_left": (
                        max(0.0, budget.epsilon_total - budget.epsilon_spent) if budget else np.nan
                    ),
                }
            )
        return marked(pd.DataFrame(rows), self.source)

    @functools.cached_property
    def left_out(self) -> pd.DataFrame:
        """Silos that were left out of a step, and why: step, silo, reason, why."""
        rows = [
            {"step": step, "silo": silo, **why}
            for step, silos in self.manifest["left_out"].items()
            for silo, why in silos.items()
        ]
        frame = pd.DataFrame(rows, columns=["step", "silo", "reason", "why"])
        return marked(frame, self.source)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each step when the run was carried out, as the coordinator signed them.

        Raises:
            IntegrityError: they were changed.
        """
        key = bytes.fromhex(self.manifest["coordinator"])
        found: dict[str, float] = read_beside(self.folder / TIMINGS, key) or {}
        return found

    def plot_effects(self, metric: str | None = None) -> Figure:
        """A forest plot over brands and arms (of the primary metric where none is named)."""
        from abfed.lab.views.display import plot_effects

        return plot_effects(self, metric or self.plan.primary)

    def _repr_html_(self) -> str:
        """How it shows in a notebook."""
        from abfed.lab.views.display import run_card

        return run_card(self)


def is_scored(step: str) -> bool:
    """Whether a step's release holds a histogram of scores on people kept for evaluation."""
    return step == "evaluate" or step.startswith("train-")


def _pinned_key(folder: Path) -> bytes:
    """The public key beside the runs of a workspace."""
    file = folder.resolve().parent / PINNED
    if not (file.exists() or (folder / SIGNATURE).exists()):
        raise WorkspaceError(
            "it isn't the folder of a run", where=str(folder),
            do="name one below a workspace's runs/, or type `abfed report RUN`",
        )  # fmt: skip
    try:
        return bytes.fromhex(read_private(file).decode())
    except ValueError as cause:
        raise IntegrityError("is not a public key in hex", where=str(file)) from cause


def _verified(
    folder: Path, plan: Plan, manifest: Mapping[str, Any]
) -> dict[str, dict[str, Accepted]]:
    """Each release that the manifest names, its own signature and shape checked again."""
    keys = {silo: bytes.fromhex(key) for silo, key in manifest["public_keys"].items()}
    inbox = Inbox(keys, plan, lambda step: expected_shapes(plan, step))
    inbox.bind(manifest["epochs"])
    incoming = _incoming(folder, bytes.fromhex(manifest["coordinator"]))
    found: dict[str, dict[str, Accepted]] = {}
    for silo, steps in sorted(manifest["releases"].items()):
        for step in sorted(steps):
            path = folder / "releases" / silo / f"{step}.release"
            outcome = inbox.accept(silo, step, incoming[step], path.read_bytes())
            if not isinstance(outcome, Accepted):
                raise IntegrityError("is a refusal, not a release", where=str(path))
            found.setdefault(silo, {})[step] = outcome
    return found


def _incoming(folder: Path, public_key: bytes) -> dict[str, str]:
    """The digest of the model that was sent in each step, from the journal that was signed."""
    from abfed.coordinator.journal import read_journal

    bodies = read_journal(folder / "journal.jsonl", public_key).bodies
    return {body["step"]: body["incoming"] for body in bodies if body.get("event") == "step"}


def _charged_nothing(reason: str = "absent", why: str = "") -> bool:
    """Whether a silo without totals surely charged nothing: it was not asked, or said no before.

    Where an answer was lost, withheld, or failed while it was computed, the charge stands.
    """
    if reason == "refused":
        return why.split(":", maxsplit=1)[0] not in {"too-few", "failed", "damaged"}
    not_asked = {("absent", "not connected"), ("frozen", "not asked")}
    return reason == "not-in-run" or (reason, why) in not_asked
