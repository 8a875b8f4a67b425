"""`POST /v1/completions` and `POST /v1/chat/completions`, described."""

from __future__ import annotations

from typing import Any, Literal

from fanout.server.dialects.openai.chat import ChatBody
from fanout.server.dialects.openai.completions import CompletionsBody
from fanout.server.openapi.endpoint import Events
from fanout.server.openapi.operations.answers import ChoiceUsage, Ended, LegacyLogprobs, Place, Said, TotalTiming
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import calling

LISTS = (
    "`model` may be a list of models, objects, or both: then there is a choice for each, with its own `model`, usage, time, "
    "cost or error. Fields that are not described here go on to OpenAI-compatible providers as they are; for others they "
    "stand in the choice's `ignored_parameters`."
)


class PromptDetails(Said):
    cached_tokens: int


class CompletionDetails(Said):
    reasoning_tokens: int


class OpenAiChoiceUsage(ChoiceUsage):
    """Tokens of one answer. Where one call gave several, they stand on its first."""

    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class OpenAiUsage(Said):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prediction_time_ms: int
    unknown: int
    """Answers whose usage the provider did not report."""


class OpenAiEnded(Ended):
    usage: OpenAiChoiceUsage | None
    """null: not reported, or it stands on the call's first answer."""
    created: int
    """Unix seconds."""


class Envelope(Said):
    id: str
    """A UUID."""
    created: int
    """Unix seconds."""
    model: str
    """The label of the one entry, or all labels joined by commas."""


class Totals(Said):
    system_fingerprint: str | None
    usage: OpenAiUsage | None
    """null: no provider reported any."""
    cost_usd: float | None
    cost_unknown: int
    """Answers with no known price."""
    timing: TotalTiming


class Chunk(Envelope):
    usage: OpenAiUsage | None = None
    """With `stream_options.include_usage`: the totals, in the last chunk, like all that follows."""
    cost_usd: float | None = None
    cost_unknown: int | None = None
    timing: TotalTiming | None = None


class TextWritten(Place):
    text: str
    logprobs: LegacyLogprobs | None


class TextChoice(OpenAiEnded, TextWritten):
    """One answer, or why there is none."""


class TextPiece(TextWritten):
    """A piece of one answer's text, as it came."""

    finish_reason: None


class TextAnswers(Envelope):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class TextCompletion(Totals, TextAnswers):
    """OpenAI's text completion, with a choice for every answer."""


class TextChunk(Chunk):
    """The data of one event. `data: [DONE]` ends the stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice | TextPiece]
    """One; none in the chunk of the totals."""


class TokenLogprob(Said):
    token: str
    logprob: float | None
    bytes: list[int] | None


class RankedLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]
    """The likeliest alternatives, best first."""


class ChatLogprobs(Said):
    content: list[RankedLogprob] | None
    refusal: list[RankedLogprob] | None


class Spoken(Said):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class ChatMessage(Spoken):
    role: Literal["assistant"]
    content: str | None
    """null where there are only tool calls or a refusal, or no answer."""
    refusal: str | None


class ChatSaid(Place):
    message: ChatMessage
    logprobs: ChatLogprobs | None


class ChatChoice(OpenAiEnded, ChatSaid):
    """One answer, or why there is none."""


class ChatAnswers(Envelope):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class ChatCompletion(Totals, ChatAnswers):
    """OpenAI's chat completion, with a choice for every answer."""


class ChatDelta(Spoken):
    role: Literal["assistant"] | None = None


class ChatNews(Place):
    delta: ChatDelta
    logprobs: ChatLogprobs | None


class ChatPiece(ChatNews):
    """A piece of one answer, as it came; the first of an answer holds its role."""

    finish_reason: None


class ChatEnd(OpenAiEnded, ChatNews):
    """An answer's end: all that is known of it, without text."""


class ChatChunk(Chunk):
    """The data of one event. `data: [DONE]` ends the stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatEnd | ChatPiece]
    """One; none in the chunk of the totals."""


TEXT = Operation(
    id="completions",
    tag="OpenAI and Konko",
    summary="Text completions",
    description=f"OpenAI's text completions as Konko serves them: their clients work unmodified.\n\n{LISTS}",
    body=CompletionsBody,
    examples={
        "one model": {"model": "local/ngram-5", "prompt": "The return statement", "max_tokens": 20},
        "two models, two prompts": {
            "model": ["local/ngram-3", "local/ngram-5"],
            "prompt": ["The return statement", "A class definition"],
            "max_tokens": 20,
            "seed": 7,
        },
    },
    headers=("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key"),
    answers=calling(TextCompletion, Events(TextChunk), "A choice for every prompt, model and sample."),
)
CHAT = Operation(
    id="chat_completions",
    tag="OpenAI and Konko",
    summary="Chat completions",
    description=f"OpenAI's chat completions as Konko serves them: their clients work unmodified.\n\n{LISTS}",
    body=ChatBody,
    examples={
        "one model": {
            "model": "local/ngram-5",
            "messages": [{"role": "user", "content": "What does the return statement do?"}],
            "max_tokens": 20,
        },
        "two models, streamed": {
            "model": ["local/ngram-3", "local/ngram-5"],
            "messages": [{"role": "user", "content": "What does the return statement do?"}],
            "max_tokens": 20,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
    headers=("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key"),
    answers=calling(ChatCompletion, Events(ChatChunk), "A choice for every model and sample."),
)
OPERATIONS: Operations = {("POST", "/v1/completions"): TEXT, ("POST", "/v1/chat/completions"): CHAT}
