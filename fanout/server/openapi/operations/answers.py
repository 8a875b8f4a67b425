"""What answers under `/v1` have in common, as models: for the reference, and for the tests that hold real answers against it.

Answers are not built from these (one encoder writes them). `null` is what nobody knows, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fanout.core.schema import FailureKind


def _open(schema: dict[str, Any]) -> None:
    """Clients must pass over fields that are new to them; only our own tests insist on knowing all."""
    schema.pop("additionalProperties", None)


class Said(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, json_schema_extra=_open)


class Error(Said):
    message: str
    """What is wrong and what is allowed, for people."""
    type: str
    """`invalid_request_error`, `authentication_error`, `rate_limit_error`, `configuration_error`, `server_error`, …"""
    param: str | None
    """The first wrong field."""
    code: str | None
    """What is wrong, for programs: `invalid_value`, `model_not_found`, `all_failed`, …"""
    details: list[ErrorDetail] | None = None
    """Every wrong field; or, where all calls failed, each call with its failure."""


class ErrorDetail(Said):
    """One wrong field, or one call that failed: then with its place and its failure's kind."""

    message: str
    param: str | None
    code: str | None
    index: int | None = None
    entry: int | None = None
    sample: int | None = None
    prompt_index: int | None = None
    model: str | None = None
    label: str | None = None
    type: str | None = None
    kind: FailureKind | None = None
    upstream_status: int | None = None
    upstream_request_id: str | None = None
    retry_after_s: float | None = None


class ErrorAnswer(Said):
    """OpenAI's error envelope."""

    error: Error


class ChoiceError(Said):
    """Why a call gave no answer. Nothing of the provider's keys, hosts or addresses is in it."""

    message: str
    type: str
    param: str | None
    code: str
    kind: FailureKind
    upstream_status: int | None = None
    """The provider's HTTP status."""
    upstream_request_id: str | None = None
    retry_after_s: float | None = None


class ChoiceUsage(Said):
    """Tokens of one answer; null where the provider did not report them."""

    prompt_tokens: int | None
    """Cached ones included."""
    completion_tokens: int | None
    """Those of its reasoning included."""
    total_tokens: int | None
    cached_tokens: int | None
    prediction_time_ms: int | None
    """The successful attempt alone, from its start to its last byte."""


class ChoiceTiming(Said):
    queued_ms: int
    """Waiting for the limits set here; never inside the model's own time."""
    ttft_ms: int | None
    """From the attempt's start to its first content; null for whole answers."""
    total_ms: int
    """Everything, queue and retries included."""
    attempts: int
    tokens_per_second: float | None
    reader_limited: bool | None = None
    """A slow reader held this stream back: its times are not the model's alone."""


class Adjustment(Said):
    asked: Any
    sent: Any


class Place(Said):
    """Where an answer stands: fixed before anything is sent, the same model asked twice is two answers."""

    index: int
    """Running number over prompts, entries and samples."""
    entry: int
    """Position in `model`, sets written out."""
    sample: int
    prompt_index: int | None = None
    """Position in `prompt`, where that was a list."""
    model: str
    """As you wrote it."""
    label: str
    """Your name for the entry; by default the model's."""


class Ended(Said):
    """What is known of an answer at its end."""

    finish_reason: Literal["stop", "length", "content_filter", "tool_calls", "function_call", "timeout", "error"] | None
    """`timeout` and `error`: there is no answer, see `error`. null: the provider's word is not known here."""
    native_finish_reason: str | None
    """The provider's own word."""
    usage: ChoiceUsage | None
    provider: str | None
    upstream_model: str | None
    """The model's name as the provider reports it."""
    timing: ChoiceTiming
    cost_usd: float | None
    """null: its price or its usage is not known."""
    cost_source: str | None
    """`reported` by the provider, `providers.json`, or `genai-prices` and its version."""
    ignored_parameters: list[str]
    """What you asked and this model cannot take."""
    adjusted_parameters: dict[str, Adjustment]
    """What was sent otherwise than you asked."""
    error: ChoiceError | None


class LegacyLogprobs(Said):
    """OpenAI's four parallel arrays."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TotalUsage(Said):
    """Sums over what is known; null where nothing is."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    prediction_time_ms: int
    """The whole request, from its arrival to this answer."""
    unknown: int
    """Answers whose usage the provider did not report."""


class TotalTiming(Said):
    total_ms: int
    overhead_ms: int
    """Beyond the slowest call's time: what Fanout itself took."""
