"""Suggestions of known names that resemble an unknown one. The only fuzzy matcher of the package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

MAX_NAME_CHARS = 64
"""Leading characters of a name that are compared."""
MIN_LIKENESS = 0.4


def find_near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that look most like `name`, best first: by shared pairs of letters, case aside.

    Cheap enough for the event loop where difflib is not: 0.15 ms over 300 names (2026-11).
    """
    wanted = _pair_letters(name[:MAX_NAME_CHARS])
    scored: list[tuple[float, str]] = []
    for other in dict.fromkeys(known):
        pairs = _pair_letters(other)
        likeness = 2 * len(wanted & pairs) / (len(wanted) + len(pairs))  # Dice's coefficient
        if likeness >= MIN_LIKENESS:
            scored.append((-likeness, other))
    return [other for _, other in sorted(scored)[:most]]


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return "; did you mean `x`?" if a known name is near, else an empty text; all known names begin with `prefix`."""
    names = find_near(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known])
    return f"; did you mean {' or '.join(f'`{prefix}{other}`' for other in names)}?" if names else ""


@lru_cache(maxsize=1024)
def find_misspelt(name: str, known: frozenset[str]) -> str | None:
    """Return the known name of which `name` is a misspelling.

    A misspelling differs in case or separators, or in longer names by one or two letters.

    Stricter than `find_near`, which only suggests names: `promt` is a misspelling, `topic` and `preference` are not.
    """
    # Reversed, so that of two names with the same letters the alphabetically first is kept.
    by_letters = {_keep_letters(other): other for other in sorted(known, reverse=True)}
    letters = _keep_letters(name)
    for other in find_near(letters, by_letters):
        slips = 0 if len(other) < 6 else 1 if len(other) < 11 else 2
        missing, extra = Counter(other) - Counter(letters), Counter(letters) - Counter(other)
        alike = missing.total() <= slips and extra.total() <= slips if slips else letters == other
        if alike and letters[0] == other[0]:
            return by_letters[other]
    return None


def _keep_letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@lru_cache(maxsize=4096)
def _pair_letters(name: str) -> frozenset[str]:
    # The marks at both ends count the first and the last letter twice: names that begin alike look most alike.
    folded = f"^{name[:MAX_NAME_CHARS].lower()}$"
    return frozenset(folded[i : i + 2] for i in range(len(folded) - 1))
