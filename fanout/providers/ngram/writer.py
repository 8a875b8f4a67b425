"""Writes the answers of an n-gram model to one request, a token a step. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from fanout.core.schema import FinishReason, TokenLogprob
from fanout.providers.ngram.decoding import Chooser, Decoding
from fanout.providers.ngram.language_model import IMPOSSIBLE, MAX_ORDER, Distribution, LanguageModel
from fanout.providers.ngram.stop_sequences import StopScanner

SUFFIX_CANDIDATES = 4
Piece = tuple[str, tuple[TokenLogprob, ...] | None]


@dataclass(frozen=True, slots=True)
class Brief:
    """What all answers to one request have in common."""

    model: LanguageModel
    order: int
    prompt: Sequence[int | None]
    max_tokens: int
    decoding: Decoding = field(default_factory=Decoding)
    stop: Sequence[str] = ()
    logprobs: int | None = None
    """How many alternatives to report beside each token; `None`: report nothing."""

    def after(self, tokens: Sequence[int | None]) -> Distribution:
        return self.model.after(tokens, self.order)

    def scored(self, text: str, token: int | None, distribution: Distribution) -> TokenLogprob:
        leaders = distribution.leaders(self.logprobs or 0)
        top = tuple((self.model.tokens[leader], math.log(-p)) for p, leader in leaders)
        return TokenLogprob(text, logprob(token, distribution), top)


def logprob(token: int | None, distribution: Distribution) -> float:
    return IMPOSSIBLE if token is None else math.log(distribution.probability(token))


def score_prompt(brief: Brief, texts: Sequence[str]) -> Generator[None, None, tuple[TokenLogprob, ...]]:
    """Returns how probable each token of the prompt was; yields after each."""
    known: tuple[int | None, ...] = (brief.model.end, *brief.prompt)
    scored = [TokenLogprob(text, None) for text in texts[:1]]
    for at, text in enumerate(texts[1:], 2):
        scored.append(brief.scored(text, known[at], brief.after(known[max(0, at - MAX_ORDER) : at])))
        yield
    return tuple(scored)


class Writer:
    """One answer in the making.

    Attributes:
        texts: its tokens; joined they are `text`, so the last is cut where a stop sequence begins within it.
        logprobs: of these tokens, if the brief asks for them.
        finish_reason: `None` until it is finished.
        generated: tokens chosen, those of the stop sequence included.
    """

    def __init__(self, brief: Brief, random: Random) -> None:
        self._brief = brief
        self._chooser = Chooser(brief.model, brief.decoding, brief.prompt, random)
        self._scanner = StopScanner(brief.stop)
        self._known: list[int | None] = [brief.model.end, *brief.prompt][-MAX_ORDER:]
        self._begin = len(self._known)
        self._offsets: list[int] = []
        self._scores: list[float] = []
        self._shown = self._told = 0
        self.text = ""
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None if brief.max_tokens > 0 else "length"
        self.generated = 0

    @property
    def mean_logprob(self) -> float:
        """Per token, the end of the text included; 0 where nothing was written."""
        return sum(self._scores) / len(self._scores) if self._scores else 0.0

    def write(self) -> Iterator[Piece | None]:
        """Writes to the end. Yields after each token what may be shown: `None` while a stop sequence may be beginning."""
        while self.finish_reason is None:
            self._step()
            yield self._shown_up_to(len(self.text) - (0 if self.finish_reason else self._scanner.held))

    def replay(self) -> Iterator[Piece | None]:
        """What is written, a token a piece."""
        self._shown = self._told = 0
        for offset, text in zip(self._offsets, self.texts, strict=True):
            yield self._shown_up_to(offset + len(text))

    def suffix_logprob(self, suffix: Sequence[int | None], count: int) -> float:
        """How probable the beginning of `suffix` is after the first `count` tokens: as much of it as sees them."""
        begin = self._begin + count
        beginning = suffix[: self._brief.order - 1]
        known = [*self._known[max(0, begin - MAX_ORDER) : begin], *beginning]
        first = len(known) - len(beginning)
        return sum(logprob(known[at], self._brief.after(known[:at])) for at in range(first, len(known)))

    def cut(self, count: int) -> None:
        """Ends after the first `count` tokens, as if the rest had never been."""
        if count < len(self.texts):
            self.generated = count
            del self._scores[count:]
            self._end_at(self._offsets[count])

    def _step(self) -> None:
        brief = self._brief
        distribution = brief.after(self._known[-MAX_ORDER:])
        token = self._chooser.choose(distribution)
        self._scores.append(logprob(token, distribution))
        if token == brief.model.end:
            self.finish_reason = "stop"
            return
        text = brief.model.tokens[token]
        if brief.logprobs is not None:
            self.logprobs.append(brief.scored(text, token, distribution))
        self._known.append(token)
        self._offsets.append(len(self.text))
        self.texts.append(text)
        self.text += text
        self.generated += 1
        self._scanner.feed(text)
        if self._scanner.found is not None:
            self._end_at(self._scanner.found)
        elif self.generated == brief.max_tokens:
            self.finish_reason = "length"

    def _end_at(self, end: int) -> None:
        self.finish_reason = "stop"
        self.text = self.text[:end]
        count = bisect_left(self._offsets, end)
        del self._offsets[count:], self.texts[count:], self.logprobs[count:]
        if self.texts:
            self.texts[-1] = self.text[self._offsets[-1] :]

    def _shown_up_to(self, end: int) -> Piece | None:
        """What was not shown before, with the log probabilities of the tokens that begin in it."""
        if end <= self._shown:
            return None
        begin, first = self._shown, self._told
        self._shown, self._told = end, bisect_left(self._offsets, end)
        told = tuple(self.logprobs[first : self._told]) if self._brief.logprobs is not None else None
        return self.text[begin:end], told


def drafted(brief: Brief, randoms: Iterable[Random], suffix: Sequence[int | None]) -> Generator[None, None, list[Writer]]:
    """Answers written to the end before any is shown, because which are shown is still to be decided."""
    drafts = []
    for random in randoms:
        candidates = []
        for _ in range(SUFFIX_CANDIDATES if suffix else 1):
            candidates.append(Writer(brief, random))
            for _ in candidates[-1].write():
                yield
        drafts.append((yield from _leading_into(suffix, candidates)) if suffix else candidates[0])
    return drafts


def _leading_into(suffix: Sequence[int | None], candidates: Iterable[Writer]) -> Generator[None, None, Writer]:
    """The candidate, cut where it leads into the suffix best; the earliest place if several are as good."""
    places = []
    for candidate in candidates:
        for count in range(min(1, len(candidate.texts)), len(candidate.texts) + 1):
            places.append((candidate.suffix_logprob(suffix, count), candidate, count))
            yield
    _, best, count = max(places, key=lambda place: place[0])
    best.cut(count)
    return best


def interleaved(shows: Iterable[Iterator[Piece | None]]) -> Iterator[tuple[int, Piece | None]]:
    waiting = deque(enumerate(shows))
    while waiting:
        number, show = waiting.popleft()
        for piece in show:
            yield number, piece
            waiting.append((number, show))
            break
