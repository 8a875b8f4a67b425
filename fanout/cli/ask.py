"""`fanout ask`: one prompt to many models, here or through a running server."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fanout import api
from fanout.cli.client import open_client
from fanout.cli.options import (
    ALL_ANSWERED,
    SOME_FAILED,
    load_settings,
    print_json,
    read_server_key,
    timeout_option,
    with_sampling,
    with_settings,
)
from fanout.cli.side_by_side import SideBySide, build_labels
from fanout.cli.tables import SafeConsole
from fanout.config.settings import Settings
from fanout.core.given_text import BYTE_ORDER_MARK, trim
from fanout.core.merge import merge
from fanout.core.schema import Call, Delta, Failure
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.rendering.comparison import render_choice, render_comparison
from fanout.rendering.errors import render_all_failed


@click.command()
@with_settings
@click.argument("prompt", required=False)
@click.option("-m", "--model", "models", multiple=True, help="A model, an alias, a set or <provider>/<id>; may be repeated.")
@with_sampling
@click.option("-n", "n", type=click.IntRange(1, 128), help="Number of samples from each model.")
@timeout_option("Seconds for all of them together.")
@click.option("--diff", is_flag=True, help="Show how the other answers differ from the first.")
@click.option("--json", "as_json", is_flag=True, help="Print what `POST /v1/completion` would return.")
@click.option("--server", help="Address of a running server; without it, this command calls the providers itself.")
def ask(
    config_file: Path | None,
    env_file: Path | None,
    prompt: str | None,
    models: tuple[str, ...],
    server: str | None,
    diff: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask many models at once. Without -m: the embedded ones. Without PROMPT, or with `-`: read it from standard input.

    Exits with 0 if every model answered, 1 if some failed, 2 if nothing could be asked.
    """
    body = {"prompt": _read_prompt(prompt), "model": list(models) or ["embedded"]}
    body |= {name: value for name, value in options.items() if value not in (None, ())}
    view = None if as_json else SideBySide(SafeConsole(), diff=diff)
    if server:
        good = asyncio.run(_ask_server(server, read_server_key(env_file), body, view))
    else:
        good = asyncio.run(_ask_locally(load_settings(config_file, env_file), body, view))
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


def _read_prompt(prompt: str | None) -> str:
    try:
        if prompt is None or prompt == "-":
            if not sys.stdin or sys.stdin.isatty():
                raise click.UsageError('no prompt: `fanout ask "…"`, or pipe it in')
            prompt = trim(sys.stdin.buffer.read().decode())
            if not prompt:
                raise click.UsageError("no prompt: standard input is empty")
        prompt = prompt.removeprefix(BYTE_ORDER_MARK)
        prompt.encode()  # an argument that is not UTF-8 holds lone surrogates
    except UnicodeError:
        raise click.UsageError("the prompt is not UTF-8 text") from None
    return prompt


async def _ask_locally(settings: Settings, body: Mapping[str, Any], view: SideBySide | None) -> bool:
    """Call the models from this process and show their answers; return whether all answered."""
    options = {name: value for name, value in body.items() if name not in ("prompt", "model", "timeout_s")}
    deadline_s = body.get("timeout_s") or settings.environment.timeout_s
    async with open_dispatcher(settings) as dispatcher:
        calls = dispatcher.plan(api.build_request(body["prompt"], body["model"], **options))
        await dispatcher.prepare(calls)  # training the embedded models is not part of an answer's time
        if view is None:
            return await _print_comparison(dispatcher, calls, deadline_s)
        with view:
            view.begin(build_labels((call.index, call.entry, call.sample, call.target.label) for call in calls))
            async for piece in dispatcher.stream(calls, deadline_s=deadline_s):
                if isinstance(piece, Delta):
                    view.add(piece.call_index, piece.text)
                else:
                    choice = merge([piece], created=time.time(), total_s=0).choices[0]
                    view.finish(piece.call.index, dict(render_choice(choice)))
    return not view.failed


async def _print_comparison(dispatcher: Dispatcher, calls: Sequence[Call], deadline_s: float) -> bool:
    """Print the answers as JSON; return whether all calls were answered."""
    created, began = time.time(), time.monotonic()  # the clock of `created` may be set back meanwhile
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s)
    failed = sum(isinstance(outcome.result, Failure) for outcome in outcomes)
    if failed == len(outcomes):
        print_json({"error": render_all_failed(outcomes).error})
    else:
        print_json(render_comparison(merge(outcomes, created=created, total_s=time.monotonic() - began)))
    return not failed


async def _ask_server(address: str, key: str | None, body: Mapping[str, Any], view: SideBySide | None) -> bool:
    """Send the request to a running server and show its answer; return whether all models answered."""
    async with open_client(address, key) as client:
        if view is None:
            any_answered, answer = await client.complete(body)
            all_answered = any_answered and not any(choice["error"] for choice in answer["choices"])
            print_json(answer)
            return all_answered
        with view:
            calls = await client.plan(body)
            view.begin(build_labels((call["index"], call["entry"], call["sample"], call["label"]) for call in calls))
            async for choice in client.stream(body):
                view.add(choice["index"], choice["text"])
                if "timing" in choice or "error" in choice:  # the last piece of this choice
                    view.finish(choice["index"], choice)
    return not view.failed
