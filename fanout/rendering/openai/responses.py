"""Responses: a model's reasoning, message and calls of functions as the items of `output`.

Source: openai 3.51.0, `types/responses/response.py`; `choices`, and what says which item belongs to which, are Fanout's.
Longer than other modules: half of it is the shapes, each of which is the return type of a function beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, cast

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.merge import find_failure, get_finish_reason
from fanout.core.schema import Answer, Choice, Outcome, TokenLogprob
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
from fanout.rendering.openai.chat import RankedLogprobJson, render_chat_logprobs
from fanout.rendering.shared import CostTotalsJson, TotalTimingJson

Status = Literal["in_progress", "completed", "incomplete", "failed"]
CUT_REASONS: Mapping[str | None, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons for which an answer is not whole, as OpenAI names them."""

OWN_FIELDS = frozenset({"id", "type", "index", "status", "role", "content", "annotations"})
"""Fields of a message that no provider's own may replace; the sources stand with the text."""


class OutputTextJson(TypedDict):
    type: Literal["output_text", "refusal", "reasoning_text"]
    text: Annotated[NotRequired[str], Doc("The text.")]
    refusal: Annotated[NotRequired[str], Doc("Why the model would not answer, in its own words.")]
    annotations: Annotated[NotRequired[Sequence[JsonObject]], Doc("Sources that the model names.")]
    logprobs: Annotated[NotRequired[Sequence[RankedLogprobJson]], Doc("How likely the tokens are.")]


class OutputItemJson(TypedDict):
    """Reasoning, a message, or a function's call; further fields are the provider's own."""

    id: Annotated[str, Doc("Id of the item.")]
    type: Annotated[Literal["reasoning", "message", "function_call"], Doc("Type of the item.")]
    index: Annotated[int, Doc("Index of the choice that it is part of.")]
    status: Annotated[Literal["in_progress", "completed", "incomplete"], Doc("State of the item.")]
    role: Annotated[NotRequired[Literal["assistant"]], Doc("Author of a message.")]
    content: Annotated[NotRequired[Sequence[OutputTextJson]], Doc("Parts of a message, or of reasoning.")]
    summary: Annotated[NotRequired[Sequence[JsonObject]], Doc("Empty: reasoning stands in `content`.")]
    call_id: Annotated[NotRequired[str], Doc("Id of the call, which its output names.")]
    name: Annotated[NotRequired[str], Doc("Name of the function.")]
    arguments: Annotated[NotRequired[str], Doc("JSON of its arguments.")]


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


def render_answer_items(
    response_id: str,
    index: int,
    answer: Answer,
    finish_reason: str | None,
    logprobs: Sequence[TokenLogprob] | None = None,
) -> list[OutputItemJson]:
    """Return the items that a message is made of."""
    ids = ItemIds(response_id, index)
    items: list[OutputItemJson] = []
    if answer.reasoning:
        items.append(make_reasoning(ids.make("rs"), index, answer.reasoning))
    # An empty answer is an answer: without an item its client would wait for a message that never comes.
    if answer.text or answer.refusal or answer.extra or not answer.tool_calls:
        parts = []
        if answer.text or not answer.refusal:
            parts.append(make_text(answer.text, answer.extra, logprobs))
        if answer.refusal:
            parts.append(make_refusal(answer.refusal))
        items.append(make_message(ids.make("msg"), index, parts, answer.extra))
    items += [make_function_call(ids.make("fc"), index, call) for call in answer.tool_calls]
    if items and (finish_reason in CUT_REASONS or finish_reason in ("error", "timeout")):
        items[-1]["status"] = "incomplete"
    return items


class ItemIds:
    """Ids of the items of one answer: the same ones for the same response."""

    def __init__(self, response_id: str, index: int) -> None:
        # From the response's id: the items of a stored response have the ids that its stream had.
        self._stem = f"{response_id.removeprefix('resp_')}_{index}"
        self._made = 0

    def make(self, prefix: str) -> str:
        """Return the next id."""
        self._made += 1
        return f"{prefix}_{self._stem}_{self._made}"


def make_reasoning(item_id: str, index: int, text: str) -> OutputItemJson:
    """Return an item of reasoning."""
    content: list[OutputTextJson] = [{"type": "reasoning_text", "text": text}]
    return {"id": item_id, "type": "reasoning", "index": index, "status": "completed", "summary": [], "content": content}


def make_text(
    text: str, extra: Mapping[str, object] | None = None, logprobs: Iterable[TokenLogprob] | None = None
) -> OutputTextJson:
    """Return a part of a message that is text, with the sources that the provider names in its own fields."""
    named = (extra or {}).get("annotations")
    annotations = [_flatten_annotation(item) for item in named if isinstance(item, dict)] if isinstance(named, list) else []
    ranked = render_chat_logprobs(list(logprobs))["content"] if logprobs else None
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": ranked or []}


def make_refusal(text: str) -> OutputTextJson:
    """Return a part of a message that is a refusal."""
    return {"type": "refusal", "refusal": text}


def make_message(
    item_id: str, index: int, parts: Sequence[OutputTextJson], extra: Mapping[str, object] | None = None
) -> OutputItemJson:
    """Return a message. Fields that only its provider knows stand in it unchanged."""
    # An upstream's field must not replace the item's id or role, by which clients find their way.
    others = {name: value for name, value in (extra or {}).items() if name not in OWN_FIELDS}
    message: OutputItemJson = {
        "id": item_id,
        "type": "message",
        "index": index,
        "status": "completed",
        "role": "assistant",
        "content": parts,
    }
    return cast(OutputItemJson, {**message, **others})


def make_function_call(item_id: str, index: int, call: Mapping[str, Any]) -> OutputItemJson:
    """Return a function's call, of one as chat completions write it."""
    function = call.get("function") or {}
    return {
        "id": item_id,
        "type": "function_call",
        "index": index,
        "status": "completed",
        # Some hosts name no id, but the tool's output must refer to something.
        "call_id": call.get("id") or item_id,
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "",
    }


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


def _flatten_annotation(annotation: JsonObject) -> JsonObject:
    """Return a source as responses write it: its fields beside its type."""
    inner = annotation.get(str(annotation.get("type")))
    # Chat completions nest a source under its type's name; what is flat already stays as it is.
    return {"type": annotation["type"], **inner} if isinstance(inner, dict) else annotation
