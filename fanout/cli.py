"""The command line: serve, ask, models, check, schema."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic_core import from_json, to_json
from rich.console import Console

import fanout
from fanout import client, config, library, logs, terminal
from fanout.catalogue import Catalogue, Model
from fanout.config import Settings
from fanout.dispatch import Dispatcher, open_dispatcher
from fanout.errors import FanoutError
from fanout.merge import merge
from fanout.schema import Call, Completion, Delta, Failure, Outcome
from fanout.terminal import SideBySide
from fanout.web import app
from fanout.web.answers import encoded
from fanout.web.completion import choice_json, comparison_json
from fanout.web.errors import all_failed
from fanout.web.models import model_json

ALL_ANSWERED, SOME_FAILED, UNUSABLE = 0, 1, 2
INTERRUPTED = 130
"""As shells tell of SIGINT."""


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every command takes which needs a configuration."""
    path = click.Path(path_type=Path)
    command = click.option("--env-file", type=path, help="NAME=value lines, for keys; what is set already wins.")(command)
    more = "A providers.json of your own, laid over the shipped one."
    return click.option("--config", "config_file", type=path, help=more)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fanout.__version__, prog_name="fanout")
def cli() -> None:
    """One prompt to many language models at once, the answers side by side."""


@cli.command()
@with_settings
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; other than this machine's own, FANOUT_API_KEYS must be set.",
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def serve(config_file: Path | None, env_file: Path | None, host: str, port: int) -> None:
    """Serve the HTTP API."""
    settings = _settings(config_file, env_file)
    logs.configure(settings.environment.log_level, settings.environment.log_format)
    console = Console()
    width = console.width if console.is_terminal else None

    def started(address: str) -> None:
        click.echo(terminal.greeting(address, settings, width))
        sys.stdout.flush()  # who waits for this line may read it through a pipe

    try:
        asyncio.run(app.serve(settings, host, port, started))
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition(": ")[2]
        raise click.ClickException(f"cannot listen on {host}:{port}: {reason}; `--port` takes another, 0 a free one") from error


@cli.command()
@with_settings
@click.argument("prompt", required=False)
@click.option("-m", "--model", "models", multiple=True, help="A model, an alias, a set or <provider>/<id>; once for each.")
@click.option("--system", help="A system message, for chat models.")
@click.option("--max-tokens", type=click.IntRange(0), help="Most tokens of each answer.")
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.option("--top-p", type=click.FloatRange(0, 1))
@click.option("--seed", type=int)
@click.option("-n", "n", type=click.IntRange(1, 128), help="Samples of each model.")
@click.option("--stop", multiple=True, help="A sequence to stop before; up to four.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, 600, min_open=True), help="Seconds for it all.")
@click.option("--diff", is_flag=True, help="Show how the other answers differ from the first.")
@click.option("--json", "as_json", is_flag=True, help="Print what `POST /v1/completion` would answer.")
@click.option("--server", help="Address of a running server; without it none is needed.")
def ask(
    config_file: Path | None,
    env_file: Path | None,
    prompt: str | None,
    models: tuple[str, ...],
    server: str | None,
    diff: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Ask many models at once. Without -m: the embedded ones. Without PROMPT, or with `-`: reads it from standard input.

    Exits with 0 if all answered, 1 if some failed, 2 if it could not ask.
    """
    body = {"prompt": _prompt(prompt), "model": list(models) or ["embedded"]}
    body |= {name: value for name, value in asked.items() if value not in (None, ())}
    view = None if as_json else SideBySide(Console(), diff=diff)
    if server:
        environment = config.Environment.read(config.with_env_file(env_file, os.environ))
        key = environment.api_keys[0].get_secret_value() if environment.api_keys else None
        good = asyncio.run(_ask_server(server, key, body, view))
    else:
        good = asyncio.run(_ask_here(_settings(config_file, env_file), body, view))
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


@cli.command()
@with_settings
@click.option("--ready", is_flag=True, help="Only those that can be called now.")
@click.option("--json", "as_json", is_flag=True, help="Print what `GET /v1/models` would answer.")
def models(config_file: Path | None, env_file: Path | None, ready: bool, as_json: bool) -> None:
    """List the models: ready, or what is missing."""
    catalogue = Catalogue(_settings(config_file, env_file))
    listed = [model for model in catalogue if not ready or _is_ready(model, catalogue)]
    listed.sort(key=lambda model: not _is_ready(model, catalogue))
    if as_json:
        _print_json({"object": "list", "data": [model_json(model, catalogue) for model in listed]})
        return
    contexts = [str(model.row.max_context_length or "") if model.row else "" for model in listed]
    states = [_state(model, catalogue) for model in listed]
    rows = [(model.name, model.provider, model.kind, *rest) for model, *rest in zip(listed, contexts, states, strict=True)]
    terminal.show_table(Console(), ("model", "provider", "kind", "context", "state"), rows, right=("context",))


@cli.command()
@with_settings
@click.option("--live", is_flag=True, help="Ask each ready model for one token.")
def check(config_file: Path | None, env_file: Path | None, live: bool) -> None:
    """Check the configuration; every fault is named."""
    settings = _settings(config_file, env_file)
    sys.exit(asyncio.run(_check(settings, live)))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of providers.json."""
    click.echo(json.dumps(config.schema(), indent=2))


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


def _prompt(given: str | None) -> str:
    try:
        if given is None or given == "-":
            if not sys.stdin or sys.stdin.isatty():
                raise click.UsageError('no prompt: `fanout ask "…"`, or pipe it in')
            given = sys.stdin.buffer.read().decode().rstrip("\n")
            if not given:
                raise click.UsageError("no prompt: standard input is empty")
        given.encode()
    except UnicodeError:
        raise click.UsageError("the prompt is not UTF-8 text") from None
    return given


def _settings(config_file: Path | None, env_file: Path | None) -> Settings:
    return config.load(config_file, config.with_env_file(env_file, os.environ))


async def _ask_here(settings: Settings, body: Mapping[str, Any], view: SideBySide | None) -> bool:
    """Asks without a server; whether all answered."""
    rest = {name: value for name, value in body.items() if name not in ("prompt", "model", "timeout_s")}
    deadline_s = body.get("timeout_s") or settings.environment.timeout_s
    async with open_dispatcher(settings) as dispatcher:
        calls = dispatcher.plan(library.request(body["prompt"], body["model"], **rest))
        await dispatcher.warm(calls)
        if view is None:
            return await _answer_json(dispatcher, calls, deadline_s)
        with view:
            view.begin(terminal.labels((call.index, call.entry, call.sample, call.target.label) for call in calls))
            async for piece in dispatcher.stream(calls, deadline_s=deadline_s):
                if isinstance(piece, Delta):
                    view.add(piece.call_index, piece.text)
                else:
                    view.finish(piece.call.index, choice_json(merge([piece], created=time.time(), total_s=0).choices[0]))
    return not view.failed


async def _ask_server(address: str, key: str | None, body: Mapping[str, Any], view: SideBySide | None) -> bool:
    """Asks a running server; whether all answered."""
    async with client.open_client(address, key) as server:
        if view is None:
            answered, answer = await server.ask(body)
            good = answered and not any(choice["error"] for choice in answer["choices"])
            _print_json(answer)
            return good
        with view:
            calls = await server.calls(body)
            view.begin(terminal.labels((call["index"], call["entry"], call["sample"], call["label"]) for call in calls))
            async for choice in server.stream(body):
                view.add(choice["index"], choice["text"])
                if "timing" in choice or "error" in choice:
                    view.finish(choice["index"], choice)
    return not view.failed


async def _answer_json(dispatcher: Dispatcher, calls: Sequence[Call], deadline_s: float) -> bool:
    created, began = time.time(), time.monotonic()
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s)
    failed = sum(isinstance(outcome.result, Failure) for outcome in outcomes)
    if failed == len(outcomes):
        answer = from_json(str(all_failed(outcomes).text))
    else:
        answer = comparison_json(merge(outcomes, created=created, total_s=time.monotonic() - began))
    _print_json(answer)
    return not failed


def _print_json(answer: Any) -> None:
    click.echo(to_json(from_json(encoded(answer)), indent=2))


def _is_ready(model: Model, catalogue: Catalogue) -> bool:
    return not catalogue.lacks(model) and not catalogue.retired(model, datetime.now(UTC).date())


def _state(model: Model, catalogue: Catalogue) -> str:
    ends = model.row.deprecated_on if model.row else None
    if catalogue.retired(model, datetime.now(UTC).date()):
        return f"shut down on {ends}"
    lacks = catalogue.lacks(model)
    return (f"needs {' and '.join(lacks)}" if lacks else "ready") + (f", until {ends}" if ends else "")


async def _check(settings: Settings, live: bool) -> int:
    """Says what is configured, then asks each ready model for one token if `live`; the exit code."""
    async with open_dispatcher(settings) as dispatcher:
        catalogue = dispatcher.catalogue
        ready = [model.name for model in catalogue if _is_ready(model, catalogue)]
        providers = f"{len(settings.providers)} providers, {len(settings.models)} models ({len(ready)} ready)"
        click.echo(f"{', '.join(settings.files)}: valid; {providers}")
        if not live:
            return ALL_ANSWERED
        if not ready:
            raise click.ClickException("no model is ready; `fanout models` names what each needs")
        outcomes = await _one_token_each(dispatcher, ready)
    rows = [
        (
            outcome.call.target.name,
            f"{outcome.timing.total_s:.2f} s",
            f"failed: {outcome.result.message}" if isinstance(outcome.result, Failure) else "answers",
        )
        for outcome in outcomes
    ]
    terminal.show_table(Console(), ("model", "time", "state"), rows, right=("time",))
    return ALL_ANSWERED if all(isinstance(outcome.result, Completion) for outcome in outcomes) else SOME_FAILED


async def _one_token_each(dispatcher: Dispatcher, names: Sequence[str]) -> list[Outcome]:
    environment = dispatcher.settings.environment
    outcomes: list[Outcome] = []
    for start in range(0, len(names), environment.max_calls):
        calls = dispatcher.plan(library.request("Hello", names[start : start + environment.max_calls], max_tokens=1))
        await dispatcher.warm(calls)
        outcomes += await dispatcher.run(calls, deadline_s=environment.timeout_s)
    return outcomes
