"""A group of commands of which one is meant where none is named: `fanout log` is `fanout log list`."""

from __future__ import annotations

import click


class DefaultGroup(click.Group):
    """A group whose command `list` runs where the first argument names no other."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command first where none is named."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the default command's options, which stand without its name, too."""
        command = self.commands[self.default]
        command.format_options(click.Context(command, info_name=self.default, parent=ctx), formatter)
        self.format_commands(ctx, formatter)
