"""Scorers of overlap with the expected text: ROUGE-L and BLEU, by the packages that define their usual numbers."""

from __future__ import annotations

from typing import Any, Literal

from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput

MAX_CHARS = 20_000
"""Of either text: the longest common subsequence takes time that grows with the product of both lengths."""


class _OverlapScorer(Scorer):
    def texts(self, given: ScorerInput) -> tuple[str, str] | Score:
        """Return answer and expected text, or the score that says why they cannot be compared."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        if max(len(given.text), len(expected)) > MAX_CHARS:
            return Score(None, f"longer than {MAX_CHARS:,} characters")
        return given.text, expected


class RougeScorer(_OverlapScorer):
    """ROUGE-L F-measure: the longest common subsequence of words. Source: Lin (2004), package rouge-score."""

    type: Literal["rouge_l"] = "rouge_l"
    stem: bool = False
    """Whether words are reduced to their stems (Porter, English)."""

    def score(self, given: ScorerInput) -> Score:
        """Return 0 … 1."""
        texts = self.texts(given)
        if isinstance(texts, Score):
            return texts
        from rouge_score.rouge_scorer import RougeScorer as Rouge  # loaded at first use: it imports NLTK

        answer, expected = texts
        scores: Any = Rouge(["rougeL"], use_stemmer=self.stem).score(expected, answer)
        return Score(float(scores["rougeL"].fmeasure))


class BleuScorer(_OverlapScorer):
    """Sentence BLEU, smoothed, as sacreBLEU computes it, divided by 100. Source: Post (2018)."""

    type: Literal["bleu"] = "bleu"

    def score(self, given: ScorerInput) -> Score:
        """Return 0 … 1."""
        texts = self.texts(given)
        if isinstance(texts, Score):
            return texts
        import sacrebleu  # loaded at first use: it takes a third of a second

        answer, expected = texts
        return Score(min(float(sacrebleu.sentence_bleu(answer, [expected]).score) / 100, 1.0))
