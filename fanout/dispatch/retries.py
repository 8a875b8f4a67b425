"""Retries of interactive calls, and the rules that jobs share: which failures are transient, and the delay.

`JobWorker` decides for batch units; adapters never retry.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState

from fanout.config.providers_file import RetriesRow
from fanout.core.schema import UNAVAILABLE_CODE, Completion, Failure

BASE_DELAY_S = 0.5
TRANSIENT_KINDS = {"network", "rate_limit", "server", "timeout"}
TRANSIENT_STATUSES = {402, 408, 409, 429, 498, 500, 502, 503, 504, 529}
"""Statuses that may pass, if the kind is transient too: a 402 only if it names a time, 498 only as Groq's "at capacity".

Source: the retry sets of the OpenAI, Anthropic, Cohere, Google and AWS clients (2026-11).
"""
HELD_CODES = frozenset({"queue_too_long", UNAVAILABLE_CODE})
"""Codes of failures by our own limits and circuits, which have just found that nothing can be sent for now."""

Result = Completion | Failure


def is_transient(failure: Failure) -> bool:
    """Return whether the same call may succeed later. The provider's own statement decides, except for a used-up quota."""
    if failure.kind == "quota":
        return False
    if failure.should_retry is not None:
        return failure.should_retry
    if failure.kind not in TRANSIENT_KINDS or failure.code in HELD_CODES:
        return False
    return failure.status is None or failure.status in TRANSIENT_STATUSES


def compute_delay_s(failure: Failure, attempt: int, row: RetriesRow) -> float:
    """Return the wait after attempt number `attempt`: the provider's own figure, else exponential with full jitter.

    Source: full jitter, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    return random.uniform(0, min(BASE_DELAY_S * 2 ** (attempt - 1), row.max_delay_s))  # noqa: S311  # jitter, not a secret


async def retry(
    first: Failure,
    attempt: Callable[[], Awaitable[Result]],
    *,
    row: RetriesRow,
    deadline: float,
    may_retry: Callable[[Failure], bool] = is_transient,
    before_sleep: Callable[[Failure, int, float], None],
) -> Result:
    """Retry after a transient `first` failure, until an answer, a final failure, the last attempt or the deadline.

    A retry that would start past the deadline (`time.monotonic`) is not waited for: the failure is returned at once.
    Called only after a failure, so a call that succeeds costs nothing extra.
    """
    # tenacity counts the first attempt too, so the first failure is passed as the first result.
    pending: list[Result] = [first]

    async def try_next() -> Result:
        return pending.pop() if pending else await attempt()

    def get_failure(state: RetryCallState) -> Failure:
        result = state.outcome.result() if state.outcome else None
        assert isinstance(result, Failure)
        return result

    def should_retry(state: RetryCallState) -> bool:
        result = state.outcome.result() if state.outcome and not state.outcome.failed else None
        return isinstance(result, Failure) and may_retry(result)

    retrying = AsyncRetrying(
        retry=should_retry,
        wait=lambda state: compute_delay_s(get_failure(state), state.attempt_number, row),
        stop=lambda state: state.attempt_number >= row.attempts or time.monotonic() + state.upcoming_sleep >= deadline,
        before_sleep=lambda state: before_sleep(get_failure(state), state.attempt_number, state.upcoming_sleep),
        retry_error_callback=get_failure,
    )
    try:
        return await retrying(try_next)
    finally:
        # What it would do next refers to it: without this each retried call stays in memory until the collector comes by.
        retrying.iter_state.reset()
