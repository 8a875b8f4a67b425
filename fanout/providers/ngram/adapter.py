"""The embedded models `ngram-2`, `ngram-3` and `ngram-5`: real language models that need no key, no network, no weights.

They are trained at the first use (0.1 s) on the English text inside the running Python, so another version of Python
answers otherwise: `system_fingerprint` says which text it was. What each parameter means here, where servers differ:

- `max_tokens`: 128 if absent, at most 1,024; `n` and `best_of` at most 16, `logprobs` at most 20.
- `seed`: the same request gives the same text again, whole or streamed; choice i is the same whatever `n` is.
- `logprobs`: natural logarithms of the model's own distribution, before temperature, penalties and truncation.
  A token that a stop sequence cuts is listed whole; the end of a text is listed only as an alternative.
- `logit_bias`: a key is a token's id, or its text with the space before it, as `" the"`.
- `best_of`: the answers with the highest mean log probability per token; all are counted as output, as OpenAI does.
- `suffix`: of 4 continuations, each cut after any of its tokens, the one after which the suffix begins most probably.
- Chat: the model continues the messages' text, joined by newlines; it has no idea of roles.
- A token outside the vocabulary counts as input; the model remembers nothing across it.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from random import Random
from threading import Lock
from time import perf_counter, sleep
from typing import TYPE_CHECKING

from fanout.config.providers_file import ParametersRow
from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, FittedParameters, Query, Target
from fanout.core.suggestions import did_you_mean
from fanout.core.usage import Usage
from fanout.providers import OnHeaders
from fanout.providers.ngram.corpus import documents
from fanout.providers.ngram.decoding import Decoding
from fanout.providers.ngram.language_model import LanguageModel, tokenize
from fanout.providers.ngram.writer import Brief, Writer, drafted, interleaved, score_prompt
from fanout.providers.parameters import Rule, accept, fit

if TYPE_CHECKING:
    import aiohttp

    from fanout.config.settings import ProviderSettings

ORDERS = {"ngram-2": 2, "ngram-3": 3, "ngram-5": 5}
CHAT = {
    rule.name: rule
    for rule in (
        Rule("max_tokens", 0, 1024),
        Rule("temperature", 0),
        Rule("top_p", 0, 1),
        Rule("top_k"),
        Rule("n", 1, 16),
        Rule("best_of", 1, 16, omit=(0,)),
        Rule("seed"),
        Rule("stop"),
        Rule("presence_penalty"),
        Rule("frequency_penalty"),
        Rule("repetition_penalty", positive=True),
        Rule("logit_bias"),
        Rule("logprobs", 0, 20),
    )
}
TEXT = {**CHAT, "echo": Rule("echo"), "suffix": Rule("suffix")}
NO_OVERRIDES = ParametersRow()
DEFAULT_MAX_TOKENS = 128
NUMBER = re.compile(r"[0-9]{1,9}")
SLICE_S = 0.0005
"""How long one call keeps the event loop before another has its turn."""


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> NgramProvider:
    """Needs neither a key nor the network."""
    return NgramProvider(settings.row.parameters)


@dataclass(frozen=True, slots=True)
class Trained:
    model: LanguageModel
    fingerprint: str
    """The text that it learned from: Python's version and a digest."""


class NgramProvider:
    """Serves the embedded models."""

    def __init__(self, overrides: ParametersRow = NO_OVERRIDES) -> None:
        self._text, self._chat = accept(TEXT, overrides), accept(CHAT, overrides)
        self._trained: Trained | None = None
        self._training = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def prepare(self) -> None:
        """Trains the model, once in a process. What hinders it is told by the first call."""
        with suppress(ProviderError):
            await self._ready()

    async def _ready(self) -> Trained:
        if self._trained is None:
            async with self._training:
                if self._trained is None:
                    self._trained = await asyncio.to_thread(_trained_once)
        return self._trained

    def fit(self, target: Target, query: Query) -> FittedParameters:
        fitted = fit(query, self._text if query.messages is None else self._chat)
        return replace(fitted, ignored=tuple(dict.fromkeys((*fitted.ignored, *_unread(query)))))

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        async with aclosing(self.stream(call)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    return piece
        raise AssertionError("a stream ends with its completion")

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        if call.target.model not in ORDERS:
            raise _unknown_model(call.target.model)
        work = _answer(await self._ready(), call)
        piece: Delta | Completion | None = None
        while not isinstance(piece, Completion):
            # One call at a time: if each of a thousand took its slice in the same pass, the loop would stand for half a second.
            async with self._turn:
                pieces = _slice(work)
                await asyncio.sleep(0)  # within: else the next call takes its turn in the same pass
            for piece in pieces:
                yield piece


def _slice(work: Iterator[Delta | Completion | None]) -> list[Delta | Completion]:
    until, done = perf_counter() + SLICE_S, []
    for piece in work:
        if piece is not None:
            done.append(piece)
        if perf_counter() >= until:
            break
    return done


_TRAINING = Lock()


def _trained_once() -> Trained:
    with _TRAINING:
        return _train()


@cache
def _train() -> Trained:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        message = "this Python comes without `pydoc_data`, from which the embedded models learn"
        raise ProviderError(Failure("not_configured", message)) from None
    digest = hashlib.sha256()
    texts = []
    for text in documents(topics):
        texts.append(text)
        digest.update(text.encode() + b"\0")
        _let_others_run()
    return Trained(LanguageModel(texts, _let_others_run), f"pydoc-{platform.python_version()}-{digest.hexdigest()[:8]}")


def _let_others_run() -> None:
    sleep(1e-5)  # not 0: the thread would mostly take the interpreter back before the event loop has woken


def _unknown_model(name: str | None) -> ProviderError:
    message = f"unknown model `{name}`; known models: {', '.join(ORDERS)}{did_you_mean(name or '', ORDERS)}"
    return ProviderError(Failure("not_found", message, code="model_not_found", param="model"))


def _unread(query: Query) -> Iterator[str]:
    """What is in the messages beside text."""
    for message in query.messages or ():
        for part in message.content if isinstance(message.content, tuple) else ():
            if isinstance(part, ImagePart):
                yield "images"
            elif isinstance(part, OtherPart):
                yield str(part.raw.get("type"))


def _answer(trained: Trained, call: Call) -> Iterator[Delta | Completion | None]:
    """All the work of a call, in steps of well under a millisecond: yields what is to be shown, or `None`."""
    asked, model = call.fitted.sent, trained.model
    texts = yield from _prompt(model, call.query)
    suffix = yield from _tokens(asked.get("suffix", ""))
    brief = _brief(model, call, [model.ids.get(text) for text in texts])
    n = asked.get("n", 1)
    randoms = _randoms(asked.get("seed"), max(n, asked.get("best_of", 1)))
    if suffix or len(randoms) > n:
        drafts = yield from drafted(brief, randoms, [model.ids.get(text) for text in suffix])
        writers = sorted(drafts, key=lambda draft: -draft.mean_logprob)[:n]
        shows = [writer.replay() for writer in writers]
    else:
        drafts = writers = [Writer(brief, random) for random in randoms]
        shows = [writer.write() for writer in writers]
    echoed = "".join(texts) if asked.get("echo") else ""
    scored = (yield from score_prompt(brief, texts)) if echoed and brief.logprobs is not None else ()
    for number, piece in interleaved([chain([(echoed, scored or None)], show) for show in shows]):
        yield Delta(call.index, number, piece[0], logprobs=piece[1]) if piece and piece[0] else None
    yield Completion(
        tuple(
            Choice(
                Answer(echoed + writer.text),
                writer.finish_reason,
                logprobs=(*scored, *writer.logprobs) if brief.logprobs is not None else None,
            )
            for writer in writers
        ),
        Usage(len(texts) + len(suffix), sum(draft.generated for draft in drafts), cached_input_tokens=0),
        model=call.target.model,
        system_fingerprint=trained.fingerprint,
    )


def _prompt(model: LanguageModel, query: Query) -> Generator[None, None, list[str]]:
    if query.prompt_tokens is None:
        return (yield from _tokens(query.prompt or "" if query.messages is None else "\n".join(_said(query.messages))))
    if unknown := [token for token in query.prompt_tokens if not 0 <= token < len(model.tokens)]:
        raise _no_token(str(unknown[0]), model, "prompt")
    return [model.tokens[token] for token in query.prompt_tokens]


def _said(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or () if isinstance(part, TextPart))


def _tokens(text: str) -> Generator[None, None, list[str]]:
    tokens: list[str] = []
    source = tokenize(text)
    while batch := list(islice(source, 256)):
        tokens += batch
        yield
    return tokens


def _brief(model: LanguageModel, call: Call, prompt: Sequence[int | None]) -> Brief:
    asked = call.fitted.sent
    names = ("temperature", "top_k", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
    return Brief(
        model,
        ORDERS[call.target.model or ""],
        prompt,
        asked.get("max_tokens", DEFAULT_MAX_TOKENS),
        Decoding(
            **{name: asked[name] for name in names if name in asked}, logit_bias=_bias(model, asked.get("logit_bias", {}))
        ),
        tuple(filter(None, asked.get("stop", ()))),
        asked.get("logprobs"),
    )


def _bias(model: LanguageModel, asked: Mapping[str, float]) -> dict[int, float]:
    bias = {}
    for key, value in asked.items():
        token = int(key) if NUMBER.fullmatch(key) else model.ids.get(key)
        if token is None or token >= len(model.tokens):
            raise _no_token(key, model, "logit_bias")
        bias[token] = value
    return bias


def _no_token(given: str, model: LanguageModel, param: str) -> ProviderError:
    known = f"use an id from 0 to {len(model.tokens) - 1}, or in `logit_bias` a token's text, as ` the`"
    return ProviderError(Failure("bad_request", f"`{given[:80]}` is no token of this model: {known}", param=param))


def _randoms(seed: int | None, count: int) -> list[Random]:
    """One source of chance for each answer: with a seed, answer i has the same whatever their number."""
    return [Random() if seed is None else Random(f"{seed}/{number}") for number in range(count)]  # noqa: S311 - a language model's dice, no secret
