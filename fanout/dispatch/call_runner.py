"""One call, from its start to its outcome, of which observers are notified."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import aiohttp

from fanout.config.settings import Settings
from fanout.core.schema import Call, Completion, Failure, Observer, Outcome, Retry
from fanout.dispatch import no_tokens, retries
from fanout.dispatch.call_planner import CallPlanner
from fanout.dispatch.in_flight import STOPPED, Handle, InFlightCall, join_members
from fanout.dispatch.pricing import keep_plausible_figures
from fanout.dispatch.retries import Result
from fanout.dispatch.tracing import begin_span
from fanout.limits.registry import Sharing
from fanout.observability.logs import log

if TYPE_CHECKING:
    from fanout.observability.tracing import Tracing

CRASHED = Failure("internal", "Fanout could not handle this provider's answer; its log has the details", code="internal_error")


class CallRunner(CallPlanner):
    """Runner of single calls."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        observers: Sequence[Observer] = (),
        *,
        is_serving: bool = False,
        tracing: Tracing | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__(settings, session, is_serving=is_serving, sharing=sharing)
        self.tracing = tracing
        self._observers, self._is_stopping = tuple(observers), False
        # Strong references, unlike asyncio's. Removed by who awaits it: a callback would cost each call a turn of the loop.
        self.running: dict[InFlightCall, Handle] = {}

    async def run_call(self, running: InFlightCall, attempt: Callable[[InFlightCall], Awaitable[Result]]) -> Outcome:
        """Run one call to its end; observers are notified of its outcome, even if the call is cancelled."""
        if self.tracing is not None:
            begin_span(running, self.tracing, self.settings)
        try:
            result = self.answer_locally(running.call)
            if result is None and running.members is not None:
                await join_members(running, self.end)
                result = self.answer_locally(running.call)
            if result is None:
                upstreams = running.upstreams
                result = await (upstreams.run_hooks(running, attempt) if upstreams.has_hooks else attempt(running))
            return self.finish(running, result)
        except asyncio.CancelledError:
            # A cancelled call may be billed nevertheless, so the observers that record usage must be notified.
            self.finish(running, running.cancelled_as)
            raise
        except Exception as error:
            return self.crash(running, error)

    def crash(self, running: InFlightCall, error: Exception) -> Outcome:
        """Return the outcome of a call that met a bug, and log it."""
        target = running.call.target
        log.error("call.crashed", provider=target.provider, model=target.model, exc_info=error)
        return self.finish(running, CRASHED)

    def answer_locally(self, call: Call) -> Result | None:
        """Return the answer to a call that need not or must not be sent; `None` if the call is to be sent."""
        if call.refusal:
            return call.refusal
        if call.wants_no_tokens:
            return no_tokens.build_answer(call)
        return STOPPED if self._is_stopping else None

    async def attempt_with_retries(self, running: InFlightCall) -> Result:
        """Make attempts while the failures are transient and no piece of an answer was delivered."""
        return await self.retry(await running.upstreams.attempt(running), running)

    async def retry(self, result: Result, running: InFlightCall) -> Result:
        """Return the result of a call whose first attempt has ended so."""
        call, upstreams = running.call, running.upstreams
        if isinstance(result, Failure) and running.may_retry(result):
            return await retries.retry(
                result,
                lambda: upstreams.attempt(running),
                row=upstreams.find_row(call).row.retries,
                deadline=running.deadline,
                may_retry=running.may_retry,
                before_sleep=lambda failure, attempt, delay_s: self._notify_retry(
                    running, Retry(call, failure, attempt, delay_s)
                ),
            )
        return result

    def finish(self, running: InFlightCall, result: Result) -> Outcome:
        """Return a call's outcome and notify the observers; only the first outcome counts."""
        # A cancelled call ends in its task and in whoever awaits it, but it must be billed once.
        if running.outcome is None:
            cost = None
            if isinstance(result, Completion):
                result = keep_plausible_figures(result)
                cost = no_tokens.COST
                if running.attempts:
                    assert running.route is not None
                    cost = running.route.compute_cost(running.call, result.usage, result.model)
            elif running.text:
                result = running.add_partial_text(result)
            running.outcome = Outcome(running.call, result, running.build_timing(result), cost)
            for observer in self._observers:
                observer(running.outcome)
            if running.span is not None:
                running.span.observe(running.outcome)
        return running.outcome

    def _notify_retry(self, running: InFlightCall, retry: Retry) -> None:
        self.notify(retry)
        if running.span is not None:
            running.span.observe(retry)

    def notify(self, event: Outcome | Retry) -> None:
        """Notify the observers, also of a call that a provider's batch API answered."""
        for observer in self._observers:
            observer(event)

    def end(self, running: InFlightCall) -> Outcome:
        """Return the outcome of a call whose handle has ended, perhaps before its first step."""
        self.running.pop(running, None)
        return running.outcome or self.finish(running, running.cancelled_as)
