"""Records of batch jobs: what the store takes and returns.

Times are Unix seconds. A `spec`, `fingerprint`, `body`, `failure` and `record` (an outcome) is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

JobState = Literal["loading", "queued", "running", "cancelling", "stopped", "cancelled", "expired", "done"]
"""
- `loading`: its input is read and checked; nothing was sent.
- `queued`: waits for a process that has room for it.
- `running`; `cancelling`: what is under way is still waited for.
- `stopped`: by its user, its cost limit or an account that takes no more calls; can be resumed.
- `cancelled`, `expired` (its deadline has passed): nothing more is sent; can be resumed, the latter with a later deadline.
- `done`: every unit has ended.
"""
OPEN_STATES: tuple[JobState, ...] = ("queued", "running", "cancelling")
RUNNING_STATES: tuple[JobState, ...] = ("running", "cancelling")
"""Of a job that a process has."""
ENDED_STATES: tuple[JobState, ...] = ("stopped", "cancelled", "expired", "done")
FailurePolicy = Literal["score_zero", "drop_item"]
"""What a failed call counts in an evaluation: a score of 0, or its item is left out for all models."""


class NewJobRow(NamedTuple):
    """A job to create; its input follows while it is `loading`."""

    id: str
    created: float
    account_id: str
    spec: str
    fingerprint: str
    forked_from: str | None = None


class JobRow(NamedTuple):
    """A job: the columns of its table, in their order, and the processes that run it."""

    number: int
    id: str
    created: float
    account_id: str
    spec: str
    fingerprint: str
    state: JobState
    reason: str | None
    items: int
    units: int
    started: float | None
    ended: float | None
    rate: float | None
    owner: str | None
    lease_until: float | None
    epoch: int
    forked_from: str | None
    final_state: JobState | None
    owners: str | None
    """The processes whose leases of it, or of chunks of it, have not run out, a line each."""


class Chunk(NamedTuple):
    """A chunk of a job that a process has taken."""

    number: int
    """Within the job, from 0."""
    first: int
    """The place of its first item in the job's order."""
    size: int
    """Number of its items."""
    epoch: int
    cut: int
    """Epoch of the job, which changes whenever it is to be cut anew."""


class ChunkLoad(NamedTuple):
    """State of a chunk that a process has, as it writes it."""

    number: int
    epoch: int
    running: int
    waiting: int
    rate: float | None


class Standing(NamedTuple):
    """The state of a job when a lease was renewed."""

    state: JobState
    reason: str | None = None


CANCELLED = Standing("cancelled", "it was cancelled")


class WorkerLoad(NamedTuple):
    """Part of one process in a job that several share."""

    owner: str
    chunks: int
    running: int
    """Calls in flight."""
    waiting: int
    """Units that wait for their retry."""
    rate: float | None


class Fence(NamedTuple):
    """The lease by which a unit is written: of its chunk, or where there is none, of its job."""

    chunk: int | None
    epoch: int


class JobChange(TypedDict, total=False):
    """New values for columns of a job."""

    spec: str
    fingerprint: str
    state: JobState
    reason: str | None
    items: int
    units: int
    started: float | None
    ended: float | None
    rate: float | None
    owner: str | None
    lease_until: float | None


class Unit(NamedTuple):
    """One call to be answered: an item of a job, for one entry of its models, for one repeat."""

    job: int
    item: int
    entry: int
    repeat: int


Place = tuple[int, int, int]
"""Item, entry and repeat: a unit within its job."""


class InputItem(NamedTuple):
    """An item of a job's input, numbered from 0 in its order; `line` is for messages."""

    item: int
    line: int
    custom_id: str | None
    body: str


@dataclass(frozen=True, slots=True)
class InputChunk:
    """Some items, and what has been done for them."""

    items: Sequence[InputItem]
    closed: frozenset[Place]
    """Units that have ended."""
    attempts: Mapping[Place, int]
    """Units for which an attempt was made, and the number of the last one."""
    reopened: Mapping[Place, int]
    """Units that are open once more, and the attempt that had ended them."""


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """The results to list."""

    failed: bool | None = None
    """`True`: failures only; `False`: answers only."""
    model: str | None = None
    kind: str | None = None
    different: bool = False
    """Only items whose answers differ."""


class NewScorer(NamedTuple):
    """A scorer to declare for a job."""

    label: str
    version: str
    declaration: str
    """JSON."""
    is_bounded: bool = True
    """Its scores lie within 0 … 1."""
    is_higher_better: bool = True


class ScorerRow(NamedTuple):
    """A scorer of a job, in the version that counts."""

    scorer: int
    """Its number within the job."""
    label: str
    version: str
    declaration: str
    """JSON."""
    is_bounded: bool
    is_higher_better: bool


class UnitScore(NamedTuple):
    """A score of one answer."""

    scorer: int
    value: float | None
    """`None`: there is none, and `explanation` tells why."""
    explanation: str | None = None


class LabelledScore(NamedTuple):
    """A score with the name and version of its scorer."""

    label: str
    version: str
    value: float | None
    explanation: str | None


class ResultRow(NamedTuple):
    """A unit that has ended, with its item and the attempt that ended it."""

    item: int
    entry: int
    repeat: int
    attempt: int
    ended: float
    model: str
    result: str
    cached_from: str | None
    record: str
    line: int
    custom_id: str | None
    body: str
    scores: Sequence[LabelledScore] = ()

    @property
    def place(self) -> Place:
        return self.item, self.entry, self.repeat


class MeasureRow(NamedTuple):
    """The figures of a unit that has ended."""

    item: int
    entry: int
    repeat: int
    model: str
    result: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    cached_from: str | None
    figures: str
    """JSON: of the outcome `timing`, `ignored` and `adjusted`, each null where it is empty."""


class EndedUnit(NamedTuple):
    """A unit that has ended, on a page of items."""

    ended: float
    record: str


class CachedAnswer(NamedTuple):
    """An earlier answer to the same question, the job that it was given to, and the one that this job had it from."""

    record: str
    job: str
    cached_from: str | None
