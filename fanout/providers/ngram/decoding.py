"""How sampling parameters turn a distribution into the next token. Pure.

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

from fanout.providers.ngram.language_model import Distribution, LanguageModel, Tempered

FEW_LEFT = 1e-6
"""Where the tokens taken out weighed all but this share, the difference has lost too many digits to be drawn from."""
NEGLIGIBLE = 2.0**-53
"""A share that no draw of `random()` can tell from 0."""
MIN_TEMPERATURE = 1e-3
"""Below this temperature a probability 4 % higher weighs 10^17 times as much: greedy, but for rounding."""
SMALL_TOP_P = 0.5
"""Above it, at most two draws are needed on average until one is inside."""
FIRST_LOOK = 64
"""How many tokens are listed first where it is not known how many are needed."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The parameters of one request, neutral where not set."""

    temperature: float = 1.0
    top_k: int = 0
    """0 or less: all."""
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def penalizes(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


class Chooser:
    """Chooses the tokens of one answer, one after the other, and remembers them for the penalties."""

    def __init__(self, model: LanguageModel, decoding: Decoding, prompt: Iterable[int | None], random: Random) -> None:
        self._model, self._decoding, self._random = model, decoding, random
        self._counts: Counter[int] = Counter()
        repeated = prompt if decoding.repetition_penalty != 1 else ()
        self._prompt = dict.fromkeys(token for token in repeated if token is not None)
        self._touched = dict.fromkeys((*decoding.logit_bias, *self._prompt))

    def choose(self, distribution: Distribution) -> int:
        logits = self._logits(distribution)
        if self._decoding.temperature < MIN_TEMPERATURE:
            token = _ranked(distribution, logits, 1)[0][1]
        elif self._decoding.top_k > 0:
            token = self._listed(_ranked(distribution, logits, self._decoding.top_k)[: self._decoding.top_k])
        else:
            token = self._unlisted(distribution, logits)
        if self._decoding.penalizes:
            self._counts[token] += 1
            self._touched[token] = None
        return token

    def _unlisted(self, distribution: Distribution, logits: Mapping[int, float]) -> int:
        """A choice from the whole vocabulary, or from the share `top_p` of it, that looks at few tokens.

        Source of `top_p`, the fewest tokens that together are so probable: Holtzman et al. 2020, §3.1, arXiv:1904.09751.
        """
        temperature, top_p, random = self._decoding.temperature, self._decoding.top_p, self._random
        tempered = self._model.tempered(distribution, temperature)
        whole = Changed(distribution, tempered, temperature, logits) if logits else tempered
        if isinstance(whole, Changed) and whole.few_untouched:
            return self._listed(_all_that_weigh(distribution, logits, temperature, len(self._model.tokens)))
        if top_p < SMALL_TOP_P:
            ranked = _ranked(distribution, logits, FIRST_LOOK)
            share = sum(_weights(ranked, temperature)) / math.exp((whole.best_logit + ranked[0][0]) / temperature) / whole.total
            if share >= top_p:
                return self._listed(ranked, top_p / share)
        token = whole.draw(random)
        while top_p < 1 and whole.weight_before(token) >= top_p * whole.total:
            token = whole.draw(random)  # outside; as the others are drawn in proportion, so is the first one inside
        return token

    def _listed(self, ranked: Sequence[tuple[float, int]], top_p: float | None = None) -> int:
        """A choice from the share `top_p` of these tokens."""
        bounds = list(accumulate(_weights(ranked, self._decoding.temperature)))
        top_p = self._decoding.top_p if top_p is None else top_p
        size = min(len(bounds), bisect_left(bounds, top_p * bounds[-1]) + 1)
        return ranked[bisect(bounds, self._random.random() * bounds[size - 1], hi=size - 1)][1]

    def _logits(self, distribution: Distribution) -> dict[int, float]:
        """The changed logits of the tokens that a penalty or a bias touches.

        Source: https://platform.openai.com/docs/guides/text-generation (frequency and presence penalties);
        Keskar et al. 2019, §4.1, arXiv:1909.05858, with the sign rule of Hugging Face's
        `RepetitionPenaltyLogitsProcessor`: a negative logit is multiplied, and ours are never positive.
        """
        decoding, logits = self._decoding, {}
        for token in self._touched:
            logit, count = math.log(distribution.probability(token)), self._counts.get(token, 0)
            if count or token in self._prompt:
                logit *= decoding.repetition_penalty
            if count:
                logit -= decoding.presence_penalty + decoding.frequency_penalty * count
            logits[token] = logit + decoding.logit_bias.get(token, 0.0)
        return logits


class Changed:
    """A tempered distribution in which some tokens have other logits. Weights are relative to the greatest of all."""

    def __init__(self, distribution: Distribution, tempered: Tempered, temperature: float, logits: Mapping[int, float]) -> None:
        self._distribution, self._tempered, self._logits = distribution, tempered, logits
        self.best_logit: float = max(tempered.best_logit, *logits.values())
        self._share = math.exp((tempered.best_logit - self.best_logit) / temperature)
        self._weights = [math.exp((logit - self.best_logit) / temperature) for logit in logits.values()]
        self._bounds = list(accumulate(self._weights))
        untouched = tempered.total - sum(map(tempered.weight, logits))
        self.few_untouched: bool = untouched < FEW_LEFT * tempered.total
        """Too few digits are left of what is untouched: it must be added up instead."""
        self.total: float = self._bounds[-1] + untouched * self._share

    def draw(self, random: Random) -> int:
        point = random.random() * self.total
        if point < self._bounds[-1]:
            return list(self._logits)[bisect(self._bounds, point)]
        return self._tempered.draw_without(self._logits, random)

    def weight_before(self, token: int) -> float:
        """The weight of all tokens that rank before this one."""
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


def _ranked(distribution: Distribution, logits: Mapping[int, float], count: int) -> list[tuple[float, int]]:
    """The likeliest tokens, as (minus the logit, token), best first: at least `count`, if there are so many.

    Ends at the last untouched token that is known: what ranks below it may stand behind others.
    """
    leaders = [(-math.log(-p), token) for p, token in distribution.leaders(count, logits)]
    ranked = sorted(leaders + [(-logit, token) for token, logit in logits.items()])
    return ranked[: bisect(ranked, leaders[-1])] if len(leaders) == count else ranked


def _weights(ranked: Sequence[tuple[float, int]], temperature: float) -> list[float]:
    best = ranked[0][0]
    return [math.exp((best - minus_logit) / temperature) for minus_logit, _ in ranked]


def _all_that_weigh(
    distribution: Distribution, logits: Mapping[int, float], temperature: float, vocabulary: int
) -> list[tuple[float, int]]:
    """The likeliest tokens, so many that the others together weigh nothing."""
    count = FIRST_LOOK
    while True:
        ranked = _ranked(distribution, logits, count)
        weights = _weights(ranked, temperature)
        if (vocabulary - len(ranked)) * weights[-1] <= NEGLIGIBLE * sum(weights):
            return ranked
        count *= 4
