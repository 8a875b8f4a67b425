"""`POST /v1/completions`: OpenAI's text completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from aiohttp import web
from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from fanout.core.faults import Fault
from fanout.core.schema import Answer, Call, Choice, Delta
from fanout.rendering.choices import legacy_logprobs
from fanout.server import request_body
from fanout.server.dialects.openai import respond
from fanout.server.dialects.openai.bodies import OpenAiBody, OpenAiEntry, OpenAiSampling, Own
from fanout.server.dialects.openai.stream import Dialect
from fanout.server.request_body import EntryCount, ToEntryList, entries_schema


def _one_sentence(value: Any, kinds: ValidatorFunctionWrapHandler) -> Any:
    """A union would complain once for each of its kinds."""
    try:
        return kinds(value)
    except ValidationError:
        raise ValueError(
            "must be text, a list of texts, a list of token ids, or a list of such lists, none of them empty; or null"
        ) from None


Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1)]
Prompt = Annotated[str | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)] | None, WrapValidator(_one_sentence)]


class TextSampling(OpenAiSampling, takes=("best_of", "echo", "logprobs", "suffix"), ranges={"logprobs": (0, 5)}):
    """The parameters of a text completion."""


class TextEntry(OpenAiEntry, TextSampling):
    """One entry of `model` written out."""


class CompletionsBody(OpenAiBody, TextSampling):
    """A request for text completions."""

    model: Annotated[list[TextEntry], ToEntryList, EntryCount, entries_schema("TextEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    prompt: Prompt
    """Text, texts, token ids or lists of them; `null` is the empty text."""

    # Source: `CreateCompletionRequest.max_tokens`
    defaults: ClassVar[Mapping[str, Any]] = {"max_tokens": 16}

    @property
    def listed(self) -> Sequence[OpenAiEntry]:
        return self.model

    def clashes(self, asked: Own) -> Iterator[Fault]:
        best_of, n = asked.get("best_of") or 0, asked.get("n") or 1
        if best_of and best_of < n:
            yield Fault("best_of", f"{best_of} is not allowed: must not be below `n`, which is {n}")
        if self.stream and best_of > 1:
            yield Fault("stream", "`best_of` above 1 cannot be streamed: the best is known only at the end")

    def question(self) -> Mapping[str, Any]:
        given = self.prompt
        if not isinstance(given, list):
            return {"prompts": (given or "",)}
        if isinstance(given[0], int):
            return {"prompts": (tuple(given),)}
        prompts = tuple(tuple(prompt) if isinstance(prompt, list) else prompt for prompt in given)
        return {"prompts": prompts, "many_prompts": True}


class TextDialect(Dialect):
    """A choice's `text`, and log probabilities as four parallel arrays."""

    answer_object = chunk_object = "text_completion"

    def answer(self, call: Call, choice: Choice | None, partial: str | None) -> dict[str, Any]:
        if choice is None:
            return {"text": partial or "", "logprobs": None}
        logprobs = choice.logprobs
        return {"text": _text(choice.message), "logprobs": None if logprobs is None else legacy_logprobs(logprobs, 0)}

    def opening(self, first: Delta | None) -> None:
        return None

    def piece(self, call: Call, delta: Delta, offset: int) -> dict[str, Any] | None:
        text = _text(delta)
        if not text and not delta.logprobs:
            return None
        return {"text": text, "logprobs": legacy_logprobs(delta.logprobs, offset) if delta.logprobs else None}

    def closing(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}


TEXT = TextDialect()


def _text(said: Answer | Delta) -> str:
    """A chat model that refuses says so in its `refusal`, for which there is no other place here."""
    return said.text or said.refusal or ""


async def completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/completions`."""
    return await respond.answered(request, await request_body.read_body(request, CompletionsBody), TEXT)
