"""Samples of other programs: one model's answer to one item, with its scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from fanout.core.errors import Fault, RequestError

MAX_SAMPLES = 1_000_000
MAX_SAMPLE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one model."""

    model: str
    item: tuple[str, str]
    """Task and number: equal for the same item of every model."""
    repeat: int
    prompt: object
    reference: object
    text: str | None
    """`None`: the call failed, see `error`."""
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class ImportedSamples:
    """The samples of some files, and what in them is not taken."""

    source: str
    """Program that wrote them."""
    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """What could not be taken, each with how often."""

    def add(self, sample: Sample) -> None:
        """Add a sample; raise `RequestError` beyond what one job may hold."""
        if len(self.samples) >= MAX_SAMPLES:
            raise RequestError([Fault("files", f"hold more than {MAX_SAMPLES:,} samples")])
        self.samples.append(sample)

    def leave_out(self, what: str) -> None:
        """Count something that could not be taken."""
        self.left_out[what] = self.left_out.get(what, 0) + 1


def read_json(data: str | bytes, place: str) -> object:
    """Return a JSON value; raise `RequestError` with its place if it is none."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError([Fault(place, f"is not JSON: {str(error)[:100]}")]) from None
    return found


def read_object(data: str | bytes, place: str) -> Mapping[str, object]:
    """Return a JSON object; raises like `read_json`."""
    found = read_json(data, place)
    if not isinstance(found, Mapping):
        raise RequestError([Fault(place, "is not a JSON object")])
    return found


def read_lines(stream: IO[bytes], place: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the objects of a JSON Lines file, each with its place."""
    number = 0
    while line := stream.readline(MAX_SAMPLE_BYTES):
        number += 1
        where = f"{place}: line {number}"
        if len(line) >= MAX_SAMPLE_BYTES:
            raise RequestError([Fault(where, f"is longer than {MAX_SAMPLE_BYTES:,} bytes")])
        if line.strip():
            yield where, read_object(line, where)


def to_number(value: object) -> float | None:
    """Return a finite number or truth value as a float; `None` for anything else."""
    if not isinstance(value, bool | int | float):
        return None
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None


def get_texts(value: object) -> Sequence[str]:
    """Return the texts of a list, however deep the first ones lie: answers are written as `["a"]` or `[["a"]]`."""
    while isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
