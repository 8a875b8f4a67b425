"""Trials of providers with the least that shows whether they work: one whole call, then one streamed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from fanout.config.ca_file import make_ssl_context
from fanout.config.catalogue import Catalogue
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Delta, Failure, Outcome
from fanout.core.threads import run_in_thread
from fanout.dispatch import pricing
from fanout.dispatch.default_models import find_cheapest_model, rank_by_cost
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request
from fanout.probe.diagnosis import Finding, diagnose, diagnose_listing, diagnose_without_model
from fanout.providers.model_listing import PATHS, list_models
from fanout.providers.transport.connection_errors import PARSER_LIMITS

MAX_CONCURRENT_TRIALS = 8
"""Providers tried at the same time."""
QUESTION = "Reply with the single word OK."
FEW_TOKENS, ENOUGH_TOKENS = Sampling(max_tokens=32), Sampling(max_tokens=2048)
"""Output tokens of the first call, and of a second one where a model needs more than that to think."""
LISTING_S = 10.0
OTHER_KINDS = re.compile(
    r"embed|bge|rerank|whisper|tts|speech|audio|voice|dall|image|flux|diffusion|video|sora|moderation|guard|ocr|vision"
    r"|transcri|realtime|search|prompt|parse|retriev|reward|base$|orpheus|asr|deep-research",
    re.IGNORECASE,
)
"""Parts of ids of models that do not chat, or not in words alone."""
NO_LIST = ("unsupported", "not_found", "bad_request", "malformed")
"""Failures of a host without a list of its models, which is not a fault."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Trial:
    """A provider to try, with a model; without one, one is chosen."""

    provider: str
    model: str | None = None
    is_explicit: bool = False
    """Whether it was requested by name: then it is a fault if it cannot be tried."""


def choose_trials(
    catalogue: Catalogue, providers: Mapping[str, ProviderSettings], models: Sequence[str], named: Sequence[str]
) -> list[Trial]:
    """Return the trials: of the models and the providers `named`, else of every provider that is configured."""
    trials = [Trial(found.provider, name, is_explicit=True) for name in models if (found := catalogue.find(name))]
    with_model = {trial.provider for trial in trials}
    trials += [Trial(name, is_explicit=True) for name in dict.fromkeys(named) if name not in with_model]
    return trials or [Trial(name) for name, provider in providers.items() if not provider.lacks()]


async def run_trials(dispatcher: Dispatcher, trials: Iterable[Trial], timeout_s: float) -> list[Finding]:
    """Run trials, each within `timeout_s`, and return their findings, in order; a faulty provider is a finding, too."""
    places = asyncio.Semaphore(MAX_CONCURRENT_TRIALS)

    async def run_in_place(trial: Trial) -> Finding:
        async with places:
            return await _run_trial(dispatcher, session, trial, timeout_s)

    # No cookies: a host must not learn what another one has set.
    jar = aiohttp.DummyCookieJar()
    connector = aiohttp.TCPConnector(ssl=make_ssl_context(dispatcher.settings.environment.ca_file))
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=jar, **PARSER_LIMITS) as session,
        asyncio.TaskGroup() as group,
    ):
        await run_in_thread("setup", pricing.load_prices)  # else the first price is read on the event loop
        tasks = [group.create_task(run_in_place(trial)) for trial in trials]
    return [task.result() for task in tasks]


async def _run_trial(dispatcher: Dispatcher, session: aiohttp.ClientSession, trial: Trial, timeout_s: float) -> Finding:
    provider, began = dispatcher.settings.providers[trial.provider], time.monotonic()
    if lacks := provider.lacks():
        return _find_lacks(provider, trial, lacks)
    name = trial.model
    try:
        name = name or await choose_model(dispatcher.catalogue, provider, session, min(timeout_s, LISTING_S))
        finding = await _make_calls(dispatcher, provider, name, began + timeout_s)
    except ProviderError as error:
        if error.failure.kind in NO_LIST:
            return diagnose_without_model(provider, error.failure, tried=trial.is_explicit)
        finding = diagnose_listing(provider, error.failure)
    if finding.reachable is False and not trial.is_explicit and _is_local(provider):
        return replace(finding, next="not running", tried=False)
    return finding


def _find_lacks(provider: ProviderSettings, trial: Trial, lacks: Sequence[str]) -> Finding:
    wanted = " and ".join(f"`{name}`" for name in lacks).replace(" or ", "` or `")
    key = False if provider.missing_key else None
    return Finding(provider.name, trial.model, key_accepted=key, next=f"set {wanted}; `fanout init` asks for it")


async def choose_model(
    catalogue: Catalogue, provider: ProviderSettings, session: aiohttp.ClientSession, timeout_s: float
) -> str:
    """Return the model to try: the cheapest of the catalogue's, where the host is its vendor's, else of the host's own list.

    Raises:
        ProviderError: none is known, and the host's list could not be fetched.
    """
    known = find_cheapest_model(catalogue, provider)
    if known and (provider.row.base_url or provider.adapter not in PATHS):
        return known
    try:
        ids = filter_chat_models(await list_models(provider, session, timeout_s))
    except ProviderError as error:
        if known and error.failure.kind in NO_LIST:
            return known
        raise
    if not ids:
        raise ProviderError(Failure("unsupported", f"`{provider.name}` lists no model", status=200))
    return f"{provider.name}/{min(ids, key=lambda id_: rank_by_cost(provider, id_))}"


def filter_chat_models(models: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the ids of models that chat, as far as their names tell; all of them where none seems to."""
    # Ids are printed on the terminal: control characters would steer it.
    ids = [str(model["id"]) for model in models if str(model["id"]).isprintable()]
    return [id_ for id_ in ids if not OTHER_KINDS.search(id_)] or ids


def _is_local(provider: ProviderSettings) -> bool:
    """Return whether it is a server on this machine, which may just not be running."""
    return provider.row.key_optional and urlsplit(provider.base_url or "").hostname in LOOPBACK


async def _make_calls(dispatcher: Dispatcher, provider: ProviderSettings, model: str, deadline: float) -> Finding:
    known = dispatcher.catalogue.find(model)
    kind = known.kind if known else "chat"
    request, whole = await _make_whole_call(dispatcher, _build_request(model, is_chat=kind != "text"), deadline)
    if kind == "both" and isinstance(whole.result, Failure) and whole.result.kind in ("bad_request", "unsupported"):
        # It has no chat template.
        request, whole = await _make_whole_call(dispatcher, _build_request(model, is_chat=False), deadline)
    # A streamed call after a failure would cost, and show nothing new.
    if isinstance(whole.result, Failure):
        return diagnose(provider, model, whole)
    streamed, pieces = await _make_stream_call(dispatcher, request, deadline)
    if not pieces and _may_need_more(request, streamed):
        streamed, pieces = await _make_stream_call(dispatcher, replace(request, sampling=ENOUGH_TOKENS), deadline)
    if not pieces and not isinstance(streamed.result, Failure):  # a model may have nothing to say once; twice is no chance
        streamed, pieces = await _make_stream_call(dispatcher, request, deadline)
    return diagnose(provider, model, whole, streamed, pieces=pieces)


def _build_request(model: str, *, is_chat: bool) -> Request:
    if is_chat:
        return Request((Entry(model),), messages=(Message("user", QUESTION),), sampling=FEW_TOKENS)
    return Request((Entry(model),), prompts=(QUESTION,), sampling=FEW_TOKENS)


async def _make_whole_call(dispatcher: Dispatcher, request: Request, deadline: float) -> tuple[Request, Outcome]:
    """Make a whole call, again with more tokens where a model needs them; return the last request and its outcome."""
    (outcome,) = await dispatcher.run(await _plan(dispatcher, request), deadline_s=_remaining_s(deadline))
    if _may_need_more(request, outcome):
        return await _make_whole_call(dispatcher, replace(request, sampling=ENOUGH_TOKENS), deadline)
    return request, outcome


async def _make_stream_call(dispatcher: Dispatcher, request: Request, deadline: float) -> tuple[Outcome, int]:
    """Make a streamed call; return its outcome and the number of pieces that held something."""
    pieces, outcome = 0, None
    async with aclosing(dispatcher.stream(await _plan(dispatcher, request), deadline_s=_remaining_s(deadline))) as stream:
        async for piece in stream:
            if isinstance(piece, Delta):
                pieces += bool(piece.text or piece.reasoning or piece.refusal or piece.tool_calls or piece.extra)
            else:
                outcome = piece
    assert outcome is not None
    return outcome, pieces


async def _plan(dispatcher: Dispatcher, request: Request) -> list[Call]:
    calls = dispatcher.plan(request)
    await dispatcher.prepare(calls)  # the embedded models train, which is not part of an answer's time
    return calls


def _remaining_s(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _may_need_more(request: Request, outcome: Outcome) -> bool:
    """Return whether a model that thinks first ran out of few tokens before its first word."""
    result = outcome.result
    if request.sampling is ENOUGH_TOKENS:
        return False
    if isinstance(result, Failure):
        return result.kind == "bad_request" and bool(re.search("max_(completion_|output_)?tokens|output limit", result.message))
    return bool(result.choices) and all(
        choice.finish_reason == "length" and not choice.message.text for choice in result.choices
    )
