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
from fanout.rendering.choices import ChoiceUsageJson, EndJson, render_end, render_usage
from fanout.rendering.comparison import render_total_timing
from fanout.rendering.shared import CostTotalsJson, TotalTimingJson

ChunkObject = Literal["text_completion", "chat.completion.chunk"]
Fragment = Mapping[str, object]
"""A choice's own fields, which stand between its place and its end."""


class PromptDetailsJson(TypedDict):
    cached_tokens: Annotated[int, Doc("Tokens of the prompt that were read from the provider's cache.")]


class CompletionDetailsJson(TypedDict):
    reasoning_tokens: Annotated[int, Doc("Tokens of the answer that are its reasoning.")]


class UsageDetailsJson(TypedDict):
    prompt_tokens_details: Annotated[NotRequired[PromptDetailsJson | None], Doc("Parts of the prompt's tokens.")]
    completion_tokens_details: Annotated[NotRequired[CompletionDetailsJson | None], Doc("Parts of the answer's tokens.")]


class OpenAiChoiceUsageJson(ChoiceUsageJson, UsageDetailsJson):
    """Tokens of one answer. If one call gave several, they stand on its first."""


class OpenAiUsageJson(UsageDetailsJson):
    prompt_tokens: Annotated[int, Doc("Tokens of the prompts, cached ones included.")]
    completion_tokens: Annotated[int, Doc("Tokens of the answers, those of their reasoning included.")]
    total_tokens: Annotated[int, Doc("Both together.")]
    prediction_time_ms: Annotated[int, Doc("Time from the request's arrival to this answer.")]
    unknown: Annotated[int, Doc("Answers whose usage the provider did not report.")]


class OpenAiEndJson(EndJson):
    usage: Annotated[
        OpenAiChoiceUsageJson | None, Doc("Tokens of the answer; null: not reported, or they stand on the call's first answer.")
    ]
    created: Annotated[int, Doc("Unix seconds.")]


class OpenAiHeadJson(TypedDict):
    id: Annotated[str, Doc("A UUID.")]
    created: Annotated[int, Doc("Unix seconds.")]
    model: Annotated[str, Doc("The label of the one entry, or all labels joined by commas.")]


class OpenAiTotalsJson(CostTotalsJson):
    usage: Annotated[OpenAiUsageJson | None, Doc("Tokens of all answers; null: no provider reported any.")]
    timing: Annotated[TotalTimingJson, Doc("Milliseconds that the request took.")]


class OpenAiAnswerJson(OpenAiHeadJson, OpenAiTotalsJson):
    system_fingerprint: Annotated[str | None, Doc("The backend's fingerprint, if one alone answered.")]


class OpenAiChunkJson(OpenAiHeadJson):
    usage: Annotated[
        NotRequired[OpenAiUsageJson | None],
        Doc("With `stream_options.include_usage`: the totals, in the last chunk, like all that follows."),
    ]
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
    def close_choice(self) -> Fragment:
        """Return the fields of a choice's last chunk."""


def number_choices(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Choice | None, int]]:
    """Yield all answers in their places, each with its call's outcome and its number among that call's answers."""
    for outcome in outcomes:
        for number, choice in enumerate(list_choices(outcome)):
            yield outcome, choice, number


def render_openai_end(outcome: Outcome, choice: Choice | None, number: int, created: int) -> OpenAiEndJson:
    """Return what is known of a choice at its end. If one call gave several, usage and cost stand on the first."""
    # Callers sum over the choices: what one call took must not stand on each of its answers.
    usage: OpenAiChoiceUsageJson | None = None
    if number == 0 and (counts := render_usage(outcome))["total_tokens"] is not None:
        usage = {**counts, **_render_details(counts["cached_tokens"], _sum_reasoning([outcome]))}
    # mypy takes `usage` for one without details, which `render_end` only passes on.
    end: OpenAiEndJson = {"created": created, **render_end(outcome, choice, usage)}  # type: ignore[typeddict-item]
    if number:
        end["cost_usd"] = end["cost_source"] = None
    return end


def render_openai_totals(outcomes: Sequence[Outcome], total_s: float) -> OpenAiTotalsJson:
    """Return the sums over all answers. OpenAI's usage holds numbers alone: if they are unknown, it is null."""
    comparison = merge(outcomes, created=0, total_s=total_s)
    totals = comparison.totals
    input_tokens, output_tokens = totals.input_tokens, totals.output_tokens
    # OpenAI's clients parse usage into integers, so null is the only way to say that it is unknown.
    usage: OpenAiUsageJson | None = None
    if input_tokens is not None and output_tokens is not None:
        usage = {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            **_render_details(totals.cached_tokens, _sum_reasoning(outcomes)),
            "prediction_time_ms": to_ms(total_s),
            "unknown": totals.unknown_usage,
        }
    return {
        "usage": usage,
        "cost_usd": totals.cost_usd,
        "cost_unknown": totals.cost_unknown,
        "timing": render_total_timing(comparison),
    }


def get_partial(outcome: Outcome, number: int) -> str | None:
    """Return the text that had arrived before a call failed; it belongs to its first choice."""
    return outcome.result.partial if isinstance(outcome.result, Failure) and number == 0 else None


def _render_details(cached_tokens: int | None, reasoning_tokens: int | None) -> UsageDetailsJson:
    details: UsageDetailsJson = {}
    if cached_tokens is not None:
        details["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    if reasoning_tokens is not None:
        details["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return details


def _sum_reasoning(outcomes: Sequence[Outcome]) -> int | None:
    usages = (outcome.result.usage for outcome in outcomes if isinstance(outcome.result, Completion))
    return sum_known(usage.reasoning_tokens for usage in usages if usage)


def find_fingerprint(outcomes: Sequence[Outcome]) -> str | None:
    """Return the backend's fingerprint, if one alone answered."""
    found = {outcome.result.system_fingerprint for outcome in outcomes if isinstance(outcome.result, Completion)}
    return found.pop() if len(found) == 1 else None
