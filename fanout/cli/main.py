"""The command line: one `fanout`, whose commands are the modules of `fanout/cli`."""

from __future__ import annotations

import sys
from importlib import import_module

import click

import fanout
from fanout.cli.options import UNUSABLE
from fanout.core.errors import FanoutError

COMMANDS = ("serve", "ask", "batch", "init", "models", "check", "schema")
"""In the order of the help; each is the function of its name in the file of its name."""
INTERRUPTED = 130
"""As shells tell of SIGINT."""


class Commands(click.Group):
    """Loads a command when it is called: no command pays for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"fanout.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fanout.__version__, prog_name="fanout")
def cli() -> None:
    """One prompt to many language models at once, the answers side by side."""


def main() -> None:
    """The `fanout` command."""
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.UsageError as error:
        error.show()
        sys.exit(UNUSABLE)
    except (click.ClickException, FanoutError) as error:
        sentence = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo("\n".join(f"fanout: {line}" for line in sentence.splitlines()), err=True)
        sys.exit(UNUSABLE)
