"""The history of comparisons, described."""

from __future__ import annotations

from typing import Any, Literal

from fanout.core.schema import FailureKind
from fanout.server.openapi.operations.answers import Place, Said, TotalTiming
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import failing, reading
from fanout.server.resources.comparisons import ComparisonsQuery


class PastEntry(Said):
    entry: int
    """Position in `model`, sets written out."""
    model: str
    label: str


class PastTokens(Said):
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None


class PastUsage(PastTokens):
    """Sums over what is known; null where nothing is."""

    unknown: int
    """Answers whose usage the provider did not report."""


class PastComparison(Said):
    """What was asked once, by whom, and what it took."""

    id: str
    """The `id` of the answer; everywhere also its header `x-comparison-id`."""
    object: Literal["comparison"]
    created: str
    """When it was asked: RFC 3339, UTC."""
    path: str
    """Where it was asked: `/v1/completion`, …"""
    stream: bool
    account_id: str | None
    """null: asked without an account."""
    request_id: str
    """As in the log."""
    request_digest: str
    """SHA-256 of the body as it came: the same request has the same."""
    status: int
    """HTTP's; 499: the client left."""
    client_left: bool
    """Nobody waited for the answer's end: what still ran was cancelled."""
    entries: list[PastEntry]
    answered: int
    """Calls that were answered."""
    failed: int
    """Calls that were not."""
    usage: PastUsage
    cost_usd: float | None
    cost_unknown: int
    """Answers with no known price."""
    timing: TotalTiming
    metadata: dict[str, str]
    """The caller's."""


class PastComparisons(Said):
    object: Literal["list"]
    data: list[PastComparison]
    """The newest first."""
    first_id: str | None
    last_id: str | None
    """Give it as `after` for the next page."""
    has_more: bool


class PastChoiceUsage(PastTokens):
    """Tokens of one answer. Where one call gave several, they stand on its first."""

    prediction_time_ms: int | None
    """The successful attempt alone."""


class PastChoiceTiming(Said):
    queued_ms: int
    ttft_ms: int | None
    total_ms: int
    """Everything, queue and retries included."""
    attempts: int
    tokens_per_second: float | None


class PastError(Said):
    """Why there was no answer."""

    message: str | None
    """null: texts are not kept."""
    type: str
    code: str
    kind: FailureKind
    upstream_status: int | None
    """The provider's HTTP status."""


class PastChoice(Place):
    """An answer, or why there was none."""

    text: str | None
    """null: texts are not kept (FANOUT_HISTORY is not `full`)."""
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: str | None
    usage: PastChoiceUsage
    provider: str | None
    upstream_model: str | None
    timing: PastChoiceTiming
    cost_usd: float | None
    cost_source: str | None
    error: PastError | None


class PastComparisonWhole(PastComparison):
    """A comparison with its answers."""

    request: Any
    """The body as it came; null: texts are not kept."""
    choices: list[PastChoice]
    """In the order of the request."""


EXAMPLE = {
    "id": "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e",
    "object": "comparison",
    "created": "2026-11-20T09:30:00.000Z",
    "path": "/v1/completion",
    "stream": False,
    "account_id": "team-a",
    "request_id": "6c1f0a52-8e3a-4a0e-9d2e-0c1a7f6f7a11",
    "request_digest": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "status": 200,
    "client_left": False,
    "entries": [{"entry": 0, "model": "gpt-4o-mini", "label": "gpt-4o-mini"}],
    "answered": 1,
    "failed": 0,
    "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cached_tokens": 0, "unknown": 0},
    "cost_usd": 0.000006,
    "cost_unknown": 0,
    "timing": {"total_ms": 416, "overhead_ms": 1},
    "metadata": {"experiment": "7"},
}
LIST = Operation(
    id="list_comparisons",
    tag="History",
    summary="What was asked, and how it was answered",
    description="Every interactive request that made calls, whichever endpoint it came to, whole or streamed, failed or left "
    "by its client, as soon as it was answered. The newest come first, in pages. FANOUT_HISTORY says what is kept of each, "
    "FANOUT_HISTORY_DAYS how long. All filters that are given must hold.",
    query=ComparisonsQuery,
    examples={"a model's in a month": {"model": "local/ngram-5", "from": "2026-11-01", "to": "2026-11-30", "limit": 10}},
    answers={
        **reading(
            PastComparisons,
            "A page.",
            {
                "the last page": {
                    "object": "list",
                    "data": [EXAMPLE],
                    "first_id": EXAMPLE["id"],
                    "last_id": EXAMPLE["id"],
                    "has_more": False,
                }
            },
        ),
        **failing(400, "Wrong parameters, all of them named in `details`."),
        **failing(503, "There is no store (FANOUT_STORE is `off`), or it cannot be read now. Or the server is stopping."),
    },
)
ONE = Operation(
    id="comparison",
    tag="History",
    summary="One comparison with its answers",
    description="Each answer in the fields that it had. With FANOUT_HISTORY=full also what was asked and what was answered.",
    path={"id": ("The comparison's id.", str(EXAMPLE["id"]))},
    answers={
        **reading(PastComparisonWhole, "The comparison."),
        **failing(404, "No comparison has this id, or it is older than what is kept."),
        **failing(503, "There is no store (FANOUT_STORE is `off`), or it cannot be read now. Or the server is stopping."),
    },
)
OPERATIONS: Operations = {("GET", "/v1/comparisons"): LIST, ("GET", "/v1/comparisons/{id}"): ONE}
