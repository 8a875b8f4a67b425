"""The `fanout` command line: each subcommand is the function of its name in the module of its name.

Those that are packages are in a module of theirs, named in `PACKAGES`.

The name of a command that is a word of Python's, `import`, ends with an underscore there.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from keyword import iskeyword

import click
from click.shell_completion import CompletionItem

import fanout
from fanout.core.errors import FanoutError
from fanout.core.lean_imports import import_lean_libraries
from fanout.core.shown_text import to_safe_text

COMMANDS = {
    "serve": "Serve the HTTP API.",
    "reload": "Have a running server read its configuration again.",
    "worker": "Run the jobs of a store that others share.",
    "workers": "List the processes that share a store.",
    "ask": "Ask many models at once.",
    "chat": "Talk with many models at once.",
    "log": "List, search and show your questions.",
    "templates": "List, show and remove saved questions.",
    "batch": "Ask many models every row of a file.",
    "report": "Show which model of a job is better, and how sure that is.",
    "evaluate": "Score a job's answers, and decide by the scores.",
    "replace": "Tell whether another model can take a model's place.",
    "import": "Take over what other evaluation programs have measured.",
    "init": "Set up your providers.",
    "keys": "Keys for providers, and keys of a server's callers.",
    "store": "Copy the store, and put a copy back.",
    "models": "List the models: ready, or what is missing.",
    "check": "Check the configuration and name every fault.",
    "schema": "Print the JSON Schema of providers.json.",
}
"""Subcommands and their lines in the help, in its order."""
PACKAGES = {"ask": "ask.command", "batch": "batch.commands", "init": "init.command", "log": "log.command"}
"""Modules of the subcommands that are packages."""
ASKING = frozenset({"ask", "chat"})
"""Subcommands whose modules import the libraries at once."""
SOME_FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130
"""Exit codes; the last as shells have it for SIGINT."""
DASH_HINT = " A text that begins with a dash is the last argument, behind `--`."
OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What writing to a stream may fail with; a broken pipe is dealt with by click."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called: neither the help nor another subcommand pays for its imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        collects = gc.isenabled()
        gc.disable()  # what is imported stays: looking for garbage in it takes 7 ms (2026-11-28)
        try:
            if name in ASKING:
                import_lean_libraries()
            command: click.Command = getattr(import_module(f"fanout.cli.{PACKAGES.get(name, name)}"), name)
        finally:
            if collects:
                gc.enable()
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the subcommands; click's own imports each for its help."""
        found = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; where there is none, suggest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = "".join(f"; did you mean `{one}`?" for one in get_close_matches(name, COMMANDS, n=1))
            near = "; `fanout ask` takes a prompt" if " " in name.strip() else near or "; `fanout --help` lists them"
            raise click.UsageError(f"no command is called `{name}`{near}", ctx)
        return super().resolve_command(ctx, args)

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
    # The usual threshold would look through what is imported hundreds of times, for nothing: 0.1 s of `fanout serve`.
    # Not higher: a pass over 50,000 young objects takes 8 ms, in which nothing else is served.
    gc.set_threshold(10_000, 10, 100)
    # Pydantic would search all packages that are installed for plugins of its own: 12 ms where there are many (2026-11-28).
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _prepare_streams()
    code = _run()
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        code = _complain_of_output(error) if code == 0 else code
        _discard_output()
    sys.exit(code)


def _run() -> int:
    """Run the command and return its exit code."""
    try:
        if "_FANOUT_COMPLETE" in os.environ:
            import_module("fanout.cli.completion")  # tells click how fish is to be answered
        # click's own mode would print errors in another form and choose the exit codes.
        cli.main(standalone_mode=False, prog_name="fanout")
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else UNUSABLE
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            error.show()
        return UNUSABLE
    except click.UsageError as error:
        hint = DASH_HINT if isinstance(error, click.NoSuchOption) and _begins_with_dash(sys.argv[1:]) else ""
        with suppress(OSError):
            click.UsageError(to_safe_text(error.format_message()) + hint, error.ctx).show()
        return UNUSABLE
    except (click.ClickException, FanoutError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _complain("\n".join(f"fanout: {line}" for line in message.splitlines()))
        return UNUSABLE
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS or error.filename is not None:
            raise
        return _complain_of_output(error)
    return 0


def _begins_with_dash(arguments: Sequence[str]) -> bool:
    """Return whether an argument looks like a text that begins with a dash: no option has a space before its value."""
    return any(word.startswith("-") and " " in word.partition("=")[0] for word in arguments)


def _prepare_streams() -> None:
    """Keep output from failing for its encoding, and the first file that is opened from becoming a closed standard stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    # Python has no stream for what was closed when it started, but logs and questions for input must not fail for that.
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _complain(message: str) -> None:
    with suppress(OSError):  # the exit code says it all the same
        click.echo(to_safe_text(message), err=True)


def _complain_of_output(error: OSError) -> int:
    _complain(f"fanout: the output cannot be written: {error.strerror}")
    _discard_output()
    return SOME_FAILED


def _discard_output() -> None:
    """Lead standard output nowhere: what is left of it would fail once more when the interpreter ends."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)
