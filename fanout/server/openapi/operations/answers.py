"""What answers under `/v1` have in common, as models: for the reference, and for the tests that hold real answers against it.

Answers are not built from these (one encoder writes them). `null` is what nobody knows, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fanout.rendering.errors import ChoiceErrorJson


def _open(schema: dict[str, Any]) -> None:
    """Clients must pass over fields that are new to them; only our own tests insist on knowing all."""
    schema.pop("additionalProperties", None)


class Said(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, json_schema_extra=_open)


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
    error: ChoiceErrorJson | None


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
