"""Items of a response's `output`: reasoning, messages and tool calls, as whole answers and streams have them.

Source: openai 3.51.0, `types/responses/response_output_item.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, cast

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, TokenLogprob
from fanout.rendering.openai.chat import RankedLogprobJson, render_chat_logprobs

CUT_REASONS: Mapping[str | None, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons for which an answer is not whole, as OpenAI names them."""

OWN_FIELDS = frozenset({"id", "type", "index", "status", "role", "content", "annotations"})
"""Fields of a message that no provider's own may replace; the sources stand with the text."""


CALL_ITEMS: Mapping[str, tuple[Literal["function_call", "custom_tool_call"], str]] = {
    "function": ("function_call", "arguments"),
    "custom": ("custom_tool_call", "input"),
}
"""Kind of a tool call in chat completions → type of its item, and the field of what it gives the tool."""


class OutputTextJson(TypedDict):
    type: Literal["output_text", "refusal", "reasoning_text"]
    text: Annotated[NotRequired[str], Doc("The text.")]
    refusal: Annotated[NotRequired[str], Doc("Why the model would not answer, in its own words.")]
    annotations: Annotated[NotRequired[Sequence[JsonObject]], Doc("Sources that the model names.")]
    logprobs: Annotated[NotRequired[Sequence[RankedLogprobJson]], Doc("How likely the tokens are.")]


class OutputItemJson(TypedDict):
    """Reasoning, a message, or a tool call; further fields are the provider's own."""

    id: Annotated[str, Doc("Id of the item.")]
    type: Annotated[Literal["reasoning", "message", "function_call", "custom_tool_call"], Doc("Type of the item.")]
    index: Annotated[int, Doc("Index of the choice that it is part of.")]
    status: Annotated[Literal["in_progress", "completed", "incomplete"], Doc("State of the item.")]
    role: Annotated[NotRequired[Literal["assistant"]], Doc("Author of a message.")]
    content: Annotated[NotRequired[Sequence[OutputTextJson]], Doc("Parts of a message, or of reasoning.")]
    summary: Annotated[NotRequired[Sequence[JsonObject]], Doc("Empty: reasoning stands in `content`.")]
    call_id: Annotated[NotRequired[str], Doc("Id of the call, which its output names.")]
    name: Annotated[NotRequired[str], Doc("Name of the tool.")]
    arguments: Annotated[NotRequired[str], Doc("JSON of a function's arguments.")]
    input: Annotated[NotRequired[str], Doc("Text for a tool that is no function.")]


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
    items += [make_call(ids.make("fc"), index, call) for call in answer.tool_calls]
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


def get_call_kind(call: Mapping[str, object]) -> str:
    """Return the kind of a tool call, which names the object of its fields."""
    return "custom" if isinstance(call.get("custom"), dict) else "function"


def make_call(item_id: str, index: int, call: Mapping[str, Any]) -> OutputItemJson:
    """Return the item of a tool call, of one as chat completions write it."""
    kind = get_call_kind(call)
    payload, (item_type, field) = call.get(kind) or {}, CALL_ITEMS[kind]
    item: OutputItemJson = {
        "id": item_id,
        "type": item_type,
        "index": index,
        "status": "completed",
        # Some hosts name no id, but the tool's output must refer to something.
        "call_id": call.get("id") or item_id,
        "name": payload.get("name") or "",
    }
    return cast(OutputItemJson, {**item, field: payload.get(field) or ""})


def _flatten_annotation(annotation: JsonObject) -> JsonObject:
    """Return a source as responses write it: its fields beside its type."""
    inner = annotation.get(str(annotation.get("type")))
    # Chat completions nest a source under its type's name; what is flat already stays as it is.
    return {"type": annotation["type"], **inner} if isinstance(inner, dict) else annotation
