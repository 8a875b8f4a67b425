"""Responses from the history: fetched again, or gone on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic_core import from_json
from typing_extensions import Doc

from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.schema import Answer
from fanout.rendering.errors import ErrorJson
from fanout.rendering.history import PastChoiceJson, render_past_choice
from fanout.rendering.openai.answers import OpenAiTotalsJson, render_openai_usage
from fanout.rendering.openai.output_items import OutputItemJson, render_answer_items
from fanout.rendering.openai.responses import ResponseFrameJson, ResponseHeadJson, assemble_response
from fanout.store.history.records import AnswerRow, StoredComparison


class PastResponseJson(ResponseFrameJson):
    """A response from the history."""

    choices: Annotated[Sequence[PastChoiceJson], Doc("The answers, and the failures in their places.")]


def render_past_response(stored: StoredComparison, head: ResponseHeadJson) -> PastResponseJson:
    """Return a stored response, whose texts are in place."""
    output: list[OutputItemJson] = []
    for row in stored.answers:
        answer = read_answer(row)
        # A failed call has an item only where text had arrived, as in the first answer.
        if row.kind is None or answer.text:
            output += render_answer_items(head["id"], row.place, answer, row.finish_reason)
    choices = [render_past_choice(row) for row in stored.answers]
    answered = any(row.kind is None for row in stored.answers)
    error = None if answered else _find_error(choices)
    frame = assemble_response(head, output, choices, _sum_up(stored), error)
    return {**frame, "choices": choices}


def read_answer(row: AnswerRow) -> Answer:
    """Return a stored answer."""
    content: JsonObject = from_json(row.content) if row.content else {}
    calls = tuple(content.get("tool_calls") or ())
    return Answer(content.get("text") or "", content.get("reasoning"), content.get("refusal"), calls)


def to_assistant_message(answer: Answer) -> Message:
    """Return an answer as a message of a conversation that goes on; its reasoning is left out."""
    calls = {"tool_calls": list(answer.tool_calls)} if answer.tool_calls else {}
    # Providers refuse an assistant's message without any content, unless it calls tools.
    return Message("assistant", answer.text or answer.refusal or (None if calls else ""), calls)


def _sum_up(stored: StoredComparison) -> OpenAiTotalsJson:
    row = stored.comparison
    parts = (row.cached_tokens, row.cache_write_tokens, row.reasoning_tokens)
    return {
        "usage": render_openai_usage(row.input_tokens, row.output_tokens, *parts),
        "unknown_usage": row.unknown_usage,
        "cost_usd": row.cost_usd,
        "cost_unknown": row.cost_unknown,
        "timing": {"total_ms": row.total_ms, "overhead_ms": row.overhead_ms},
    }


def _find_error(choices: Sequence[PastChoiceJson]) -> ErrorJson | None:
    error = next((choice["error"] for choice in choices if choice["error"]), None)
    if error is None:
        return None
    return {"message": error["message"] or error["kind"], "type": error["type"], "param": None, "code": error["code"]}
