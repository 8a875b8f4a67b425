"""The calls of one request, made at once: each through its account's limits, with its retries, within one deadline."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import aiohttp

from fanout import providers
from fanout.config.catalogue import Catalogue
from fanout.config.settings import ProviderSettings, Settings
from fanout.core.errors import ProviderError
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    Failure,
    Fitted,
    Observer,
    Outcome,
    Query,
    Retry,
    Sampling,
    Target,
)
from fanout.core.usage import Cost, Usage
from fanout.dispatch import pricing, retries
from fanout.dispatch.in_flight import STOPPED, Inbox, InFlightCall, Piece, Race, Result, relay
from fanout.dispatch.plan import Request, plan
from fanout.limits.limiter import InFlightCap, Limiter
from fanout.limits.pauses import MAX_PAUSE_S
from fanout.limits.queue import Permit, Priority
from fanout.limits.registry import LimiterRegistry
from fanout.observability.logs import log
from fanout.providers import OnHeaders, Preparing, Provider
from fanout.providers.mapping.rate_headers import parse_rate_headers

MAX_FILE_LIMIT = 65_536
TOO_LATE = Failure("timeout", "no complete answer before the request's deadline", code="deadline_exceeded")
BROKEN = Failure("internal", "Fanout could not handle this provider's answer; its log has the details", code="internal_error")


class Dispatcher:
    """Makes upstream calls. Open one with `open_dispatcher` and keep it: it holds the connections and the limits."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, observers: Sequence[Observer] = ()) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings)
        self.cap = InFlightCap(settings.environment.max_in_flight or resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self.limiters = LimiterRegistry(self.cap, max_waiting=settings.environment.max_waiting)
        self._providers = {name: providers.create(row, session) for name, row in settings.providers.items()}
        self._observers = tuple(observers)
        self._tasks: dict[asyncio.Task[Outcome], InFlightCall] = {}
        self._stopping = False

    async def prepare(self, calls: Iterable[Call] | None = None) -> None:
        """Has providers and prices ready: what must not be counted as a model's time.

        What cannot be prepared fails in its call, where it is shown.

        Args:
            calls: only what these need; `None`: all.
        """
        sent = {call.target.provider for call in calls if call.refusal is None} if calls is not None else set(self._providers)
        names = [name for name in sent if name is not None]
        asked = [self._providers[name] for name in names]
        work = [provider.prepare() for provider in asked if isinstance(provider, Preparing)]
        if any(self.settings.providers[name].row.prices != "" for name in names):
            work.append(asyncio.to_thread(pricing.load_prices))
        await asyncio.gather(*work, return_exceptions=True)

    def plan(self, request: Request) -> list[Call]:
        """The calls of a request; see `plan.plan`."""
        return plan(request, self.catalogue, self.fit, self.settings.environment.max_calls, datetime.now(UTC).date())

    def fit(self, target: Target, query: Query) -> Fitted:
        """What becomes of the parameters of `query` at a target's provider."""
        return self.find_provider(target).fit(target, query)

    def find_provider(self, target: Target) -> Provider:
        assert target.provider is not None, "a call without a provider has a refusal and is never sent"
        return self._providers[target.provider]

    async def attempt(self, call: Call, *, deadline_s: float, priority: Priority = Priority.BATCH) -> Outcome:
        """One try, through the limiter; whoever asks decides whether and when there is another."""
        running = InFlightCall(call, time.monotonic() + deadline_s, priority)
        task = self._started(running, asyncio.create_task(self._call(running, self._attempt)))
        try:
            return await task
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is None or asking.cancelling():
                raise
            return self._ended(running, running.cancelled_as)  # by `stop`

    async def run(
        self,
        calls: Sequence[Call],
        *,
        deadline_s: float,
        return_when: int | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> list[Outcome]:
        """Every call's outcome, in the order of the calls; an upstream's failure is an outcome, never an exception.

        Args:
            deadline_s: from now; covers queueing, all retries and the answers.
            return_when: how many entries must have answered before the rest is cancelled; `None`: all.
        """
        deadline = time.monotonic() + deadline_s
        race = Race(calls, return_when)
        running = [InFlightCall(call, deadline, priority) for call in calls]
        try:
            async with asyncio.TaskGroup() as group:
                for item in running:
                    race.enter(self._started(item, group.create_task(self._call(item, self._attempts))))
        finally:  # a task that is cancelled before its first step cannot say so itself
            outcomes = [item.outcome or self._ended(item, item.cancelled_as) for item in running]
        return outcomes

    def stop(self) -> None:
        """Ends every call under way, and every one that is still to come; each is answered with a failure that says why."""
        self._stopping = True
        for task, running in list(self._tasks.items()):
            running.cancelled_as = STOPPED
            task.cancel()

    def cancel_waiting(self, which: Callable[[Call], bool], failure: Failure) -> None:
        """Ends those calls that still wait for their account's limits; they are never sent, and answered with that failure."""
        for task, running in list(self._tasks.items()):
            if not running.attempts and which(running.call):
                running.cancelled_as = failure
                task.cancel()

    def _started(self, running: InFlightCall, task: asyncio.Task[Outcome]) -> asyncio.Task[Outcome]:
        self._tasks[task] = running
        task.add_done_callback(self._tasks.pop)
        return task

    async def stream(
        self,
        calls: Sequence[Call],
        *,
        deadline_s: float,
        return_when: int | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> AsyncGenerator[Piece]:
        """Deltas of all calls as they come, and each call's outcome when it ends. Arguments as for `run`."""
        async with aclosing(
            self.stream_bursts(calls, deadline_s=deadline_s, return_when=return_when, priority=priority)
        ) as bursts:
            async for burst in bursts:
                for piece in burst:
                    yield piece

    async def stream_bursts(
        self,
        calls: Sequence[Call],
        *,
        deadline_s: float,
        return_when: int | None = None,
        priority: Priority = Priority.INTERACTIVE,
        silence_s: float | None = None,
    ) -> AsyncGenerator[list[Piece]]:
        """`stream`, with the pieces that came together in one list, so that one write sends them on.

        Args:
            silence_s: an empty list is given whenever nothing has come for so long; `None`: never.
        """
        deadline = time.monotonic() + deadline_s
        race, inbox = Race(calls, return_when), Inbox()
        tasks: list[asyncio.Task[Outcome]] = []

        def ended(running: InFlightCall) -> Callable[[asyncio.Task[Outcome]], None]:
            return lambda _: inbox.put(running.outcome or self._ended(running, running.cancelled_as))

        try:
            for call in calls:
                running = InFlightCall(call, deadline, priority, inbox=inbox)
                task = self._started(running, asyncio.create_task(self._call(running, self._attempts)))
                task.add_done_callback(ended(running))
                race.enter(task)
                tasks.append(task)
            left = len(calls)
            while left:
                burst = await inbox.take(silence_s)
                left -= sum(isinstance(piece, Outcome) for piece in burst)
                yield burst
                inbox.written()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, running: InFlightCall, tries: Callable[[InFlightCall], Awaitable[Result]]) -> Outcome:
        """One call to its end, whatever the end: its outcome is told to the observers, also where it is cancelled."""
        call = running.call
        try:
            result = self._without_asking(call)
            return self._ended(running, await tries(running) if result is None else result)
        except asyncio.CancelledError:
            # It may have been billed all the same, so whoever keeps the books is told.
            self._ended(running, running.cancelled_as)
            raise
        except Exception:
            log.exception("bug in a call", provider=call.target.provider, model=call.target.model)
            return self._ended(running, BROKEN)

    def _without_asking(self, call: Call) -> Result | None:
        """What a call that need not be made, or must not, is answered with."""
        if call.refusal:
            return call.refusal
        if call.query.sampling.max_tokens == 0:
            return _nothing(call.query)
        return STOPPED if self._stopping else None

    async def _attempts(self, running: InFlightCall) -> Result:
        """Tries again what may pass, as long as no piece of an answer was given away."""
        call = running.call
        result = await self._attempt(running)
        if isinstance(result, Failure) and running.may_retry(result):
            return await retries.retry(
                result,
                lambda: self._attempt(running),
                row=self._row(call).row.retries,
                deadline=running.deadline,
                may_retry=running.may_retry,
                before_sleep=lambda failure, attempt, delay_s: self._observe(Retry(call, failure, attempt, delay_s)),
            )
        return result

    async def _attempt(self, running: InFlightCall) -> Result:
        call, queued = running.call, time.monotonic()
        limiter = self._limiter(call)
        try:
            permit = await limiter.acquire(
                call.target.model or "",
                input_bytes=_input_bytes(call.query) if limiter.counts_tokens else 0,
                max_tokens=_most_tokens(call.query.sampling),
                priority=running.priority,
                deadline=running.deadline,
            )
        except ProviderError as error:
            return error.failure
        finally:
            running.started = time.monotonic()
            running.queued_s += running.started - queued
        result: Result | None = None
        try:
            result = await self._sent(running, partial(_record_headers, limiter, permit))
        finally:
            running.call_s = time.monotonic() - running.started
            self._settle(limiter, permit, call, result)
        return result

    async def _sent(self, running: InFlightCall, on_headers: OnHeaders) -> Result:
        """One attempt upstream, its start slot granted."""
        call, provider = running.call, self.find_provider(running.call.target)
        attempt_s = self._row(call).row.timeout_s
        left_s = running.deadline - running.started
        if left_s <= 0:  # sending first and timing out then would pay for an answer that nobody can get
            return TOO_LATE
        running.attempts += 1
        limit = asyncio.timeout(min(attempt_s, left_s))
        try:
            async with limit:
                if running.inbox is None:
                    return await provider.complete(call, on_headers)
                return await relay(running, provider.stream(call, on_headers))
        except ProviderError as error:
            failure = error.failure
        except TimeoutError:
            if not limit.expired():
                raise  # the adapter's own, which it must not let out
            late = f"no complete answer within the {attempt_s:g} s of one attempt"
            failure = TOO_LATE if left_s <= attempt_s else Failure("timeout", late, code="attempt_timeout")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("the adapter raised CancelledError although nobody had cancelled the call") from None
        return failure

    def _settle(self, limiter: Limiter, permit: Permit, call: Call, result: Result | None) -> None:
        usage = result.usage if isinstance(result, Completion) else None
        if usage:
            limiter.release(permit, usage.input_tokens, usage.output_tokens)
        else:
            limiter.release(permit)
        if isinstance(result, Failure) and result.kind == "rate_limit" and result.retry_after_s:
            model = None if result.account_wide else call.target.model
            limiter.pause(model, min(result.retry_after_s, MAX_PAUSE_S), result.code or result.kind)

    def _ended(self, running: InFlightCall, result: Result) -> Outcome:
        """The outcome, told to the observers; the first one stands."""
        if running.outcome is None:
            cost = self.compute_cost(running.call, result.usage) if isinstance(result, Completion) else None
            running.outcome = Outcome(running.call, running.with_partial(result), running.timing(result), cost)
            self._observe(running.outcome)
        return running.outcome

    def compute_cost(self, call: Call, usage: Usage | None) -> Cost | None:
        """What a call of that usage costs; `None` where its price is not known."""
        target, row = call.target, self._row(call).row
        model = self.settings.models.get(target.name)
        if model is None and (found := self.catalogue.find(target.name)):
            model = found.row
        provider = row.prices if row.prices is not None else target.provider or ""
        return pricing.compute_cost(usage, model.price if model else None, provider, target.model or "")

    def _observe(self, event: Outcome | Retry) -> None:
        for observer in self._observers:
            observer(event)

    def _row(self, call: Call) -> ProviderSettings:
        assert call.target.provider is not None
        return self.settings.providers[call.target.provider]

    def _limiter(self, call: Call) -> Limiter:
        row = self._row(call)
        digest = call.credential.digest if call.credential else None
        return self.limiters.get(row.name, row.row.limits, call.target.limit_group, digest)


def _record_headers(limiter: Limiter, permit: Permit, headers: Mapping[str, str]) -> None:
    """Pass on what an answer's headers report of the account's limits."""
    if (reported := parse_rate_headers(headers)) is not None:
        limiter.record_headers(permit, reported)


def _nothing(query: Query) -> Completion:
    """The answer to `max_tokens: 0`, which no provider need be asked for."""
    choice = Choice(Answer(query.prompt if query.sampling.echo and query.prompt else ""), "length")
    return Completion(choices=(choice,) * (query.sampling.n or 1), usage=Usage(input_tokens=0, output_tokens=0))


def _most_tokens(sampling: Sampling) -> int | None:
    """Of all the answers that one call generates."""
    return sampling.max_tokens and sampling.max_tokens * max(sampling.n or 1, sampling.best_of or 1)


def _input_bytes(query: Query) -> int:
    """Roughly; images aside."""
    if query.messages is None:
        return len(query.prompt or "") or 4 * len(query.prompt_tokens or ())
    contents = (message.content for message in query.messages)
    return sum(
        len(content) if isinstance(content, str) else sum(len(getattr(part, "text", "")) for part in content or ())
        for content in contents
    )


def raise_file_limit() -> None:
    """A call upstream is an open file: takes as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILE_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_FILE_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@asynccontextmanager
async def open_dispatcher(settings: Settings, observers: Sequence[Observer] = ()) -> AsyncGenerator[Dispatcher]:
    """A dispatcher with its connections; both are closed at the end.

    Raises:
        ConfigError: an adapter cannot be loaded.
    """
    # limit=0: aiohttp's own limit of 100 would queue calls where nobody sees them; ours is the limiter's cap.
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Dispatcher(settings, session, observers)
