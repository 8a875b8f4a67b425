"""The providers of a configuration behind their accounts' limits: one attempt at a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from fanout import providers
from fanout.config.catalogue import Catalogue, Model
from fanout.config.settings import ProviderSettings, Settings
from fanout.core.errors import ProviderError
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Failure, FittedParameters, Query, Target, Task
from fanout.core.threads import run_in_thread
from fanout.core.usage import Cost, Usage
from fanout.dispatch import account_circuits, pricing
from fanout.dispatch.attempt_clock import AttemptClock
from fanout.dispatch.hooks import Attempt, Hooks, load_hooks
from fanout.dispatch.in_flight import InFlightCall, relay
from fanout.dispatch.no_tokens import PromptReader
from fanout.dispatch.retries import Result
from fanout.limits.answer_memory import count_answer, is_counted
from fanout.limits.limiter import Limiter
from fanout.limits.queue import Permit
from fanout.limits.registry import LimiterRegistry
from fanout.limits.token_estimates import CallSize
from fanout.providers import ADAPTERS, ClosedProvider, OnHeaders, PreparableProvider, Provider
from fanout.providers.economy import open_economy_api
from fanout.providers.mapping.rate_headers import parse_rate_headers
from fanout.providers.mapping.redact import hide_secrets, spell_secrets
from fanout.providers.transport.configured import list_secrets
from fanout.providers.transport.connection_errors import NEVER_SENT
from fanout.providers.transport.departures import ON_DEPARTURE

if TYPE_CHECKING:
    from fanout.providers.economy.api import EconomyApi

CHARACTERS_PER_TOKEN = 4  # of English text, roughly
QUESTION_TOKENS = 8
"""What a provider puts around a short question."""
TOO_LATE = Failure("timeout", "no complete answer before the request's deadline", code="deadline_exceeded")


class Upstreams:
    """One configuration: its catalogue, all its providers, and the attempts through them. A reload makes another.

    Raises `ConfigError` if an adapter cannot be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        limiters: LimiterRegistry,
        *,
        is_serving: bool = False,
        previous: Upstreams | None = None,
    ) -> None:
        self.settings, self._limiters, self._clock = settings, limiters, AttemptClock()
        self.catalogue = Catalogue(settings, is_serving=is_serving)
        self._is_serving = is_serving
        self._hooks: Hooks | None = load_hooks(settings.environment, previous._hooks if previous else None)
        self.has_hooks = self._hooks is not None
        keys = [key.secret for key in settings.environment.api_keys]
        self._secrets = (*spell_secrets(keys), *list_secrets(settings.providers.values()))
        self._session = session
        # Forty shipped providers wait for a key that few users have: each is made at its first call, by a caller's own key.
        self._providers: dict[str, Provider] = {}
        self._others: dict[tuple[str, Task], Provider] = {}
        """Providers of what models do beside answering, made at their first call."""
        self._economy_apis: dict[str, EconomyApi] = {}
        self._loading_prices: asyncio.Task[None] | None = None
        if previous:
            self._take_over(previous)
        for name, row in settings.providers.items():
            # A module of the user's own at once, for it may have faults.
            if name not in self._providers and (not row.lacks() or row.adapter not in ADAPTERS):
                self._providers[name] = providers.create(row, session)

    def replace(self, settings: Settings) -> Upstreams:
        """Return another configuration over the same connections and limiters; providers whose rows are the same stay."""
        return Upstreams(settings, self._session, self._limiters, is_serving=self._is_serving, previous=self)

    def _take_over(self, previous: Upstreams) -> None:
        """Keep what is the same: else embedded models would be trained again, and tokens of clouds fetched."""
        same = {name for name, row in self.settings.providers.items() if previous.settings.providers.get(name) == row}
        self._providers = {name: provider for name, provider in previous._providers.items() if name in same}
        self._others = {key: provider for key, provider in previous._others.items() if key[0] in same}
        self._loading_prices = previous._loading_prices

    def find_provider(self, target: Target, task: Task = "answer") -> Provider:
        name = target.provider
        assert name is not None, "a call without a provider has a refusal and is never sent"
        row = self.settings.providers[name]
        # One object where one adapter does it all: the embedded models are trained once.
        if task == "answer" or providers.find_adapter(row.row, task) == providers.find_adapter(row.row, "answer"):
            return self._find(name)
        if (name, task) not in self._others:
            self._others[name, task] = providers.create(row, self._session, task)
        return self._others[name, task]

    def _find(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = providers.create(self.settings.providers[name], self._session)
        return provider

    def knows(self, model: Model) -> bool:
        """Return whether a provider has a model, as far as is known without a call."""
        provider = self._find(model.provider)
        return not isinstance(provider, ClosedProvider) or provider.knows(model.id)

    def find_economy_api(self, name: str) -> EconomyApi | None:
        """Return the batch API of a provider; `None` where its row names none."""
        row = self.settings.providers.get(name)
        if row is None or row.row.economy is None:
            return None
        if name not in self._economy_apis:
            self._economy_apis[name] = open_economy_api(row, self._session, self._find(name))
        return self._economy_apis[name]

    def find_row(self, call: Call) -> ProviderSettings:
        assert call.target.provider is not None
        return self.settings.providers[call.target.provider]

    def compute_cost(
        self, call: Call, usage: Usage | None, answered: str | None = None, *, in_batch: bool = False
    ) -> Cost | None:
        """Return the cost of a call with that usage, by the model that answered; see `pricing.price_call`."""
        found = self.catalogue.find(call.target.name)
        own = found.row.price if found and found.row else None
        return pricing.price_call(call.target, self.find_row(call).row, own, usage, answered, in_batch=in_batch)

    async def prepare(self, calls: Iterable[Call] | None) -> None:
        """Prepare providers; one that cannot be prepared fails in its calls, which report the reason."""
        sent = {call.target.provider for call in calls if call.refusal is None} if calls is not None else set(self._providers)
        names = [name for name in sent if name is not None]
        work = [provider.prepare() for name in names if isinstance(provider := self._find(name), PreparableProvider)]
        # A provider that cannot be prepared must not stop the others.
        await asyncio.gather(*work, return_exceptions=True)

    def load_prices(self) -> asyncio.Task[None]:
        """Return the task that loads the prices in a thread, where 0.2 s hold up no call; a new one if the last has failed."""
        task = self._loading_prices
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._loading_prices = asyncio.create_task(run_in_thread("setup", pricing.load_prices))
        return task

    def fit(self, target: Target, query: Query) -> FittedParameters:
        """Return the parameters of `query` as the target's provider accepts them."""
        return self.find_provider(target, query.task).fit(target, query)

    async def run_hooks(self, running: InFlightCall, attempt: Attempt) -> Result:
        """Make a call between its hooks."""
        return await (self._hooks.run(running, attempt, self.fit) if self._hooks else attempt(running))

    async def attempt(self, running: InFlightCall) -> Result:
        """Make one attempt as soon as the limits allow; record its wait, its time and its usage."""
        call = running.sent or running.call
        limiter, model = self._find_limiter(call), call.target.model or ""
        prices = self.load_prices() if self.find_row(call).row.prices != "" else None
        size = _measure_tokens(call.query) if limiter.counts_tokens else None
        queued_at = time.monotonic()
        # Nearly every call starts here, without waiting: its time in the queue is that of this line.
        permit = limiter.try_acquire(model, size, queued_at)
        try:
            if permit is None:
                with limiter.shares.hold(call.queue_share):
                    permit = await limiter.acquire(model, size, priority=running.priority, deadline=running.deadline)
        except ProviderError as error:
            return error.failure
        finally:
            running.started_at = time.monotonic()
            # Summed over all attempts: waiting for our own limits never counts as the model's time.
            running.queued_s += running.started_at - queued_at
        if not limiter.counted.is_empty:
            ON_DEPARTURE.set(partial(limiter.counted.count, permit))
        result: Result | None = None
        try:
            result = self._hide_secrets(call, await self._send(running, partial(_record_headers, limiter, permit)))
        finally:
            # Also on cancellation: a place that is not released is lost until the process ends.
            running.call_s = time.monotonic() - running.started_at
            if limiter.circuits.failing or isinstance(result, Failure):  # else it ended as nearly every attempt
                account_circuits.record_end(limiter, running, result)
            _settle(limiter, permit, call, result)
        if prices and not prices.done():  # else its cost would load them on the event loop
            await asyncio.wait([prices])
        return result

    def is_unavailable(self, call: Call) -> bool:
        """Return whether an open circuit holds calls such as this one."""
        circuits = self._find_limiter(call).circuits.open
        return None in circuits or call.target.model in circuits

    async def _send(self, running: InFlightCall, on_headers: OnHeaders) -> Result:
        """Send a call upstream, within the time of one attempt and the request's deadline."""
        call = running.sent or running.call
        provider = self.find_provider(call.target, call.query.task)
        sender = PromptReader(provider) if call.reads_prompt else provider
        attempt_s = self.find_row(call).row.timeout_s
        remaining_s = running.deadline - running.started_at
        if remaining_s <= 0:  # a call sent now would be charged for an answer that nobody can receive
            return TOO_LATE
        running.attempts += 1
        # Covers sending and reading: an answer that arrives slowly must not outlast the deadline either.
        limit = self._clock.limit(min(attempt_s, remaining_s))
        try:
            with limit:
                if running.inbox is None:
                    answer = await sender.complete(call, on_headers)
                else:
                    is_held = self._hooks is not None and self._hooks.reads_answers
                    answer = await relay(running, sender.stream(call, on_headers), is_held=is_held)
                if not is_counted(call):
                    await count_answer(call, answer)
                return answer
        except ProviderError as error:
            failure = error.failure
        except TimeoutError:
            if not limit.is_expired:
                raise  # raised by the adapter itself, which is a bug of the adapter
            sentence = f"no complete answer within the {attempt_s:g} s of one attempt"
            failure = TOO_LATE if remaining_s <= attempt_s else Failure("timeout", sentence, code="attempt_timeout")
        except asyncio.CancelledError:
            # A CancelledError that nobody requested would end the call without an outcome.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("the adapter raised CancelledError although nobody had cancelled the call") from None
        return failure

    def _hide_secrets(self, call: Call, result: Result) -> Result:
        """Return a result without any secret of ours or of its caller, whatever its adapter let through."""
        secrets = self._secrets
        if call.credential:
            secrets = (*spell_secrets((call.credential.key,)), *secrets)
        return hide_secrets(result, secrets)

    def _find_limiter(self, call: Call) -> Limiter:
        row = self.find_row(call)
        digest = call.credential.digest if call.credential else None
        return self._limiters.get(row.name, row.row.limits, call.target.limit_group, digest)


def _measure_tokens(query: Query) -> CallSize:
    sampling = query.sampling
    max_tokens = sampling.max_tokens and sampling.max_tokens * sampling.generated_answers
    guess = QUESTION_TOKENS + -(-measure_query(query).text // CHARACTERS_PER_TOKEN)
    return CallSize(guess, max_tokens if query.inputs is None else 0)


def _record_headers(limiter: Limiter, permit: Permit, headers: Mapping[str, str]) -> None:
    """Pass on what an answer's headers report of the account's limits."""
    if (reported := parse_rate_headers(headers)) is not None:
        limiter.record_headers(permit, reported)


def _settle(limiter: Limiter, permit: Permit, call: Call, result: Result | None) -> None:
    """Give the permit back with the real usage, and pause what the upstream wants paused."""
    usage = result.usage if isinstance(result, Completion) else None
    if usage:
        limiter.release(permit, usage.input_tokens, usage.output_tokens)
    else:
        limiter.release(permit, was_sent=not (isinstance(result, Failure) and result.code in NEVER_SENT))
    # Other calls would be refused as well, and many providers count a refused call against the limit.
    if isinstance(result, Failure) and result.kind == "rate_limit" and result.retry_after_s:
        model = None if result.account_wide else call.target.model
        limiter.pause(model, result.retry_after_s, result.code or result.kind)
