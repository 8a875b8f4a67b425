"""Limits of scoring and searching: answers, rows, patterns and schemas may be written so that they take all time or memory."""

from __future__ import annotations

import threading
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
MAX_REPEATS = 10_000
"""Of what stands within counted repetitions of counted repetitions: a million of them take 630 MB before their time is up."""
COUNT = regex.compile(r"\{(\d{0,9})(?:,(\d{0,9}))?\}")
_ONE_PATTERN = threading.Lock()
"""One is matched at a time: in a quarter of a second, repetitions of repetitions take some hundred MiB of memory."""
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
    if (repeats := count_repeats(pattern)) > MAX_REPEATS:
        raise ValueError(
            f"repeats a part of it {repeats:,} times, one count within another; at most {MAX_REPEATS:,} are allowed"
        )
    try:
        return regex.compile(pattern, flags)
    except (regex.error, ValueError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    except RecursionError:  # thousands of parentheses, which its compiler follows by calling itself
        raise ValueError("is nested too deeply") from None


def count_repeats(pattern: str) -> int:
    """Return how often the counts of a pattern repeat its innermost part: 12 for `(?:a{3}){4}`."""
    groups, atom, place = [1], 1, 0
    while place < len(pattern):
        sign, length = pattern[place], 1
        if sign == "\\":
            atom, length = 1, 2
        elif sign == "[":
            atom, length = 1, _measure_set(pattern, place)
        elif sign == "(":
            groups.append(1)
        elif sign == ")" and len(groups) > 1:
            atom = groups.pop()
        elif count := COUNT.match(pattern, place):
            atom *= max(int(count[2] or count[1] or 1), 1)
            length = len(count[0])
        elif sign not in "*+?":
            atom = 1
        groups[-1] = max(groups[-1], atom)
        place += length
    return max(groups)


def _measure_set(pattern: str, start: int) -> int:
    """Return the length of a set of characters, in which a bracket that comes first or behind a backslash ends nothing."""
    place = start + 1 + pattern.startswith("^", start + 1)
    place += pattern.startswith("]", place)
    while place < len(pattern) and pattern[place] != "]":
        place += 1 + (pattern[place] == "\\")
    return place + 1 - start


def search(pattern: str | regex.Pattern[str], text: str, *, whole: bool = False, timeout_s: float | None = None) -> bool:
    """Return whether a pattern is found in a text, or matches the whole of it.

    Args:
        pattern: compiled or not.
        text: of any length.
        whole: it must match all of the text.
        timeout_s: at most; by default, and with several patterns, see `ANSWER_TIME_S` and `REGEX_TIMEOUT_S`.

    Raises:
        TimeoutError: it takes too long.
        ValueError: see `compile_pattern`.
    """
    # The package keeps what it has compiled: a pattern is compiled once for all answers.
    compiled = compile_pattern(pattern) if isinstance(pattern, str) else pattern
    match = compiled.fullmatch if whole else compiled.search
    with _ONE_PATTERN:
        return match(text, timeout=timeout_s or min(check_time(), REGEX_TIMEOUT_S), concurrent=True) is not None
