"""A group of commands of which one is meant where none is named: `fanout log` is `fanout log list`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class DefaultGroup(click.Group):
    """A group whose command `list` runs where the first argument names no other."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command first where none is named."""
        if ctx.resilient_parsing and not args:  # Tab behind the group completes its commands, too
            return super().parse_args(ctx, args)
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and the default command's options."""
        command = self.commands[self.default]
        of_default = command.shell_complete(click.Context(command, info_name=self.default, parent=ctx), incomplete)
        found = [*super().shell_complete(ctx, incomplete), *of_default]
        return list({item.value: item for item in found}.values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the default command's options, which stand without its name, too."""
        command = self.commands[self.default]
        command.format_options(click.Context(command, info_name=self.default, parent=ctx), formatter)
        self.format_commands(ctx, formatter)
