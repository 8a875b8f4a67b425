"""`POST /v1/chat/completions`: OpenAI's chat completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, ValidationInfo, field_validator

from fanout.core.faults import Fault
from fanout.core.messages import MessageBody
from fanout.core.schema import Answer, Call, Choice, Delta, TokenLogprob
from fanout.server import request_body
from fanout.server.dialects.openai import respond
from fanout.server.dialects.openai.bodies import OpenAiBody, OpenAiEntry, OpenAiSampling, Own
from fanout.server.dialects.openai.stream import Dialect
from fanout.server.request_body import EntryCount, ToEntryList, entries_schema

REPLACEMENT = "\ufffd"
"""Stands in a token where its bytes are no whole character."""


class ChatSampling(OpenAiSampling, takes=("max_completion_tokens",), spellings={"max_completion_tokens": "max_tokens"}):
    """The parameters of a chat completion."""

    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """How many alternatives to report beside each token; needs `logprobs`."""

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_length(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") not in (None, value):
            raise ValueError("is another name of `max_tokens`: give one of them, or both alike")
        return value

    def own(self) -> dict[str, Any]:
        said = super().own()
        said |= {name: getattr(self, name) for name in self.model_fields_set & {"logprobs", "top_logprobs"}}
        if "logprobs" in said and not said["logprobs"]:
            said.setdefault("top_logprobs")  # an entry that wants none wants none of the request's alternatives
        return said

    @classmethod
    def settled(cls, own: Own, request: Own) -> dict[str, Any]:
        asked, settled = {**request, **own}, dict(own)
        if settled.keys() & {"logprobs", "top_logprobs"}:
            settled.pop("top_logprobs", None)
            settled["logprobs"] = (asked.get("top_logprobs") or 0) if asked.get("logprobs") else None
        return settled


class ChatEntry(OpenAiEntry, ChatSampling):
    """One entry of `model` written out."""


class ChatBody(OpenAiBody, ChatSampling):
    """A request for chat completions."""

    model: Annotated[list[ChatEntry], ToEntryList, EntryCount, entries_schema("ChatEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    messages: list[MessageBody] = Field(min_length=1)

    @property
    def listed(self) -> Sequence[OpenAiEntry]:
        return self.model

    def clashes(self, asked: Own) -> Iterator[Fault]:
        if asked.get("top_logprobs") is not None and not asked.get("logprobs"):
            yield Fault("top_logprobs", "needs `logprobs: true`")

    def question(self) -> Mapping[str, Any]:
        return {"messages": tuple(message.to_message() for message in self.messages)}


class ChatDialect(Dialect):
    """A choice's `message`, in a stream its `delta`s."""

    answer_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def answer(self, call: Call, choice: Choice | None, partial: str | None) -> dict[str, Any]:
        if choice is None:
            return {"message": {"role": "assistant", "content": partial, "refusal": None}, "logprobs": None}
        logprobs = None if choice.logprobs is None else chat_logprobs(choice.logprobs)
        return {"message": _message(call, choice.message), "logprobs": logprobs}

    def opening(self, first: Delta | None) -> dict[str, Any]:
        silent = first is not None and not first.text and (first.tool_calls or first.refusal)
        return {"delta": {"role": "assistant", "content": None if silent else "", "refusal": None}, "logprobs": None}

    def piece(self, call: Call, delta: Delta, offset: int) -> dict[str, Any] | None:
        said: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.refusal:
            said["refusal"] = delta.refusal
        if delta.tool_calls:
            said |= _calls(call, delta.tool_calls)
        if delta.extra:
            said |= delta.extra
        if not said and not delta.logprobs:
            return None
        return {"delta": said, "logprobs": chat_logprobs(delta.logprobs) if delta.logprobs else None}

    def closing(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}


CHAT = ChatDialect()


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/chat/completions`."""
    return await respond.answered(request, await request_body.read_body(request, ChatBody), CHAT)


def _message(call: Call, answer: Answer) -> dict[str, Any]:
    silent = not answer.text and (answer.tool_calls or answer.refusal)
    said: dict[str, Any] = {
        "role": "assistant",
        "content": None if silent else answer.text,
        "refusal": answer.refusal,
    }
    if answer.reasoning:
        said["reasoning_content"] = answer.reasoning
    calls = _calls(call, answer.tool_calls) if answer.tool_calls else {}
    return {**said, **calls, **answer.extra}


def _calls(call: Call, tool_calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tool calls, under the older name for a caller who asked by the older one."""
    asked = call.query.passthrough
    if asked.get("functions") and not asked.get("tools"):
        return {"function_call": tool_calls[0].get("function")}
    return {"tool_calls": tool_calls}


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """OpenAI's chat shape."""
    return {
        "content": [
            {
                **_token(token.token, token.logprob, token.utf8),
                "top_logprobs": [_token(other, logprob, None) for other, logprob in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float | None, utf8: bytes | None) -> Mapping[str, Any]:
    if utf8 is None and REPLACEMENT not in token:
        utf8 = token.encode(errors="replace")
    return {"token": token, "logprob": logprob, "bytes": None if utf8 is None else list(utf8)}
