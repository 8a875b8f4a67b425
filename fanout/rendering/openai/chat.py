"""Chat completions: a choice's `message`, in a stream its `delta`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired, cast

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import REPLACEMENT, JsonObject
from fanout.core.schema import Answer, Call, Choice, Delta, Outcome, TokenLogprob
from fanout.rendering.choices import PlaceJson, render_place
from fanout.rendering.openai.answers import (
    Dialect,
    Fragment,
    OpenAiAnswerJson,
    OpenAiChunkJson,
    OpenAiEndJson,
    OpenAiHeadJson,
    find_fingerprint,
    get_partial,
    number_choices,
    render_openai_end,
    render_openai_totals,
)


class TokenLogprobJson(TypedDict):
    token: Annotated[str, Doc("The token's text.")]
    logprob: Annotated[float | None, Doc("Natural logarithm of its probability.")]
    bytes: Annotated[list[int] | None, Doc("Its UTF-8 bytes; null: unknown, because the text stops within a character.")]


class RankedLogprobJson(TokenLogprobJson):
    top_logprobs: Annotated[list[TokenLogprobJson], Doc("The likeliest alternatives, best first.")]


class ChatLogprobsJson(TypedDict):
    content: Annotated[list[RankedLogprobJson] | None, Doc("How likely the tokens of the content are.")]
    refusal: Annotated[list[RankedLogprobJson] | None, Doc("How likely the tokens of the refusal are.")]


class ChatExtrasJson(TypedDict):
    reasoning_content: Annotated[NotRequired[str | None], Doc("The model's reasoning, if the provider shows it.")]
    tool_calls: Annotated[NotRequired[Sequence[Mapping[str, object]] | None], Doc("Tools that the model calls.")]
    function_call: Annotated[
        NotRequired[Mapping[str, object] | None], Doc("Function that the model calls; the older form of `tool_calls`.")
    ]


class ChatMessageJson(ChatExtrasJson):
    role: Annotated[Literal["assistant"], Doc("Role of the message's author.")]
    content: Annotated[str | None, Doc("The answer; null: there are only tool calls or a refusal, or there is no answer.")]
    refusal: Annotated[str | None, Doc("Why the model would not answer, in its own words.")]


class ChatDeltaJson(ChatExtrasJson):
    role: Annotated[NotRequired[Literal["assistant"] | None], Doc("Role of the message's author.")]
    content: Annotated[NotRequired[str | None], Doc("A piece of the answer.")]
    refusal: Annotated[NotRequired[str | None], Doc("A piece of the refusal.")]


class ChatChoiceJson(PlaceJson, OpenAiEndJson):
    """One answer, or why there is none."""

    message: Annotated[ChatMessageJson, Doc("The model's message.")]
    logprobs: Annotated[ChatLogprobsJson | None, Doc("How likely the tokens are.")]


class ChatCompletionJson(OpenAiAnswerJson):
    """OpenAI's chat completion, with a choice for every answer."""

    object: Literal["chat.completion"]
    choices: Annotated[Sequence[ChatChoiceJson], Doc("The answers, and the failures in their places.")]


class ChatNewsJson(PlaceJson):
    delta: Annotated[ChatDeltaJson, Doc("What is new.")]
    logprobs: Annotated[ChatLogprobsJson | None, Doc("How likely the tokens are.")]


class ChatPieceJson(ChatNewsJson):
    """A piece of one answer, as it came; the first of an answer holds its role."""

    finish_reason: Annotated[None, Doc("null: more follows.")]


class ChatEndJson(ChatNewsJson, OpenAiEndJson):
    """An answer's end: all that is known of it, without text."""


class ChatChunkJson(OpenAiChunkJson):
    """Data of one event. `data: [DONE]` ends the stream."""

    object: Literal["chat.completion.chunk"]
    choices: Annotated[Sequence[ChatEndJson | ChatPieceJson], Doc("One; none in the chunk of the totals.")]


class ChatDialect(Dialect):
    """Chat completions."""

    chunk_object = "chat.completion.chunk"

    def render_answer(self, outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float) -> ChatCompletionJson:
        """Return the answer to a request."""
        return {
            **head,
            "object": "chat.completion",
            "choices": [_render_choice(*numbered, head["created"]) for numbered in number_choices(outcomes)],
            "system_fingerprint": find_fingerprint(outcomes),
            **render_openai_totals(outcomes, total_s),
        }

    def open_choice(self, first: Delta | None) -> Fragment:
        """Return the role of the message."""
        # Null, not "": clients take an empty text for an answer that has begun.
        is_silent = first is not None and not first.text and (first.tool_calls or first.refusal)
        return {"delta": {"role": "assistant", "content": None if is_silent else "", "refusal": None}, "logprobs": None}

    def render_piece(self, call: Call, delta: Delta, offset: int) -> Fragment | None:
        """Return what is new."""
        news: JsonObject = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            news["reasoning_content"] = delta.reasoning
        if delta.refusal:
            news["refusal"] = delta.refusal
        if delta.tool_calls:
            news |= _render_tool_calls(call, delta.tool_calls)
        if delta.extra:
            news |= delta.extra
        # A chunk with nothing in it would be read as a piece, and costs as much.
        if not news and not delta.logprobs:
            return None
        return {"delta": news, "logprobs": render_chat_logprobs(delta.logprobs) if delta.logprobs else None}

    def close_choice(self, choice: Choice | None) -> Fragment:
        """Return an empty delta."""
        return {"delta": {}, "logprobs": None}


CHAT = ChatDialect()


def render_chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobsJson:
    """Return log probabilities as chat completions write them."""
    ranked: list[RankedLogprobJson] = [
        {
            **_render_token(token.token, token.logprob, token.utf8),
            "top_logprobs": [_render_token(other, logprob, None) for other, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": ranked, "refusal": None}


def _render_token(token: str, logprob: float | None, utf8: bytes | None) -> TokenLogprobJson:
    # A token with a replacement character ends within a character: its bytes are lost.
    if utf8 is None and REPLACEMENT not in token:
        utf8 = token.encode(errors="replace")
    return {"token": token, "logprob": logprob, "bytes": None if utf8 is None else list(utf8)}


def _render_choice(outcome: Outcome, choice: Choice | None, number: int, created: int) -> ChatChoiceJson:
    logprobs = choice.logprobs if choice else None
    return {
        **render_place(outcome.call, number),
        "message": _render_message(outcome.call, choice.message) if choice else _no_message(outcome, number),
        "logprobs": None if logprobs is None else render_chat_logprobs(logprobs),
        **render_openai_end(outcome, choice, number, created),
    }


def _render_message(call: Call, answer: Answer) -> ChatMessageJson:
    is_silent = not answer.text and (answer.tool_calls or answer.refusal)
    reasoning: ChatExtrasJson = {"reasoning_content": answer.reasoning} if answer.reasoning else {}
    tool_calls: ChatExtrasJson = _render_tool_calls(call, answer.tool_calls) if answer.tool_calls else {}
    message: ChatMessageJson = {
        "role": "assistant",
        "content": None if is_silent else answer.text,
        "refusal": answer.refusal,
        **reasoning,
        **tool_calls,
    }
    # Providers add fields of their own, which no type of ours knows.
    return cast("ChatMessageJson", {**message, **answer.extra}) if answer.extra else message


def _no_message(outcome: Outcome, number: int) -> ChatMessageJson:
    return {"role": "assistant", "content": get_partial(outcome, number), "refusal": None}


def _render_tool_calls(call: Call, tool_calls: Sequence[Mapping[str, object]]) -> ChatExtrasJson:
    """Return tool calls, under the older name for a caller who used that."""
    # A caller who sent `functions` reads `function_call` alone.
    request = call.query.passthrough
    if request.get("functions") and not request.get("tools"):
        return {"function_call": cast("Mapping[str, object]", tool_calls[0].get("function"))}
    return {"tool_calls": tool_calls}
