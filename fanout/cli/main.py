"""The `fanout` command line: each subcommand is the function of its name in the module of its name."""

from __future__ import annotations

import sys
from importlib import import_module

import click

import fanout
from fanout.core.errors import FanoutError

COMMANDS = {
    "serve": "Serve the HTTP API.",
    "ask": "Ask many models at once.",
    "batch": "Ask many models every row of a file.",
    "report": "Show which model of a job is better, and how sure that is.",
    "evaluate": "Score a job's answers, and decide by the scores.",
    "init": "Set up your providers.",
    "models": "List the models: ready, or what is missing.",
    "check": "Check the configuration and name every fault.",
    "schema": "Print the JSON Schema of providers.json.",
}
"""Subcommands and their lines in the help, in its order."""
UNUSABLE, INTERRUPTED = 2, 130
"""Exit codes; the second as shells have it for SIGINT."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called: neither the help nor another subcommand pays for its imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"fanout.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the subcommands; click's own imports each for its first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fanout.__version__, prog_name="fanout")
def cli() -> None:
    """Send one prompt to many language models at once and compare their answers."""


def main() -> None:
    """Run the `fanout` command."""
    try:
        # click's own mode would print errors in another form and choose the exit codes.
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.UsageError as error:
        error.show()
        sys.exit(UNUSABLE)
    except (click.ClickException, FanoutError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo("\n".join(f"fanout: {line}" for line in message.splitlines()), err=True)
        sys.exit(UNUSABLE)
