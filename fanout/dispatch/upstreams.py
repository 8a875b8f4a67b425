"""The providers of a configuration behind their accounts' limits: one attempt at a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, copy_context
from functools import partial

import aiohttp

from fanout.config.settings import Settings
from fanout.core.errors import ProviderError
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Failure, Query
from fanout.dispatch import account_circuits
from fanout.dispatch.attempt_clock import AttemptClock
from fanout.dispatch.hooks import Attempt, Hooks, load_hooks
from fanout.dispatch.in_flight import InFlightCall, relay
from fanout.dispatch.no_tokens import PromptReader
from fanout.dispatch.provider_table import ProviderTable
from fanout.dispatch.retries import Result
from fanout.dispatch.routes import Route
from fanout.dispatch.started_attempt import StartedAttempt
from fanout.limits.answer_memory import count_answer, is_counted
from fanout.limits.limiter import Limiter
from fanout.limits.queue import Permit
from fanout.limits.registry import LimiterRegistry
from fanout.limits.token_estimates import CallSize
from fanout.providers import OnHeaders
from fanout.providers.mapping.rate_headers import parse_rate_headers
from fanout.providers.mapping.redact import hide_secrets, spell_secrets
from fanout.providers.transport.configured import list_secrets
from fanout.providers.transport.connection_errors import NEVER_SENT
from fanout.providers.transport.departures import ON_DEPARTURE
from fanout.providers.transport.exchange import begin_exchange

CHARACTERS_PER_TOKEN = 4  # of English text, roughly
QUESTION_TOKENS = 8
"""What a provider puts around a short question."""
TOO_LATE = Failure("timeout", "no complete answer before the request's deadline", code="deadline_exceeded")


class Upstreams(ProviderTable):
    """One configuration, and the attempts through its providers. A reload makes another.

    Raises `ConfigError` if an adapter or a hook cannot be loaded.
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
        self._limiters, self._clock = limiters, AttemptClock()
        self._hooks: Hooks | None = load_hooks(settings.environment, previous._hooks if previous else None)
        self.has_hooks = self._hooks is not None
        keys = [key.secret for key in settings.environment.api_keys]
        self._secrets = (*spell_secrets(keys), *list_secrets(settings.providers.values()))
        super().__init__(settings, session, is_serving=is_serving, previous=previous)

    def replace(self, settings: Settings) -> Upstreams:
        """Return another configuration over the same connections and limiters; providers whose rows are the same stay."""
        return Upstreams(settings, self._session, self._limiters, is_serving=self._is_serving, previous=self)

    async def run_hooks(self, running: InFlightCall, attempt: Attempt) -> Result:
        """Make a call between its hooks."""
        return await (self._hooks.run(running, attempt, self.fit) if self._hooks else attempt(running))

    async def attempt(self, running: InFlightCall) -> Result:
        """Make one attempt as soon as the limits allow; record its wait, its time and its usage."""
        started = self.start(running, copy_context()) if running.may_start else None
        running.may_start = True  # another attempt may find a connection that this one has opened
        if started is not None:
            return await self._join(started)
        call = running.sent or running.call
        running.route = route = self.find_route(call)
        limiter, model = self._find_limiter(call, route), call.target.model or ""
        prices = self.load_prices() if route.needs_prices else None
        size = _measure_tokens(call.query) if limiter.counts_tokens else None
        queued_at = time.monotonic()
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
            result = self.hide_secrets(call, await self._send(running, route, partial(_record_headers, limiter, permit)))
        finally:
            # Also on cancellation: a place that is not released is lost until the process ends.
            self.end_attempt(running, limiter, permit, result)
        if prices and not prices.done():  # else its cost would load them on the event loop
            await asyncio.wait([prices])
        return result

    def start(self, running: InFlightCall, context: Context) -> StartedAttempt | None:
        """Make an attempt without waiting for anything, as nearly all are made; `None`: it must wait, or is not ordinary.

        Args:
            running: the call.
            context: of the request, in which what comes is handled.
        """
        call = running.sent or running.call
        running.route = route = self.find_route(call)
        if route.http is None or running.inbox is not None or (call.query.sampling.max_tokens == 0 and call.reads_prompt):
            return None
        # A span's headers differ from call to call; and prices are loaded by whoever can wait for them.
        if running.span is not None or (route.needs_prices and not self.has_prices):
            return None
        limiter = self._find_limiter(call, route)
        # Encoded before it has a permit, which is then used at once; where others wait, it would be encoded in vain.
        exchange = None if limiter.has_queue else begin_exchange(route.http, call)
        if exchange is None:
            return None
        size = _measure_tokens(call.query) if limiter.counts_tokens else None
        now = time.monotonic()
        permit = limiter.try_acquire(call.target.model or "", size, now) if now < running.deadline else None
        if permit is None:
            exchange.leave()
            return None
        running.started_at = now
        running.attempts += 1
        started = StartedAttempt(self, self._clock, running, route, limiter, permit, exchange)
        started.send(context, partial(_record_headers, limiter, permit))
        return started

    async def _join(self, started: StartedAttempt) -> Result:
        """Return the result of an attempt when it has ended."""
        woken = asyncio.get_running_loop().create_future()
        started.on_end = partial(_wake, woken)
        try:
            await woken
        except asyncio.CancelledError:
            # The connection goes with it: the answer to a call that was given up must never meet the next one.
            started.end_now()
            raise
        return await started.finish()

    async def read_rest(self, started: StartedAttempt) -> Result:
        """Return the result of an attempt of which the rest takes a coroutine."""
        running, (limiter, permit) = started.running, started.take_rest()
        result: Result | None = None
        try:
            answer = await self._await_answer(running, started.route, started.exchange.read_rest)
            result = self.hide_secrets(running.call, answer)
        finally:
            self.end_attempt(running, limiter, permit, result)
        return result

    def end_attempt(self, running: InFlightCall, limiter: Limiter, permit: Permit, result: Result | None) -> None:
        """Count the end of an attempt, and give its permit back."""
        running.call_s = time.monotonic() - running.started_at
        if limiter.circuits.failing or isinstance(result, Failure):  # else it ended as nearly every attempt
            account_circuits.record_end(limiter, running, result)
        _settle(limiter, permit, running.sent or running.call, result)

    def is_unavailable(self, call: Call) -> bool:
        """Return whether an open circuit holds calls such as this one."""
        circuits = self._find_limiter(call, self.find_route(call)).circuits.open
        return None in circuits or call.target.model in circuits

    async def _send(self, running: InFlightCall, route: Route, on_headers: OnHeaders) -> Result:
        """Send a call upstream, within the time of one attempt and the request's deadline."""
        call = running.sent or running.call
        sender = PromptReader(route.provider) if call.reads_prompt else route.provider
        if running.deadline <= running.started_at:  # a call sent now would be charged for an answer that nobody can receive
            return TOO_LATE
        running.attempts += 1
        if running.inbox is None:
            return await self._await_answer(running, route, partial(sender.complete, call, on_headers))
        is_held = self._hooks is not None and self._hooks.reads_answers
        return await self._await_answer(
            running, route, lambda: relay(running, sender.stream(call, on_headers), is_held=is_held)
        )

    async def _await_answer(self, running: InFlightCall, route: Route, answer: Callable[[], Awaitable[Completion]]) -> Result:
        """Wait for an answer as long as one attempt may take."""
        # Covers sending and reading: an answer that arrives slowly must not outlast the deadline either.
        ends_at = min(running.started_at + route.settings.row.timeout_s, running.deadline)
        limit = self._clock.limit(ends_at - time.monotonic())
        try:
            with limit:
                completion = await answer()
                if not is_counted(running.call):
                    await count_answer(running.call, completion)
                return completion
        except ProviderError as error:
            failure = error.failure
        except TimeoutError:
            if not limit.is_expired:
                raise  # raised by the adapter itself, which is a bug of the adapter
            failure = self.name_timeout(running, route)
        except asyncio.CancelledError:
            # A CancelledError that nobody requested would end the call without an outcome.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("the adapter raised CancelledError although nobody had cancelled the call") from None
        return failure

    def name_timeout(self, running: InFlightCall, route: Route) -> Failure:
        """Return the failure of an attempt that has taken all its time."""
        attempt_s = route.settings.row.timeout_s
        if running.deadline - running.started_at <= attempt_s:
            return TOO_LATE
        return Failure("timeout", f"no complete answer within the {attempt_s:g} s of one attempt", code="attempt_timeout")

    def hide_secrets(self, call: Call, result: Result) -> Result:
        """Return a result without any secret of ours or of its caller, whatever its adapter let through."""
        secrets = self._secrets
        if call.credential:
            secrets = (*spell_secrets((call.credential.key,)), *secrets)
        return hide_secrets(result, secrets)

    def _find_limiter(self, call: Call, route: Route) -> Limiter:
        if call.credential is not None:
            return self._get_limiter(call, route, call.credential.digest)
        limiter = route.limiter
        if limiter is None or limiter.is_forgotten:
            route.limiter = limiter = self._get_limiter(call, route)
        return limiter

    def _get_limiter(self, call: Call, route: Route, digest: str | None = None) -> Limiter:
        return self._limiters.get(route.settings.name, route.settings.row.limits, call.target.limit_group, digest)


def _wake(woken: asyncio.Future[None], _: object) -> None:
    if not woken.done():
        woken.set_result(None)


def _measure_tokens(query: Query) -> CallSize:
    sampling = query.sampling
    max_tokens = sampling.max_tokens
    if max_tokens and (sampling.n or sampling.best_of):
        max_tokens *= sampling.generated_answers
    guess = QUESTION_TOKENS + -(-measure_query(query).text // CHARACTERS_PER_TOKEN)
    return CallSize(guess, max_tokens if query.inputs is None else 0)


def _record_headers(limiter: Limiter, permit: Permit, headers: Mapping[str, str]) -> None:
    """Pass on what an answer's headers report of the account's limits."""
    if (reported := parse_rate_headers(headers)) is not None:
        limiter.record_headers(permit, reported)


def _settle(limiter: Limiter, permit: Permit, call: Call, result: Result | None) -> None:
    """Give the permit back with the real usage, and pause what the upstream wants paused."""
    if isinstance(result, Completion) and (usage := result.usage):
        limiter.release(permit, usage.input_tokens, usage.output_tokens)
        return
    limiter.release(permit, was_sent=not (isinstance(result, Failure) and result.code in NEVER_SENT))
    # Other calls would be refused as well, and many providers count a refused call against the limit.
    if isinstance(result, Failure) and result.kind == "rate_limit" and result.retry_after_s:
        model = None if result.account_wide else call.target.model
        limiter.pause(model, result.retry_after_s, result.code or result.kind)
