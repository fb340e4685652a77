"""`abfed silo subject`: what people may ask of a brand about their data, each with a receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from abfed.cli.output import say, say_json, table
from abfed.cli.settings import JsonOption, WorkspaceOption
from abfed.protocol.errors import InputError
from abfed.protocol.printable import counted

if TYPE_CHECKING:
    from abfed.protocol.identity import Right
    from abfed.silo.requests import Act, Affected, Receipt

app = typer.Typer(
    help="Answer people about their data: export, erase, opt out, restrict.", no_args_is_help=True
)

MOST_PEOPLE = 64 << 20  # bytes of a file of identifiers

SiloArgument = Annotated[str, typer.Argument(help="The brand.")]
WhoArgument = Annotated[
    str, typer.Argument(help="The person, as in the brand's exports; left out with --file.")
]
OneArgument = Annotated[str, typer.Argument(help="The person, as in the brand's exports.")]
FileOption = Annotated[
    Path | None, typer.Option("--file", help="One identifier a line; parts of one apart by a tab.")
]
LawOption = Annotated[Literal["gdpr", "ccpa"], typer.Option(help="Whose deadline counts.")]
ReceivedOption = Annotated[
    str, typer.Option(help="When the request came (UTC), as 2026-11-25; today if left out.")
]
NormaliseOption = Annotated[
    Literal["casefold", "trim"], typer.Option(help="As the mapping of the exports says.")
]
IntoOption = Annotated[
    Path | None, typer.Option("--receipts", help="Write the receipts to this file, as JSON lines.")
]


@app.command()
def export(
    silo: SiloArgument,
    who: OneArgument,
    into: Annotated[Path, typer.Argument(help="Folder for data.json and data.html.")],
    workspace: WorkspaceOption,
    law: LawOption = "gdpr",
    received: ReceivedOption = "",
    normalise: NormaliseOption = "casefold",
    as_json: JsonOption = False,
) -> None:
    """Write everything that is held about a person, for machines and for them to read."""
    from abfed.lab.records.answering import room_for_answer, write_answer
    from abfed.lab.workspace import Workspace
    from abfed.silo.subjects import Subjects

    room_for_answer(into)  # before the act: what can't be written then was answered to nobody
    opened = Workspace(workspace)
    actor = opened.authorise("subject.export", silo)
    with opened.silo(silo) as service:
        receipt, data = Subjects(service).export(
            _identifier(who), by=actor, law=law, received=_day(received), normalise=normalise
        )
    files = write_answer(into, receipt, data)
    if as_json:
        say_json(receipt.as_dict() | {"files": [str(path) for path in files]})
        return
    say(f"{counted(len(data['sends']), 'send')}: {', '.join(str(path) for path in files)}")
    _told([receipt])


@app.command()
def erase(
    silo: SiloArgument,
    workspace: WorkspaceOption,
    who: WhoArgument = "",
    file: FileOption = None,
    law: LawOption = "gdpr",
    received: ReceivedOption = "",
    normalise: NormaliseOption = "casefold",
    receipts: IntoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove everything about people, for good; a later export doesn't bring them back."""
    _act("erase", "subject.erase", silo, workspace, who, file, law, received, normalise, receipts,
         as_json=as_json)  # fmt: skip


@app.command("opt-out")
def opt_out(
    silo: SiloArgument,
    workspace: WorkspaceOption,
    who: WhoArgument = "",
    file: FileOption = None,
    law: LawOption = "ccpa",
    received: ReceivedOption = "",
    normalise: NormaliseOption = "casefold",
    receipts: IntoOption = None,
    lift: Annotated[bool, typer.Option(help="The person opted in again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep people's rows from being read by any computation."""
    act: Act = "opt-in" if lift else "opt-out"
    _act(act, "subject.erase", silo, workspace, who, file, law, received, normalise, receipts,
         as_json=as_json)  # fmt: skip


@app.command()
def restrict(
    silo: SiloArgument,
    workspace: WorkspaceOption,
    who: WhoArgument = "",
    file: FileOption = None,
    law: LawOption = "gdpr",
    received: ReceivedOption = "",
    normalise: NormaliseOption = "casefold",
    receipts: IntoOption = None,
    lift: Annotated[bool, typer.Option(help="The restriction is over.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep people's rows, and keep them from being read, while something is disputed."""
    act: Act = "unrestrict" if lift else "restrict"
    _act(act, "subject.erase", silo, workspace, who, file, law, received, normalise, receipts,
         as_json=as_json)  # fmt: skip


@app.command()
def receive(
    silo: SiloArgument,
    act: Annotated[
        Literal["export", "erase", "opt-out", "restrict"], typer.Argument(help="What is asked for.")
    ],
    workspace: WorkspaceOption,
    who: WhoArgument = "",
    file: FileOption = None,
    law: LawOption = "gdpr",
    received: ReceivedOption = "",
    normalise: NormaliseOption = "casefold",
    as_json: JsonOption = False,
) -> None:
    """Write requests down without carrying them out yet, so that their deadlines run."""
    from abfed.lab.workspace import Workspace
    from abfed.silo.subjects import Subjects

    opened = Workspace(workspace)
    opened.authorise("subject.export" if act == "export" else "subject.erase", silo)
    with opened.silo(silo) as service:
        asked = Subjects(service).receive(
            act,
            _people(who, file, normalise)[0],
            law=law,
            received=_day(received),
            normalise=normalise,
        )
    if as_json:
        say_json([one.model_dump(mode="json", exclude={"who"}) for one in asked])
        return
    for one in asked:
        say(f"{one.receipt}  {one.act}, due on {one.due_on}")


@app.command()
def due(silo: SiloArgument, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show open requests with their deadlines, and plans that are to be trained again."""
    from abfed.lab.workspace import Workspace
    from abfed.silo.subjects import Subjects

    opened = Workspace(workspace)
    opened.authorise("subject.export", silo)
    with opened.silo(silo) as service:
        subjects = Subjects(service)
        asked = [one for one in subjects.requests() if not one.done_at]
        late = {one.receipt for one in subjects.overdue()}
        queued = subjects.retraining()
    rows = [
        {
            "receipt": one.receipt,
            "act": one.act,
            "received": one.received_at[:10],
            "due": one.due_on,
            "late": one.receipt in late,
        }
        for one in asked
    ]
    if as_json:
        say_json({"open": rows, "retraining": queued})
        return
    if rows:
        table(rows, title=f"Open requests at {silo}")
    else:
        say(f"No request is open at {silo}.")
    for digest, at in sorted(queued.items()):
        say(f"to be trained again since {at[:10]}: plan {digest[:16]}")


def _act(
    act: Act,
    right: Right,
    silo: str,
    workspace: Path,
    who: str,
    file: Path | None,
    law: Literal["gdpr", "ccpa"],
    received: str,
    normalise: Literal["casefold", "trim"],
    into: Path | None,
    *,
    as_json: bool,
) -> None:
    """Carry one kind of request out for a person or a file of people."""
    from abfed.lab.records.answering import room_for_receipts, write_receipts
    from abfed.lab.workspace import Workspace
    from abfed.silo.subjects import Subjects

    people, lines = _people(who, file, normalise)
    if into is not None:
        room_for_receipts(into)  # before the act: one that can't be written then is lost
    opened = Workspace(workspace)
    actor = opened.authorise(right, silo)
    with opened.silo(silo) as service:
        made = Subjects(service).carry_out(
            act, people, by=actor, law=law, received=_day(received), normalise=normalise
        )
    made = [
        one._replace(lines=tuple(lines[place - 1] for place in one.lines) if lines else ())
        for one in made
    ]
    if into is not None:
        write_receipts(into, made)
    if as_json:
        say_json([one.as_dict() for one in made])
        return
    _told(made)


@app.command()
def receipts(
    silo: SiloArgument,
    workspace: WorkspaceOption,
    who: WhoArgument = "",
    file: FileOption = None,
    normalise: NormaliseOption = "casefold",
    as_json: JsonOption = False,
) -> None:
    """Show again what people were given for what they asked: everything that was carried out."""
    from abfed.lab.workspace import Workspace
    from abfed.silo.subjects import Subjects

    people, _ = _people(who, file, normalise)
    opened = Workspace(workspace)
    opened.authorise("subject.export", silo)
    with opened.silo(silo) as service:
        made = Subjects(service).receipts(people, normalise=normalise)
    if as_json:
        say_json([one.as_dict() for one in made])
    elif made:
        _told(made)
    else:
        say("Nothing was carried out for them.")


@app.command()
def carry(
    silo: SiloArgument,
    path: Annotated[Path, typer.Argument(help="The file to write or replace; on another disk.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Write what people asked into a small sealed file, for `silo restore --subjects`."""
    from abfed.lab.workspace import Workspace
    from abfed.silo.carrying import carry as write

    opened = Workspace(workspace)
    opened.authorise("subject.erase", silo)
    with opened.silo(silo) as service:
        people = write(service.paths.folder, service.keys, path, opened.clock)
    if as_json:
        say_json({"silo": silo, "path": path, "people": people})
        return
    say(f"{path}: {people} people, sealed under the keys of {silo}. Write it after each answer.")


def _told(receipts: list[Receipt]) -> None:
    for one in receipts[:10]:
        request = one.request
        found = "done" if request.held else "nothing was held"
        say(f"{request.receipt}  {request.act} at {one.silo}: {found} (due on {request.due_on})")
    if len(receipts) > 10:
        say(f"… and {len(receipts) - 10} more; --receipts FILE keeps them all")
    first = next((one for one in receipts if one.affected), None)
    if first is not None:
        said = {
            f"{plan.name} ({counted(len(plan.releases), 'release')} of data {plan.epoch[:12]}"
            f"{_models_of(plan)})"
            for plan in first.affected
        }
        say(f"Plans whose releases the data may be in: {', '.join(sorted(said))}.")
        if any(plan.trained for plan in first.affected):
            say("A model's version is at the lab: `abfed model list --made-of DIGEST`.")
        say(first.why_they_stand)
        if first.retraining:
            say("By policy they are queued to be trained again: `abfed silo subject due`.")


def _models_of(plan: Affected) -> str:
    """The models that came of a plan: by digest, or by what it was broken off with."""
    if plan.models:
        return f", model {', '.join(plan.models)}"
    if not plan.trained:
        return ""
    last = max(step for step in plan.releases if step.startswith("train-"))
    return f", models up to {last}, release {plan.releases[last]}"


def _people(
    who: str, file: Path | None, normalise: Literal["casefold", "trim"]
) -> tuple[list[str], list[int]]:
    """Identifiers from the command, or from a file with the lines that they stand on.

    A line that is nobody's identifier is refused by its number, before anything is done.
    """
    if bool(who) == (file is not None):
        raise InputError("name a person, or a file of them with --file")
    if file is None:
        return [_identifier(who)], []
    from abfed.protocol.documents import read_document

    data = read_document(file, "file of people", most=MOST_PEOPLE)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise InputError("the file can't be read as UTF-8 text", where=str(file)) from cause
    # Lines end where editors end them: what else Python takes for an end would cut an identifier
    # in two, and neither half is anybody.
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not numbered:
        raise InputError("the file names nobody", where=str(file))
    from abfed.silo.subjects import check_identifier

    people = [_identifier(line.removesuffix("\r")) for _, line in numbered]
    lines = [number for number, _ in numbered]
    for number, one in zip(lines, people, strict=True):
        check_identifier(one, normalise, where=f"{file}, line {number}")
    return people, lines


def _identifier(text: str) -> str:
    from abfed.silo.pseudonyms import SEPARATOR

    return text.replace("\t", SEPARATOR)


def _day(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as cause:
        raise InputError(f"{text!r:.40} is no day", do="write it as 2026-11-25") from cause
