"""Parts that choices have in common at every endpoint under `/v1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.core.fusion import FusionJson, render_fusion
from fanout.core.merge import find_failure, get_finish_reason
from fanout.core.sampling import AdjustmentJson, render_adjustments
from fanout.core.schema import Call, Choice, Completion, Outcome, TokenLogprob
from fanout.core.units import to_ms
from fanout.core.usage import total_tokens
from fanout.rendering.errors import ChoiceErrorJson, render_failure
from fanout.rendering.shared import TokenCountsJson


class PromptIndexJson(TypedDict):
    prompt_index: Annotated[NotRequired[int | None], Doc("Position in `prompt`, if that was a list.")]


class PlaceJson(PromptIndexJson):
    """Place of an answer, fixed before anything is sent: the same model twice is two answers."""

    index: Annotated[int, Doc("Running number over prompts, entries and samples.")]
    entry: Annotated[int, Doc("Position in `model`, sets written out.")]
    sample: Annotated[int, Doc("Number of the sample within its entry.")]
    model: Annotated[str, Doc("The model as you wrote it.")]
    label: Annotated[str, Doc("Your name for the entry; by default the model's.")]
    is_member: Annotated[
        NotRequired[bool | None], Doc("It was called as a member of a fusion alone: it follows the entries that you listed.")
    ]


class ChoiceUsageJson(TokenCountsJson):
    """Tokens of one answer; null if the provider did not report them."""

    prediction_time_ms: Annotated[int | None, Doc("Time of the successful attempt alone, from its start to its last byte.")]


class TimingJson(TypedDict):
    queued_ms: Annotated[int, Doc("Waiting for the limits set here; never part of the model's own time.")]
    ttft_ms: Annotated[
        int | None, Doc("From the attempt's start to its first content; null for answers that are not streamed.")
    ]
    total_ms: Annotated[int, Doc("Everything, queue and retries included.")]
    attempts: Annotated[int, Doc("Attempts upstream, retries included.")]
    tokens_per_second: Annotated[float | None, Doc("Output tokens per second of the successful attempt.")]


class ChoiceTimingJson(TimingJson):
    hooks_ms: Annotated[NotRequired[int | None], Doc("Spent in the server's hooks; part of `total_ms` alone.")]
    reader_limited: Annotated[
        NotRequired[bool | None], Doc("A slow reader held this stream back: its times are not the model's alone.")
    ]


class EndJson(TypedDict):
    """Facts about an answer that are known at its end."""

    finish_reason: Annotated[
        Literal["stop", "length", "content_filter", "tool_calls", "function_call", "timeout", "error"] | None,
        Doc("Why the model stopped. `timeout` and `error`: there is no answer, see `error`. null: an unknown reason."),
    ]
    native_finish_reason: Annotated[str | None, Doc("The provider's own word for the reason.")]
    provider: Annotated[str | None, Doc("Provider that serves the model; null: no model has that name.")]
    upstream_model: Annotated[str | None, Doc("The model's name as the provider reports it.")]
    timing: Annotated[ChoiceTimingJson, Doc("Milliseconds that the answer took.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: the price or the usage is unknown.")]
    cost_source: Annotated[
        str | None,
        Doc(
            "`not_called`, `reported` by the provider, `providers.json`, "
            "or genai-prices with its version and the model by whose price."
        ),
    ]
    ignored_parameters: Annotated[Sequence[str], Doc("Parameters of the request that this model cannot take.")]
    adjusted_parameters: Annotated[
        Mapping[str, AdjustmentJson], Doc("Parameters that were sent with another value than requested.")
    ]
    error: Annotated[ChoiceErrorJson | None, Doc("Why there is no answer.")]
    fusion: Annotated[NotRequired[FusionJson | None], Doc("The members that a fused answer was made of; absent: it is none.")]


class ChoiceEndJson(EndJson):
    usage: Annotated[ChoiceUsageJson | None, Doc("Tokens of the answer.")]


class BesideTextJson(TypedDict):
    """Content of an answer that its text does not hold."""

    refusal: Annotated[NotRequired[str | None], Doc("The model's own words for not answering; absent: there are none.")]
    other_content: Annotated[
        NotRequired[list[str] | None],
        Doc("What else the answer holds, for which this endpoint has no place: `image`, `citations`, …; absent: nothing."),
    ]


class LegacyLogprobsJson(TypedDict):
    """OpenAI's four parallel arrays."""

    tokens: Annotated[list[str], Doc("The tokens.")]
    token_logprobs: Annotated[
        list[float | None], Doc("Natural logarithm of each token's probability; null for the first token of a prompt.")
    ]
    top_logprobs: Annotated[
        list[dict[str, float | None] | None], Doc("The likeliest alternatives to each token, and their log probabilities.")
    ]
    text_offset: Annotated[list[int], Doc("Where each token begins in the text.")]


def render_place(call: Call, number: int = 0) -> PlaceJson:
    """Return the place of one of a call's answers; `prompt_index` only if the prompt was a list."""
    # If `n` was sent upstream, one call fills several places.
    prompt: PromptIndexJson = {} if call.prompt_index is None else {"prompt_index": call.prompt_index}
    place: PlaceJson = {
        "index": call.index + number,
        "entry": call.entry,
        "sample": call.sample + number,
        **prompt,  # type: ignore[typeddict-item]  # mypy: it could have an `is_member`
        "model": call.target.name,
        "label": call.target.label,
    }
    if call.is_member:
        place["is_member"] = True
    return place


def render_end(outcome: Outcome, choice: Choice | None, usage: ChoiceUsageJson | None) -> ChoiceEndJson:
    """Return the fields known at the end of an answer; `choice` is `None` if the call gave no answer."""
    # One literal, because every answer needs one: merging four dicts took a fifth longer (2026-11, timeit).
    call, result, cost = outcome.call, outcome.result, outcome.cost
    failure = find_failure(outcome, choice)
    end: ChoiceEndJson = {
        "finish_reason": get_finish_reason(choice, failure),
        "native_finish_reason": choice.native_finish_reason if choice else None,
        "usage": usage,
        "provider": call.target.provider,
        # Some providers do not report their model; the requested name is then the best that is known.
        "upstream_model": (result.model if isinstance(result, Completion) else None) or call.target.model,
        "timing": _render_timing(outcome),
        "cost_usd": cost.usd if cost else None,
        "cost_source": cost.source if cost else None,
        "ignored_parameters": call.fitted.ignored,
        "adjusted_parameters": render_adjustments(call.fitted.adjusted),
        "error": render_failure(failure) if failure else None,
    }
    if call.fusion:
        end["fusion"] = render_fusion(call.fusion, end["cost_usd"], is_answered=isinstance(result, Completion))
    return end


def render_usage(outcome: Outcome) -> ChoiceUsageJson:
    """Return the tokens of a call."""
    usage = outcome.result.usage if isinstance(outcome.result, Completion) else None
    return {
        "prompt_tokens": usage.input_tokens if usage else None,
        "completion_tokens": usage.output_tokens if usage else None,
        "total_tokens": total_tokens(usage.input_tokens, usage.output_tokens) if usage else None,
        "cached_tokens": usage.cached_input_tokens if usage else None,
        "prediction_time_ms": to_ms(outcome.timing.call_s),
    }


def render_beside_text(choice: Choice | None) -> BesideTextJson:
    """Return what an answer holds beside its text, named where it cannot be carried; nearly always nothing."""
    beside: BesideTextJson = {}
    if choice is None:
        return beside
    answer = choice.message
    if answer.refusal:
        beside["refusal"] = answer.refusal
    # Named, not carried: a text endpoint has no field for them, and silence would hide that something is missing.
    if answer.extra or answer.reasoning or answer.tool_calls:
        fields = {"reasoning": answer.reasoning, "tool_calls": answer.tool_calls}
        beside["other_content"] = [*(name for name, value in fields.items() if value), *answer.other_content]
    return beside


def render_legacy_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> LegacyLogprobsJson:
    """Return log probabilities as OpenAI's text completions write them; the first token begins at `offset` in the text."""
    offsets = []
    for token in tokens:
        # In characters, as OpenAI counts: bytes would point into the middle of one.
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        # Null where the token itself has no value, as OpenAI answers for the first token of an echoed prompt.
        "top_logprobs": [dict(token.top) if token.logprob is not None else None for token in tokens],
        "text_offset": offsets,
    }


def _render_timing(outcome: Outcome) -> ChoiceTimingJson:
    timing, result = outcome.timing, outcome.result
    tokens = result.usage.output_tokens if isinstance(result, Completion) and result.usage else None
    # Tokens by the time of the successful attempt alone: queues and retries say nothing about the model's speed.
    rendered: ChoiceTimingJson = {
        "queued_ms": to_ms(timing.queued_s),
        "ttft_ms": to_ms(timing.first_token_s),
        "total_ms": to_ms(timing.total_s),
        "attempts": timing.attempts,
        "tokens_per_second": round(tokens / timing.call_s, 2) if tokens is not None and timing.call_s else None,
    }
    if timing.hooks_s is not None:
        rendered["hooks_ms"] = to_ms(timing.hooks_s)
    # Absent in the normal case: the field warns against comparing this answer's times with others.
    if timing.reader_limited:
        rendered["reader_limited"] = True
    return rendered
