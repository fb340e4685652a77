"""Commands that are imported when they are asked for, so that `abfed --help` starts at once.

The table in `main` names each command's module and repeats the first line of its help; a test holds
the two together. Only the command that was typed is imported, with what it needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click
import typer
from typer.core import TyperArgument, TyperGroup
from typer.utils import get_params_from_function


class Command(NamedTuple):
    """Where a command lives: a module of `abfed.cli`, and what it does in a line."""

    module: str
    help: str


class OnDemand(TyperGroup):
    """A group that knows its commands by name, and imports one when it is run."""

    table: Mapping[str, Command] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        """One command, imported now."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        return load(cmd_name, self.table[cmd_name])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Name the nearest command where there is none of this name, without importing any."""
        name = args[0] if args else ""
        if name and name not in self.list_commands(ctx) and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        rows = [(name, one.help) for name, one in self.table.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None:
                rows.append((name, command.get_short_help_str(limit=200)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _let_click_hint(group: Any) -> None:
    """Click names the nearest command already; Typer's own hint would say it again."""
    group.suggest_commands = False
    for command in group.commands.values():
        if hasattr(command, "commands"):
            _let_click_hint(command)


def _describe_arguments(command: Any) -> None:
    """Say again what arguments are: click 8.5 has a `help` of its own, and empties Typer's."""
    for verb in getattr(command, "commands", {}).values():
        _describe_arguments(verb)
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    if arguments and command.callback is not None:
        said = get_params_from_function(command.callback)
        for one in arguments:
            if one.name in said:
                one.help = said[one.name].default.help


def load(name: str, command: Command) -> Any:
    """A command of the table: its module's `app`, or its function of this name."""
    module = import_module(f"abfed.cli.{command.module}")
    if name == command.module and isinstance(getattr(module, "app", None), typer.Typer):
        group = typer.main.get_group(module.app)  # also where it has one verb
        group.name = name
        _let_click_hint(group)
        _describe_arguments(group)
        return group
    found = getattr(module, name.replace("-", "_"))
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(found)
    made = typer.main.get_command(single)
    _describe_arguments(made)
    return made
