"""Scorers of overlap with the expected text: ROUGE-L and BLEU, by the packages that define their usual numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from fanout.evaluate.limits import check_time
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput

STEP_WORDS = 256
"""Words between two looks at the clock."""


class _OverlapScorer(Scorer):
    MAX_CHARS: ClassVar[int | None] = 20_000


class RougeScorer(_OverlapScorer):
    """ROUGE-L F-measure: the longest common subsequence of words. Source: Lin (2004), package rouge-score."""

    type: Literal["rouge_l"] = "rouge_l"
    stem: bool = False
    """Whether words are reduced to their stems (Porter, English)."""

    def compute(self, given: ScorerInput) -> Score:
        """Return 0 … 1."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        from rouge_score.tokenizers import DefaultTokenizer  # loaded at first use: it imports NLTK

        tokenizer = DefaultTokenizer(self.stem)
        answered, wanted = tokenizer.tokenize(given.text), tokenizer.tokenize(expected)
        # Twice the shared part of both: 2PR / (P + R), with precision P and recall R.
        return Score(2 * measure_subsequence(answered, wanted) / (len(answered) + len(wanted)) if answered and wanted else 0.0)


def measure_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two texts.

    A row of the usual table is a number here, each place of `other` a bit: the package's own table of 10,000 words by 10,000
    takes a gigabyte and a minute. Source: Hyyrö (2004), Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(other):
        places[word] = places.get(word, 0) | 1 << place
    row = full = (1 << len(other)) - 1
    for number, word in enumerate(one):
        if not number % STEP_WORDS:
            check_time()
        kept = row & places.get(word, 0)
        row = (row + kept | row - kept) & full
    return len(other) - row.bit_count()


class BleuScorer(_OverlapScorer):
    """Sentence BLEU, smoothed, as sacreBLEU computes it, divided by 100. Source: Post (2018)."""

    type: Literal["bleu"] = "bleu"

    def compute(self, given: ScorerInput) -> Score:
        """Return 0 … 1."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        import sacrebleu  # loaded at first use: it takes a third of a second

        return Score(min(float(sacrebleu.sentence_bleu(given.text, [expected]).score) / 100, 1.0))
