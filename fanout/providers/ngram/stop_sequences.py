"""Finds stop sequences in a text that arrives in pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class StopScanner:
    """Finds the first stop sequence that a text completes, wherever its pieces are cut.

    One Knuth–Morris–Pratt automaton for each sequence: what it has matched so far is also exactly what must be held
    back, because it may turn out to belong to the sequence.
    Source: doi:10.1137/0206024.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._automata = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(self._automata)
        self._length = 0
        self.found: int | None = None
        """Where the sequence begins, counted from the beginning of the text."""

    @property
    def held(self) -> int:
        """Characters at the end of the text that may be the beginning of a stop sequence."""
        return max(self._matched, default=0)

    def feed(self, piece: str) -> None:
        for character in piece if self._automata else "":
            self._length += 1
            complete = 0
            for number, (stop, borders) in enumerate(self._automata):
                self._matched[number] = matched = _advanced(stop, borders, self._matched[number], character)
                if matched == len(stop):
                    complete = max(complete, matched)
            if complete:
                self.found = self._length - complete
                return


def _borders(stop: str) -> list[int]:
    """For each beginning of `stop`, by length, its longest proper beginning that is also its end."""
    borders = [0, 0]
    for end in range(1, len(stop)):
        borders.append(_advanced(stop, borders, borders[end], stop[end]))
    return borders


def _advanced(stop: str, borders: list[int], matched: int, character: str) -> int:
    """How much of the beginning of `stop` the text ends with, once `character` has come."""
    while matched and stop[matched] != character:
        matched = borders[matched]
    return matched + 1 if stop[matched] == character else 0
