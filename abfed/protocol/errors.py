"""Every error abfed raises on purpose, grouped by whose fault it is.

Each carries what happened, where, why it matters and what to do next. None carries a row value,
an identifier, a key or bytes that were not verified. The command line catches `AbfedError` only
and turns it into a message and an exit code; anything else is a defect of ours.
"""

from __future__ import annotations

from abfed.protocol.printable import printable


class AbfedError(Exception):
    """Root of abfed's errors.

    Args:
        what: what happened, one sentence without a final full stop.
        where: file, field, silo or step that it concerns; empty where nothing narrower is known.
        why: the rule or fact behind it; empty where `what` says it all.
        do: what the reader can do next.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        # What somebody typed or sent may be repeated in here: it must not steer a terminal.
        super().__init__(printable(what))
        self.what = printable(what)
        self.where = printable(where)
        self.why = printable(why)
        self.do = printable(do)

    def __str__(self) -> str:
        """All parts in one line, for logs and tracebacks."""
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            parts.append(f"({self.why})")
        if self.do:
            parts.append(f"→ {self.do}")
        return " ".join(parts)

    def in_lines(self) -> list[str]:
        """What happened, why, and what to do, for somebody at a terminal."""
        place = f"{self.where}: " if self.where else ""
        why = [f"  why: {self.why}"] if self.why else []
        do = [f"  do:  {self.do}"] if self.do else []
        return [f"{self.kind}: {place}{self.what}", *why, *do]

    def _render_traceback_(self) -> list[str]:
        """What IPython shows for it: pages of frames help nobody, and could hold a row."""
        return self.in_lines()

    def as_dict(self) -> dict[str, str]:
        """The parts by name, for `--json`."""
        return {
            "error": self.kind,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "do": self.do,
        }


class InputError(AbfedError):
    """The asker's fault: something given to abfed can't be used as it is."""

    exit_code = 2
    kind = "bad-input"


class PlanError(InputError):
    """A plan is malformed or contradicts itself."""

    kind = "bad-plan"


class MappingError(InputError):
    """A mapping of a brand's export to the canonical columns is malformed."""

    kind = "bad-mapping"


class DataError(InputError):
    """A brand's export can't be read as its mapping says."""

    kind = "bad-data"


class WorkspaceError(InputError):
    """A workspace, site or run folder is missing, incomplete or already there."""

    kind = "bad-workspace"


class Refused(AbfedError):
    """A policy or a budget said no. A normal outcome.

    Args:
        code: the rule that refused, from `messages.REFUSAL_TEXT`.
        about: the plan's own name for what it concerns: a column, an arm, an experiment.
    """

    exit_code = 3
    kind = "refused"

    def __init__(
        self,
        what: str,
        *,
        code: str,
        where: str = "",
        why: str = "",
        do: str = "",
        about: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.code = code
        self.about = about

    def in_lines(self) -> list[str]:
        """What happened, why, and what to do, for somebody at a terminal."""
        place = f"{self.where}: " if self.where else ""
        why = [f"  why: {self.why}"] if self.why else []
        do = [f"  do:  {self.do}"] if self.do else []
        return [f"{self.kind}: {place}{self.what}", *why, *do]

    def _render_traceback_(self) -> list[str]:
        """What IPython shows for it: pages of frames help nobody, and could hold a row."""
        return self.in_lines()

    def as_dict(self) -> dict[str, str]:
        """The parts by name, with the rule's code."""
        return super().as_dict() | {"code": self.code}


class IntegrityError(AbfedError):
    """A signature, seal, digest or chain doesn't hold: somebody or something changed bytes."""

    exit_code = 4
    kind = "integrity"


class StorageError(AbfedError):
    """A disk is full, read-only or failing: what must be durable could not be written.

    Nothing was changed in part, but nothing can be promised either until there is room again.
    """

    exit_code = 4
    kind = "storage"


class RunFailed(AbfedError):
    """A run ended without a result: too few silos answered, or a step failed everywhere."""

    exit_code = 1
    kind = "run-failed"


class ReportFailed(AbfedError):
    """A notebook failed over a run; the run itself is as it was."""

    exit_code = 1
    kind = "report-failed"


class Withheld(AbfedError):
    """A page was made and isn't shown: it holds what must not leave. A normal outcome."""

    exit_code = 3
    kind = "withheld"
