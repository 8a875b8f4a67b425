"""`POST /v1/completions`: OpenAI's text completions, as Konko serves them, with a list-valued `model`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import Field, model_validator

from fanout.plan import Entry, Prompt
from fanout.schema import Call, Choice, Delta, Failure, Outcome
from fanout.web import body, openai
from fanout.web.answers import legacy_logprobs
from fanout.web.body import Few, Listed, entries_schema
from fanout.web.openai import Dialect, OpenAiBody, OpenAiSampling

DEFAULT_MAX_TOKENS = 16
"""Source: `CreateCompletionRequest.max_tokens`."""
TEXT_FIELDS = ("best_of", "echo", "logprobs", "suffix")
Tokens = Annotated[list[int], Field(min_length=1)]


class TextSampling(OpenAiSampling):
    """The parameters of a text completion."""

    best_of: int | None = Field(None, ge=0, le=20)
    """How many the provider generates to give back the best; 0: not set."""
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    """How many alternatives to report beside each token."""
    suffix: str | None = None

    @model_validator(mode="after")
    def _best_of_enough(self) -> Self:
        if self.best_of and self.best_of < (self.n or 1):
            raise ValueError(f"`best_of` ({self.best_of}) must not be below `n` ({self.n or 1})")
        return self

    def sampled(self) -> dict[str, Any]:
        given = super().sampled()
        given |= {name: getattr(self, name) for name in TEXT_FIELDS if name in self.model_fields_set}
        if given.get("best_of") == 0:
            given["best_of"] = None
        return given


class TextEntry(TextSampling):
    """One entry of `model` written out."""

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)

    def entry(self) -> Entry:
        return Entry(self.model, self.label, self.sampled(), self.passed_on())


class CompletionsBody(OpenAiBody, TextSampling):
    """A request for text completions."""

    model: Annotated[list[TextEntry], Listed, Few, entries_schema("TextEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    prompt: str | Annotated[list[str], Field(min_length=1)] | Tokens | Annotated[list[Tokens], Field(min_length=1)] | None
    """Text, texts, token ids or lists of them; `null` is the empty text."""

    @model_validator(mode="after")
    def _streamable(self) -> Self:
        if self.stream and any((entry.best_of or self.best_of or 0) > 1 for entry in self.model):
            raise ValueError("`best_of` above 1 cannot be streamed: the best is known only at the end")
        return self

    def prompts(self) -> tuple[Prompt, ...]:
        if self.prompt is None or isinstance(self.prompt, str):
            return (self.prompt or "",)
        if isinstance(self.prompt[0], int):
            return (tuple(token for token in self.prompt if isinstance(token, int)),)
        return tuple(tuple(prompt) if isinstance(prompt, list) else str(prompt) for prompt in self.prompt)

    @property
    def many_prompts(self) -> bool:
        return isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)


class TextDialect(Dialect):
    answer_object = chunk_object = "text_completion"

    def answer(self, choice: Choice | None, outcome: Outcome) -> dict[str, Any]:
        if choice is None:
            result = outcome.result
            return {"text": (result.partial or "") if isinstance(result, Failure) else "", "logprobs": None}
        logprobs = legacy_logprobs(choice.logprobs, 0) if choice.logprobs else None
        return {"text": choice.message.text, "logprobs": logprobs}

    def opening(self, call: Call) -> None:
        return None

    def piece(self, delta: Delta, offset: int) -> dict[str, Any] | None:
        if not delta.text and not delta.logprobs:
            return None
        return {"text": delta.text, "logprobs": legacy_logprobs(delta.logprobs, offset) if delta.logprobs else None}

    def closing(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}


TEXT = TextDialect()


async def completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/completions`."""
    asked = await body.read(request, CompletionsBody)
    wanted = openai.request_of(
        request,
        asked,
        entries=[entry.entry() for entry in asked.model],
        given=asked.sampled(),
        passthrough=asked.passed_on(),
        defaults={"max_tokens": DEFAULT_MAX_TOKENS},
        prompts=asked.prompts(),
        many_prompts=asked.many_prompts,
    )
    return await openai.answered(request, asked, wanted, TEXT)
