"""Fanout in a program: `await fanout.ask("…", models=[…])`, `fanout.ask_sync` for notebooks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fanout.config import Settings, load
from fanout.dispatch import Dispatcher, open_dispatcher
from fanout.errors import Fault, RequestError, did_you_mean
from fanout.merge import merge
from fanout.plan import Entry, Request
from fanout.schema import SAMPLING_NAMES, Comparison, Sampling


def request(
    prompt: str, models: Sequence[str | Mapping[str, Any]], *, system: str | None = None, strict: bool = False, **sampling: Any
) -> Request:
    """A prompt to many models.

    Args:
        models: names, or mappings with `model`, an optional `label` and sampling parameters of that entry's own.
        sampling: `max_tokens`, `temperature`, …: the fields of `schema.Sampling`.

    Raises:
        RequestError: an unknown parameter.
    """
    entries = []
    for model in models:
        given: dict[str, Any] = {"model": model} if isinstance(model, str) else dict(model)
        entries.append(Entry(model=given.pop("model"), label=given.pop("label", None), overrides=_known(given)))
    return Request(
        entries=tuple(entries), prompts=(prompt,), system=system, sampling=Sampling(**_known(sampling)), strict=strict
    )


async def ask(
    prompt: str,
    models: Sequence[str | Mapping[str, Any]] = ("embedded",),
    *,
    system: str | None = None,
    strict: bool = False,
    timeout_s: float | None = None,
    return_when: int | None = None,
    dispatcher: Dispatcher | None = None,
    settings: Settings | None = None,
    **sampling: Any,
) -> Comparison:
    """One prompt to many models at once; the answers side by side, failures in their places.

    Args:
        models: see `request`; by default the embedded ones.
        timeout_s: the deadline of it all; by default `FANOUT_TIMEOUT_S`.
        return_when: how many entries must have answered before the rest is cancelled.
        dispatcher: an open one, to keep connections and limits between questions; else one is opened for this question.
        settings: for the dispatcher that is opened; by default what `config.load()` reads.
        sampling: the fields of `schema.Sampling`.

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown parameter, or too many calls.
    """
    if dispatcher is None:
        async with open_dispatcher(settings or load()) as opened:
            return await ask(
                prompt,
                models,
                system=system,
                strict=strict,
                timeout_s=timeout_s,
                return_when=return_when,
                dispatcher=opened,
                **sampling,
            )
    created, began = time.time(), time.monotonic()
    calls = dispatcher.plan(request(prompt, models, system=system, strict=strict, **sampling))
    deadline_s = timeout_s or dispatcher.settings.environment.timeout_s
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=return_when)
    return merge(outcomes, created=created, total_s=time.monotonic() - began)


def ask_sync(prompt: str, models: Sequence[str | Mapping[str, Any]] = ("embedded",), **options: Any) -> Comparison:
    """`ask`, for notebooks and scripts: works whether or not an event loop runs. Options as for `ask`, but no dispatcher."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(ask(prompt, models, **options))).result()


def _known(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters as `Sampling` holds them.

    Raises:
        RequestError: a name that is none.
    """
    faults = [
        Fault(
            name, f"unknown parameter `{name}`{did_you_mean(name, SAMPLING_NAMES) or '; known: ' + ', '.join(SAMPLING_NAMES)}"
        )
        for name in sampling
        if name not in SAMPLING_NAMES
    ]
    if faults:
        raise RequestError(faults)
    stop = sampling.get("stop")
    return {**sampling, **({"stop": (stop,) if isinstance(stop, str) else tuple(stop)} if stop is not None else {})}
