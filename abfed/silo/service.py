"""The silo service: bytes in, bytes out. The one process that owns a brand's rows and keys.

It carries a request from the gate to what computes on rows, and back to the gate. Whatever the
bytes are, the answer is a signed release or a signed refusal; no text of an exception leaves.
"""

from __future__ import annotations

import threading
import warnings
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from abfed.privacy.charges import plan_charges
from abfed.privacy.once import role_of
from abfed.protocol.errors import InputError, IntegrityError, Refused, WorkspaceError
from abfed.protocol.plan import Plan
from abfed.silo import evaluation, intakes, prepared, totals, training
from abfed.silo.access import Access
from abfed.silo.barred import barred
from abfed.silo.budgets import Forecast, Standing
from abfed.silo.checkpoints import RoundCheckpoint
from abfed.silo.feature_cache import CacheFolder, CacheName
from abfed.silo.gate import Answered, Gate
from abfed.silo.ledger import Ledger
from abfed.silo.manifest import MANIFEST
from abfed.silo.models import KeptModel, Models
from abfed.silo.permit import Computed, Holdings, Permit
from abfed.silo.policy import Policy
from abfed.silo.releases import Releases
from abfed.silo.retention import GRACE, cutoff_of, late_by, log_if_unlogged, purge
from abfed.silo.scoring import Scored, Scorer, Wanted
from abfed.silo.store import Store
from abfed.silo.together import Party, count_arms
from abfed.site.access import Place
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, system_clock
from abfed.site.disk import named
from abfed.site.files import check_private, make_private_folder, write_private
from abfed.site.keys import SiteKeys
from abfed.site.rotation import destroy_due

MAX_REQUEST = 1 << 30  # bytes


class SiloPaths(NamedTuple):
    """Where things lie in a silo's folder."""

    folder: Path

    @property
    def keys(self) -> Path:
        """Keys of the site."""
        return self.folder / "keys"

    @property
    def policy(self) -> Path:
        """What the silo allows."""
        return self.folder / "policy.yaml"

    @property
    def store(self) -> Path:
        """Encrypted rows."""
        return self.folder / "store"

    @property
    def ledger(self) -> Path:
        """What was charged."""
        return self.folder / "ledger.db"

    @property
    def releases(self) -> Path:
        """What was released."""
        return self.folder / "releases"

    @property
    def audit(self) -> Path:
        """What happened."""
        return self.folder / "audit.jsonl"


class SiloService:
    """A silo, opened.

    Args:
        folder: the silo's site folder, mode 0700.
        clock: where the time comes from.

    Raises:
        WorkspaceError: it isn't a silo.
        IntegrityError: a file is open to others, or damaged.
    """

    def __init__(self, folder: Path, clock: Clock = system_clock) -> None:
        check_private(folder)
        self.paths = SiloPaths(folder)
        self.clock = clock
        self.keys = SiteKeys.open(self.paths.keys)
        self.audit = AuditLog(self.paths.audit, self.keys, clock)
        destroy_due(self.paths.keys, self.keys.ring_marker, self.audit.append, clock)
        check_there(self.paths)  # a lost ledger is never begun anew: it is the budget
        self.store = Store.open(self.paths.store, self.keys)
        self.ledger = Ledger(self.paths.ledger, self.keys, clock)
        check_not_restored(self.ledger, self.audit)
        self._gate = Gate(
            self.keys,
            self.paths.policy,
            ledger=self.ledger,
            releases=Releases(self.paths.releases, self.keys),
            audit=self.audit,
            clock=clock,
        )
        self.models = Models(folder / "models", self.keys)
        self._caches = CacheFolder(self.paths.store, self.keys)
        self._lock = threading.Lock()
        self._prepared: tuple[CacheName, prepared.PreparedRows] | None = None

    @classmethod
    def create(
        cls, folder: Path, policy_text: str, *, site: str, clock: Clock = system_clock
    ) -> SiloService:
        """Found a silo: keys, an empty encrypted store, an empty ledger and its policy.

        Args:
            folder: a folder that doesn't exist yet, or is empty.
            policy_text: the policy as YAML, kept as it is given; validated first.
            site: the silo's name.
            clock: where the time comes from.

        Raises:
            WorkspaceError: the folder is not empty.
            InputError: the policy is malformed.
        """
        if folder.exists() and any(folder.iterdir()):
            raise WorkspaceError("the folder is not empty", where=str(folder))
        Policy.parse(policy_text.encode(), where="policy")
        make_private_folder(folder)
        paths = SiloPaths(folder)
        keys = SiteKeys.create(paths.keys, site=site, clock=clock)
        Store.create(paths.store, keys)
        Ledger(paths.ledger, keys, clock).close()
        write_private(paths.policy, policy_text.encode())
        AuditLog(paths.audit, keys, clock).append("silo.created", site=site, key=keys.key_id)
        return cls(folder, clock)

    def close(self) -> None:
        """Let go of rows in memory and of the ledger."""
        self._let_go()
        self.ledger.close()

    def policy(self) -> Policy:
        """The policy as it is now."""
        return Policy.load(self.paths.policy)

    def place(self) -> Place:
        """This silo, as it judges people now."""
        return Access(self.keys, self.paths.folder, self.clock).place(self.policy().access)

    def holdings(self) -> Holdings:
        """What the silo holds, in declared names."""
        facts = self.store.describe()
        return Holdings(
            epoch=facts.epoch,
            experiments=facts.experiments,
            outcomes=facts.outcomes,
            features=facts.features,
            erasures=facts.erasures,
        )

    def standing(self) -> tuple[Standing, ...]:
        """How each of the silo's budgets stands. For the silo's own people."""
        return self.ledger.standing(self.policy().budgets)

    def forecast(self, plan: Plan) -> tuple[Forecast, ...]:
        """What a plan would do to each budget that it answers to. Charges and writes nothing.

        Returns:
            One a budget; none where the plan is charged already on the data as they are.
        """
        holdings = self.holdings()
        return self.ledger.forecast(
            plan_digest=plan.digest,
            purpose=plan.purpose,
            epoch=holdings.epoch,
            steps=plan_charges(plan),
            budgets=self.policy().budgets,
            erasures=holdings.erasures,
        )

    def return_unused(self, plan: Plan) -> tuple[str, ...]:
        """Give back the charge of a plan's steps that nothing was ever released for.

        Raises:
            Refused: the plan isn't charged on the data as they are.
        """
        with self._lock:
            steps = self.ledger.return_unused(
                plan_digest=plan.digest, epoch=self.store.epoch, steps=plan_charges(plan)
            )
            if steps:
                self.audit.append(
                    "budget.returned", plan=plan.digest, steps=len(steps), ledger=self.ledger.head
                )
            return steps

    def purge(self, *, later_than: timedelta = timedelta()) -> bool:
        """Remove sends past the policy's retention, where that is later than so much.

        Returns:
            Whether it was due; also where no send was that old.
        """
        try:
            days = self.policy().retention_days
        except InputError:
            return False  # without a policy nothing is read either
        if not later_than:  # at the schedule's own time, and not with each request
            self.store.refresh()
            intakes.log_if_unlogged(self.store, self.audit)
            log_if_unlogged(self.store, self.audit)
        if days is None or late_by(self.store, days, now := self.clock()) <= later_than:
            return False
        purge(self.store, self.paths.store, self.keys, self.audit, cutoff_of(days, now))
        return True

    def answer(self, envelope: bytes) -> bytes:
        """Answer a request: a release or a refusal, in an envelope.

        Raises:
            IntegrityError: the silo itself is damaged so far that it can't even log a refusal.
        """
        with self._lock, np.errstate(all="ignore"), warnings.catch_warnings():
            # A library's warning on the terminal would tell of rows, without noise.
            warnings.simplefilter("ignore")
            try:
                return self._answer(envelope)
            except Refused as refused:
                return self._gate.refuse(refused, envelope)
            except Exception as failure:  # noqa: BLE001 - the wall: nothing of it may leave
                return self._failed(failure, envelope)

    def _answer(self, envelope: bytes) -> bytes:
        if len(envelope) > MAX_REQUEST:
            raise Refused("the request is too large", code="untrusted")
        self.store.refresh()
        self.purge(later_than=GRACE)
        admitted = self._gate.admit(envelope, self.holdings(), self.store.verify)
        if isinstance(admitted, Answered):
            return admitted.envelope
        computed = self._compute(admitted)
        self.store.refresh()
        if self.store.epoch != admitted.epoch:
            raise Refused("the data changed while it was computed on", code="failed")
        if admitted.step == "evaluate":
            self._keep(admitted, computed)
        released = self._gate.release(admitted, computed)
        self._checkpoint(admitted).drop()
        return released

    def _compute(self, permit: Permit) -> Computed:
        if permit.plan.noise_once and role_of(permit.step):
            return self._compute_once(permit)
        if permit.step == "totals":
            rows = self.store.read(permit, totals.columns_needed(permit.plan))
            return totals.compute_totals(permit, rows)
        kept = self._rows(permit)
        if permit.step == "evaluate":
            computed = evaluation.compute_evaluation(permit, kept)
            self._drop_rows(permit)
            return computed
        return training.compute_training(permit, kept, self._checkpoint(permit))

    def _compute_once(self, permit: Permit) -> Computed:
        """A step of a plan whose noise is added once, to the sum of all silos."""
        party = Party(permit, self.keys)
        if permit.step == "keys":
            return party.announce(count_arms(permit, self.store.read(permit, ())))
        if permit.step == "totals":
            rows = self.store.read(permit, totals.columns_needed(permit.plan))
            return party.mask(totals.compute_totals(permit, rows, party.weights()))
        steps = {
            "keys": party.announce,
            "shares": party.share_out,
            "masked": lambda: party.mask(training.compute_summed(permit, self._rows(permit))),
            "answered": party.confirm,
            "opening": party.open,
        }
        return steps[role_of(permit.step)]()

    def _rows(self, permit: Permit) -> prepared.PreparedRows:
        """The rows of a plan's training, kept from round to round."""
        wanted = prepared.cache_name(permit, "training")  # also by whose rows are lawful now
        if self._prepared is None or self._prepared[0] != wanted:
            self._let_go()
            kept = prepared.reopen(permit, self._caches)
            if kept is None:
                rows = self.store.read(permit, prepared.columns_needed(permit.plan))
                kept = prepared.prepare(permit, rows, self._caches)
            self._prepared = (wanted, kept)
        return self._prepared[1]

    def _keep(self, permit: Permit, computed: Computed) -> None:
        """Keep the final model here, for the silo's own people."""
        fitted = evaluation.correction_of(computed)
        self.models.keep(KeptModel(permit.plan, permit.incoming, permit.person, fitted))

    def score(
        self, model: KeptModel, wanted: Wanted, *, purpose: str, person: str, personal: bool
    ) -> Scored:
        """Score a list of the brand's own with a kept model; nothing of it leaves.

        Args:
            model: of `models`.
            wanted: the list.
            purpose: what for, as the policy names it; logged.
            person: who asks; their right to was judged before.
            personal: fit the model's last layer to this brand first, in memory only.

        Raises:
            Refused: a freeze or the policy says no.
            DataError: the list can't be read, or nobody in it may be scored.
        """
        with self._lock:
            self.store.refresh()
            self.purge(later_than=GRACE)
            permit = self._gate.admit_own(model, purpose, self.store.epoch, person)
            scorer = Scorer(permit, model, self.keys, barred(self.paths.store, self.keys))
            if personal:
                self._let_go()
                try:
                    scorer.personalise(self._rows(permit))
                finally:
                    self._drop_rows(permit)
            return scorer.score(wanted)

    def changed_meanwhile(self) -> bool:
        """Whether what the store holds, or whom it bars, changed since it was last looked at."""
        before = self.store.describe().generation
        self.store.refresh()
        return self.store.describe().generation != before

    def _checkpoint(self, permit: Permit) -> RoundCheckpoint:
        return RoundCheckpoint(self.paths.store, self.keys, permit)

    def _let_go(self) -> None:
        """Forget rows in memory, and close those on disk."""
        if self._prepared is not None:
            self._prepared[1].close()
            self._prepared = None

    def _drop_rows(self, permit: Permit) -> None:
        """Let a plan's rows go, in memory and on disk."""
        self._let_go()
        for side in prepared.SIDES:
            self._caches.drop(prepared.cache_name(permit, side))

    def _failed(self, failure: Exception, envelope: bytes) -> bytes:
        """Log what kind of thing went wrong, by name and place only; say no."""
        code = "damaged" if isinstance(failure, IntegrityError) else "failed"
        self.audit.append("request.failed", **named(failure))
        return self._gate.refuse(Refused("could not be computed", code=code), envelope)


def check_there(paths: SiloPaths) -> None:
    """Refuse a silo that has lost one of its parts; it had all of them when it was founded.

    Raises:
        IntegrityError: one is missing, or open to others.
    """
    for part in (paths.policy, paths.store, paths.store / MANIFEST, paths.ledger, paths.audit):
        try:
            check_private(part)
        except WorkspaceError as cause:
            raise IntegrityError(
                "is missing, and a silo can't be without it",
                where=str(part),
                do="restore it from the newest backup, or find out who removed it",
            ) from cause


def check_not_restored(ledger: Ledger, audit: AuditLog) -> None:
    """Refuse a ledger that is older than what the audit log saw: its charges would be forgotten.

    Raises:
        IntegrityError: it was put back from a backup, or cut.
    """
    anchored = audit.last("ledger")
    if isinstance(anchored, str) and not ledger.knows(anchored):
        ledger.close()
        raise IntegrityError(
            "the ledger is older than the audit log",
            where="ledger.db",
            why="it was restored from a backup or cut, so charges are missing",
            do="restore the newest ledger; without it this silo can't know what it spent",
        )
