"""Past comparisons as `/v1/comparisons` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.fusion import FusionJson
from fanout.core.json_text import JsonObject
from fanout.core.schema import FailureKind
from fanout.core.units import to_rfc3339
from fanout.rendering.choices import PlaceJson, PromptIndexJson, TimingJson
from fanout.rendering.errors import TYPES
from fanout.rendering.shared import CostTotalsJson, PageJson, TokenCountsJson, TotalTimingJson, render_token_counts
from fanout.store.history.records import AnswerRow, StoredComparison

CLIENT_LEFT = 499
"""nginx's status for a client that disconnected. Nobody receives it; the log, the metrics and the history record it."""


class PastEntryJson(TypedDict):
    entry: Annotated[int, Doc("Position in `model`, sets written out.")]
    model: Annotated[str, Doc("The model as the caller wrote it.")]
    label: Annotated[str, Doc("The caller's name for the entry; by default the model's.")]


class PastUsageJson(TokenCountsJson):
    """Sums over what is known; null if nothing is."""

    unknown: Annotated[int, Doc("Answers whose usage the provider did not report.")]


class PastComparisonJson(CostTotalsJson):
    """A past request, its caller and its cost."""

    id: Annotated[str, Doc("The `id` of the answer, which was also its header `x-comparison-id`.")]
    object: Literal["comparison"]
    created: Annotated[str, Doc("Time of the request: RFC 3339, UTC.")]
    path: Annotated[str, Doc("Endpoint: `/v1/completion`, …")]
    stream: Annotated[bool, Doc("The answer was streamed.")]
    account_id: Annotated[str | None, Doc("Account that the caller named; null: none.")]
    request_id: Annotated[str, Doc("Id of the request in the log.")]
    request_digest: Annotated[str, Doc("SHA-256 of the body as it came: equal requests have equal digests.")]
    status: Annotated[int, Doc("HTTP status; 499: the client left.")]
    client_left: Annotated[bool, Doc("The client left before the end of the answer: calls that still ran were cancelled.")]
    entries: Annotated[list[PastEntryJson], Doc("The entries of `model`, sets written out.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failed: Annotated[int, Doc("Calls that failed.")]
    usage: Annotated[PastUsageJson, Doc("Tokens of all answers.")]
    timing: Annotated[TotalTimingJson, Doc("Duration of the request.")]
    metadata: Annotated[Mapping[str, str], Doc("The caller's metadata.")]


class PastComparisonsJson(PageJson):
    data: Annotated[list[PastComparisonJson], Doc("Comparisons, the newest first.")]


class PastChoiceUsageJson(TokenCountsJson):
    """Tokens of one answer. If one call gave several answers, they stand on the first."""

    prediction_time_ms: Annotated[int | None, Doc("Duration of the successful attempt alone.")]


class PastChoiceTimingJson(TimingJson):
    """Times of one answer."""


class PastErrorJson(TypedDict):
    """Reason why a call gave no answer."""

    message: Annotated[str | None, Doc("What went wrong, for people; null: texts are not kept.")]
    type: Annotated[str, Doc("Class of the error, as in the envelope.")]
    code: Annotated[str, Doc("What went wrong, for programs.")]
    kind: Annotated[FailureKind, Doc("Kind of failure.")]
    upstream_status: Annotated[int | None, Doc("HTTP status of the provider's answer.")]


class PastMessageJson(TypedDict):
    text: Annotated[str | None, Doc("Text of the answer; null: texts are not kept (FANOUT_HISTORY is not `full`).")]
    reasoning: Annotated[NotRequired[str | None], Doc("The model's reasoning, if its provider shows it.")]
    refusal: Annotated[NotRequired[str | None], Doc("The model's own reason for not answering.")]
    tool_calls: Annotated[NotRequired[list[JsonObject] | None], Doc("Tools that the model calls.")]
    other_content: Annotated[NotRequired[list[str] | None], Doc("What else the answer held: `image`, `citations`, …")]


class PastChoiceJson(PlaceJson, PastMessageJson):
    """An answer, or why there is none."""

    finish_reason: Annotated[str | None, Doc("Reason why the model stopped.")]
    usage: Annotated[PastChoiceUsageJson, Doc("Tokens of the answer.")]
    provider: Annotated[str | None, Doc("Provider that was called; null: no model has that name.")]
    upstream_model: Annotated[str | None, Doc("Name of the model as the provider reports it.")]
    timing: Annotated[PastChoiceTimingJson, Doc("Durations in milliseconds.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: no price or no usage is known.")]
    cost_source: Annotated[str | None, Doc("Source of the price.")]
    error: Annotated[PastErrorJson | None, Doc("Reason why there is no answer.")]
    fusion: Annotated[NotRequired[FusionJson | None], Doc("The members that a fused answer was made of, and the cost of all.")]


class PastComparisonWholeJson(PastComparisonJson):
    """A comparison with its answers."""

    request: Annotated[Any, Doc("The body as it came; null: texts are not kept.")]
    choices: Annotated[list[PastChoiceJson], Doc("Answers, in the order of the request.")]


def render_past_comparison(stored: StoredComparison) -> PastComparisonJson:
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


def render_past_choice(row: AnswerRow) -> PastChoiceJson:
    """Return a past answer in the fields of a comparison's choice."""
    # Content is stored only if FANOUT_HISTORY was `full`, so that by default no prompt or answer stays on disk.
    content: JsonObject = from_json(row.content) if row.content else {}
    # From the stored figures, so that old rows follow any change of the definition.
    rate = round(row.output_tokens * 1e3 / row.call_ms, 2) if row.output_tokens is not None and row.call_ms else None
    choice: PastChoiceJson = {
        **_render_place(row),
        **_render_message(content),  # type: ignore[typeddict-item]  # mypy: it could have a `fusion`
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
    if row.fusion:
        choice["fusion"] = from_json(row.fusion)
    return choice


def render_request(text: str | None) -> object:
    """Return the body of a past request: the JSON that it was, or its text if that cannot be parsed."""
    try:
        return None if text is None else from_json(text)
    except ValueError:  # it holds a lone surrogate, or is nested too deeply
        return text


def _render_place(row: AnswerRow) -> PlaceJson:
    # Absent rather than null, as in the answer itself, so that clients can parse both alike.
    prompt: PromptIndexJson = {} if row.prompt is None else {"prompt_index": row.prompt}
    place = {"index": row.place, "entry": row.entry, "sample": row.sample, **prompt, "model": row.model, "label": row.label}
    if row.is_member:
        place["is_member"] = True
    return cast(PlaceJson, place)


def _render_message(content: JsonObject) -> PastMessageJson:
    message: PastMessageJson = {"text": content.get("text")}
    for name in ("reasoning", "refusal", "tool_calls", "other_content"):
        if name in content:
            message[name] = content[name]
    return message


def _render_error(row: AnswerRow, content: JsonObject) -> PastErrorJson:
    # The message may quote a prompt, so it is stored only with FANOUT_HISTORY=full; kind and code always are.
    kind = cast(FailureKind, row.kind)
    return {
        "message": content.get("message"),
        "type": TYPES.get(kind, "api_error"),
        "code": row.code or kind,
        "kind": kind,
        "upstream_status": row.upstream_status,
    }
