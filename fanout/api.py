"""Fanout in a program: `await fanout.ask("…", models=[…])`, and `fanout.ask_sync` for notebooks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from fanout.config.settings import Settings, load_settings
from fanout.core.errors import Fault, RequestError
from fanout.core.merge import merge
from fanout.core.sampling import Sampling
from fanout.core.sampling_fields import validate_sampling
from fanout.core.schema import Comparison
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.dispatch.plan import Models, Request, parse_entries

EMBEDDED = ("embedded",)


def build_request(prompt: str, models: Models, *, system: str | None = None, strict: bool = False, **sampling: Any) -> Request:
    """Return the request that sends a prompt to many models.

    Args:
        prompt: a user message for chat models, a text to continue for others.
        models: see `Models`.
        system: a system message, for chat models.
        strict: whether a parameter that a model cannot take fails its entry instead of being ignored.
        sampling: `max_tokens`, `temperature`, …: the fields of `Sampling`.

    Raises:
        RequestError: with every unknown or wrong parameter.
    """
    faults: list[Fault] = []
    entries = parse_entries(models, faults)
    common = Sampling(**validate_sampling(sampling, "", faults))
    if faults:
        raise RequestError(faults)
    return Request(entries=entries, prompts=(prompt,), system=system, sampling=common, strict=strict)


async def ask(
    prompt: str,
    models: Models = EMBEDDED,
    *,
    system: str | None = None,
    strict: bool = False,
    timeout_s: float | None = None,
    return_when: int | None = None,
    dispatcher: Dispatcher | None = None,
    settings: Settings | None = None,
    **sampling: Any,
) -> Comparison:
    """Send one prompt to many models at once and return the answers side by side, failures in their places.

    Args:
        prompt: a user message for chat models, a text to continue for others.
        models: see `Models`; by default the embedded ones.
        system: a system message, for chat models.
        strict: whether a parameter that a model cannot take fails its entry instead of being ignored.
        timeout_s: deadline of the whole request; by default `FANOUT_TIMEOUT_S`.
        return_when: number of entries that must have answered before the rest is cancelled.
        dispatcher: an open one, to keep connections and limits between prompts; else one is opened for this prompt.
        settings: settings of the dispatcher that is opened; by default those of `load_settings()`.
        sampling: `max_tokens`, `temperature`, …: the fields of `Sampling`.

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown or wrong parameter, or too many calls.
    """
    if return_when is not None and return_when < 1:
        raise RequestError([Fault("return_when", "must be at least 1, or `None` for all")])
    request = build_request(prompt, models, system=system, strict=strict, **sampling)
    async with nullcontext(dispatcher) if dispatcher else open_dispatcher(settings or load_settings()) as opened:
        calls = opened.plan(request)
        await opened.prepare(calls)
        created, began = time.time(), time.monotonic()
        deadline_s = opened.settings.environment.timeout_s if timeout_s is None else timeout_s
        outcomes = await opened.run(calls, deadline_s=deadline_s, return_when=return_when)
        return merge(outcomes, created=created, total_s=time.monotonic() - began)


def ask_sync(prompt: str, models: Models = EMBEDDED, **options: Any) -> Comparison:
    """Call `ask` from a notebook or script, whether or not an event loop runs. It takes the same options, but no dispatcher.

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown or wrong parameter, or too many calls.
    """
    if "dispatcher" in options:
        raise RequestError([Fault("dispatcher", "belongs to the event loop that opened it: use `await fanout.ask(…)` there")])
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask(prompt, models, **options))
    return _run_in_thread(prompt, models, options)


def _run_in_thread(prompt: str, models: Models, options: Mapping[str, Any]) -> Comparison:
    """Run `ask` in a thread, for a running loop must not be blocked. An interrupt ends the calls at once."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def run() -> Comparison:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await ask(prompt, models, **options)

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(lambda: asyncio.run(run()))
        try:
            return future.result()
        except KeyboardInterrupt:
            # Else the thread would go on calling, and paying, until the last answer.
            for loop, task in running:
                loop.call_soon_threadsafe(task.cancel)
            raise
