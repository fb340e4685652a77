"""Notebooks that reports are made from: where they lie, what they ask for, what they may be given.

1. A notebook has one cell tagged `parameters`, as Papermill's have: `name: type = default` a line.
2. What the report is about is set by us, from the run or the plan (`OURS`); by nobody else.
3. Any other value is checked before a kernel starts: an unknown name, another type, or a value that
   the comment behind the parameter doesn't allow (`bounds`) is a refusal. So is a default of
   another type.
4. A secret is never a parameter: it would stand in a manifest, a cell and a page. Names that
   secrets have are refused, and so are values that look like one.
"""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from abfed.lab.disclosure.shapes import secret_name, secret_shape
from abfed.lab.reports.bounds import check_bounds
from abfed.lab.samples.shipped import shipped_folders
from abfed.protocol.documents import is_file
from abfed.protocol.errors import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode

OURS = {
    "run_folder": ("a run", "RUN"),
    "plan_file": ("a plan", "PLAN"),
    "runs_folder": ("all runs", "all"),
    "review_file": ("a security review", "security"),
}
"""Parameters that follow from what the report is about: what that is, and how it is typed."""

TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
KINDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
FORMAT = 4  # nbformat's major version
IDENTIFIED = 5  # minor version from which on cells have ids
LONGEST = 200  # characters of a text; longer ones are data, not parameters
LARGEST = (1 << 53) - 1  # a whole number; larger ones aren't the same in each reader of JSON
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError)
"""What nbformat raises for documents that have another form than it takes for granted."""
TRUTHS = {"true": True, "false": False, "yes": True, "no": False}


class Parameter(NamedTuple):
    """One that a notebook declares: its type's name, its default, and what it says of it."""

    kind: str
    default: Any
    help: str = ""


def notebook_folders() -> tuple[Path, ...]:
    """Where notebooks lie: beside the package in a clone, or where a wheel put them."""
    return tuple(folder / "notebooks" for folder in shipped_folders())


def known_notebooks() -> dict[str, Path]:
    """Notebooks that come with abfed, by name."""
    known: dict[str, Path] = {}
    for folder in reversed(notebook_folders()):
        known |= {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    return known


def find_notebook(name: str) -> Path:
    """A notebook by its name, or by its path where it ends in `.ipynb`.

    Raises:
        InputError: there is none.
    """
    if name.endswith(".ipynb"):
        if is_file(name):
            return Path(name)
        raise InputError("there is no such notebook", where=name, do="check the path")
    known = known_notebooks()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    raise InputError(
        f"there is no notebook {name!r}",
        why=f"known are: {', '.join(sorted(known)) or 'none'}",
        do=f"did you mean {near[0]!r}?" if near else "name one of these, or give a path",
    )


def read_notebook(path: Path) -> NotebookNode:
    """A notebook from its file.

    Raises:
        InputError: it isn't one.
    """
    return parse_notebook(path.read_bytes(), where=path.name)


def parse_notebook(data: bytes, *, where: str) -> NotebookNode:
    """A notebook from its bytes.

    Raises:
        InputError: it isn't one.
    """
    from abfed.lab.paper.jupyter import nbformat

    formats = nbformat()
    try:
        values = json.loads(data.decode())
        if not isinstance(values, dict) or values.get("nbformat") != FORMAT:
            raise InputError(f"it isn't a notebook of format {FORMAT}", where=where)
        _identify(values)
        text = json.dumps(values, ensure_ascii=False)
        text.encode()  # half of a character, as JSON's escapes allow, goes on no page
        formats.validate(values)  # before it is read: reading takes for granted that it holds
        document: NotebookNode = formats.reads(text, as_version=FORMAT)
    except (formats.ValidationError, *_MALFORMED) as cause:
        raise InputError("it isn't a notebook", where=where) from cause
    return document


def _identify(values: dict[str, Any]) -> None:
    """Give cells without an id of their own one that is the same each time.

    nbformat would draw one by lot, and the report would never be made again to the same bytes.
    What is older than ids becomes what has them, as it would when it is executed.
    """
    cells, minor = values.get("cells"), values.get("nbformat_minor")
    if not isinstance(cells, list) or not isinstance(minor, int) or minor < 0:
        return
    values["nbformat_minor"] = max(minor, IDENTIFIED)
    known = [cell for cell in cells if isinstance(cell, dict)]
    taken = {str(cell["id"]) for cell in known if "id" in cell}
    seen: set[str] = set()
    for place, cell in enumerate(known, start=1):
        if "id" not in cell or str(cell["id"]) in seen:
            free = (f"cell-{place}{end}" for end in ("", *(f"-{n}" for n in range(len(cells)))))
            cell["id"] = next(one for one in free if one not in taken)
            taken.add(cell["id"])
        seen.add(str(cell["id"]))


def declared_parameters(document: NotebookNode, *, where: str) -> dict[str, Parameter]:
    """What a notebook's `parameters` cell declares: `name: type = default`, each on its line.

    Raises:
        InputError: it has no such cell, the cell holds something else, a default is of another
            type, or a name or a default is a secret's.
    """
    cells = [cell for cell in document.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(
            f"{len(cells)} cells are tagged 'parameters'", where=where, do="tag exactly one"
        )
    declared = {}
    try:
        lines = ast.parse(cells[0].source).body
        comments = _comments(cells[0].source)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as cause:
        raise InputError("the parameters cell isn't Python", where=where) from cause
    for line in lines:
        match line:
            case ast.AnnAssign(ast.Name(name), ast.Name(kind), ast.expr() as value) if (
                kind in TYPES and _is_literal(value)
            ):
                told = comments.get(line.end_lineno or line.lineno, "")
                default = _typed(name, kind, ast.literal_eval(value), where)
                declared[name] = Parameter(kind, default, told)
            case _:
                raise InputError(
                    "the parameters cell holds something other than typed parameters",
                    where=f"{where}, line {line.lineno} of the cell",
                    do=f"write `name: type = default`; types are {', '.join(TYPES)}",
                )
        if name not in OURS:
            _refuse_secret_name(name, where)
    if not set(OURS) & set(declared):
        raise InputError(
            "it doesn't say what it is about",
            where=where,
            why=f"it has none of the parameters {', '.join(OURS)}",
            do="declare one of them",
        )
    return declared


def _comments(source: str) -> dict[int, str]:
    """What the comment on each line says."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {one.start[0]: one.string for one in tokens if one.type == tokenize.COMMENT}
    return {line: text.lstrip("#").strip() for line, text in found.items()}


def check_papermill_agrees(
    document: NotebookNode, declared: Mapping[str, Parameter], *, where: str
) -> None:
    """Whether Papermill reads the same parameters: the same notebook is run by it, by hand too.

    Raises:
        InputError: it reads others.
    """
    from abfed.lab.paper.jupyter import papermill

    python = deepcopy(document)  # in which language a notebook is needn't be said in it
    python.metadata["kernelspec"] = dict(KERNEL)
    seen = papermill().inspect_notebook(python)
    if set(seen) != set(declared):
        raise InputError(
            "Papermill reads other parameters from the cell",
            where=where,
            why=f"it sees: {', '.join(seen) or 'none'}",
            do="write one `name: type = default` a line, with no other = on it",
        )


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError):  # TypeError: a list as a key of a dictionary
        return False
    return True


def checked_parameters(
    declared: Mapping[str, Parameter],
    given: Mapping[str, Any],
    *,
    where: str,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Given values, if each is declared, of its type, allowed and no secret.

    Args:
        declared: the notebook's.
        given: values by name.
        where: the notebook, for messages.
        choices: what the report's subject has, such as its `brands`.

    Raises:
        InputError: one isn't; names the nearest that is. A value is never repeated.
    """
    free = [name for name in declared if name not in OURS]
    checked = {}
    for name, value in given.items():
        _refuse_secret_name(name, where)
        if name not in free:
            near = get_close_matches(name, free, n=1)
            reason = "follows from what the report is about" if name in OURS else "is unknown"
            raise InputError(
                f"parameter {name!r} {reason}",
                where=where,
                why=f"parameters are: {', '.join(free) or 'none'}",
                do=f"did you mean {near[0]!r}?" if near else "leave it out",
            )
        checked[name] = _typed(name, declared[name].kind, value, where)
        check_bounds(name, checked[name], declared[name].help, choices or {}, where=where)
    return checked


def _refuse_secret_name(name: str, where: str) -> None:
    if secret_name(name):
        raise InputError(
            f"parameter {name!r} is called what secrets are called",
            where=where,
            why="parameters stand in the report and its manifest, for all of its readers",
            do="leave it out: a report needs no secret; or give it another name",
        )


def _typed(name: str, kind: str, value: Any, where: str) -> Any:
    """A value of exactly the declared type; whole numbers will do for `float`."""
    finite = _is_finite(value)
    if kind == "float" and type(value) is int and finite:
        return float(value)
    if type(value) is not TYPES[kind] or not finite:
        raise InputError(
            f"parameter {name!r} must be {KINDS[kind]}",
            where=where,
            why=f"{KINDS.get(type(value).__name__, 'something else')} was given"
            if finite
            else "it is too large, infinite, or no number at all",
        )
    if isinstance(value, str):
        looks = secret_shape(value)
        if looks or len(value) > LONGEST or not value.isprintable():
            raise InputError(
                f"parameter {name!r} can't be this text",
                where=where,
                why=f"it looks like {looks}"
                if looks
                else f"more than {LONGEST} characters, or some that can't be printed",
                do="a secret or an identifier is never a parameter",
            )
    return value


def _is_finite(value: Any) -> bool:
    """Whether a number is one that each reader of a manifest reads alike."""
    match value:
        case float():
            return math.isfinite(value)
        case int():
            return abs(value) <= LARGEST
        case _:
            return True


def read_texts(
    pairs: Iterable[tuple[str, str]], declared: Mapping[str, Parameter], *, where: str
) -> dict[str, Any]:
    """Values that were typed at a command line, read as the types that the notebook declares.

    Raises:
        InputError: a text isn't of its type, or a name was given twice.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise InputError(f"parameter {name!r} was given twice", where=where)
        kind = declared[name].kind if name in declared else "str"
        values[name] = _read_text(name, kind, text, where)
    return values


def texts_for(notebook: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Values for a notebook from texts such as `alpha=0.1`.

    Raises:
        InputError: there is no such notebook, or a text isn't a pair or not of its type.
    """
    split = [one.partition("=") for one in pairs]
    bare = [name for name, equals, _ in split if not equals]
    if bare:
        raise InputError(f"parameter {bare[0]!r} has no value", do="write name=value")
    if not split:
        return {}
    path = find_notebook(notebook)
    declared = declared_parameters(read_notebook(path), where=path.name)
    return read_texts(((a, b) for a, _, b in split), declared, where=path.name)


def _read_text(name: str, kind: str, text: str, where: str) -> Any:
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return TRUTHS[text.casefold()]
            case _:
                return text
    except (ValueError, KeyError) as cause:
        raise InputError(
            f"parameter {name!r} must be {KINDS[kind]}", where=where, do=f"give {KINDS[kind]}"
        ) from cause
