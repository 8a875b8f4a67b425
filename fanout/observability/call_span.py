"""The span of one call: the question's parameters, the answer's tokens, and our own times and cost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.genai.invocation import EmbeddingInvocation, InferenceInvocation
from opentelemetry.util.genai.types import Error
from opentelemetry.util.types import AttributeValue

from fanout.core.schema import Completion, Failure, Outcome, Retry
from fanout.observability.trace_content import clean, render_answer, render_query

PROPAGATOR = TraceContextTextMapPropagator()
MAX_NAME_CHARACTERS = 256
"""Of what callers and providers name."""
MAX_STOPS = 16


class CallSpan:
    """The span of a call, from its place in the queue to the end of its last attempt."""

    def __init__(
        self, invocation: InferenceInvocation | EmbeddingInvocation, *, is_streamed: bool, keeps_content: bool
    ) -> None:
        self._invocation, self._is_streamed, self._keeps_content = invocation, is_streamed, keeps_content

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers by which a provider's own spans become children of this one."""
        headers: dict[str, str] = {}
        PROPAGATOR.inject(headers, self._invocation.context)
        return headers

    def observe(self, event: Outcome | Retry) -> None:
        """Mark a failed attempt, or end the span by a call's outcome."""
        if isinstance(event, Retry):
            self._add_retry(event)
        else:
            self._end(event)

    def _add_retry(self, retry: Retry) -> None:
        fields = {"attempt": retry.attempt, "error_type": retry.failure.kind, "delay_s": retry.delay_s}
        self._invocation.span.add_event("fanout.retry", {f"fanout.{name}": value for name, value in fields.items()})

    def _end(self, outcome: Outcome) -> None:
        result = outcome.result
        self._invocation.attributes.update(_list_attributes(outcome))
        if isinstance(self._invocation, InferenceInvocation):
            self._add_question(self._invocation, outcome)
        if isinstance(result, Failure):
            self._invocation.fail(Error(clean(result.message, 1024), result.kind))
            return
        self._add_answer(result)
        self._invocation.stop()

    def _add_question(self, invocation: InferenceInvocation, outcome: Outcome) -> None:
        query = outcome.call.query
        sampling = query.sampling
        invocation.temperature, invocation.top_p, invocation.top_k = sampling.temperature, sampling.top_p, sampling.top_k
        invocation.max_tokens, invocation.seed = sampling.max_tokens, sampling.seed
        invocation.frequency_penalty, invocation.presence_penalty = sampling.frequency_penalty, sampling.presence_penalty
        invocation.request_choice_count = sampling.n
        if sampling.stop:
            stops = (sampling.stop,) if isinstance(sampling.stop, str) else sampling.stop
            invocation.stop_sequences = [clean(stop, MAX_NAME_CHARACTERS) for stop in stops[:MAX_STOPS]]
        invocation.request_stream = self._is_streamed
        invocation.ttfc_seconds = outcome.timing.first_token_s
        if self._keeps_content:
            invocation.input_messages = render_query(query)
            invocation.output_messages = render_answer(outcome.result)

    def _add_answer(self, answer: Completion) -> None:
        invocation, usage = self._invocation, answer.usage
        invocation.response_model_name = clean(answer.model, MAX_NAME_CHARACTERS) if answer.model else None
        invocation.input_tokens = usage.input_tokens if usage else None
        if isinstance(invocation, EmbeddingInvocation):
            return
        reasons = [choice.finish_reason or choice.native_finish_reason for choice in answer.choices]
        invocation.finish_reasons = [clean(reason, MAX_NAME_CHARACTERS) for reason in reasons if reason]
        if usage:
            invocation.output_tokens, invocation.thinking_tokens = usage.output_tokens, usage.reasoning_tokens
            invocation.cache_read_input_tokens = usage.cached_input_tokens
            invocation.cache_write_input_tokens = usage.cache_write_tokens


def _list_attributes(outcome: Outcome) -> dict[str, AttributeValue]:
    """Return our own attributes; what is unknown is left out."""
    call, timing, result = outcome.call, outcome.timing, outcome.result
    failure = result if isinstance(result, Failure) else None
    values: dict[str, AttributeValue | None] = {
        "entry": call.entry,
        "sample": call.sample,
        "is_member": call.is_member or None,
        "account": call.account_id,
        "attempts": timing.attempts,
        "queued_s": timing.queued_s,
        "call_s": timing.call_s,
        "cost_usd": outcome.cost.usd if outcome.cost else None,
        "upstream_request_id": result.request_id,
        "error_code": failure.code if failure else None,
        "upstream_status": failure.status if failure else None,
    }
    return {
        f"fanout.{name}": clean(value, MAX_NAME_CHARACTERS) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }
