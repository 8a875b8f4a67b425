"""`POST /v1/chat/completions`: OpenAI's chat completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fanout.plan import Entry
from fanout.schema import (
    Answer,
    Call,
    Choice,
    Content,
    Delta,
    Failure,
    ImagePart,
    Message,
    OtherPart,
    Outcome,
    TextPart,
    TokenLogprob,
)
from fanout.web import body, openai
from fanout.web.body import Few, Listed, entries_schema
from fanout.web.openai import Dialect, OpenAiBody, OpenAiSampling


class ImageUrl(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class PartBody(BaseModel):
    """A part of a message: `text`, `image_url`, or one that only some providers know, which is passed on."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _has_what_it_says(self) -> Self:
        if self.type in ("text", "image_url") and getattr(self, self.type) is None:
            raise ValueError(f"a part of type `{self.type}` needs `{self.type}`")
        return self

    def part(self) -> TextPart | ImagePart | OtherPart:
        if self.type == "text":
            return TextPart(self.text or "")
        if self.type == "image_url" and self.image_url:
            return ImagePart(self.image_url.url, self.image_url.detail)
        return OtherPart({"type": self.type, **(self.model_extra or {})})


class MessageBody(BaseModel):
    """A message of the conversation; what else it holds (`name`, `tool_calls`, …) is passed on."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[PartBody] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role not in ("assistant", "function"):
            raise ValueError(f"a message of role `{self.role}` needs `content`")
        return self

    def message(self) -> Message:
        content: Content | None = (
            self.content if not isinstance(self.content, list) else tuple(part.part() for part in self.content)
        )
        return Message(
            self.role, content, {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        )


class ChatSampling(OpenAiSampling):
    """The parameters of a chat completion."""

    max_completion_tokens: int | None = Field(None, ge=0)
    """OpenAI's newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """How many alternatives to report beside each token; needs `logprobs`."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("`max_tokens` and `max_completion_tokens` are two names of one parameter: give one, or both alike")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs: true`")
        return self

    def sampled(self) -> dict[str, Any]:
        given = super().sampled()
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        if "logprobs" in self.model_fields_set:
            given["logprobs"] = (self.top_logprobs or 0) if self.logprobs else None
        return given


class ChatEntry(ChatSampling):
    """One entry of `model` written out."""

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)

    def entry(self) -> Entry:
        return Entry(self.model, self.label, self.sampled(), self.passed_on())


class ChatBody(OpenAiBody, ChatSampling):
    """A request for chat completions."""

    model: Annotated[list[ChatEntry], Listed, Few, entries_schema("ChatEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    messages: list[MessageBody] = Field(min_length=1)


class ChatDialect(Dialect):
    answer_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def answer(self, choice: Choice | None, outcome: Outcome) -> dict[str, Any]:
        if choice is None:
            result = outcome.result
            partial = result.partial if isinstance(result, Failure) else None
            return {"message": {"role": "assistant", "content": partial, "refusal": None}, "logprobs": None}
        logprobs = chat_logprobs(choice.logprobs) if choice.logprobs else None
        return {"message": _message(choice.message, choice), "logprobs": logprobs}

    def opening(self, call: Call) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, delta: Delta, offset: int) -> dict[str, Any] | None:
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.refusal:
            said["refusal"] = delta.refusal
        if delta.tool_calls:
            said["tool_calls"] = delta.tool_calls
        if not said and not delta.logprobs:
            return None
        return {"delta": said, "logprobs": chat_logprobs(delta.logprobs) if delta.logprobs else None}

    def closing(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}


CHAT = ChatDialect()


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/chat/completions`."""
    asked = await body.read(request, ChatBody)
    wanted = openai.request_of(
        request,
        asked,
        entries=[entry.entry() for entry in asked.model],
        given=asked.sampled(),
        passthrough=asked.passed_on(),
        messages=tuple(message.message() for message in asked.messages),
    )
    return await openai.answered(request, asked, wanted, CHAT)


def _message(answer: Answer, choice: Choice) -> dict[str, Any]:
    said: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text if answer.text or not (answer.tool_calls or answer.refusal) else None,
        "refusal": answer.refusal,
    }
    if answer.reasoning:
        said["reasoning_content"] = answer.reasoning
    if choice.finish_reason == "function_call" and answer.tool_calls:
        said["function_call"] = answer.tool_calls[0].get("function")
    elif answer.tool_calls:
        said["tool_calls"] = list(answer.tool_calls)
    return said


def chat_logprobs(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
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
    return {"token": token, "logprob": logprob, "bytes": list(utf8 if utf8 is not None else token.encode())}
