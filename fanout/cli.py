"""The command line: serve, ask, models, check, schema."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import click
from pydantic_core import from_json, to_json
from rich.console import Console
from rich.markup import escape

import fanout
from fanout import config, library, logs, prices, terminal
from fanout.config import Settings
from fanout.dispatch import Dispatcher, open_dispatcher
from fanout.errors import ConfigError, FanoutError, RequestError, ServerError
from fanout.merge import merge
from fanout.providers._sse import SseDecoder
from fanout.schema import Call, Completion, Delta, Failure, Outcome
from fanout.web import app
from fanout.web.completion import choice_json, comparison_json

ALL_ANSWERED, SOME_FAILED, UNUSABLE = 0, 1, 2
configured = [
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="A providers.json of your own, laid over the shipped one.",
    ),
    click.option("--env-file", type=click.Path(path_type=Path), help="NAME=value lines, for keys; what is set already wins."),
]


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that every command takes which needs a configuration."""
    for option in reversed(configured):
        command = option(command)
    return command


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
    try:
        asyncio.run(app.serve(settings, host, port, lambda address: _greeting(address, settings)))
    except OSError as error:
        raise _Unusable(f"cannot listen on {host}:{port}: {error.strerror or error}; `--port` names another") from error


@cli.command()
@with_settings
@click.argument("prompt", required=False)
@click.option("-m", "--model", "models", multiple=True, help="A model, an alias, a set or <provider>/<id>; once for each.")
@click.option("--system", help="A system message, for chat models.")
@click.option("--max-tokens", type=click.IntRange(0))
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.option("--top-p", type=click.FloatRange(0, 1))
@click.option("--seed", type=int)
@click.option("-n", "n", type=click.IntRange(1, 128), help="Samples of each model.")
@click.option("--stop", multiple=True, help="A sequence to stop before; up to four.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, 600, min_open=True), help="Seconds for it all.")
@click.option("--diff", is_flag=True, help="Show how the other answers differ from the first.")
@click.option("--json", "as_json", is_flag=True, help="Print what `POST /v1/completion` would answer.")
@click.option("--server", help="Address of a running server; without it no server is needed.")
def ask(
    config_file: Path | None,
    env_file: Path | None,
    prompt: str | None,
    models: tuple[str, ...],
    server: str | None,
    diff: bool,
    as_json: bool,
    timeout_s: float | None,
    system: str | None,
    **sampling: Any,
) -> None:
    """Ask many models at once. Without -m: the embedded ones. Without PROMPT, or with `-`: reads it from standard input.

    Exits with 0 if all answered, 1 if some failed, 2 if nothing could be asked.
    """
    text = _prompt(prompt)
    wanted = {name: value for name, value in sampling.items() if value not in (None, ())}
    question = _Question(text, models or ("embedded",), system, timeout_s, wanted)
    view = _View(Console(), diff=diff, as_json=as_json)
    if server:
        environ = config.with_env_file(env_file, os.environ)
        work = _ask_server(server, question, view, config.Environment.read(environ))
    else:
        work = _ask_here(_settings(config_file, env_file), question, view)
    sys.exit(SOME_FAILED if asyncio.run(work) else ALL_ANSWERED)


@cli.command()
@with_settings
@click.option("--ready", is_flag=True, help="Only those that can be called now.")
@click.option("--json", "as_json", is_flag=True)
def models(config_file: Path | None, env_file: Path | None, ready: bool, as_json: bool) -> None:
    """List the models: ready, or what is missing."""
    from fanout.catalogue import Catalogue
    from fanout.web.models import model_json

    catalogue = Catalogue(_settings(config_file, env_file))
    known = [model_json(model, catalogue) for model in catalogue]
    known = sorted((model for model in known if model["ready"] or not ready), key=lambda model: not model["ready"])
    if as_json:
        click.echo(to_json(known, indent=2).decode())
        return
    rows = [
        (
            escape(model["id"]),
            escape(model["provider"]),
            "both" if model["is_chat"] and model["is_text"] else "chat" if model["is_chat"] else "text",
            str(model["max_context_length"] or ""),
            "[green]ready[/]" if model["ready"] else f"needs {escape(', '.join(model['missing']))}",
            f"retired {model['deprecated_on']}" if model["deprecated_on"] else "",
        )
        for model in known
    ]
    Console().print(terminal.table(("model", "provider", "kind", "context", "state", ""), rows, right=("context",)))


@cli.command()
@with_settings
@click.option("--live", is_flag=True, help="Ask each ready model for one token.")
def check(config_file: Path | None, env_file: Path | None, live: bool) -> None:
    """Check the configuration; every fault is named."""
    settings = _settings(config_file, env_file)
    missing = [name for name, provider in settings.providers.items() if provider.lacks()]
    ready = len(settings.providers) - len(missing)
    counts = f"{len(settings.providers)} providers ({ready} ready), {len(settings.models)} models"
    click.echo(f"{', '.join(settings.files)}: valid; {counts}")
    if live:
        sys.exit(asyncio.run(_check_live(settings)))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of providers.json."""
    click.echo(json.dumps(config.schema(), indent=2))


def main() -> None:
    """The `fanout` command."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(UNUSABLE)
    except RequestError as error:
        _complain(error)
        sys.exit(UNUSABLE)
    except (ConfigError, ServerError) as error:
        _complain(error)
        sys.exit(UNUSABLE)


class _Unusable(click.ClickException):
    exit_code = UNUSABLE


class _Question:
    """What is asked, as both ways of asking need it."""

    def __init__(
        self, prompt: str, models: tuple[str, ...], system: str | None, timeout_s: float | None, sampling: Mapping[str, Any]
    ) -> None:
        self.prompt, self.models, self.system = prompt, models, system
        self.timeout_s, self.sampling = timeout_s, sampling

    def body(self) -> dict[str, Any]:
        extra = {"system": self.system, "timeout_s": self.timeout_s}
        given = {name: value for name, value in extra.items() if value is not None}
        return {"prompt": self.prompt, "model": list(self.models), "stream": True, **self.sampling, **given}


class _View:
    """Where the answers go: side by side on the terminal, or as JSON at the end."""

    def __init__(self, console: Console, *, diff: bool, as_json: bool) -> None:
        self._console, self._diff, self.as_json = console, diff, as_json
        self._shown: terminal.SideBySide | None = None

    @contextlib.contextmanager
    def open(self, labels: Mapping[int, str]) -> Iterator[terminal.SideBySide]:
        console = Console(quiet=True, file=open(os.devnull, "w")) if self.as_json else self._console  # noqa: SIM115  # rich closes it
        shown = terminal.SideBySide(console, labels, diff=self._diff)
        try:
            yield shown
        except BaseException:
            shown.close(show=False)
            raise
        shown.close(show=not self.as_json)


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if sys.stdin.isatty():
        raise click.UsageError('no prompt: `fanout ask "…"`, or pipe it in')
    return sys.stdin.read().strip("\n")


def _settings(config_file: Path | None, env_file: Path | None) -> Settings:
    return config.load(config_file, config.with_env_file(env_file, os.environ))


def _complain(error: FanoutError) -> None:
    click.echo(f"fanout: {error}".replace("\n", "\nfanout: "), err=True)


def _greeting(address: str, settings: Settings) -> None:
    """What a person reads who has just started the server."""
    lacking = [(name, provider.lacks()) for name, provider in settings.providers.items() if provider.lacks()]
    unready = {name for name, _ in lacking}
    ready = [name for name, model in settings.models.items() if model.provider not in unready]
    more = f" and {len(ready) - 12} more" if len(ready) > 12 else ""
    click.echo(f"Fanout {fanout.__version__} listens on {address}")
    click.echo(f"ready: {', '.join(ready[:12]) or 'no model'}{more}")
    if lacking:
        click.echo("needs a key: " + ", ".join(f"{name} ({' and '.join(variables)})" for name, variables in lacking))
    model = to_json(ready[:3] or ["local/ngram-5"]).decode()
    key = " -H 'Authorization: Bearer <key>'" if settings.environment.api_keys else ""
    body = f'{{"model": {model}, "prompt": "The return statement", "max_tokens": 30}}'
    click.echo(f"try: curl {address}/v1/completion{key} -H 'Content-Type: application/json' -d '{body}'")
    sys.stdout.flush()


async def _ask_here(settings: Settings, question: _Question, view: _View) -> int:
    """Asks without a server; how many failed."""
    created, began = time.time(), time.monotonic()
    async with open_dispatcher(settings) as dispatcher:
        asked = library.request(question.prompt, question.models, system=question.system, **question.sampling)
        calls = dispatcher.plan(asked)
        pricing = asyncio.create_task(asyncio.to_thread(prices.load))
        outcomes: list[Outcome] = []
        deadline_s = question.timeout_s or settings.environment.timeout_s
        with view.open(_labels(calls)) as shown:
            async for piece in dispatcher.stream(calls, deadline_s=deadline_s):
                if isinstance(piece, Delta):
                    shown.add(piece.call_index, piece.text)
                else:
                    outcomes.append(piece)
                    alone = merge([piece], created=created, total_s=0).choices[0]
                    shown.finish(piece.call.index, choice_json(alone))
        await pricing
    outcomes.sort(key=lambda outcome: outcome.call.index)
    if view.as_json:
        whole = merge(outcomes, created=created, total_s=time.monotonic() - began)
        click.echo(to_json(comparison_json(whole), indent=2).decode())
    return shown.failed


def _labels(calls: list[Call]) -> dict[int, str]:
    several = {call.target.label for call in calls if call.sample}
    return {
        call.index: f"{call.target.label} #{call.sample + 1}" if call.target.label in several else call.target.label
        for call in calls
    }


async def _ask_server(server: str, question: _Question, view: _View, environment: config.Environment) -> int:
    """Asks a running server; how many failed."""
    headers = {}
    if environment.api_keys:
        headers["Authorization"] = f"Bearer {environment.api_keys[0].get_secret_value()}"
    url = f"{server.rstrip('/')}/v1/completion"
    choices: dict[int, dict[str, Any]] = {}
    end: dict[str, Any] = {}
    try:
        async with aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)
        ) as session:
            dry = await _posted(session, url, {**question.body(), "dry_run": True})
            labels = {
                call["index"]: call["label"] + (f" #{call['sample'] + 1}" if call["sample"] else "") for call in dry["calls"]
            }
            with view.open(labels) as shown:
                async for chunk in _chunks(session, url, question.body()):
                    for choice in chunk["choices"]:
                        whole = choices.setdefault(choice["index"], {"text": ""})
                        text = whole["text"] + choice["text"]
                        whole |= choice | {"text": text}
                        shown.add(choice["index"], choice["text"])
                        if "timing" in choice:
                            shown.finish(choice["index"], whole)
                    end = chunk
    except aiohttp.ClientError as error:
        raise ServerError(f"no Fanout server at {server}: {error}") from error
    if view.as_json:
        click.echo(json.dumps({**end, "choices": [choices[index] for index in sorted(choices)]}, indent=2, ensure_ascii=False))
    return shown.failed


async def _posted(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        if response.status != 200:
            raise await _refused(response)
        answer: dict[str, Any] = await response.json()
        return answer


async def _chunks(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    decoder = SseDecoder()
    async with session.post(url, json=body) as response:
        if response.status != 200:
            raise await _refused(response)
        async for block in response.content.iter_any():
            for _, data in decoder.feed(block):
                if data != b"[DONE]":
                    yield from_json(data)


async def _refused(response: aiohttp.ClientResponse) -> ServerError:
    text = await response.text()
    try:
        message = from_json(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:500]
    return ServerError(f"the server answered {response.status}: {message}")


async def _check_live(settings: Settings) -> int:
    """One token of each ready model; the exit code."""
    async with open_dispatcher(settings) as dispatcher:
        ready = [model.name for model in dispatcher.catalogue if not dispatcher.catalogue.lacks(model)]
        if not ready:
            raise _Unusable("no model is ready: set a key; `fanout models` names the variables")
        outcomes = await _one_token_each(dispatcher, ready, settings)
    rows = [
        (
            escape(outcome.call.target.name),
            "[red]failed[/]" if isinstance(outcome.result, Failure) else "[green]answers[/]",
            f"{outcome.timing.total_s:.2f} s",
            escape(outcome.result.message) if isinstance(outcome.result, Failure) else "",
        )
        for outcome in outcomes
    ]
    Console().print(terminal.table(("model", "state", "time", ""), rows, right=("time",)))
    return ALL_ANSWERED if all(isinstance(outcome.result, Completion) for outcome in outcomes) else SOME_FAILED


async def _one_token_each(dispatcher: Dispatcher, names: list[str], settings: Settings) -> list[Outcome]:
    outcomes: list[Outcome] = []
    most = settings.environment.max_calls
    for start in range(0, len(names), most):
        calls = dispatcher.plan(library.request("Hello", names[start : start + most], max_tokens=1))
        outcomes += await dispatcher.run(calls, deadline_s=settings.environment.timeout_s)
    return outcomes
