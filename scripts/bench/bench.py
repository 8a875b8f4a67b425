"""How one run measures: how long, how often, what, and by turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from machine import BenchError

Taken = TypeVar("Taken")


class NotInstalled(BenchError):
    """Something optional is not there; the sentence says how to get it."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How one run measures."""

    folder: Path
    """Temporary; everything written goes here."""
    quick: bool
    repeats: int
    server_command: str | None
    """Instead of this checkout's Fanout; `{port}`, `{config}` and `{upstream}` are filled in."""
    library_command: str | None
    """Instead of dispatcher_alone.py; `{config}`, `{upstream}`, `{prompts}`, `{models}` and `{workers}` are filled in."""
    recorded: Path | None = None
    """A folder of recorded exchanges, for `adapters`."""

    def seconds(self, full: float) -> float:
        return max(1.0, full / 4) if self.quick else full

    def by_turns(self, measures: Mapping[str, Callable[[float], Taken]], seconds: float = 4) -> dict[str, list[Taken]]:
        """A B A B …, each for so many seconds, after a warm-up of each."""
        for measure in measures.values():
            measure(self.seconds(2))
        taken: dict[str, list[Taken]] = {name: [] for name in measures}
        for _ in range(self.repeats):
            for name, measure in measures.items():
                taken[name].append(measure(self.seconds(seconds)))
        return taken


def each(taken: Mapping[str, Iterable[Taken]], value: Callable[[Taken], float]) -> dict[str, list[float]]:
    return {name: [value(one) for one in of] for name, of in taken.items()}


def most_lost(taken: Mapping[str, Iterable[Any]]) -> float:
    """The worst sample's share of time in which something else had the server's core."""
    return max((float(one.lost_ratio) for of in taken.values() for one in of), default=0.0)


def total_errors(taken: Mapping[str, Iterable[Any]]) -> int:
    return sum(one.errors for of in taken.values() for one in of)
