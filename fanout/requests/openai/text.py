"""Requests of `POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from fanout.core.errors import Fault
from fanout.core.long_lists import IN_STEPS
from fanout.core.sampling import INT64
from fanout.requests.bodies import IN_PATH, EntryCount, entries_schema, to_entry_list
from fanout.requests.fusions import MEMBERS_SCHEMA, FusionFields, MemberCount, ToMemberList
from fanout.requests.openai.bodies import OpenAiBody, OpenAiEntry, OpenAiSampling, Parameters


def _check_prompt(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a prompt with one sentence of complaint; a union would have one for each of its members."""
    try:
        return validate(_make_whole(value))
    except ValidationError:
        raise ValueError(
            "must be text, a list of texts, a list of token ids, or a list of such lists, none of them empty; or null"
        ) from None


def _make_whole(prompt: Any) -> Any:
    """Return a prompt whose token ids are whole numbers, where 5.0 stands for 5."""
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], str | int):
        return prompt
    return [int(item) if type(item) is float and item.is_integer() else _make_whole(item) for item in prompt]


# Of the faults of a prompt one is enough, and its one sentence names none.
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=INT64)]], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, fail_fast=True)]
MAX_INPUTS = 2048
"""Texts to embed in one request. Source: https://platform.openai.com/docs/api-reference/embeddings/create"""


def _check_inputs(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate texts to embed as a prompt is."""
    if value is None or value == "":
        raise ValueError("must be text that is not empty, or a list of texts, of token ids, or of such lists")
    if isinstance(value, list) and value and not isinstance(value[0], int) and len(value) > MAX_INPUTS:
        raise ValueError(f"{len(value)} texts are not allowed: at most {MAX_INPUTS}")
    return _check_prompt(value, validate)


Inputs = Annotated[str | Texts | Tokens | TokenLists, WrapValidator(_check_inputs)]
Prompt = Annotated[str | Texts | Tokens | TokenLists | None, WrapValidator(_check_prompt)]


class TextSampling(OpenAiSampling, takes=("best_of", "echo", "logprobs", "suffix"), ranges={"logprobs": (0, 5)}):
    """Parameters of a text completion."""


class TextFusion(FusionFields):
    """One answer made of the answers of several models."""

    of: Annotated[list[TextEntry], IN_STEPS, ToMemberList, MemberCount, MEMBERS_SCHEMA]
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""


class TextEntry(OpenAiEntry, TextSampling):
    """One entry of `model` written out: a model with parameters of its own, or a fusion, whose own call they are for."""

    fusion: TextFusion | None = None
    """One answer made of the answers of several models; instead of `model`."""


TextEntry.model_rebuild()


class CompletionsBody(OpenAiBody, TextSampling):
    """A request for text completions."""

    model: Annotated[list[TextEntry], IN_STEPS, to_entry_list(TextEntry), EntryCount, entries_schema("TextEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    prompt: Prompt
    """Text, texts, token ids or lists of them; `null` is the empty text."""

    # Source: `CreateCompletionRequest.max_tokens`
    defaults: ClassVar[Mapping[str, Any]] = {"max_tokens": 16}

    @property
    def entry_bodies(self) -> Sequence[OpenAiEntry]:
        """The entries of `model`."""
        return self.model

    def find_clashes(self, parameters: Parameters) -> Iterator[Fault]:
        """Yield what is wrong between the parameters of one entry."""
        best_of, n = parameters.get("best_of") or 0, parameters.get("n") or 1
        if best_of and best_of < n:
            yield Fault("best_of", f"{best_of} is not allowed: must not be below `n`, which is {n}")
        if self.stream and best_of > 1:
            yield Fault("stream", "`best_of` above 1 cannot be streamed: the best is known only at the end")

    def to_question(self) -> Mapping[str, Any]:
        """Return the prompts."""
        given = self.prompt
        if not isinstance(given, list):
            return {"prompts": (given or "",)}
        if isinstance(given[0], int):
            return {"prompts": (tuple(given),)}
        # Choices bear a `prompt_index` only for a list of prompts: most clients send one and know no such field.
        prompts = tuple(tuple(prompt) if isinstance(prompt, list) else prompt for prompt in given)
        return {"prompts": prompts, "many_prompts": True}


class DeploymentCompletionsBody(CompletionsBody):
    """A request for text completions of the path's model."""

    model: Annotated[list[TextEntry], IN_STEPS, to_entry_list(TextEntry), EntryCount, IN_PATH] = Field(default_factory=list)
    """Ignored: the path names the model."""
