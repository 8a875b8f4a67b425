"""Output lines of OpenAI's batches: each is the endpoint's whole answer for one entry of `model`, or why there is none.

Source: `BatchRequestOutput`, https://github.com/openai/openai-openapi
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import TypedDict

from fanout.core.json_text import encode_json
from fanout.core.merge import has_answer
from fanout.core.schema import Call, Outcome
from fanout.jobs.job import Job
from fanout.rendering.errors import render_all_failed
from fanout.rendering.openai.answers import Dialect, OpenAiHeadJson
from fanout.rendering.openai.chat import CHAT
from fanout.rendering.openai.text import TEXT
from fanout.store.jobs.records import InputItem

DIALECTS: Mapping[str, Dialect] = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}
"""Endpoint → the shape of its answers."""
UNFINISHED: Mapping[str, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
"""State of the job → code and sentence of a request that was not executed."""


class LineErrorJson(TypedDict):
    code: str
    message: str


class LineResponseJson(TypedDict):
    status_code: int
    request_id: str
    body: Mapping[str, object]


class OutputLineJson(TypedDict):
    id: str
    custom_id: str | None
    entry: int
    model: str
    response: LineResponseJson | None
    error: LineErrorJson | None


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """A call of a batch that has ended."""

    outcome: Outcome
    ended: float
    """Unix seconds."""


def encode_output_line(
    job: Job, item: InputItem, entry: int, calls: Sequence[tuple[Call, FinishedCall | None]]
) -> tuple[bool, bytes]:
    """Return whether an entry of an input line was answered, and its output line; `None`: a call has not ended."""
    key = uuid.uuid5(uuid.NAMESPACE_OID, f"{job.id} {item.item} {entry}")  # the same however often it is read
    line: OutputLineJson = {
        "id": f"batch_req_{key.hex}",
        "custom_id": item.custom_id,
        "entry": entry,
        "model": calls[0][0].target.label,
        "response": None,
        "error": None,
    }
    finished = [call for _, call in calls if call is not None]
    # All samples or none: half an answer in `response` would look like a whole one.
    if len(finished) < len(calls):
        code, sentence = UNFINISHED.get(job.state, ("batch_stopped", job.reason or "The batch has stopped."))
        line["error"] = {"code": code, "message": sentence}
        return False, encode_json(line) + b"\n"
    outcomes = [call.outcome for call in finished]
    is_answered = has_answer(outcomes)
    body: Mapping[str, object]
    if is_answered:
        created = int(max(call.ended for call in finished))
        # The calls ran side by side, so the longest is the request's time.
        total_s = max(outcome.timing.total_s for outcome in outcomes)
        head: OpenAiHeadJson = {"id": str(key), "created": created, "model": line["model"]}
        status, body = 200, DIALECTS[job.spec.endpoint or ""].render_answer(outcomes, head, total_s)
    else:
        failed = render_all_failed(outcomes)
        status, body = failed.status, {"error": failed.error}
    request_id = next((outcome.result.request_id for outcome in outcomes if outcome.result.request_id), None)
    # OpenAI's `request_id` is for support: the provider's own is the one that its support knows.
    line["response"] = {"status_code": status, "request_id": request_id or str(key), "body": body}
    return is_answered, encode_json(line) + b"\n"
