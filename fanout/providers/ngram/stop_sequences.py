"""Search for stop sequences in a text that arrives in pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class StopScanner:
    """A search for the first stop sequence that a text completes, wherever its pieces are cut.

    Each sequence has a Knuth–Morris–Pratt automaton: what it has matched so far is exactly what must be held back, because it
    may turn out to belong to the sequence.
    Source: doi:10.1137/0206024.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._automata = [(stop, _compute_borders(stop)) for stop in stops]
        self._matched = [0] * len(self._automata)
        self._length = 0
        self.found: int | None = None
        """Position in the text at which the sequence begins."""

    @property
    def held(self) -> int:
        """Number of characters at the end of the text that may be the beginning of a stop sequence."""
        return max(self._matched, default=0)

    def feed(self, piece: str) -> None:
        """Read the next piece of the text, up to the first sequence that is complete."""
        for character in piece if self._automata else "":
            self._length += 1
            complete = 0
            for number, (stop, borders) in enumerate(self._automata):
                self._matched[number] = matched = _advance(stop, borders, self._matched[number], character)
                if matched == len(stop):
                    complete = max(complete, matched)
            if complete:
                self.found = self._length - complete
                return


def _compute_borders(stop: str) -> list[int]:
    """Return, for each prefix of `stop` by length, the length of its longest proper prefix that is also its suffix."""
    borders = [0, 0]
    for end in range(1, len(stop)):
        borders.append(_advance(stop, borders, borders[end], stop[end]))
    return borders


def _advance(stop: str, borders: list[int], matched: int, character: str) -> int:
    """Return the length of the prefix of `stop` that the text ends with once `character` is appended."""
    while matched and stop[matched] != character:
        matched = borders[matched]
    return matched + 1 if stop[matched] == character else 0
