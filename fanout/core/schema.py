"""The nouns: what travels from a request, through the calls it makes, to the answers side by side.

Durations are seconds (`_s`), counts are tokens, money is US dollars. `None` is "not reported"; 0 is "reported as zero".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, SecretStr

from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.usage import Cost, Usage, UsageTotals
from fanout.core.value_type import value_type

Kind = Literal["chat", "text", "both"]
FailureKind = Literal[
    "not_found",
    "not_configured",
    "auth",
    "rate_limit",
    "quota",
    "bad_request",
    "unsupported",
    "content_filter",
    "server",
    "network",
    "timeout",
    "malformed",
    "cancelled",
    "internal",
]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "function_call"]


@value_type(frozen=True, slots=True)
class Query:
    """One question to one model: either `messages` (chat) or `prompt` or `prompt_tokens` (text), never two of them."""

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prompt_tokens: tuple[int, ...] | None = None
    """A prompt as the ids of one tokenizer: only for providers that take ids."""
    sampling: Sampling = Sampling()
    passthrough: Mapping[str, Any] = field(default_factory=dict)
    """Fields only some providers know: tools, response_format, …"""
    defaults: frozenset[str] = frozenset()
    """Sampling parameters set by a contract, not by the caller: dropped without a word where they cannot go."""


@value_type(frozen=True, slots=True)
class Target:
    """One requested entry, resolved: the same model asked for twice is two targets."""

    label: str
    """The caller's name for this entry; the model as asked where he gave none."""
    name: str
    """The model as the caller wrote it (a member's name where he wrote a set)."""
    provider: str | None
    model: str | None
    """The id that the provider knows."""
    kind: Kind = "chat"
    limit_group: str | None = None
    """Targets of one provider account that share a group share its limits."""


@value_type(frozen=True, slots=True)
class FittedParameters:
    """What becomes of the parameters asked for, on one wire format: see `parameters.py`."""

    sent: Mapping[str, Any] = field(default_factory=dict)
    """By the provider's own names."""
    ignored: tuple[str, ...] = ()
    adjusted: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Our name → (asked, sent)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A caller's own key for one provider, and the digest under which its limits are kept."""

    key: SecretStr
    digest: str


@value_type(frozen=True, slots=True)
class Call:
    """One upstream call: its place in the request is fixed before anything is sent."""

    index: int
    """The place of its (first) answer among the answers."""
    entry: int
    sample: int
    target: Target
    query: Query
    prompt_index: int | None = None
    fitted: FittedParameters = field(default_factory=FittedParameters)
    credential: Credential | None = None
    account_id: str | None = None
    """Whom the usage is counted for."""
    refusal: Failure | None = None
    """Why this call must not be sent (unknown model, no key, strict parameters): it is answered with this."""


@value_type(frozen=True, slots=True)
class TokenLogprob:
    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    token: str
    logprob: float | None
    """Natural logarithm; `None` for the first token of an echoed prompt, which nothing predicts."""
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest alternatives, best first."""
    utf8: bytes | None = None
    """The token's bytes, where the provider gave them: a token may end in the middle of a character."""


@value_type(frozen=True, slots=True)
class Answer:
    """The message a model gave."""

    text: str
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What only some providers add, as they wrote it: annotations, audio."""


@value_type(frozen=True, slots=True)
class Choice:
    message: Answer
    finish_reason: FinishReason | None
    """`None` where the provider's word is not known to us: `native_finish_reason` keeps it."""
    native_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


@value_type(frozen=True, slots=True)
class Completion:
    """A provider's answer to one call; more than one choice only where `n` was sent upstream."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    model: str | None = None
    """The model's name as the provider reports it."""
    request_id: str | None = None
    system_fingerprint: str | None = None


@value_type(frozen=True, slots=True)
class Remaining:
    """What a provider says of one of an account's limits. `None`: it did not say."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    """Until all of `limit` is there again, from when this was read."""


@value_type(frozen=True, slots=True)
class RateLimitStatus:
    """What an answer's headers say of the account's limits."""

    requests: Remaining = Remaining()
    tokens: Remaining = Remaining()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call gave no answer. `message` is safe to show: no secret, host or prompt is in it."""

    kind: FailureKind
    message: str
    code: str | None = None
    param: str | None = None
    status: int | None = None
    """The provider's HTTP status."""
    retry_after_s: float | None = None
    request_id: str | None = None
    partial: str | None = None
    """The text that had arrived before a stream broke."""
    should_retry: bool | None = None
    """The provider's own word on trying again (`x-should-retry`); `None` where it said nothing."""
    account_wide: bool = False
    """The delay holds for every model of the account, not for this one alone."""


@value_type(frozen=True, slots=True)
class Timing:
    queued_s: float = 0.0
    """Waiting for our own limits, over all attempts."""
    first_token_s: float | None = None
    """Successful attempt's start to its first content; `None` for whole answers."""
    call_s: float | None = None
    """The successful attempt alone, start to last byte."""
    total_s: float = 0.0
    """Everything, queue and retries included."""
    attempts: int = 0
    reader_limited: bool = False
    """A slow reader held this stream back, so its times are not the model's alone."""


@value_type(frozen=True, slots=True)
class Outcome:
    """How one call ended."""

    call: Call
    result: Completion | Failure
    timing: Timing = Timing()
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """A call is about to be tried again."""

    call: Call
    failure: Failure
    attempt: int
    """Which attempt failed, from 1."""
    delay_s: float


Observer = Callable[[Outcome | Retry], None]
"""Told of every retry and of the end of every call, a cancelled one's too. Must not wait, raise or do I/O."""


@dataclass(slots=True)
class Delta:
    """A piece of a streamed answer. Not frozen: thousands are made a second, and a frozen one costs four times as much."""

    call_index: int
    choice_index: int = 0
    text: str = ""
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    extra: Mapping[str, Any] | None = None
    """As an answer's."""


@value_type(frozen=True, slots=True)
class CompletionChoice:
    """One answer of a comparison: a choice of a call, or the failure that stands in its place."""

    index: int
    choice_index: int
    """Which of the call's choices this is; above 0 only where `n` was sent upstream."""
    outcome: Outcome
    choice: Choice | None
    created: int
    """Unix seconds."""

    @property
    def label(self) -> str:
        """The caller's name for the entry."""
        return self.outcome.call.target.label

    @property
    def text(self) -> str:
        """The answer, or what had come of it before it failed."""
        if self.choice is not None:
            return self.choice.message.text
        return (self.failure and self.failure.partial) or ""

    @property
    def failure(self) -> Failure | None:
        return self.outcome.result if isinstance(self.outcome.result, Failure) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers side by side, in the order of the request."""

    choices: tuple[CompletionChoice, ...]
    totals: UsageTotals
    created: float
    """Unix seconds."""
    total_s: float
    overhead_s: float
    """`total_s` beyond the slowest call's."""
    metadata: Mapping[str, str] = field(default_factory=dict)
