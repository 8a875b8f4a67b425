"""Past comparisons as `/v1/comparisons` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, cast

from pydantic_core import from_json
from typing_extensions import TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.schema import FailureKind
from fanout.core.units import to_rfc3339
from fanout.rendering.choices import PlaceJson, PromptIndexJson, TimingJson
from fanout.rendering.errors import TYPES
from fanout.rendering.page import PageJson
from fanout.rendering.sums import CostTotalsJson, TokenCountsJson, TotalTimingJson, render_token_counts
from fanout.store.history.records import AnswerRow, StoredComparison

CLIENT_LEFT = 499
"""nginx's status for a client that left. Nobody receives it; it stands in the log, the metrics and the history."""


class PastEntryJson(TypedDict):
    entry: int
    """Position in `model`, sets written out."""
    model: str
    """The model as the caller wrote it."""
    label: str
    """The caller's name for the entry; by default the model's."""


class PastUsageJson(TokenCountsJson):
    """Sums over what is known; null if nothing is."""

    unknown: int
    """Answers whose usage the provider did not report."""


class PastComparisonJson(CostTotalsJson):
    """A past request, its caller and its cost."""

    id: str
    """The `id` of the answer, which was also its header `x-comparison-id`."""
    object: Literal["comparison"]
    """Always `comparison`."""
    created: str
    """Time of the request: RFC 3339, UTC."""
    path: str
    """Endpoint: `/v1/completion`, …"""
    stream: bool
    """The answer was streamed."""
    account_id: str | None
    """Account that the caller named; null: none."""
    request_id: str
    """Id of the request in the log."""
    request_digest: str
    """SHA-256 of the body as it came: equal requests have equal digests."""
    status: int
    """HTTP status; 499: the client left."""
    client_left: bool
    """The client left before the end of the answer: calls that still ran were cancelled."""
    entries: list[PastEntryJson]
    """The entries of `model`, sets written out."""
    answered: int
    """Calls that were answered."""
    failed: int
    """Calls that failed."""
    usage: PastUsageJson
    """Tokens of all answers."""
    timing: TotalTimingJson
    """Duration of the request."""
    metadata: Mapping[str, str]
    """The caller's metadata."""


class PastComparisonsJson(PageJson):
    data: list[PastComparisonJson]
    """Comparisons, the newest first."""


class PastChoiceUsageJson(TokenCountsJson):
    """Tokens of one answer. If one call gave several answers, they stand on the first."""

    prediction_time_ms: int | None
    """Duration of the successful attempt alone."""


class PastChoiceTimingJson(TimingJson):
    """Times of one answer."""


class PastErrorJson(TypedDict):
    """Reason why a call gave no answer."""

    message: str | None
    """What went wrong, for people; null: texts are not kept."""
    type: str
    """Class of the error, as in the envelope."""
    code: str
    """What went wrong, for programs."""
    kind: FailureKind
    """Kind of failure."""
    upstream_status: int | None
    """HTTP status of the provider's answer."""


class PastMessageJson(TypedDict):
    text: str | None
    """Text of the answer; null: texts are not kept (FANOUT_HISTORY is not `full`)."""
    reasoning: NotRequired[str | None]
    """The model's reasoning, if its provider shows it."""
    refusal: NotRequired[str | None]
    """The model's own reason for not answering."""
    tool_calls: NotRequired[list[JsonObject] | None]
    """Tools that the model calls."""


class PastChoiceJson(PlaceJson, PastMessageJson):
    """An answer, or why there is none."""

    finish_reason: str | None
    """Reason why the model stopped."""
    usage: PastChoiceUsageJson
    """Tokens of the answer."""
    provider: str | None
    """Provider that was called; null: no model has that name."""
    upstream_model: str | None
    """Name of the model as the provider reports it."""
    timing: PastChoiceTimingJson
    """Durations in milliseconds."""
    cost_usd: float | None
    """US dollars; null: no price or no usage is known."""
    cost_source: str | None
    """Source of the price."""
    error: PastErrorJson | None
    """Reason why there is no answer."""


class PastComparisonWholeJson(PastComparisonJson):
    """A comparison with its answers."""

    request: Any
    """The body as it came; null: texts are not kept."""
    choices: list[PastChoiceJson]
    """Answers, in the order of the request."""


def render_comparison(stored: StoredComparison) -> PastComparisonJson:
    """Return a comparison without its answers."""
    row = stored.comparison
    return {
        "id": row.id,
        "object": "comparison",
        "created": to_rfc3339(row.created),
        "path": row.path,
        "stream": row.stream,
        "account_id": row.account_id or None,
        "request_id": row.request_id,
        "request_digest": row.digest.hex(),
        "status": row.status,
        "client_left": row.status == CLIENT_LEFT,
        "entries": [{"entry": entry, "model": model, "label": label} for entry, model, label in stored.entries],
        "answered": row.answered,
        "failed": row.failed,
        "usage": {**render_token_counts(row), "unknown": row.unknown_usage},
        "cost_usd": row.cost_usd,
        "cost_unknown": row.cost_unknown,
        "timing": {"total_ms": row.total_ms, "overhead_ms": row.overhead_ms},
        "metadata": stored.metadata or {},
    }


def render_choice(row: AnswerRow) -> PastChoiceJson:
    """Return an answer in the fields that it had."""
    content: JsonObject = from_json(row.content) if row.content else {}
    rate = round(row.output_tokens * 1e3 / row.call_ms, 2) if row.output_tokens is not None and row.call_ms else None
    return {
        **_render_place(row),
        **_render_message(content),
        "finish_reason": row.finish_reason,
        "usage": {**render_token_counts(row), "prediction_time_ms": row.call_ms},
        "provider": row.provider,
        "upstream_model": row.upstream_model,
        "timing": {
            "queued_ms": row.queued_ms,
            "ttft_ms": row.ttft_ms,
            "total_ms": row.total_ms,
            "attempts": row.attempts,
            "tokens_per_second": rate,
        },
        "cost_usd": row.cost_usd,
        "cost_source": row.cost_source,
        "error": _render_error(row, content) if row.kind else None,
    }


def render_request(text: str | None) -> object:
    """Return the body of a past request: the JSON that it was, or its text if that cannot be parsed."""
    try:
        return None if text is None else from_json(text)
    except ValueError:  # it holds a lone surrogate, or is nested too deeply
        return text


def _render_place(row: AnswerRow) -> PlaceJson:
    prompt: PromptIndexJson = {} if row.prompt is None else {"prompt_index": row.prompt}
    return {
        "index": row.place,
        "entry": row.entry,
        "sample": row.sample,
        **prompt,
        "model": row.model,
        "label": row.label,
    }


def _render_message(content: JsonObject) -> PastMessageJson:
    message: PastMessageJson = {"text": content.get("text")}
    for name in ("reasoning", "refusal", "tool_calls"):
        if name in content:
            message[name] = content[name]
    return message


def _render_error(row: AnswerRow, content: JsonObject) -> PastErrorJson:
    kind = cast(FailureKind, row.kind)
    return {
        "message": content.get("message"),
        "type": TYPES.get(kind, "api_error"),
        "code": row.code or kind,
        "kind": kind,
        "upstream_status": row.upstream_status,
    }
