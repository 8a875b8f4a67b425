"""The data types of a request's path: its calls and their outcomes.

Durations are seconds (`_s`), counts are tokens, money is US dollars. `None` is "not reported"; 0 is "reported as zero".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from pydantic import ConfigDict, SecretStr

from fanout.core.fusion import FusedMembers
from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.usage import Cost, Usage
from fanout.core.value_type import value_type

Kind = Literal["chat", "text", "both"]
Task = Literal["answer", "embed", "tokenize"]
"""Work of a model: most answer; some only give vectors of texts, or tell the tokens of a prompt."""
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
NO_FILES_CODE = "too_many_open_files"
NO_MEMORY_CODE = "answer_memory_full"
SHORTAGE_CODES = frozenset({NO_FILES_CODE, NO_MEMORY_CODE})
"""Codes of failures that are Fanout's own: its process may open no more files, or hold no more of answers."""
UNAVAILABLE_CODE = "provider_unavailable"
"""Code of the failure of a call that was not sent because its account's calls keep failing."""
HOOK_REFUSED_CODE, HOOK_FAILED_CODE = "hook_refused", "hook_failed"
"""Codes of failures by the operator's own Python, to which a call or its answer was shown."""
FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "function_call"]


@value_type(frozen=True, slots=True)
class Query:
    """Input for one model: `messages` (chat), `prompt` or `prompt_tokens` (text), or `inputs`, never two of them."""

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prompt_tokens: tuple[int, ...] | None = None
    """A prompt as the ids of one tokenizer: only for providers that take ids."""
    inputs: tuple[str | tuple[int, ...], ...] | None = None
    """Texts to embed, or the ids of their tokens."""
    task: Task = "answer"
    sampling: Sampling = Sampling()
    passthrough: JsonObject = field(default_factory=dict)
    """Fields that only some providers know: tools, response_format, …"""
    defaults: frozenset[str] = frozenset()
    """Sampling parameters set by a contract, not by the caller: left out silently where a provider cannot take them."""
    size: tuple[int, int, int] | None = field(default=None, compare=False, repr=False)
    """A `query_size.QuerySize`, if it has been measured."""

    @property
    def reads_prompt(self) -> bool:
        """Tell if no token is to be generated, but the model must score the prompt or spell its token ids."""
        sampling = self.sampling
        is_text = self.messages is None and (sampling.logprobs is not None or self.prompt_tokens is not None)
        return sampling.max_tokens == 0 and bool(sampling.echo) and is_text


@value_type(frozen=True, slots=True)
class Target:
    """A requested entry, resolved. The same model requested twice is two targets."""

    label: str
    """The caller's name for this entry; by default the model as the caller wrote it."""
    name: str
    """The model as the caller wrote it; a member's name where they wrote a set."""
    provider: str | None
    model: str | None
    """The id that the provider knows."""
    kind: Kind = "chat"
    limit_group: str | None = None
    """Targets of one provider account that share a group share its limits."""
    listed_as: str | None = None
    """`name` as the configuration spells it; `None` where it has no entry."""


@value_type(frozen=True, slots=True)
class FittedParameters:
    """Requested parameters as one provider takes them: see `providers.parameters`."""

    sent: JsonObject = field(default_factory=dict)
    """Parameters by the provider's own names."""
    ignored: tuple[str, ...] = ()
    adjusted: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    """Our name → (requested, sent)."""
    cut_token: bool = False
    """One token is generated although none was requested, because the provider takes no 0: it is cut off the answer."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A caller's own key for one provider.

    `digest` is its hash: such keys get limiters of their own, which must not hold the key itself.
    """

    key: SecretStr
    digest: str


class RequestScope:
    """Identity of a request, by which its calls share what they hold: fetched images, the memory of answers."""

    __slots__ = ("__weakref__", "configuration")

    def __init__(self, configuration: object | None = None) -> None:
        self.configuration = configuration
        """The Dispatcher's when the calls were planned, under which they also end; `None`: that of their start."""

    def hold_whole(self, index: int, size: int) -> bool:
        """Count a short answer that has come as a whole, if there is plenty of room; return whether it counts now."""
        return True

    def release_answer(self, index: int) -> None:
        """Give back the memory of one call's answer, if it has any."""


class QueueShare(NamedTuple):
    """The part of the places in a queue that all waiting calls of one owner may take."""

    owner: str
    part: float
    """0 to 1."""


@value_type(frozen=True, slots=True)
class Call:
    """One upstream call. Its place in the request is fixed before anything is sent."""

    index: int
    """Place of its (first) answer among all answers."""
    entry: int
    sample: int
    target: Target
    query: Query
    prompt_index: int | None = None
    fitted: FittedParameters = field(default_factory=FittedParameters)
    credential: Credential | None = None
    account_id: str | None = None
    """Account that the usage is counted for."""
    refusal: Failure | None = None
    """Set where the call must not be sent (unknown model, no key, strict parameters): its result without an attempt."""
    scope: RequestScope = field(default_factory=RequestScope, compare=False, repr=False)
    """Scope of its request; a call made alone has its own scope."""
    queue_share: QueueShare | None = None
    """Set where the caller's key bounds how much of a queue its calls may take."""
    fusion: FusedMembers | None = None
    """Set where the call makes one answer of those of other calls."""
    is_member: bool = False
    """It is made for fusions alone: the caller did not list it."""

    @property
    def reads_prompt(self) -> bool:
        """Tell if the provider is called although no token is to be generated; see `Query.reads_prompt`."""
        return self.query.reads_prompt and not {"echo", "logprobs"}.intersection(self.fitted.ignored)

    @property
    def wants_no_tokens(self) -> bool:
        """Tell if its answer is known to be empty, so that nothing is sent."""
        return self.query.sampling.max_tokens == 0 and not self.reads_prompt


@value_type(frozen=True, slots=True)
class TokenLogprob:
    """A token with its log probability."""

    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    token: str
    logprob: float | None
    """Natural logarithm; `None` for the first token of an echoed prompt, which nothing predicts."""
    top: tuple[tuple[str, float | None], ...] = ()
    """Likeliest alternatives, best first; those without a number last, as of no probability at all (`-Infinity`)."""
    utf8: bytes | None = None
    """The token's bytes, where the provider reports them: a token may end in the middle of a character."""


CONTENT_KINDS: Mapping[str, str] = {"images": "image", "videos": "video"}
"""Field of an answer → kind of content, where that has another name."""
MAX_KINDS, MAX_KIND_CHARS = 16, 64
"""Bounds on what is named: an upstream chooses its fields."""


@value_type(frozen=True, slots=True)
class Answer:
    """The message that a model returned."""

    text: str
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[JsonObject, ...] = ()
    extra: JsonObject = field(default_factory=dict)
    """Content beside the text, in fields that only some providers add, unchanged: images, audio, citations, …"""

    @property
    def shown_text(self) -> str:
        """The text, or a refusal that stands in its place: for readers and formats that have text alone."""
        return self.text or self.refusal or ""

    @property
    def other_content(self) -> list[str]:
        """The kinds of content in `extra`, for formats that cannot carry it."""
        return [CONTENT_KINDS.get(name, name)[:MAX_KIND_CHARS] for name in islice(self.extra, MAX_KINDS)]


@value_type(frozen=True, slots=True)
class Choice:
    """One of the answers of a call."""

    message: Answer
    finish_reason: FinishReason | None
    """`None` where the provider's reason has no counterpart here: `native_finish_reason` keeps it."""
    native_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    def to_delta(self, call_index: int, choice_index: int) -> Delta:
        """Return an answer that came whole as the one piece of a stream."""
        message = self.message
        calls = tuple({"index": place, **call} for place, call in enumerate(message.tool_calls))
        texts = (message.text, message.reasoning, message.refusal)
        return Delta(call_index, choice_index, *texts, calls, self.logprobs, message.extra or None)


@value_type(frozen=True, slots=True)
class PromptTokens:
    """The tokens of a prompt, as far as a provider tells them."""

    count: int
    ids: tuple[int | None, ...] | None = None
    """`None` in place of a token that has none: the embedded models know no other words than their own."""
    texts: tuple[str, ...] | None = None
    max_model_len: int | None = None
    """Tokens that a prompt and its answer may have together."""


@value_type(frozen=True, slots=True)
class Completion:
    """A provider's answer to one call. It has more than one choice only where `n` was sent upstream."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    model: str | None = None
    """Model name as the provider reports it."""
    request_id: str | None = None
    system_fingerprint: str | None = None
    vectors: tuple[bytes, ...] = ()
    """The embedding of each of the query's `inputs`: 32-bit floats, little-endian."""
    tokens: PromptTokens | None = None
    """Only where the task is `tokenize`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a call has no answer. `message` is safe to show: it holds no secret, host or prompt."""

    kind: FailureKind
    message: str
    code: str | None = None
    param: str | None = None
    status: int | None = None
    """HTTP status of the provider."""
    retry_after_s: float | None = None
    request_id: str | None = None
    partial: str | None = None
    """Text that had arrived before a stream broke."""
    should_retry: bool | None = None
    """The provider's own advice (`x-should-retry`); `None` where it gave none."""
    account_wide: bool = False
    """The delay applies to every model of the account, not only to this one."""

    def __str__(self) -> str:
        """Return the sentence for people."""
        return self.message


@value_type(frozen=True, slots=True)
class Timing:
    """Durations of one call."""

    queued_s: float = 0.0
    """Time spent waiting for our own limits, over all attempts."""
    first_token_s: float | None = None
    """From the successful attempt's start to its first content; `None` for whole answers."""
    call_s: float | None = None
    """The successful attempt alone, from its start to its last byte."""
    total_s: float = 0.0
    """Everything, queue and retries included."""
    attempts: int = 0
    hooks_s: float | None = None
    """Time spent in hooks, which is part of `total_s` alone; `None`: there are none."""
    reader_limited: bool = False
    """A slow reader delayed this stream, so its times are not those of the model alone."""
    in_batch: bool = False
    """It was answered by the provider's batch API: `total_s` says when that came to it, nothing of the model."""


@value_type(frozen=True, slots=True)
class Outcome:
    """The end of one call."""

    call: Call
    result: Completion | Failure
    timing: Timing = Timing()
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """A failed attempt that will be followed by another."""

    call: Call
    failure: Failure
    attempt: int
    """Number of the failed attempt, from 1."""
    delay_s: float


Observer = Callable[[Outcome | Retry], None]
"""Notified of every retry and of the end of every call, cancelled ones included. Must not wait, raise or do I/O."""


@dataclass(slots=True)
class Delta:
    """A piece of a streamed answer.

    Not frozen: thousands are created per second, and a frozen delta costs four times as much.
    """

    call_index: int
    choice_index: int = 0
    text: str = ""
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[JsonObject, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    extra: JsonObject | None = None
    """As in `Answer`."""
