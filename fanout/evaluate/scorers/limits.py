"""Limits of scoring: answers, rows, patterns and schemas may be written so that they take for ever, or all memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import regex

ANSWER_TIME_S = 1.0
"""CPU time of all scorers of one answer together."""
REGEX_TIMEOUT_S = 0.25
"""Of one pattern."""
MAX_PATTERN_CHARS = 2_000
_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)


class TooLongError(Exception):
    """A text is longer than its scorer reads."""


@contextmanager
def limit_time() -> Iterator[None]:
    """Limit the time of what follows, unless that has been done."""
    # The thread's own time: what other threads take must not change a score.
    token = _DEADLINE.set(_DEADLINE.get() or time.thread_time() + ANSWER_TIME_S)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def check_time() -> float:
    """Return the time that is left; raise `TimeoutError` if there is none."""
    deadline = _DEADLINE.get()
    left_s = ANSWER_TIME_S if deadline is None else deadline - time.thread_time()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def compile_pattern(pattern: str, flags: int = 0) -> regex.Pattern[str]:
    """Return a compiled pattern of the package `regex`, which can be stopped, as those of `re` cannot.

    Raises:
        ValueError: it is none, or too long.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"has {len(pattern):,} characters; at most {MAX_PATTERN_CHARS:,} are allowed")
    try:
        return regex.compile(pattern, flags)
    except (regex.error, ValueError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def search(pattern: str | regex.Pattern[str], text: str, *, whole: bool = False) -> bool:
    """Return whether a pattern is found in a text, or matches the whole of it.

    Raises:
        TimeoutError: it takes too long.
        ValueError: see `compile_pattern`.
    """
    compiled = compile_pattern(pattern) if isinstance(pattern, str) else pattern
    match = compiled.fullmatch if whole else compiled.search
    return match(text, timeout=min(check_time(), REGEX_TIMEOUT_S), concurrent=True) is not None
