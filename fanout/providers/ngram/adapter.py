"""The embedded models `ngram-2`, `ngram-3` and `ngram-5`: real language models that need no key, no network, no weights.

They are trained at the first use (0.1 s) on the English text inside the running Python, so another version of Python
answers differently: `system_fingerprint` names the text. The meaning of each parameter here, where servers differ:

- `max_tokens`: 128 if absent, at most 1,024; `n` and `best_of` at most 16, `logprobs` at most 20.
- Prompt and suffix: at most 131,072 characters each. The work of a request has a bound, see `effort`.
- `seed`: the same request gives the same text again, whole or streamed; choice i does not depend on `n`.
- `logprobs`: natural logarithms of the model's own distribution, before temperature, penalties and truncation.
  A token that a stop sequence cuts is listed whole; the end of a text is listed only as an alternative.
- `logit_bias`: a key is a token's id, or its text with the space before it, as `" the"`.
- `best_of`: the answers with the highest mean log probability per token; all are counted as output, as OpenAI does.
- `suffix`: of 4 continuations, each cut after any of its tokens, the one after which the suffix is most probable.
- Chat: the model continues the messages' text, joined by newlines; it knows no roles.
- A token outside the vocabulary counts as input; the model remembers nothing across it.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from random import Random
from threading import Lock
from time import sleep
from typing import TYPE_CHECKING

from fanout.config.providers_file import ParametersRow
from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, OtherPart
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    Delta,
    Failure,
    FittedParameters,
    Query,
    Target,
    Task,
)
from fanout.core.suggestions import did_you_mean
from fanout.core.threads import run_in_thread
from fanout.core.usage import Usage
from fanout.providers import OnHeaders
from fanout.providers.mapping.messages import report_left_out
from fanout.providers.mapping.prompt_tokens import RETURN_TEXTS
from fanout.providers.ngram.corpus import extract_documents
from fanout.providers.ngram.decoding import Decoding
from fanout.providers.ngram.effort import DEFAULT_MAX_TOKENS, Effort
from fanout.providers.ngram.embedding import embed
from fanout.providers.ngram.language_model import LanguageModel
from fanout.providers.ngram.prompts import build_unknown_token_error, tell_tokens, tokenize_in_steps, tokenize_prompt
from fanout.providers.ngram.writer import Writer, WritingTask, interleave, score_prompt, write_drafts
from fanout.providers.parameters import AcceptedParameters, Rule, accept, fit

if TYPE_CHECKING:
    import aiohttp

    from fanout.config.settings import ProviderSettings

ORDERS = {"ngram-2": 2, "ngram-3": 3, "ngram-5": 5}
CHAT_RULES = {
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
TEXT_RULES = {**CHAT_RULES, "echo": Rule("echo"), "suffix": Rule("suffix")}
NO_OVERRIDES = ParametersRow()
NUMBER = re.compile(r"[0-9]{1,9}")


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> NgramProvider:
    """Create the provider, which needs neither a key nor the network; see `providers.create`."""
    return NgramProvider(settings.row.parameters)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A language model and its origin."""

    model: LanguageModel
    fingerprint: str
    """Python's version and a digest of the text that the model learned from."""


class NgramProvider:
    """The provider of the embedded models."""

    def __init__(self, overrides: ParametersRow = NO_OVERRIDES) -> None:
        self._text, self._chat = accept(TEXT_RULES, overrides), accept(CHAT_RULES, overrides)
        self._others: Mapping[Task, AcceptedParameters] = {
            "embed": accept({}, overrides, frozenset({"dimensions"})),
            "tokenize": accept({}, overrides, frozenset({RETURN_TEXTS})),
        }
        self._trained: TrainedModel | None = None
        self._training = asyncio.Lock()
        self._effort = Effort()

    def knows(self, model: str) -> bool:
        """Tell if the id is one of the embedded models'."""
        return model in ORDERS

    async def prepare(self) -> None:
        """Train the model, once in a process. If that fails, the first call reports it."""
        with suppress(ProviderError):
            await self._train_or_wait()

    async def _train_or_wait(self) -> TrainedModel:
        if self._trained is None:
            async with self._training:
                if self._trained is None:
                    self._trained = await run_in_thread("setup", _train_once)
        return self._trained

    def fit(self, target: Target, query: Query) -> FittedParameters:
        if query.task != "answer":
            return fit(query, self._others[query.task])
        fitted = fit(query, self._text if query.messages is None else self._chat)
        fitted = replace(fitted, ignored=tuple(dict.fromkeys((*fitted.ignored, *_list_unread_parts(query)))))
        return report_left_out(fitted, query.messages, has_details=True)

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        # Through the stream, so that a whole answer gives the loop to others as often as a streamed one.
        async with aclosing(self.stream(call)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    return piece
        raise AssertionError("a stream ends with its completion")

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        if call.target.model not in ORDERS:
            raise _build_unknown_model_error(call.target.provider, call.target.model)
        trained = await self._train_or_wait()
        is_long = self._effort.begin(call, len(trained.model.tokens))
        work = _begin(trained, call)
        piece: Delta | Completion | None = None
        while not isinstance(piece, Completion):
            for piece in await self._effort.take_turn(work, is_long=is_long):
                yield piece


# `cache` alone would let two event loops of one process train at once.
_TRAINING = Lock()


def _train_once() -> TrainedModel:
    with _TRAINING:
        return _train()


@cache
def _train() -> TrainedModel:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        message = "this Python lacks `pydoc_data`, from which the embedded models learn"
        raise ProviderError(Failure("not_configured", message)) from None
    digest = hashlib.sha256()
    texts = []
    for text in extract_documents(topics):
        texts.append(text)
        digest.update(text.encode() + b"\0")  # with a separator: moved borders between texts are another text
        _yield_interpreter()
    return TrainedModel(LanguageModel(texts, _yield_interpreter), f"pydoc-{platform.python_version()}-{digest.hexdigest()[:8]}")


def _yield_interpreter() -> None:
    sleep(1e-5)  # not 0, after which the thread would mostly take the interpreter back before the event loop has woken


def _build_unknown_model_error(provider: str | None, name: str | None) -> ProviderError:
    prefix = f"{provider}/"
    known = [f"{prefix}{model}" for model in ORDERS]
    hint = did_you_mean(f"{prefix}{name}", known, prefix=prefix)
    message = f"unknown model `{prefix}{name}`; known models: {', '.join(known)}{hint}"
    return ProviderError(Failure("not_found", message, code="model_not_found", param="model"))


def _list_unread_parts(query: Query) -> Iterator[str]:
    """Yield the kinds of content in the messages that the model ignores."""
    for message in query.messages or ():
        for part in message.content if isinstance(message.content, tuple) else ():
            if isinstance(part, ImagePart):
                yield "images"
            elif isinstance(part, OtherPart):
                yield str(part.raw.get("type"))


def _begin(trained: TrainedModel, call: Call) -> Iterator[Delta | Completion | None]:
    if call.query.task == "embed":
        return embed(call, trained.model.tokens)
    return tell_tokens(trained.model, call) if call.query.task == "tokenize" else _generate(trained, call)


def _generate(trained: TrainedModel, call: Call) -> Iterator[Delta | Completion | None]:
    """Do all the work of a call, in steps of well under a millisecond: yield what is to be shown, or `None`."""
    parameters, model = call.fitted.sent, trained.model
    texts = yield from tokenize_prompt(model, call.query)
    suffix = yield from tokenize_in_steps(parameters.get("suffix", ""))
    task = _build_task(model, call, [model.ids.get(text) for text in texts])
    n = parameters.get("n", 1)
    randoms = _create_randoms(parameters.get("seed"), max(n, parameters.get("best_of", 1)))
    # Drafts are written unseen, because which ones are shown is decided at their ends.
    if suffix or len(randoms) > n:
        drafts = yield from write_drafts(task, randoms, [model.ids.get(text) for text in suffix])
        writers = sorted(drafts, key=lambda draft: -draft.mean_logprob)[:n]
        shows = [writer.replay() for writer in writers]
    else:
        drafts = writers = [Writer(task, random) for random in randoms]
        shows = [writer.write() for writer in writers]
    echoed = "".join(texts) if parameters.get("echo") else ""
    scored = (yield from score_prompt(task, texts)) if echoed and task.logprobs is not None else ()
    for number, piece in interleave([chain([(echoed, scored or None)], show) for show in shows]):
        yield Delta(call.index, number, piece[0], logprobs=piece[1]) if piece and piece[0] else None
    yield Completion(
        tuple(
            Choice(
                Answer(echoed + writer.text),
                writer.finish_reason,
                logprobs=(*scored, *writer.logprobs) if task.logprobs is not None else None,
            )
            for writer in writers
        ),
        Usage.of_plain_model(len(texts) + len(suffix), sum(draft.generated for draft in drafts)),
        model=call.target.model,
        system_fingerprint=trained.fingerprint,
    )


def _build_task(model: LanguageModel, call: Call, prompt: Sequence[int | None]) -> WritingTask:
    parameters = call.fitted.sent
    names = ("temperature", "top_k", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
    return WritingTask(
        model,
        ORDERS[call.target.model or ""],
        prompt,
        parameters.get("max_tokens", DEFAULT_MAX_TOKENS),
        Decoding(
            **{name: parameters[name] for name in names if name in parameters},
            logit_bias=_parse_bias(model, parameters.get("logit_bias", {})),
        ),
        tuple(filter(None, parameters.get("stop", ()))),
        parameters.get("logprobs"),
    )


def _parse_bias(model: LanguageModel, biases: Mapping[str, float]) -> dict[int, float]:
    bias = {}
    for key, value in biases.items():
        token = int(key) if NUMBER.fullmatch(key) else model.ids.get(key)
        if token is None or token >= len(model.tokens):
            raise build_unknown_token_error(key, model, "logit_bias")
        bias[token] = value
    return bias


def _create_randoms(seed: int | None, count: int) -> list[Random]:
    """Return a random generator for each answer; with a seed, that of answer i does not depend on their number."""
    return [Random() if seed is None else Random(f"{seed}/{number}") for number in range(count)]  # noqa: S311 - a language model's dice, no secret
