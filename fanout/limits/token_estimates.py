"""Estimates of the tokens that calls will use, learned from those of an account that have ended."""

from __future__ import annotations

import math
from typing import NamedTuple

UNSEEN_OUTPUT_TOKENS = 4096.0
"""Output of a call that sets no maximum, until answers tell better: 256 let three times a limit pass in its first minute."""
RECENT_CALLS = 20
DEVIATIONS = 2.0
"""Many calls at once need little beyond their mean, because the long ones among them make up for the short ones."""


class CallSize(NamedTuple):
    """What is known of a call's tokens before it is made."""

    prompt: int = 0
    """Tokens of its input, guessed by its length."""
    max_tokens: int | None = None
    """Most tokens of its output."""


class LearnedAmount:
    """The mean amount for each unit of a guess, and the deviation from it, over about the last twenty calls.

    Args:
        first: the mean until a call tells better.
        caution: what to add to it then; of a call that follows n others, an n-th part.
    """

    def __init__(self, first: float, caution: float = 0.0) -> None:
        self._amount, self._guess, self._deviation = first, 1.0, 0.0
        self._calls, self._caution = 0, caution

    def compute_mean(self, guess: float = 1.0) -> float:
        """Return the amount to expect."""
        return guess * self._amount / self._guess

    def compute_high(self, guess: float, beside: int) -> float:
        """Return so much for one call beside so many others that all together seldom need more."""
        margin = DEVIATIONS * self._deviation / math.sqrt(beside + 1)
        # Short answers come back first: of a few, the mean is too low.
        return guess * self._amount / self._guess + margin + self._caution / (self._calls + 1)

    def learn(self, amount: float, guess: float = 1.0) -> None:
        """Take in what a call has used."""
        self._calls += 1
        weight = 1 / (self._calls if self._calls < RECENT_CALLS else RECENT_CALLS)
        if self._calls > 1:
            beside = amount - guess * self._amount / self._guess
            self._deviation += weight * ((beside if beside > 0 else -beside) - self._deviation)
        self._amount += weight * (amount - self._amount)
        self._guess += weight * (guess - self._guess)


class TokenEstimates:
    """The tokens that calls of one account may use. A call above the whole limit waits for an empty window, not for ever."""

    def __init__(self, limit: int | None) -> None:
        self.set_limit(limit)
        self._input, self._output = LearnedAmount(1.0), LearnedAmount(0.0, UNSEEN_OUTPUT_TOKENS)
        self._last: tuple[CallSize, int, int] | None = None
        """Size, calls beside it and tokens of the last reservation: each call's is computed for its wait and its start."""

    def set_limit(self, limit: int | None) -> None:
        """Set the tokens of a period; what was learned stays."""
        self._limit = math.inf if limit is None else limit
        self._last = None

    def compute_reservation(self, size: CallSize | None, beside: int) -> int:
        """Return the tokens to keep for a call that starts beside so many others; 0 where none are counted."""
        if size is None:
            return 0
        if (last := self._last) and last[0] is size and last[1] == beside:
            return last[2]
        wrote = self._output.compute_high(1.0, beside) if size.max_tokens is None else size.max_tokens
        tokens = math.ceil(self._input.compute_high(size.prompt, beside) + wrote)
        if not 1 <= tokens <= self._limit:
            tokens = self._bound(tokens)
        self._last = size, beside, tokens
        return tokens

    def compute_least(self, size: CallSize | None) -> int:
        """Return the tokens that a call will hardly use less than, by which its wait is foreseen; 0 where none are counted."""
        if size is None:
            return 0
        wrote = self._output.compute_mean() if size.max_tokens is None else size.max_tokens
        return self._bound(round(self._input.compute_mean(size.prompt) + wrote))

    def learn(self, size: CallSize | None, input_tokens: int, output_tokens: int) -> None:
        """Take in the usage of a call."""
        self._last = None
        if size and size.prompt:
            self._input.learn(input_tokens, size.prompt)
        if size is None or size.max_tokens is None:
            self._output.learn(output_tokens)

    def _bound(self, tokens: int) -> int:
        return int(min(max(tokens, 1), self._limit))
