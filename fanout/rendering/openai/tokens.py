"""Tokens of a prompt: how many each model counts, and which ones.

Source: vLLM, `entrypoints/serve/tokenize/protocol.py`; `choices` are Fanout's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.schema import Call, Completion, Outcome, PromptTokens
from fanout.rendering.openai.answers import OpenAiHeadJson
from fanout.rendering.openai.embeddings import render_facts
from fanout.rendering.openai.responses import ResponseChoiceJson


class PromptTokensJson(TypedDict):
    count: Annotated[int | None, Doc("Number of the tokens; null: there is no answer.")]
    tokens: Annotated[
        Sequence[int | None] | None,
        Doc("Their ids; null: the provider only counts. In place of an id: the embedded models do not know the word."),
    ]
    token_strs: Annotated[Sequence[str] | None, Doc("Their texts; null: not requested, or the provider tells none.")]
    max_model_len: Annotated[int | None, Doc("Tokens that prompt and answer may have together; null: not known.")]


class TokenizeChoiceJson(PromptTokensJson, ResponseChoiceJson):
    """The tokens as one model reads them, and facts about its answer, or why there is none."""


class TokenizeJson(PromptTokensJson):
    """vLLM's answer, of the one model; with several, each stands in `choices` alone."""

    id: Annotated[str, Doc("A UUID.")]
    object: Literal["tokens"]
    created: Annotated[int, Doc("Unix seconds.")]
    model: Annotated[str, Doc("The label of the one entry, or all labels joined by commas.")]
    choices: Annotated[Sequence[TokenizeChoiceJson], Doc("The answer of each model, and the failures in their places.")]


def render_tokens(
    outcomes: Sequence[Outcome], head: OpenAiHeadJson, find_context: Callable[[Call], int | None]
) -> TokenizeJson:
    """Return the answer to a request of which at least one call was answered.

    Args:
        outcomes: in their places.
        head: the request's identity.
        find_context: returns what is published of a model's context, which few providers report.
    """
    tokens = [_render_tokens(outcome, find_context) for outcome in outcomes]
    only: PromptTokensJson = (
        tokens[0] if len(tokens) == 1 else {"count": None, "tokens": None, "token_strs": None, "max_model_len": None}
    )
    choices: list[TokenizeChoiceJson] = [
        {**own, **render_facts(outcome, head["created"])} for outcome, own in zip(outcomes, tokens, strict=True)
    ]
    return {**only, **head, "object": "tokens", "choices": choices}


def _render_tokens(outcome: Outcome, find_context: Callable[[Call], int | None]) -> PromptTokensJson:
    found = outcome.result.tokens if isinstance(outcome.result, Completion) else None
    tokens = found or PromptTokens(0)
    return {
        "count": found.count if found else None,
        "tokens": tokens.ids,
        "token_strs": tokens.texts,
        "max_model_len": tokens.max_model_len or find_context(outcome.call),
    }
