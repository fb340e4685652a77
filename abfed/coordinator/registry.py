"""The registry of models: versions, stages, and where each model came from (S8, S9, S10).

```
models/<name>/<version>/model.sealed       safetensors, sealed under a key of its own (see `vault`)
models/<name>/<version>/registration.sig   what it is, signed once and never changed
models/stages.sealed                       which stage each is in, by whom, since when and why
```
Rules:

1. A registration binds the model to its run, plan, releases, ε, states of the data and versions of
   what computed it. It stands for the model: approvals and stages are about its digest.
2. A version is never written again. A model that comes of the same run is the same version.
3. A model is loaded in one way, `load`, which checks: it isn't frozen; the signature of its
   registration; the sealed file's digest; then what `Vault.open` checks; then that the plain model
   has the digest that the run's manifest named. Whoever gives it out asks for its stage too.
4. Stages go forward only: candidate, approved, retired. Each step is in the log before it counts,
   and a list of stages that is behind the log is an old one that was put back: nothing is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy.typing as npt
from pydantic import Field

from abfed.coordinator.vault import Vault, model_digest
from abfed.learning.shapes import MODEL, names_of, parameter_shapes, prefixed
from abfed.protocol.canonical import canonical_bytes, parse_canonical, sha256_hex
from abfed.protocol.declared import parse_record
from abfed.protocol.envelope import open_envelope
from abfed.protocol.errors import InputError, IntegrityError, Refused, WorkspaceError
from abfed.protocol.identity import At, Hex64
from abfed.protocol.plan import Plan
from abfed.protocol.schema import FiniteFloat, Frozen, Name
from abfed.site.audit import AuditLog
from abfed.site.clock import Clock, stamp, system_clock
from abfed.site.files import flush_folder, make_private_folder, read_private, write_private
from abfed.site.freezes import Freezes
from abfed.site.keys import SiteKeys
from abfed.site.sealedfile import SealedFile

Stage = Literal["candidate", "approved", "retired"]
ORDER: tuple[Stage, ...] = ("candidate", "approved", "retired")
FOLDER = "models"
MODEL_FILE = "model.sealed"
REGISTRATION_FILE = "registration.sig"
STAGES_FILE = "stages.sealed"


class Registration(Frozen):
    """What a model is and where it came from.

    Attributes:
        name: the plan's name.
        version: 1 for the first of that name.
        run: the run that made it, with the digest of the run's signed manifest.
        plan: the plan as canonical JSON.
        asked_by: who submitted it.
        digest: SHA-256 of the packed parameters.
        sealed: SHA-256 of the sealed file.
        releases: digest of each release that it was made of, by silo and step.
        epochs: the state of each silo's data.
        epsilon: what the run cost each silo's recipients at `delta`.
        evaluation: AUC and log loss, standard errors and chance's part, from noised histograms.
        versions: of what computed it.
        simulated: its noise was seeded.
    """

    version: Annotated[int, Field(ge=1)]
    name: Name
    run: str
    run_manifest: Hex64
    plan: str
    asked_by: str
    digest: Hex64
    sealed: Hex64
    releases: dict[Name, dict[str, Hex64]]
    epochs: dict[Name, str]
    epsilon: dict[Name, FiniteFloat | None]
    delta: FiniteFloat
    evaluation: dict[str, FiniteFloat | None]
    versions: dict[str, str]
    simulated: bool
    registered_at: At

    @property
    def label(self) -> str:
        """How people write it: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def id(self) -> str:
        """The digest that approvals and stages are about."""
        return sha256_hex(canonical_bytes(self.model_dump(mode="json")))

    def read_plan(self) -> Plan:
        """The plan."""
        return Plan.from_canonical(self.plan.encode(), where=self.label)


class Step(Frozen):
    """A stage that a model was put into."""

    stage: Stage
    at: At
    by: str
    reason: str


class Standing(NamedTuple):
    """A model, and the stages that it went through, the last one counting."""

    registration: Registration
    steps: tuple[Step, ...]

    @property
    def stage(self) -> Stage:
        """Which stage it is in."""
        return self.steps[-1].stage if self.steps else "candidate"


class Registry:
    """The models of a coordinator.

    Args:
        site: the coordinator's site folder.
        keys: its keys.
        audit: its log.
        clock: where the time comes from.
    """

    def __init__(
        self, site: Path, keys: SiteKeys, audit: AuditLog, clock: Clock = system_clock
    ) -> None:
        self._folder = site / FOLDER
        self._keys = keys
        self._audit = audit
        self._clock = clock
        self._vault = Vault(keys)
        self._freezes = Freezes(site, keys, clock)
        make_private_folder(self._folder)
        self._stages = SealedFile(self._folder / STAGES_FILE, keys, "model-stages")

    def add(self, facts: Mapping[str, Any], run_folder: Path) -> Registration:
        """Register the model of a finished run, or find it.

        Args:
            facts: the fields of a registration but version, sealed digest and time.
            run_folder: where its `model.sealed` lies.

        Raises:
            IntegrityError: the run's model isn't the one that its manifest named.
        """
        with self._stages.alone():
            known = [
                one.registration for one in self._all() if one.registration.run == facts["run"]
            ]
            if known:
                return known[0]
            plan = Plan.from_canonical(str(facts["plan"]).encode(), where=str(facts["run"]))
            model = self._vault.open(
                read_private(run_folder / MODEL_FILE),
                parameter_shapes(plan),
                name=str(facts["run"]),
                version="final",
            )
            _check_digest(model, str(facts["digest"]), str(facts["run"]))
            version = 1 + len(self._versions(plan.name))
            sealed = self._vault.seal(model, name=plan.name, version=str(version))
            values = {
                **facts,
                "version": version,
                "sealed": sha256_hex(sealed),
                "registered_at": stamp(self._clock()),
            }
            made = parse_record(Registration, values, where="registration")
            self._audit.append(
                "model.registered", model=made.label, run=made.run, registration=made.id
            )
            aside = self._folder / made.name / f".{version}.new"
            make_private_folder(aside)
            write_private(aside / MODEL_FILE, sealed)
            content = canonical_bytes(made.model_dump(mode="json"))
            write_private(aside / REGISTRATION_FILE, self._keys.sign("registration", content))
            aside.rename(aside.with_name(str(version)))
            flush_folder(aside.parent)
            return made

    def standings(self) -> list[Standing]:
        """All models with their stages, by name and version.

        Raises:
            IntegrityError: a registration or the list of stages was changed.
        """
        return self._all()

    def find(self, label: str) -> Standing:
        """A model by NAME@VERSION, or the newest of a NAME.

        Raises:
            WorkspaceError: there is none.
        """
        name, _, version = label.partition("@")
        found = [
            one
            for one in self._all()
            if one.registration.name == name and version in ("", str(one.registration.version))
        ]
        if not found:
            known = ", ".join(one.registration.label for one in self._all()) or "none"
            raise WorkspaceError(
                f"there is no model {label!r}", where=FOLDER, why=f"there are: {known}",
                do="see `abfed model list`",
            )  # fmt: skip
        return found[-1]

    def put(self, model: Registration, stage: Stage, *, by: str, reason: str) -> Standing:
        """Put a model into its next stage.

        Raises:
            InputError: it is in that stage, or past it.
        """
        with self._stages.alone():
            standing = self.find(model.label)
            if ORDER.index(stage) <= ORDER.index(standing.stage):
                raise InputError(f"{model.label} is {standing.stage} already")
            step = Step(stage=stage, at=stamp(self._clock()), by=by, reason=reason)
            self._audit.append(
                f"model.{stage}", model=model.label, registration=model.id, person=by
            )
            kept = {one.id: steps for one, steps in self._all()}
            kept[model.id] = (*standing.steps, step)
            self._stages.write(
                {key: [one.model_dump(mode="json") for one in steps] for key, steps in kept.items()}
            )
            return Standing(model, kept[model.id])

    def load(self, model: Registration) -> dict[str, npt.NDArray[Any]]:
        """A model's parameters, every check of rule 3 passed.

        Raises:
            Refused: it is frozen.
            IntegrityError: anything of it was changed, or its file is gone.
        """
        self._freezes.check({"model": model.digest})
        opened = self._opened(model)
        self._freezes.check({"model": names_of(prefixed(MODEL, opened))[1]})  # as silos name it
        return opened

    def damaged(self) -> dict[str, str]:
        """What doesn't hold, by model: for looking over all of them, frozen ones too.

        A model that the log says was registered and that isn't there is damaged as well.
        """
        try:
            every = [one.registration for one in self._all()]
        except IntegrityError as error:
            return {FOLDER: str(error)}
        found: dict[str, str] = {}
        for model in every:
            try:
                self._opened(model)
            except IntegrityError as error:
                found[model.label] = str(error)
        for label, why in self.behind().items():
            found.setdefault(label, why)
        there = {(one.label, one.run) for one in every}
        for entry in self._audit.entries():
            facts = entry["body"]["facts"]
            if entry["body"]["event"] != "model.registered":
                continue
            if (facts["model"], facts["run"]) not in there:
                day = entry["body"]["at"][:10]
                found[facts["model"]] = f"it was registered on {day}, and is gone"
        return found

    def _opened(self, model: Registration) -> dict[str, npt.NDArray[Any]]:
        """A model's parameters, every check of rule 3 passed but whether it is frozen."""
        registered = self._read(self._folder / model.name / str(model.version))
        if registered != model:
            raise IntegrityError("it is another model", where=model.label)
        path = self._folder / model.name / str(model.version) / MODEL_FILE
        try:
            sealed = read_private(path)
        except WorkspaceError as cause:
            raise IntegrityError("its sealed file is gone", where=model.label) from cause
        if sha256_hex(sealed) != model.sealed:
            raise IntegrityError("its sealed file was changed", where=str(path))
        opened = self._vault.open(
            sealed,
            parameter_shapes(model.read_plan()),
            name=model.name,
            version=str(model.version),
        )
        _check_digest(opened, model.digest, model.label)
        return opened

    def give(self, label: str) -> tuple[Standing, dict[str, npt.NDArray[Any]]]:
        """A model to be used outside: approved, not frozen, and whole.

        Raises:
            Refused: it isn't approved, or is frozen.
            IntegrityError: it isn't whole, or the log knows of a later stage.
        """
        standing = self.find(label)
        if standing.stage != "approved":
            model = standing.registration.label
            approve = f"let another than its submitter `abfed model approve {model} --reason …`"
            raise Refused(
                f"{model} is {standing.stage}",
                code="approval",
                why="only an approved model is given out, and what was retired stays so",
                do=approve if standing.stage == "candidate" else "train it anew",
            )
        label = standing.registration.label
        if why := self.behind().get(label):
            raise IntegrityError(
                why,
                where=label,
                do="find out who put the list back; if a step was cut off, `abfed model retire` "
                "takes it again",
            )
        return standing, self.load(standing.registration)

    def behind(self) -> dict[str, str]:
        """Models whose stage is behind what the log says, and what it says."""
        standing = {one.registration.id: one for one in self._all()}
        found: dict[str, str] = {}
        for entry in self._audit.entries():
            stage = entry["body"]["event"].removeprefix("model.")
            one = standing.get(entry["body"]["facts"].get("registration", ""))
            if one is None or stage not in ORDER or ORDER.index(stage) <= ORDER.index(one.stage):
                continue
            found[one.registration.label] = (
                f"it is {one.stage} in the list of stages, and {stage} since "
                f"{entry['body']['at'][:10]} by the log"
            )
        return found

    def _all(self) -> list[Standing]:
        values = self._stages.read() or {}
        try:
            steps = {
                key: tuple(parse_record(Step, one, where=STAGES_FILE) for one in given)
                for key, given in values.items()
            }
        except (InputError, TypeError, AttributeError) as cause:
            raise IntegrityError("is not a list of stages", where=STAGES_FILE) from cause
        found = [
            self._read(folder)
            for name in sorted(self._folder.iterdir())
            if name.is_dir()
            for folder in self._versions(name.name)
        ]
        unknown = set(steps) - {one.id for one in found}
        if unknown:
            raise IntegrityError(
                f"{len(unknown)} models that had a stage are gone, or were registered anew",
                where=FOLDER,
            )
        return [Standing(one, steps.get(one.id, ())) for one in found]

    def _versions(self, name: str) -> list[Path]:
        """Folders of a model's versions, first to last."""
        found = (self._folder / name).glob("*")  # none where there is no such folder
        return sorted((one for one in found if _is_number(one.name)), key=_number)

    def _read(self, folder: Path) -> Registration:
        where = f"{folder.parent.name}/{folder.name}/{REGISTRATION_FILE}"
        trusted = {self._keys.key_id: self._keys.public_key}
        try:
            signed = read_private(folder / REGISTRATION_FILE)
        except WorkspaceError as cause:
            raise IntegrityError("is missing", where=where) from cause
        content = open_envelope(signed, trusted, kind="registration", where=where).content
        try:
            found = parse_record(Registration, parse_canonical(content, where=where), where=where)
        except InputError as cause:
            raise IntegrityError("not a registration of a model", where=where) from cause
        if (found.name, str(found.version)) != (folder.parent.name, folder.name):
            raise IntegrityError("it is another model's", where=where)
        return found


def _is_number(name: str) -> bool:
    """Whether a folder can be a version's: 1, 2, … as we write them."""
    return name.isascii() and name.isdecimal()


def _number(folder: Path) -> int:
    return int(folder.name)


def _check_digest(model: Mapping[str, npt.NDArray[Any]], digest: str, where: str) -> None:
    if model_digest(model) != digest:
        raise IntegrityError("it is not the model that the run's manifest named", where=where)
