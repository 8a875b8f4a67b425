"""Choice of the next token from a distribution, by the sampling parameters. Pure.

The model's logits are its log probabilities. In this order: `repetition_penalty`, then the other penalties and
`logit_bias`, then `temperature`, then `top_k`, then `top_p` of what is left, as vLLM and Hugging Face have it.
"""

from __future__ import annotations

import math
from bisect import bisect, bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from fanout.providers.ngram.language_model import Distribution, LanguageModel, TemperedDistribution

MIN_UNTOUCHED_RATIO = 1e-6
"""If less than this share of the weight is left without the touched tokens, the difference has lost too many digits."""
NEGLIGIBLE_RATIO = 2.0**-53
"""A share that no draw of `random()` can tell from 0."""
MIN_TEMPERATURE = 1e-3
"""Below this temperature a probability 4 % higher weighs 10^17 times as much: greedy, but for rounding."""
SMALL_TOP_P = 0.5
"""Above this, at most two draws are needed on average until one is inside."""
INITIAL_LIST_SIZE = 64
"""Number of tokens that are listed first where it is not known how many are needed."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """Parameters of one request, neutral where not set."""

    temperature: float = 1.0
    top_k: int = 0
    """0 or less, or more than there are: all."""
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def has_penalties(self) -> bool:
        """The tokens chosen so far matter."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


class Chooser:
    """The chooser of one answer's tokens, which remembers them for the penalties."""

    def __init__(self, model: LanguageModel, decoding: Decoding, prompt: Iterable[int | None], random: Random) -> None:
        self._model, self._decoding, self._random = model, decoding, random
        self._counts: Counter[int] = Counter()
        # Of the penalties only this one concerns the prompt too, as in Hugging Face and vLLM.
        repeated = prompt if decoding.repetition_penalty != 1 else ()
        self._prompt = dict.fromkeys(token for token in repeated if token is not None)
        self._touched = dict.fromkeys((*decoding.logit_bias, *self._prompt))

    def choose(self, distribution: Distribution) -> int:
        """Return the next token."""
        logits = self._compute_logits(distribution)
        # In the order of cost: the first two look at few tokens, the last may have to look at all.
        if self._decoding.temperature < MIN_TEMPERATURE:
            token = _rank(distribution, logits, 1)[0][1]
        elif 0 < self._decoding.top_k < len(self._model.tokens):
            token = self._choose_from_list(_rank(distribution, logits, self._decoding.top_k)[: self._decoding.top_k])
        else:
            token = self._choose_from_all(distribution, logits)
        if self._decoding.has_penalties:
            self._counts[token] += 1
            self._touched[token] = None
        return token

    def _choose_from_all(self, distribution: Distribution, logits: Mapping[int, float]) -> int:
        """Choose from the whole vocabulary, or from its share `top_p`, looking at few tokens.

        Source of `top_p`, the fewest tokens that together have this probability: Holtzman et al. 2020, §3.1, arXiv:1904.09751.
        """
        temperature, top_p, random = self._decoding.temperature, self._decoding.top_p, self._random
        tempered = self._model.temper(distribution, temperature)
        whole = BiasedDistribution(distribution, tempered, temperature, logits) if logits else tempered
        # Nearly everything is banned: the rest must be listed, since a difference of sums is only noise.
        if isinstance(whole, BiasedDistribution) and whole.few_untouched:
            return self._choose_from_list(_rank_all_that_weigh(distribution, logits, temperature, len(self._model.tokens)))
        # A small share is listed, because draws would mostly fall outside; a large one is drawn until one is inside.
        if top_p < SMALL_TOP_P:
            ranked = _rank(distribution, logits, INITIAL_LIST_SIZE)
            share = (
                sum(_compute_weights(ranked, temperature))
                / math.exp((whole.best_logit + ranked[0][0]) / temperature)
                / whole.total
            )
            if share >= top_p:
                return self._choose_from_list(ranked, top_p / share)
        token = whole.draw(random)
        while top_p < 1 and whole.weight_before(token) >= top_p * whole.total:
            token = whole.draw(random)  # was outside; the first draw inside is in proportion, as every draw is
        return token

    def _choose_from_list(self, ranked: Sequence[tuple[float, int]], top_p: float | None = None) -> int:
        """Choose from the share `top_p` of these tokens."""
        bounds = list(accumulate(_compute_weights(ranked, self._decoding.temperature)))
        top_p = self._decoding.top_p if top_p is None else top_p
        size = min(len(bounds), bisect_left(bounds, top_p * bounds[-1]) + 1)
        return ranked[bisect(bounds, self._random.random() * bounds[size - 1], hi=size - 1)][1]

    def _compute_logits(self, distribution: Distribution) -> dict[int, float]:
        """Return the changed logits of the tokens that a penalty or a bias touches.

        Source: https://platform.openai.com/docs/guides/text-generation (frequency and presence penalties);
        Keskar et al. 2019, §4.1, arXiv:1909.05858, with the sign rule of Hugging Face's
        `RepetitionPenaltyLogitsProcessor`: a negative logit is multiplied, and ours are never positive.
        """
        decoding, logits = self._decoding, {}
        # Only touched tokens are computed: all others keep their rank and weight among themselves.
        for token in self._touched:
            logit, count = math.log(distribution.probability(token)), self._counts.get(token, 0)
            if count or token in self._prompt:
                logit *= decoding.repetition_penalty
            if count:
                logit -= decoding.presence_penalty + decoding.frequency_penalty * count
            logits[token] = logit + decoding.logit_bias.get(token, 0.0)
        return logits


class BiasedDistribution:
    """A tempered distribution in which some tokens have other logits. Weights are relative to the greatest of all."""

    def __init__(
        self, distribution: Distribution, tempered: TemperedDistribution, temperature: float, logits: Mapping[int, float]
    ) -> None:
        self._distribution, self._tempered, self._logits = distribution, tempered, logits
        self.best_logit: float = max(tempered.best_logit, *logits.values())
        self._share = math.exp((tempered.best_logit - self.best_logit) / temperature)
        self._weights = [math.exp((logit - self.best_logit) / temperature) for logit in logits.values()]
        self._bounds = list(accumulate(self._weights))
        # A difference of sums instead of a sum over the vocabulary: it costs only the tokens that are touched.
        untouched = tempered.total - sum(map(tempered.weight, logits))
        self.few_untouched: bool = untouched < MIN_UNTOUCHED_RATIO * tempered.total
        """The weight of the untouched tokens has lost too many digits: it must be added up instead."""
        self.total: float = self._bounds[-1] + untouched * self._share

    def draw(self, random: Random) -> int:
        """Return a random token."""
        point = random.random() * self.total
        if point < self._bounds[-1]:
            return list(self._logits)[bisect(self._bounds, point)]
        return self._tempered.draw_without(self._logits, random)

    def weight_before(self, token: int) -> float:
        """Return the weight of all tokens that rank before this one."""
        place, logit = self._distribution.place(token), self._logits.get(token)
        if logit is None:
            minus_logit = -math.log(-place[0])
        else:
            minus_logit, place = -logit, (-math.exp(min(logit, 1.0)), token)  # any logit above 0 is before all untouched ones
        passed = (other for other in self._logits if self._distribution.place(other) < place)
        untouched = self._tempered.weight_before_place(place) - sum(map(self._tempered.weight, passed))
        pairs = zip(self._logits.items(), self._weights, strict=True)
        changed = sum(weight for (other, logit), weight in pairs if (-logit, other) < (minus_logit, token))
        return untouched * self._share + changed


def _rank(distribution: Distribution, logits: Mapping[int, float], count: int) -> list[tuple[float, int]]:
    """Return the likeliest tokens, as (minus the logit, token), best first: at least `count`, if there are so many.

    The list ends at the last untouched token that is known: tokens below it may rank behind unknown ones.
    """
    leaders = [(-math.log(-p), token) for p, token in distribution.leaders(count, logits)]
    ranked = sorted(leaders + [(-logit, token) for token, logit in logits.items()])
    return ranked[: bisect(ranked, leaders[-1])] if len(leaders) == count else ranked


def _compute_weights(ranked: Sequence[tuple[float, int]], temperature: float) -> list[float]:
    best = ranked[0][0]
    return [math.exp((best - minus_logit) / temperature) for minus_logit, _ in ranked]


def _rank_all_that_weigh(
    distribution: Distribution, logits: Mapping[int, float], temperature: float, vocabulary: int
) -> list[tuple[float, int]]:
    """Return so many of the likeliest tokens that the others together weigh nothing."""
    count = INITIAL_LIST_SIZE
    while True:
        ranked = _rank(distribution, logits, count)
        weights = _compute_weights(ranked, temperature)
        if (vocabulary - len(ranked)) * weights[-1] <= NEGLIGIBLE_RATIO * sum(weights):
            return ranked
        count *= 4
