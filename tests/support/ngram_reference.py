"""The n-gram model once more in a slow and plain way: counts in dictionaries, every figure over the whole vocabulary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from fanout.providers.ngram.corpus import extract_documents
from fanout.providers.ngram.decoding import Decoding
from fanout.providers.ngram.language_model import END_OF_TEXT, MAX_ORDER, LanguageModel, tokenize


@cache
def pydoc_texts() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    return tuple(extract_documents(topics))


@cache
def pydoc_model() -> LanguageModel:
    return LanguageModel(pydoc_texts())


@cache
def pydoc_reference() -> Reference:
    return Reference(pydoc_texts())


class Reference:
    """Interpolated Witten–Bell smoothing, directly from the formula."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.tokens = [token for text in texts for token in (END_OF_TEXT, *tokenize(text))]
        ring = self.tokens + [self.tokens[at % len(self.tokens)] for at in range(MAX_ORDER)]
        self.counts: dict[tuple[str, ...], Counter[str]] = {}
        for at in range(len(self.tokens)):
            for length in range(MAX_ORDER):
                self.counts.setdefault(tuple(ring[at : at + length]), Counter())[ring[at + length]] += 1

    def probabilities(self, context: Sequence[str], order: int) -> dict[str, float]:
        known = tuple(context[max(0, len(context) - order + 1) :])
        probabilities = {token: count / len(self.tokens) for token, count in self.counts[()].items()}
        for length in range(1, len(known) + 1):
            after = self.counts.get(known[len(known) - length :])
            if after:
                total, kinds = after.total(), len(after)
                probabilities = {token: (after[token] + kinds * p) / (total + kinds) for token, p in probabilities.items()}
        return probabilities


def decode_probabilities(
    probabilities: Mapping[int, float], decoding: Decoding, generated: Sequence[int] = (), prompt: Sequence[int] = ()
) -> dict[int, float]:
    """Return each token's probability under all parameters; tokens that are cut off are absent."""
    logits = {token: math.log(p) for token, p in probabilities.items()}
    for token in {*generated, *prompt}:
        logits[token] *= decoding.repetition_penalty
    for token, count in Counter(generated).items():
        logits[token] -= decoding.presence_penalty + decoding.frequency_penalty * count
    for token, bias in decoding.logit_bias.items():
        logits[token] += bias
    ranked = sorted(logits, key=lambda token: (-logits[token], token))
    if decoding.temperature == 0:
        return {ranked[0]: 1.0}
    ranked = ranked[: decoding.top_k] if decoding.top_k > 0 else ranked
    weights = [math.exp((logits[token] - logits[ranked[0]]) / decoding.temperature) for token in ranked]
    total, running, kept = sum(weights), 0.0, 0
    while kept < len(ranked) and (running < decoding.top_p * total or not kept):
        running += weights[kept]
        kept += 1
    return {token: weight / running for token, weight in zip(ranked[:kept], weights[:kept], strict=True)}


def assert_drawn_from(drawn: Counter[int], expected: Mapping[int, float]) -> None:
    """Check the draws with a chi-square test at about 1 in 10,000; tokens too rare for it share one cell.

    Source: Wilson & Hilferty 1931, doi:10.1073/pnas.17.12.684, for the quantile.
    """
    draws = drawn.total()
    assert not set(drawn) - {token for token, p in expected.items() if p > 0}
    cells = {token: p * draws for token, p in expected.items() if p * draws >= 5}
    observed = [drawn[token] for token in cells]
    means = list(cells.values())
    if draws - sum(means) >= 5:
        observed.append(draws - sum(observed))
        means.append(draws - sum(means))
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, means, strict=True))
    freedom = len(means) - 1
    assert statistic <= freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else drawn
