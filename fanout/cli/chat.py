"""`fanout chat`: a conversation with several models at once, each of which has its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from fanout.cli.ask.command import prepare_question
from fanout.cli.ask.options import GivenOptions, with_question
from fanout.cli.ask.prompt import MAX_FILE_BYTES, join_files
from fanout.cli.ask.question import AskQuestion
from fanout.cli.ask.session import AskSession, open_session
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED
from fanout.cli.output import echo
from fanout.cli.side_by_side import SideBySide
from fanout.cli.tables import SafeConsole
from fanout.core.errors import FanoutError
from fanout.core.given_text import trim

HELP = """/new begins a new conversation; /file FILE adds a file to the next message; /models NAME… talks to others
/exit or Ctrl-D ends; a line that ends with \\ goes on with the next"""
PROMPT = "> "


@click.command()
@with_question
def chat(given: GivenOptions) -> None:
    """Talk with many models at once: each line is a message, and every model answers in its own conversation.

    Standard input may be a pipe: then each of its lines is a message. `/help` lists the commands of a conversation.
    Exits with 0 if every message was answered by every model, else with 1.
    """
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 - gives `input` its editing and history of lines
        echo(HELP, err=True)
    with asyncio.Runner() as runner:
        manager = open_session(given.location, given.schema, is_logging=given.is_logging)
        session = runner.run(manager.__aenter__())
        try:
            good = _Conversation(given, session, runner).run()
        except BaseException:
            runner.run(manager.__aexit__(*sys.exc_info()))  # it may raise an error that explains this one
            raise
        runner.run(manager.__aexit__(None, None, None))
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


class _Conversation:
    """The messages of one command, one after the other."""

    def __init__(self, given: GivenOptions, session: AskSession, runner: asyncio.Runner) -> None:
        self._options, self._session, self._runner = given, session, runner
        self._question: AskQuestion | None = None
        self._files: list[Path] = []
        self._good = True

    def run(self) -> bool:
        """Take messages to their end; return whether every model answered each."""
        for text in _read_messages():
            command, _, rest = text.partition(" ")
            if command == "/exit":
                break
            try:
                if command.startswith("/"):
                    self._obey(command, rest.split())
                else:
                    self._good &= self._send(text)
            except KeyboardInterrupt:
                self._good = False
                echo("interrupted; Ctrl-D ends the conversation", err=True)
            except (click.ClickException, FanoutError) as error:
                if not sys.stdin.isatty():
                    raise
                echo(f"fanout: {error.format_message() if isinstance(error, click.ClickException) else error}", err=True)
        return self._good

    def _obey(self, command: str, words: list[str]) -> None:
        if command == "/new":
            self._question, self._files = None, []
            self._options = replace(self._options, past_id=None)
        elif command == "/file" and words:
            path = Path(" ".join(words))
            join_files("", [path])  # one that cannot be read would fail every message that follows
            self._files.append(path)
        elif command == "/models" and words:
            models = self._runner.run(self._session.backend.expand(tuple(words)))
            self._options = replace(self._options, words=words)  # only now: words that mean nothing change nothing
            if self._question and (first := next(iter(self._question.past.values()), None)):
                # Those that are new take over the conversation of the first.
                past = {model: self._question.past.get(model, first) for model in models}
                self._question = replace(self._question, models=tuple(models), past=past)
        else:
            if command not in ("/help", "/file", "/models"):
                echo(f"unknown command `{command}`", err=True)
            echo(HELP, err=True)

    def _send(self, text: str) -> bool:
        content = join_files(self._options.template.render(text, self._options.values), self._files)
        given = self._question
        if given is None:
            question = self._runner.run(prepare_question(self._options, self._session, content))
        else:
            question = replace(given, content=content)
        view = SideBySide(
            SafeConsole(),
            SafeConsole(stderr=True),
            markdown=not (self._options.raw or self._options.plain),
            framed=not self._options.plain,
        )
        good = self._runner.run(self._session.show(question, view))
        self._files = []
        # A model that failed is given again with the next message, without an answer in between.
        if answers := self._session.list_answers(view):
            self._question = replace(question.follow_up(answers, ""), models=question.models)
            kept = {**question.past, **self._question.past}
            self._question = replace(self._question, past=kept)
        return good


def _read_messages() -> Iterator[str]:
    """Yield what is typed, or the lines of a pipe, without empty ones."""
    while True:
        try:
            text = _read_line()
            while text.endswith("\\"):
                try:
                    text = f"{text[:-1]}\n{_read_line()}"
                except EOFError:
                    text = text[:-1]
        except EOFError:
            return
        except KeyboardInterrupt:
            echo("", err=True)
            continue
        if text.strip():
            yield text.strip()


def _read_line() -> str:
    if sys.stdin.isatty():
        return input(PROMPT)
    line = sys.stdin.buffer.readline(MAX_FILE_BYTES + 1)
    if not line:
        raise EOFError
    if len(line) > MAX_FILE_BYTES:
        raise click.UsageError(f"a message is longer than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return trim(line.decode())
    except UnicodeDecodeError:
        raise click.UsageError("a message is not UTF-8 text") from None
