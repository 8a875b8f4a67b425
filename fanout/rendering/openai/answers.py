"""Parts that text and chat completions have in common, whole and streamed.

Source: https://github.com/openai/openai-openapi; what the choices hold beyond it is Thiggle's and Fanout's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.core.merge import list_choices, merge
from fanout.core.schema import Call, Choice, Completion, Delta, Failure, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import sum_known
from fanout.rendering.choices import EndJson, render_end
from fanout.rendering.comparison import render_total_timing
from fanout.rendering.shared import CostTotalsJson, TotalTimingJson

ChunkObject = Literal["text_completion", "chat.completion.chunk"]
Fragment = Mapping[str, object]
"""A choice's own fields, which stand between its place and its end."""


class PromptDetailsJson(TypedDict):
    cached_tokens: Annotated[NotRequired[int], Doc("Tokens of the prompt that were read from the provider's cache.")]
    cache_write_tokens: Annotated[NotRequired[int], Doc("Tokens of the prompt that went into the provider's cache.")]


class CompletionDetailsJson(TypedDict):
    reasoning_tokens: Annotated[int, Doc("Tokens of the answer that are its reasoning.")]


class UsageDetailsJson(TypedDict):
    prompt_tokens_details: Annotated[NotRequired[PromptDetailsJson | None], Doc("Parts of the prompt's tokens.")]
    completion_tokens_details: Annotated[NotRequired[CompletionDetailsJson | None], Doc("Parts of the answer's tokens.")]


class OpenAiUsageJson(UsageDetailsJson):
    """OpenAI's fields alone: some clients refuse any other, and add up all numbers that they find."""

    prompt_tokens: Annotated[int, Doc("Tokens of the prompts, cached ones included.")]
    completion_tokens: Annotated[int, Doc("Tokens of the answers, those of their reasoning included.")]
    total_tokens: Annotated[int, Doc("Both together.")]


class OpenAiEndJson(EndJson):
    usage: Annotated[
        OpenAiUsageJson | None, Doc("Tokens of the answer; null: not reported, or they stand on the call's first answer.")
    ]
    prediction_time_ms: Annotated[int | None, Doc("Time of the successful attempt alone, from its start to its last byte.")]
    created: Annotated[int, Doc("Unix seconds.")]


class OpenAiHeadJson(TypedDict):
    id: Annotated[str, Doc("A UUID.")]
    created: Annotated[int, Doc("Unix seconds.")]
    model: Annotated[str, Doc("The label of the one entry, or all labels joined by commas.")]


class OpenAiTotalsJson(CostTotalsJson):
    usage: Annotated[OpenAiUsageJson | None, Doc("Tokens of all answers; null: no provider reported any.")]
    unknown_usage: Annotated[int, Doc("Answers whose usage the provider did not report.")]
    timing: Annotated[TotalTimingJson, Doc("Milliseconds that the request took.")]


class OpenAiAnswerJson(OpenAiHeadJson, OpenAiTotalsJson):
    system_fingerprint: Annotated[str | None, Doc("The backend's fingerprint, if one alone answered.")]


class OpenAiChunkJson(OpenAiHeadJson):
    usage: Annotated[
        NotRequired[OpenAiUsageJson | None],
        Doc("With `stream_options.include_usage`: the totals, in the last chunk, like all that follows."),
    ]
    unknown_usage: Annotated[NotRequired[int | None], Doc("Answers whose usage the provider did not report.")]
    cost_usd: Annotated[NotRequired[float | None], Doc("US dollars; null: no price or no usage is known.")]
    cost_unknown: Annotated[NotRequired[int | None], Doc("Answers with no known price.")]
    timing: Annotated[NotRequired[TotalTimingJson | None], Doc("Milliseconds that the request took.")]


class Dialect(ABC):
    """Shape of the answers of one of the two endpoints."""

    chunk_object: ChunkObject

    @abstractmethod
    def render_answer(self, outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float) -> OpenAiAnswerJson:
        """Return the answer to a request of which at least one call was answered."""

    @abstractmethod
    def open_choice(self, first: Delta | None) -> Fragment | None:
        """Return what a choice's first chunk holds before the first piece."""

    @abstractmethod
    def render_piece(self, call: Call, delta: Delta, offset: int) -> Fragment | None:
        """Return a piece, whose first token begins at `offset` in the answer; `None`: there is nothing in it."""

    @abstractmethod
    def close_choice(self, choice: Choice | None) -> Fragment:
        """Return the fields of a choice's last chunk."""


def number_choices(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Choice | None, int]]:
    """Yield all answers in their places, each with its call's outcome and its number among that call's answers."""
    for outcome in outcomes:
        for number, choice in enumerate(list_choices(outcome)):
            yield outcome, choice, number


def render_openai_end(outcome: Outcome, choice: Choice | None, number: int, created: int) -> OpenAiEndJson:
    """Return what is known of a choice at its end. If one call gave several, usage and cost stand on the first."""
    # Callers sum over the choices: what one call took must not stand on each of its answers.
    found = outcome.result.usage if isinstance(outcome.result, Completion) and number == 0 else None
    usage = found and render_openai_usage(
        found.input_tokens, found.output_tokens, found.cached_input_tokens, found.cache_write_tokens, found.reasoning_tokens
    )
    # mypy takes `usage` for one of `/v1/completion`, which `render_end` only passes on.
    end: OpenAiEndJson = {
        "created": created,
        **render_end(outcome, choice, usage),  # type: ignore[typeddict-item, arg-type]
        "prediction_time_ms": to_ms(outcome.timing.call_s),
    }
    if number:
        end["cost_usd"] = end["cost_source"] = None
    return end


def render_openai_totals(outcomes: Sequence[Outcome], total_s: float) -> OpenAiTotalsJson:
    """Return the sums over all answers."""
    comparison = merge(outcomes, created=0, total_s=total_s)
    totals = comparison.totals
    written, reasoning = _sum_parts(outcomes)
    return {
        "usage": render_openai_usage(totals.input_tokens, totals.output_tokens, totals.cached_tokens, written, reasoning),
        "unknown_usage": totals.unknown_usage,
        "cost_usd": totals.cost_usd,
        "cost_unknown": totals.cost_unknown,
        "timing": render_total_timing(comparison),
    }


def get_partial(outcome: Outcome, number: int) -> str | None:
    """Return the text that had arrived before a call failed; it belongs to its first choice."""
    return outcome.result.partial if isinstance(outcome.result, Failure) and number == 0 else None


def render_openai_usage(
    input_tokens: int | None,
    output_tokens: int | None,
    cached_tokens: int | None,
    cache_write_tokens: int | None,
    reasoning_tokens: int | None,
) -> OpenAiUsageJson | None:
    """Return usage; parts that are not known are left out."""
    # OpenAI's clients parse usage into integers, so null is the only way to say that it is unknown.
    if input_tokens is None or output_tokens is None:
        return None
    usage: OpenAiUsageJson = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    details: PromptDetailsJson = {} if cached_tokens is None else {"cached_tokens": cached_tokens}
    if cache_write_tokens is not None:
        details["cache_write_tokens"] = cache_write_tokens
    if details:
        usage["prompt_tokens_details"] = details
    if reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return usage


def _sum_parts(outcomes: Sequence[Outcome]) -> tuple[int | None, int | None]:
    """Return the tokens that went into caches, and those of the reasoning."""
    results = (outcome.result for outcome in outcomes if isinstance(outcome.result, Completion))
    usages = [result.usage for result in results if result.usage]
    return sum_known(usage.cache_write_tokens for usage in usages), sum_known(usage.reasoning_tokens for usage in usages)


def find_fingerprint(outcomes: Sequence[Outcome]) -> str | None:
    """Return the backend's fingerprint, if one alone answered."""
    found = {outcome.result.system_fingerprint for outcome in outcomes if isinstance(outcome.result, Completion)}
    # Of several backends none is "the" fingerprint.
    return found.pop() if len(found) == 1 else None
