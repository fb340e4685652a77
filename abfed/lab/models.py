"""Models of a workspace: listed, approved, exported, verified, by people who may (S8, S9, S10)."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.coordinator.registry import FOLDER as MODELS
from abfed.coordinator.registry import Registration, Registry, Standing
from abfed.lab.approvals import approvals_of, keep_approval
from abfed.lab.coordination import COORDINATOR
from abfed.protocol import tensors
from abfed.protocol.canonical import canonical_bytes, digest, sha256_hex
from abfed.protocol.errors import AbfedError, InputError, WorkspaceError
from abfed.protocol.identity import Presented, as_text
from abfed.silo.models import SHORTEST, Models
from abfed.site.access import Asker
from abfed.site.files import make_private_folder, write_private
from abfed.site.foureyes import Approvals, Question

if TYPE_CHECKING:
    from abfed.lab.offices import Office
    from abfed.lab.runs import Run
    from abfed.lab.workspace import Workspace


def registry_of(workspace: Workspace) -> Registry:
    """The registry, with the model of each finished run in it."""
    registry = Registry(workspace.coordinator, workspace.keys, workspace.audit, workspace.clock)
    known = {one.registration.run for one in registry.standings()}
    for run in workspace.runs():
        if run.name not in known and run.manifest["model"] is not None:
            registry.add(facts_of(run), run.folder)
    return registry


def facts_of(run: Run) -> dict[str, Any]:
    """What a registration says of a run's model."""
    manifest = run.manifest
    last = run.training.to_dict(orient="records")[-1:]
    parts = ("", "_se", "_se_sampling")
    figures = [f"{name}{part}" for name in ("auc", "log_loss") for part in parts]
    return {
        "name": run.plan.name,
        "run": run.name,
        "run_manifest": sha256_hex(canonical_bytes(manifest)),
        "plan": run.plan.canonical_bytes().decode(),
        "asked_by": run.asked_by,
        "digest": manifest["model"]["digest"],
        "releases": manifest["releases"],
        "epochs": manifest["epochs"],
        "epsilon": {
            str(row["silo"]): _finite(row["epsilon_run"])
            for row in run.ledger.to_dict(orient="records")
        },
        "delta": run.plan.privacy.delta,
        "evaluation": {one: _finite(row[one]) for row in last for one in (*figures, "recipients")},
        "versions": manifest["versions"],
        "simulated": manifest["simulated"],
    }


def approve(workspace: Workspace, label: str, *, reason: str) -> Standing:
    """Approve a model to be used, by somebody else than who submitted its plan.

    Raises:
        Refused: nobody is signed in who may, or they submitted it.
    """
    registry = registry_of(workspace)
    model = registry.find(label).registration
    actor = _authorise_approval(workspace, model.asked_by)
    registry.load(model)
    return registry.put(model, "approved", by=actor, reason=reason)


def retire(workspace: Workspace, label: str, *, reason: str) -> Standing:
    """Retire a model: it is kept, and given out no more.

    Raises:
        Refused: nobody is signed in who may.
    """
    registry = registry_of(workspace)
    model = registry.find(label).registration
    actor = workspace.authorise("model.delete", submitter=model.asked_by)
    return registry.put(model, "retired", by=actor, reason=reason)


def countersign(workspace: Workspace, label: str, *, runs: int, days: int) -> Path:
    """Let somebody else take a model out, so often and for so long (four eyes).

    Raises:
        InputError: the coordinator's policy asks for no second person, or for a shorter time.
        Refused: nobody is signed in who may, or they submitted it.
    """
    registry = registry_of(workspace)
    model = registry.find(label).registration
    _authorise_approval(workspace, model.asked_by)
    place = workspace.office().place()
    four_eyes = place.policy.four_eyes
    if not four_eyes.model_export:
        raise InputError("taking a model out needs no second person here", where=place.site)
    if days > four_eyes.days:
        raise InputError(f"an approval lasts at most {four_eyes.days} days", where=place.site)
    session = workspace.session()
    given = session.approve(
        _question(workspace, model), place.site, runs=runs, lasts=timedelta(days=days)
    )
    workspace.audit.append(
        "model.export-approved", model=model.label, registration=model.id, person=session.who
    )
    return keep_approval(workspace.lab, model.id, place.site, given)


def export(workspace: Workspace, label: str, into: Path, *, purpose: str) -> list[Path]:
    """Take a model out: safetensors, and its signed registration beside it.

    In this order:

    1. who is signed in has the right, with a second factor of the last minutes;
    2. the model is approved, not frozen, and whole;
    3. a second person allowed it, where the coordinator's policy says so;
    4. the log says who, which and what for;
    5. the files are written.

    Raises:
        Refused: one of these is not so.
        IntegrityError: the model was changed.
    """
    if not purpose.strip():
        raise InputError("a model leaves for a purpose", do="say it with --purpose")
    if into.exists():
        raise WorkspaceError("there is a file already", where=str(into), do="name another one")
    registry = registry_of(workspace)
    found = registry.find(label).registration
    actor = workspace.authorise("model.export", submitter=found.asked_by)  # 1
    standing, arrays = registry.give(found.label)  # 2; the one that was judged
    model = standing.registration
    approvers = _second_persons(workspace, model)  # 3
    workspace.audit.append(  # 4
        "model.exported",
        model=model.label,
        registration=model.id,
        person=actor,
        approved_by=" ".join(approvers),
        purpose=purpose,
    )
    if not into.parent.exists():
        make_private_folder(into.parent)
    signed = workspace.keys.sign("registration", canonical_bytes(model.model_dump(mode="json")))
    beside = into.with_name(f"{into.name}.registration")
    write_private(into, tensors.pack(arrays))  # 5
    write_private(beside, signed)
    return [into, beside]


def verify(workspace: Workspace, labels: list[str]) -> dict[str, str]:
    """Load models and check all of each; "" for one that holds, else what doesn't."""
    registry = registry_of(workspace)
    wanted = labels or [one.registration.label for one in registry.standings()]
    found: dict[str, str] = {}
    behind = registry.behind()
    for label in wanted:
        model = registry.find(label).registration
        try:
            registry.load(model)
            found[model.label] = behind.get(model.label, "")
        except AbfedError as problem:
            found[model.label] = str(problem)
    workspace.audit.append(
        "models.verified", models=len(found), damaged=sum(bool(why) for why in found.values())
    )
    return found


def damaged_models(office: Office) -> dict[str, str]:
    """What doesn't hold of a site's models: a coordinator's registry, or what a silo keeps."""
    if (office.folder / "ledger.db").exists() or (office.folder / "policy.yaml").exists():
        return Models(office.folder / "models", office.keys).damaged()
    if not (office.folder / MODELS).is_dir():
        return {}
    return Registry(office.folder, office.keys, office.audit, office.clock).damaged()


def made_of(standings: Sequence[Standing], digest: str) -> list[Standing]:
    """Models that a digest is in the history of: as a brand's receipts of erasures name it.

    Args:
        standings: of the registry.
        digest: of a release, a plan, a state of a silo's data or a model itself; its first digits
            do.

    Raises:
        InputError: it is no digest.
    """
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST},64}}", digest):
        raise InputError(
            f"{digest!r:.70} is no digest",
            why=f"one has 64 hexadecimal digits, of which the first {SHORTEST} or more do",
            do="name a release, a plan, a data epoch or a model as the receipt does",
        )
    return [
        one
        for one in standings
        if any(known.startswith(digest) for known in _history(one.registration))
    ]


def _history(model: Registration) -> Iterator[str]:
    """The digests of a model and of all that it came of."""
    yield from (model.digest, model.id, model.run_manifest, model.read_plan().digest)
    yield from model.epochs.values()
    for steps in model.releases.values():
        yield from steps.values()


def lineage(model: Registration) -> dict[str, Any]:
    """From a model to the run, the plan, the releases and the states of the data behind it."""
    plan = model.read_plan()
    return {
        "model": model.label,
        "digest": model.digest,
        "run": model.run,
        "run_manifest": model.run_manifest,
        "plan": {"name": plan.name, "digest": plan.digest, "asked_by": model.asked_by},
        "silos": {
            silo: {"data_epoch": model.epochs[silo], "releases": steps}
            for silo, steps in sorted(model.releases.items())
        },
    }


def _second_persons(workspace: Workspace, model: Registration) -> tuple[str, ...]:
    """Who allowed an export; nobody where the policy asks for nobody.

    Raises:
        Refused: too few did.
    """
    place = workspace.office().place()
    if not place.policy.four_eyes.model_export:
        return ()
    session = workspace.session()
    one_use = as_text(canonical_bytes([model.id, secrets.token_hex(16)]))
    shown = Presented(
        token=session.token,
        submission=one_use,
        approvals=tuple(approvals_of(workspace.lab, model.id)),
    )
    judge = Approvals(workspace.coordinator, workspace.keys)
    return judge.judge(shown, _question(workspace, model), Asker(session.facts), place)


def _question(workspace: Workspace, model: Registration) -> Question:
    """What an approval of an export is bound to: the model, its sealed file, and the policy."""
    policy = workspace.office().place().policy
    return Question(model.id, model.sealed, digest(policy.model_dump(mode="json")))


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def card_facts(standing: Standing) -> Mapping[str, Any]:
    """A model for `--json`: its registration without the plan's text, and its stages."""
    shown = standing.registration.model_dump(mode="json", exclude={"plan"})
    steps = [one.model_dump(mode="json") for one in standing.steps]
    return shown | {
        "model": standing.registration.label,
        "stage": standing.stage,
        "steps": steps,
        "id": standing.registration.id,
    }


def _authorise_approval(workspace: Workspace, asked_by: str) -> str:
    """Who approves; never who asked the plan, nor who made the service account that asked it."""
    name, _, home = asked_by.partition("@")
    asker = workspace.people.register().people.get(name) if home == COORDINATOR else None
    if asker is not None and asker.made_by:
        workspace.authorise("plan.approve", submitter=asker.made_by)
    return workspace.authorise("plan.approve", submitter=asked_by)
