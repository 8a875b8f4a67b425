"""Settings of a benchmark run, and measuring in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from machine import BenchError

Sampled = TypeVar("Sampled")


class NotInstalledError(BenchError):
    """Something optional is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of each kind."""

    ready_s: float
    rss_mb: float
    """Of the server when it is ready."""
    version_s: float
    """CPU of `--version`."""
    ask_s: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Settings of a benchmark run."""

    folder: Path
    """Temporary folder for everything that is written."""
    quick: bool
    repeats: int
    server_command: str | None
    """Command to measure instead of this checkout's Fanout; `{port}`, `{config}` and `{upstream}` are filled in."""
    library_command: str | None
    """Instead of dispatcher_alone.py; `{config}`, `{upstream}`, `{prompts}`, `{models}` and `{workers}` are filled in."""
    recorded: Path | None = None
    """Folder of recorded exchanges, for `adapters`."""
    starts: list[Start] = field(default_factory=list)
    """Those measured so far; the first one writes bytecode, as an installation does."""

    def seconds(self, full: float) -> float:
        """Return the duration of a measurement."""
        return max(1.0, full / 4) if self.quick else full

    def measure_in_turns(
        self, measures: Mapping[str, Callable[[float], Sampled]], seconds: float = 4, turns: int | None = None
    ) -> dict[str, list[Sampled]]:
        """Return samples taken in turns (A B B A A B …), each over so many seconds, after a warm-up of each measure."""
        for measure in measures.values():
            measure(self.seconds(2))
        samples: dict[str, list[Sampled]] = {name: [] for name in measures}
        for turn in range(self.repeats if turns is None else turns):
            for name in measures if turn % 2 == 0 else reversed([*measures]):
                samples[name].append(measures[name](self.seconds(seconds)))
        return samples


def extract(samples: Mapping[str, Iterable[Sampled]], value: Callable[[Sampled], float]) -> dict[str, list[float]]:
    """Return one figure of every sample."""
    return {name: [value(one) for one in of] for name, of in samples.items()}


def max_lost_ratio(samples: Mapping[str, Iterable[Any]]) -> float:
    """Return the largest share of time in which another program had the server's core."""
    return max((float(one.lost_ratio) for of in samples.values() for one in of), default=0.0)


def sum_errors(samples: Mapping[str, Iterable[Any]]) -> int:
    return sum(one.errors for of in samples.values() for one in of)


def join_samples(parts: Iterable[Mapping[str, Iterable[Sampled]]]) -> dict[str, list[Sampled]]:
    """Return the samples of several series as one."""
    joined: dict[str, list[Sampled]] = {}
    for part in parts:
        for name, samples in part.items():
            joined.setdefault(name, []).extend(samples)
    return joined
