"""Responses, whose `output` is the items of all answers.

Source: openai 3.51.0, `types/responses/response.py`; `choices`, and what says which item belongs to which, are Fanout's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.merge import find_failure, get_finish_reason
from fanout.core.schema import Answer, Choice, Outcome
from fanout.rendering.choices import PlaceJson, render_place
from fanout.rendering.errors import ErrorJson
from fanout.rendering.history import PastChoiceJson
from fanout.rendering.openai.answers import (
    OpenAiEndJson,
    OpenAiTotalsJson,
    OpenAiUsageJson,
    get_partial,
    number_choices,
    render_openai_end,
    render_openai_totals,
)
from fanout.rendering.openai.output_items import CUT_REASONS, OutputItemJson, render_answer_items
from fanout.rendering.shared import CostTotalsJson, TotalTimingJson

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class ResponseChoiceJson(PlaceJson, OpenAiEndJson):
    """Facts about one answer, or why there is none. Its text stands in the items of `output` that have its `index`."""


class InputDetailsJson(TypedDict):
    cached_tokens: Annotated[int | None, Doc("Tokens that were read from the provider's cache; null: not known.")]
    cache_write_tokens: Annotated[int | None, Doc("Tokens that went into the provider's cache; null: not known.")]


class OutputDetailsJson(TypedDict):
    reasoning_tokens: Annotated[int, Doc("Tokens of the reasoning.")]


class ResponseUsageJson(TypedDict):
    input_tokens: Annotated[int, Doc("Tokens of the input, cached ones included.")]
    input_tokens_details: Annotated[InputDetailsJson | None, Doc("Parts of the input; null: none is known.")]
    output_tokens: Annotated[int, Doc("Tokens of the answers, those of their reasoning included.")]
    output_tokens_details: Annotated[OutputDetailsJson | None, Doc("Parts of the output; null: none is known.")]
    total_tokens: Annotated[int, Doc("Both together.")]


class IncompleteDetailsJson(TypedDict):
    reason: Annotated[str, Doc("`max_output_tokens` or `content_filter`.")]


class ResponseErrorJson(TypedDict):
    code: Annotated[str, Doc("What went wrong, for programs.")]
    message: Annotated[str, Doc("What went wrong, for people.")]


class ResponseHeadJson(TypedDict):
    """Facts that are known before any answer: most repeat the request."""

    id: Annotated[str, Doc("`resp_` and 32 hexadecimal digits.")]
    object: Literal["response"]
    created_at: Annotated[int, Doc("Unix seconds.")]
    model: Annotated[str, Doc("The label of the one entry, or all labels joined by commas.")]
    background: Literal[False]
    instructions: Annotated[str | None, Doc("As requested.")]
    max_output_tokens: Annotated[int | None, Doc("As requested.")]
    metadata: Annotated[JsonObject, Doc("As requested.")]
    parallel_tool_calls: Annotated[bool, Doc("As requested; true by default.")]
    previous_response_id: Annotated[str | None, Doc("As requested.")]
    reasoning: Annotated[JsonObject, Doc("As requested.")]
    store: Annotated[bool, Doc("The texts are kept, so that the response can be fetched, and gone on from.")]
    temperature: Annotated[float | None, Doc("As requested.")]
    text: Annotated[JsonObject, Doc("As requested.")]
    tool_choice: Annotated[Any, Doc("As requested; `auto` by default.")]
    tools: Annotated[Sequence[JsonObject], Doc("As requested.")]
    top_p: Annotated[float | None, Doc("As requested.")]
    truncation: Literal["disabled"]
    user: Annotated[str | None, Doc("As requested.")]


class ResponseFrameJson(ResponseHeadJson, CostTotalsJson):
    """A response but for what Fanout adds of each answer."""

    status: Annotated[Status, Doc("`incomplete`: an answer was cut. `failed`: there is none. See also each choice's `error`.")]
    incomplete_details: Annotated[IncompleteDetailsJson | None, Doc("Why an answer was cut.")]
    error: Annotated[ResponseErrorJson | None, Doc("Why there is no answer at all.")]
    output: Annotated[Sequence[OutputItemJson], Doc("The items of all answers, in the order of the answers.")]
    usage: Annotated[ResponseUsageJson | None, Doc("Tokens of all answers; null: no provider reported any.")]
    unknown_usage: Annotated[int, Doc("Answers whose usage the provider did not report.")]
    timing: Annotated[TotalTimingJson | None, Doc("Milliseconds that the request took; null: nothing has ended yet.")]


class ResponseJson(ResponseFrameJson):
    """OpenAI's response, with the items of every answer."""

    choices: Annotated[Sequence[ResponseChoiceJson], Doc("The answers, and the failures in their places.")]


def render_response(head: ResponseHeadJson, outcomes: Sequence[Outcome], total_s: float) -> ResponseJson:
    """Return the answer to a request of which at least one call was answered."""
    output, choices = [], []
    for outcome, choice, number in number_choices(outcomes):
        output += render_items(head["id"], outcome, choice, number)
        choices.append(render_response_choice(outcome, choice, number, head["created_at"]))
    frame = assemble_response(head, output, choices, render_openai_totals(outcomes, total_s))
    return {**frame, "choices": choices}


def assemble_response(
    head: ResponseHeadJson,
    output: Sequence[OutputItemJson],
    choices: Sequence[ResponseChoiceJson] | Sequence[PastChoiceJson],
    totals: OpenAiTotalsJson | None,
    error: ErrorJson | None = None,
) -> ResponseFrameJson:
    """Return a response of its parts, all but the choices.

    Args:
        head: of the response.
        output: the items so far.
        choices: facts about the answers that have ended.
        totals: `None` while calls are running.
        error: why there is no answer at all.
    """
    # The first that was cut makes the whole incomplete: the contract has one status for all items.
    cut = next((CUT_REASONS[choice["finish_reason"]] for choice in choices if choice["finish_reason"] in CUT_REASONS), None)
    ended: Status = "failed" if error else "incomplete" if cut else "completed"
    return {
        **head,
        "status": "in_progress" if totals is None else ended,
        "incomplete_details": {"reason": cut} if cut else None,
        "error": {"code": error["code"] or "server_error", "message": error["message"]} if error else None,
        "output": output,
        "usage": render_response_usage(totals["usage"]) if totals else None,
        "unknown_usage": totals["unknown_usage"] if totals else 0,
        "cost_usd": totals["cost_usd"] if totals else None,
        "cost_unknown": totals["cost_unknown"] if totals else 0,
        "timing": totals["timing"] if totals else None,
    }


def render_response_choice(outcome: Outcome, choice: Choice | None, number: int, created: int) -> ResponseChoiceJson:
    """Return the facts about one answer."""
    return {**render_place(outcome.call, number), **render_openai_end(outcome, choice, number, created)}


def render_items(response_id: str, outcome: Outcome, choice: Choice | None, number: int) -> list[OutputItemJson]:
    """Return the items of one answer; of a failed call, what had arrived."""
    failure = find_failure(outcome, choice)
    index, finish_reason = outcome.call.index + number, get_finish_reason(choice, failure)
    if choice:
        return render_answer_items(response_id, index, choice.message, finish_reason, choice.logprobs)
    partial = get_partial(outcome, number)
    return render_answer_items(response_id, index, Answer(partial), "error") if partial else []


def render_response_usage(usage: OpenAiUsageJson | None) -> ResponseUsageJson | None:
    """Return usage under the names of responses."""
    if usage is None:
        return None
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    # Null as a whole where nothing is known: several clients take that, but no null for a number in it.
    read: InputDetailsJson | None = None
    if prompt:
        read = {"cached_tokens": prompt.get("cached_tokens"), "cache_write_tokens": prompt.get("cache_write_tokens")}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": read,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": completion["reasoning_tokens"]} if completion else None,
        "total_tokens": usage["total_tokens"],
    }
