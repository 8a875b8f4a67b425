"""What an answer says in every dialect of ours under `/v1`: where it stands, and what is known of it at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.choices import find_failure, get_finish_reason
from fanout.core.schema import Call, Choice, Completion, Outcome, TokenLogprob
from fanout.core.units import to_ms
from fanout.core.usage import total_tokens
from fanout.rendering.errors import render_failure


def place(call: Call) -> dict[str, Any]:
    """Which of the answers this is; `prompt_index` only where the prompt was a list."""
    where: dict[str, Any] = {"index": call.index, "entry": call.entry, "sample": call.sample}
    if call.prompt_index is not None:
        where["prompt_index"] = call.prompt_index
    return {**where, "model": call.target.name, "label": call.target.label}


def ended(outcome: Outcome, choice: Choice | None) -> dict[str, Any]:
    """What is known of an answer only when it has ended."""
    call, result, timing = outcome.call, outcome.result, outcome.timing
    failure = find_failure(outcome, choice)
    usage = result.usage if isinstance(result, Completion) else None
    prediction_ms = to_ms(timing.call_s)
    tokens = usage.output_tokens if usage else None
    rate = round(tokens / timing.call_s, 2) if tokens is not None and timing.call_s else None
    return {
        "finish_reason": get_finish_reason(choice, failure),
        "native_finish_reason": choice.native_finish_reason if choice else None,
        "usage": {
            "prompt_tokens": usage.input_tokens if usage else None,
            "completion_tokens": tokens,
            "total_tokens": total_tokens(usage.input_tokens, tokens) if usage else None,
            "cached_tokens": usage.cached_input_tokens if usage else None,
            "prediction_time_ms": prediction_ms,
        },
        "provider": call.target.provider,
        "upstream_model": (result.model if isinstance(result, Completion) else None) or call.target.model,
        "timing": {
            "queued_ms": to_ms(timing.queued_s),
            "ttft_ms": to_ms(timing.first_token_s),
            "total_ms": to_ms(timing.total_s),
            "attempts": timing.attempts,
            "tokens_per_second": rate,
            **({"reader_limited": True} if timing.reader_limited else {}),
        },
        "cost_usd": outcome.cost.usd if outcome.cost else None,
        "cost_source": outcome.cost.source if outcome.cost else None,
        "ignored_parameters": call.fitted.ignored,
        "adjusted_parameters": adjusted(call),
        "error": render_failure(failure) if failure else None,
    }


def legacy_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """The four parallel arrays of OpenAI's text completions; `offset` is where the first token stands in the text."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(token.top) if token.logprob is not None else None for token in tokens],
        "text_offset": offsets,
    }


def adjusted(call: Call) -> dict[str, Any]:
    """The parameters that were sent otherwise than asked."""
    return {name: {"asked": asked, "sent": sent} for name, (asked, sent) in call.fitted.adjusted.items()}
