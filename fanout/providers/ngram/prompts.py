"""Prompts of the embedded models as their tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from fanout.core.errors import ProviderError
from fanout.core.messages import Message, TextPart
from fanout.core.schema import Answer, Call, Choice, Completion, Failure, PromptTokens, Query
from fanout.core.usage import Usage
from fanout.providers.mapping.prompt_tokens import RETURN_TEXTS
from fanout.providers.ngram.language_model import LanguageModel, tokenize


def tell_tokens(model: LanguageModel, call: Call) -> Iterator[Completion | None]:
    """Do all the work of a call for tokens, in steps: yield `None`, and the tokens at the end."""
    texts = yield from tokenize_prompt(model, call.query)
    # A word that the model has never read has no id.
    ids = tuple(model.ids.get(text) for text in texts)
    tokens = PromptTokens(len(texts), ids, tuple(texts) if call.fitted.sent.get(RETURN_TEXTS) else None)
    usage = Usage.of_plain_model(0, 0)
    yield Completion((Choice(Answer(""), "stop"),), usage, call.target.model, tokens=tokens)


def tokenize_prompt(model: LanguageModel, query: Query) -> Generator[None, None, list[str]]:
    """Return the texts of a prompt's tokens, in steps.

    Raises:
        ProviderError: a token's id is unknown.
    """
    if query.prompt_tokens is None:
        text = query.prompt or "" if query.messages is None else "\n".join(_list_texts(query.messages))
        return (yield from tokenize_in_steps(text))
    if unknown := [token for token in query.prompt_tokens if not 0 <= token < len(model.tokens)]:
        raise build_unknown_token_error(str(unknown[0]), model, "prompt")
    return [model.tokens[token] for token in query.prompt_tokens]


def _list_texts(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or () if isinstance(part, TextPart))


def tokenize_in_steps(text: str) -> Generator[None, None, list[str]]:
    """Return the tokens of a text, in steps of well under a millisecond."""
    tokens: list[str] = []
    source = tokenize(text)
    while batch := list(islice(source, 256)):
        tokens += batch
        yield
    return tokens


def build_unknown_token_error(token: str, model: LanguageModel, param: str) -> ProviderError:
    """Return the failure for a token that the model does not have."""
    known = f"use an id from 0 to {len(model.tokens) - 1}, or in `logit_bias` a token's text, as ` the`"
    return ProviderError(Failure("bad_request", f"`{token[:80]}` is not a token of this model: {known}", param=param))
