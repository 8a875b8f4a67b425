"""Tokens of a prompt, put together in the same way for every format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Choice, Completion, FittedParameters, PromptTokens, Query
from fanout.core.usage import Usage
from fanout.providers.mapping.completions import build_completion
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_text
from fanout.providers.mapping.messages import get_prompt

RETURN_TEXTS = "return_token_strs"
SPECIAL = "add_special_tokens"
"""Fields of `/v1/tokenize`, as vLLM spells them."""


def build_token_count(origin: Origin, head: JsonObject, count: object, max_model_len: object = None) -> Completion:
    """Return the number of a prompt's tokens.

    Raises:
        ProviderError: there is none.
    """
    number = as_count(count)
    if number is None:
        raise origin.answer_error("sent no number of tokens", "unexpected_shape")
    return _build(origin, head, PromptTokens(number, max_model_len=as_count(max_model_len)))


def build_tokens(
    origin: Origin, head: JsonObject, ids: object, texts: Sequence[object] | None = None, max_model_len: object = None
) -> Completion:
    """Return a prompt's tokens.

    Args:
        origin: of the answer.
        head: the object that bears the answer's id and model.
        ids: as they came.
        texts: as they came, where they did; a text that is bytes may be half a character.
        max_model_len: as it came.

    Raises:
        ProviderError: they are no list of ids, or there are more or fewer texts than ids.
    """
    numbers = [as_count(number) for number in ids] if isinstance(ids, list) else [None]
    known = tuple(number for number in numbers if number is not None)
    if len(known) != len(numbers) or (texts is not None and len(texts) != len(known)):
        raise origin.answer_error("sent tokens that are no list of ids", "unexpected_shape")
    spelled = None if texts is None else tuple(map(_spell, texts))
    return _build(origin, head, PromptTokens(len(known), known, spelled, as_count(max_model_len)))


def get_text(origin: Origin, query: Query) -> str:
    """Return the prompt, for hosts that tell the tokens of a text alone.

    Raises:
        ProviderError: there are messages, which only the host could turn into a text.
    """
    if query.messages is not None:
        raise origin.request_error("tells the tokens of a text: send `prompt` instead of `messages`", "messages")
    return get_prompt(origin, query)


def keep_parameters(fitted: FittedParameters, query: Query, names: Collection[str]) -> FittedParameters:
    """Return the parameters that are part of what a model reads; the caller's others are reported as ignored."""
    lost = [name for name in query.passthrough if name in fitted.sent and name not in names]
    sent = {name: fitted.sent[name] for name in names if name in fitted.sent}
    return FittedParameters(sent, (*fitted.ignored, *lost))


def _build(origin: Origin, head: JsonObject, tokens: PromptTokens) -> Completion:
    # No model has read anything: that is known.
    usage = Usage.of_plain_model(0, 0)
    return replace(build_completion(origin, head, (Choice(Answer(""), "stop"),), usage), tokens=tokens)


def _spell(text: object) -> str:
    if not isinstance(text, list):
        return as_text(text)
    return bytes(number for number in text if type(number) is int and 0 <= number < 256).decode(errors="replace")
