"""A word-level n-gram language model whose every order reads one suffix array. Maths only: no I/O, no event loop.

A model of order N predicts a token from the N−1 tokens before it. Each distribution names only the tokens that were
seen after its context and hands the rest of its probability to the next shorter context, down to the single tokens.
So every question is answered from the few tokens that are named, and still exactly for the whole vocabulary.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from bisect import bisect, bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from random import Random

MAX_ORDER = 5
END_OF_TEXT = "<|endoftext|>"
"""The token that ends every text and precedes every text, as it is shown among alternatives. `tokenize` never returns it."""
IMPOSSIBLE = -9999.0
"""The log probability of a token outside the vocabulary.

Source: https://platform.openai.com/docs/api-reference/chat/object, `logprob`.
"""
# No token is longer than some 1,000 characters: a text of one letter alone must not take long, either.
TOKEN = re.compile(r" ?\w{1,128}(?:['’.-]\w{1,128}){0,7}|\n{1,128}| ?[^\w\s]{1,128}|[^\S\n]{1,128}")
TRIES = 64


def tokenize(text: str) -> Iterator[str]:
    """Yield words with the space before them (`it's`, `3.8`, `sys.path` are one), punctuation, line ends: joined, the text."""
    return (match[0] for match in TOKEN.finditer(text))


class Distribution:
    """The probability of every token of the vocabulary after one context."""

    __slots__ = ("backoff", "depth", "lower", "peak", "seen")

    def __init__(self, seen: dict[int, float], backoff: float, lower: Distribution | None) -> None:
        self.seen = seen
        """Token → probability, likeliest first; every other token has `backoff` times its probability in `lower`."""
        self.backoff = backoff
        self.lower = lower
        self.depth: int = lower.depth + 1 if lower else 0
        """Number of tokens of context."""
        self.peak: float = max(next(iter(seen.values())), backoff * lower.peak if lower else 0.0)
        """The probability of the likeliest token."""

    def probability(self, token: int) -> float:
        """Return the probability of a token."""
        level, scale = self, 1.0
        while token not in level.seen and level.lower:
            scale *= level.backoff
            level = level.lower
        return scale * level.seen[token]

    def place(self, token: int) -> tuple[float, int]:
        """Return a token's place in the whole vocabulary; places compare as ranks do."""
        return -self.probability(token), token

    def leaders(self, count: int, without: Container[int] = ()) -> list[tuple[float, int]]:
        """Return the places of the `count` likeliest tokens outside `without`, best first."""
        found: list[tuple[float, int]] = []
        level: Distribution | None = self
        above: Mapping[int, float] = {}
        scale = -1.0
        while level:
            own = ((scale * p, token) for token, p in level.seen.items() if token not in above and token not in without)
            found += islice(own, count)
            # What a longer context names, its shorter ones name too, so the level just above is all that is passed over.
            scale, above, level = scale * level.backoff, level.seen, level.lower
        found.sort()
        return found[:count]


class TemperedDistribution:
    """A distribution at a temperature T: every probability to the power 1/T, not yet divided by their sum.

    Weights are powers of probability ÷ peak, so that none overflows and the greatest never underflows.
    """

    __slots__ = (
        "_base",
        "_bounds",
        "_inverse",
        "_lower",
        "_named",
        "_named_bounds",
        "_share",
        "_tokens",
        "best_logit",
        "total",
    )

    def __init__(self, base: Distribution, temperature: float, lower: TemperedDistribution | None) -> None:
        self._base, self._lower, self._inverse = base, lower, 1 / temperature
        peak, inverse = base.peak, self._inverse
        self.best_logit: float = math.log(peak)
        """The logit that weighs 1."""
        self._tokens = tuple(base.seen)
        self._bounds = array("d", accumulate((p / peak) ** inverse for p in base.seen.values()))
        self.total: float = self._bounds[-1]
        """The sum of the weights of the whole vocabulary."""
        if lower:
            # The tokens seen here as `lower` ranks and weighs them: without them, the rest of `lower` remains.
            self._named = tuple(sorted(self._tokens, key=lambda token: (-lower._base.seen[token], token)))
            self._named_bounds = array("d", accumulate(map(lower.weight, self._named), initial=0.0))
            self._share = (base.backoff * lower._base.peak / peak) ** inverse
            self.total += max(0.0, lower.total - self._named_bounds[-1]) * self._share

    def weight(self, token: int) -> float:
        """Return the weight of a token."""
        weight: float = (self._base.probability(token) / self._base.peak) ** self._inverse
        return weight

    def weight_before(self, token: int) -> float:
        """Return the weight of all tokens that rank before this one."""
        return self.weight_before_place(self._base.place(token))

    def weight_before_place(self, place: tuple[float, int], scale: float = -1.0) -> float:
        """Return the weight of all tokens that rank before `place`, without listing them.

        Args:
            place: a place in the distribution at the top, see `Distribution.place`.
            scale: minus the factor of this distribution within the one at the top.
        """
        seen = self._base.seen
        first = bisect_left(self._tokens, place, key=lambda token: (scale * seen[token], token))
        weight = self._bounds[first - 1] if first else 0.0
        if self._lower:
            scale, seen = scale * self._base.backoff, self._lower._base.seen
            named = bisect_left(self._named, place, key=lambda token: (scale * seen[token], token))
            weight += max(0.0, self._lower.weight_before_place(place, scale) - self._named_bounds[named]) * self._share
        return weight

    def draw(self, random: Random) -> int:
        """Return a random token."""
        bounds = self._bounds
        # A point beyond the seen tokens falls into the rest, which `lower` shares out.
        point = random.random() * self.total
        if point < bounds[-1] or not self._lower:
            return self._tokens[bisect(bounds, point)]
        return self._lower.draw_without(self._base.seen, random)

    def draw_without(self, excluded: Container[int], random: Random) -> int:
        """Return a random token outside `excluded`.

        Tokens are drawn until one is outside. Called from `draw` that takes less than one try a token on average, whatever the
        context; if it takes long all the same, the tokens are listed instead, which gives the same distribution.
        """
        for _ in range(TRIES):
            if (token := self.draw(random)) not in excluded:
                return token
        left = self._base.leaders(sys.maxsize, excluded)
        bounds = list(accumulate((p / left[0][0]) ** self._inverse for p, _ in left))
        return left[bisect(bounds, random.random() * bounds[-1])][1]


class LanguageModel:
    """All orders of the model at once.

    Args:
        texts: the texts to learn from; each ends with an end-of-text token.
        pause: called about every millisecond of training, so that a thread can let others run.
    """

    def __init__(self, texts: Iterable[str], pause: Callable[[], object] = lambda: None) -> None:
        tokens: list[str] = []
        counts: Counter[str] = Counter()
        for text in texts:
            own = (END_OF_TEXT, *tokenize(text))
            tokens += own
            counts.update(own)
            pause()
        self.tokens: tuple[str, ...] = tuple(sorted(counts, key=lambda token: (-counts[token], token)))
        """The vocabulary, by id: most frequent first."""
        self.ids: dict[str, int] = {token: number for number, token in enumerate(self.tokens)}
        self.end: int = self.ids[END_OF_TEXT]
        size = len(tokens)
        # 16 bits a token: the vocabulary of Python's own documentation stays well below 65,536.
        self._ring = array("H")
        for begin in range(0, size, 1000):
            self._ring.extend(map(self.ids.__getitem__, tokens[begin : begin + 1000]))
            pause()
        # The texts form a ring, the first after the last: so every token is followed by another.
        self._ring.extend(self._ring[at % size] for at in range(MAX_ORDER))
        self._keys = _big_endian(self._ring)
        self._suffixes, self._starts = self._sort_suffixes(size, pause)
        self._unigrams = Distribution({token: counts[text] / size for text, token in self.ids.items()}, 0.0, None)
        # Every cache is bounded by what the greatest entries could take: about 10 MB each.
        self._after = lru_cache(maxsize=4096)(self._build_distribution)
        self._temper = lru_cache(maxsize=1024)(self._temper_distribution)

    def encode(self, text: str) -> list[int | None]:
        """Return the ids of the tokens of `text`; `None` for those outside the vocabulary."""
        return [self.ids.get(token) for token in tokenize(text)]

    def after(self, tokens: Sequence[int | None], order: int) -> Distribution:
        """Return the distribution of the next token after `tokens`, by the model of this order.

        An end-of-text token begins a new text. Nothing was ever seen after a token outside the vocabulary, so the tokens
        before it cannot matter.
        """
        context: tuple[int, ...] = ()
        for token in reversed(tokens[max(0, len(tokens) - order + 1) :]):
            if token is None:
                break
            context = (token, *context)
        return self._after(context)

    def temper(self, distribution: Distribution, temperature: float) -> TemperedDistribution:
        """Return a distribution at a temperature."""
        return self._temper(distribution, temperature)

    def _sort_suffixes(self, size: int, pause: Callable[[], object]) -> tuple[array[int], array[int]]:
        """Return the positions in the ring, sorted by the tokens from there on, and where those of each first token begin.

        There is one sort for each first token: a single sort of all would hold the interpreter for tens of milliseconds.
        """
        buckets: list[list[int]] = [[] for _ in self.tokens]
        for position in range(size):
            buckets[self._ring[position]].append(position)
            if position % 5000 == 0:
                pause()
        starts = array("I", accumulate(map(len, buckets), initial=0))
        suffixes, keys, since = array("I"), self._keys, 0
        for bucket in buckets:
            suffixes.extend(sorted(bucket, key=lambda at: keys[2 * at : 2 * (at + MAX_ORDER - 1)]))
            since += len(bucket)
            if since > 1000:
                since = 0
                pause()
        return suffixes, starts

    def _build_distribution(self, context: tuple[int, ...]) -> Distribution:
        """Build a distribution by Witten–Bell smoothing.

        With T kinds of continuation in c occurrences, a token seen n times has the probability (n + T·lower) ÷ (c + T).

        Source: Witten & Bell 1991, method C, doi:10.1109/18.87000; interpolated as in Chen & Goodman 1999, §2.5,
        doi:10.1006/csla.1999.0128.
        """
        if not context:
            return self._unigrams
        lower = self._after(context[1:])
        # Where the shorter context was never seen, this one was not either.
        first, last = self._find_occurrences(context) if lower.depth == len(context) - 1 else (0, 0)
        if first == last:
            return lower
        ring, depth = self._ring, len(context)
        counts = Counter(ring[at + depth] for at in self._suffixes[first:last])
        kinds, total = len(counts), last - first
        seen = {token: (count + kinds * lower.probability(token)) / (total + kinds) for token, count in counts.items()}
        ranked = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
        return Distribution(dict(ranked), kinds / (total + kinds), lower)

    def _find_occurrences(self, context: tuple[int, ...]) -> tuple[int, int]:
        """Return the range of suffixes that begin with `context`."""
        keys, width = self._keys, 2 * len(context)
        first, last = self._starts[context[0]], self._starts[context[0] + 1]
        if len(context) == 1:
            return first, last
        wanted = _big_endian(array("H", context))
        first = bisect_left(self._suffixes, wanted, first, last, key=lambda at: keys[2 * at : 2 * at + width])
        return first, bisect_right(self._suffixes, wanted, first, last, key=lambda at: keys[2 * at : 2 * at + width])

    def _temper_distribution(self, distribution: Distribution, temperature: float) -> TemperedDistribution:
        lower = self._temper(distribution.lower, temperature) if distribution.lower else None
        return TemperedDistribution(distribution, temperature, lower)


def _big_endian(numbers: array[int]) -> bytes:
    """Return 16-bit numbers as bytes that sort as the numbers do."""
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()
