"""Writing of an n-gram model's answers to one request, one token a step. Pure."""

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
class WritingTask:
    """The input of all answers to one request."""

    model: LanguageModel
    order: int
    prompt: Sequence[int | None]
    max_tokens: int
    decoding: Decoding = field(default_factory=Decoding)
    stop: Sequence[str] = ()
    logprobs: int | None = None
    """Number of alternatives to report beside each token; `None`: report nothing."""

    def after(self, tokens: Sequence[int | None]) -> Distribution:
        """Return the distribution of the next token."""
        return self.model.after(tokens, self.order)

    def score(self, text: str, token: int | None, distribution: Distribution) -> TokenLogprob:
        """Return the log probability of a token, and those of its alternatives."""
        leaders = distribution.leaders(self.logprobs or 0)
        top = tuple((self.model.tokens[leader], math.log(-p)) for p, leader in leaders)
        return TokenLogprob(text, compute_logprob(token, distribution), top)


def compute_logprob(token: int | None, distribution: Distribution) -> float:
    """Return the log probability of a token, `None` being one outside the vocabulary."""
    return IMPOSSIBLE if token is None else math.log(distribution.probability(token))


def score_prompt(task: WritingTask, texts: Sequence[str]) -> Generator[None, None, tuple[TokenLogprob, ...]]:
    """Return the log probability of each token of the prompt; yield after each."""
    known: tuple[int | None, ...] = (task.model.end, *task.prompt)
    scored = [TokenLogprob(text, None) for text in texts[:1]]
    for at, text in enumerate(texts[1:], 2):
        scored.append(task.score(text, known[at], task.after(known[max(0, at - MAX_ORDER) : at])))
        yield
    return tuple(scored)


class Writer:
    """One answer that is being written.

    Attributes:
        texts: its tokens; joined they are `text`, so the last is cut where a stop sequence begins within it.
        logprobs: the log probabilities of these tokens, if the task wants them.
        finish_reason: `None` until the answer is finished.
        generated: number of tokens chosen, those of the stop sequence included.
    """

    def __init__(self, task: WritingTask, random: Random) -> None:
        self._task = task
        self._chooser = Chooser(task.model, task.decoding, task.prompt, random)
        self._scanner = StopScanner(task.stop)
        # The model looks no further back than its order.
        self._known: list[int | None] = [task.model.end, *task.prompt][-MAX_ORDER:]
        self._begin = len(self._known)
        self._offsets: list[int] = []
        self._scores: list[float] = []
        self._shown = self._shown_tokens = 0
        self.text = ""
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None if task.max_tokens > 0 else "length"
        self.generated = 0

    @property
    def mean_logprob(self) -> float:
        """Mean log probability per token, the end of the text included; 0 where nothing was written."""
        return sum(self._scores) / len(self._scores) if self._scores else 0.0

    def write(self) -> Iterator[Piece | None]:
        """Write to the end; yield after each token what may be shown: `None` while a stop sequence may be beginning."""
        while self.finish_reason is None:
            self._step()
            yield self._show_up_to(len(self.text) - (0 if self.finish_reason else self._scanner.held))

    def replay(self) -> Iterator[Piece | None]:
        """Yield what has been written, one token a piece."""
        # A draft was written unseen, so that nothing of it has been shown.
        self._shown = self._shown_tokens = 0
        for offset, text in zip(self._offsets, self.texts, strict=True):
            yield self._show_up_to(offset + len(text))

    def suffix_logprob(self, suffix: Sequence[int | None], count: int) -> float:
        """Return the log probability of the beginning of `suffix` after the first `count` tokens.

        The beginning is as much of it as the model's order lets depend on these tokens.
        """
        begin = self._begin + count
        beginning = suffix[: self._task.order - 1]
        known = [*self._known[max(0, begin - MAX_ORDER) : begin], *beginning]
        first = len(known) - len(beginning)
        return sum(compute_logprob(known[at], self._task.after(known[:at])) for at in range(first, len(known)))

    def cut(self, count: int) -> None:
        """Drop all but the first `count` tokens, as if they had never been written."""
        if count < len(self.texts):
            self.generated = count
            del self._scores[count:]
            self._end_at(self._offsets[count])

    def _step(self) -> None:
        task = self._task
        distribution = task.after(self._known[-MAX_ORDER:])
        token = self._chooser.choose(distribution)
        # Scored by the model's own distribution: penalties and temperature do not count for `best_of`.
        self._scores.append(compute_logprob(token, distribution))
        if token == task.model.end:
            self.finish_reason = "stop"
            return
        text = task.model.tokens[token]
        if task.logprobs is not None:
            self.logprobs.append(task.score(text, token, distribution))
        self._known.append(token)
        self._offsets.append(len(self.text))
        self.texts.append(text)
        self.text += text
        self.generated += 1
        self._scanner.feed(text)
        if self._scanner.found is not None:
            self._end_at(self._scanner.found)
        elif self.generated == task.max_tokens:
            self.finish_reason = "length"

    def _end_at(self, end: int) -> None:
        self.finish_reason = "stop"
        self.text = self.text[:end]
        # A token that the end cuts stays, with its log probability: it was generated.
        count = bisect_left(self._offsets, end)
        del self._offsets[count:], self.texts[count:], self.logprobs[count:]
        if self.texts:
            self.texts[-1] = self.text[self._offsets[-1] :]

    def _show_up_to(self, end: int) -> Piece | None:
        """Return what has not been shown before, with the log probabilities of the tokens that begin in it."""
        if end <= self._shown:
            return None
        begin, first = self._shown, self._shown_tokens
        self._shown, self._shown_tokens = end, bisect_left(self._offsets, end)
        logprobs = tuple(self.logprobs[first : self._shown_tokens]) if self._task.logprobs is not None else None
        return self.text[begin:end], logprobs


def write_drafts(
    task: WritingTask, randoms: Iterable[Random], suffix: Sequence[int | None]
) -> Generator[None, None, list[Writer]]:
    """Write answers to the end before any is shown, because it is still to be decided which ones are shown."""
    drafts = []
    for random in randoms:
        candidates = []
        for _ in range(SUFFIX_CANDIDATES if suffix else 1):
            candidates.append(Writer(task, random))
            for _ in candidates[-1].write():
                yield
        drafts.append((yield from _cut_best(suffix, candidates)) if suffix else candidates[0])
    return drafts


def _cut_best(suffix: Sequence[int | None], candidates: Iterable[Writer]) -> Generator[None, None, Writer]:
    """Return the candidate that leads into the suffix best, cut there; the earliest place if several are as good."""
    places = []
    for candidate in candidates:
        for count in range(min(1, len(candidate.texts)), len(candidate.texts) + 1):
            places.append((candidate.suffix_logprob(suffix, count), candidate, count))
            yield
    _, best, count = max(places, key=lambda place: place[0])
    best.cut(count)
    return best


def interleave(shows: Iterable[Iterator[Piece | None]]) -> Iterator[tuple[int, Piece | None]]:
    """Yield one piece of each answer in turn, with the answer's number."""
    waiting = deque(enumerate(shows))
    while waiting:
        number, show = waiting.popleft()
        for piece in show:
            yield number, piece
            waiting.append((number, show))
            break
