"""The nouns of batch: what a job asks, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import TypeAdapter

from fanout.core.schema import Call
from fanout.core.usage import WorkTotals, sum_known
from fanout.dispatch.plan import Request
from fanout.store.jobs.records import JobRow, JobState

OPEN_STATES: tuple[JobState, ...] = ("queued", "running", "cancelling")
ENDED_STATES: tuple[JobState, ...] = ("stopped", "cancelled", "expired", "done")
JobKind = Literal["rows", "requests"]
"""Rows of prompts for the job's models, or whole requests that name their own."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job asks; as JSON in its row."""

    kind: JobKind = "rows"
    models: tuple[Mapping[str, Any], ...] = ()
    """`model`, `label` and parameters of their own; none where the requests name theirs."""
    repeats: int = 1
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    endpoint: str | None = None
    """Where its requests would have been sent one by one: `/v1/chat/completions`."""
    max_cost_usd: float | None = None
    deadline: float | None = None
    """Unix seconds."""
    attempts: int | None = None
    """Most tries of a unit; `None`: as the provider's row has it."""
    concurrency: int | None = None
    """Most calls at once for each account; `None`: as many as it bears."""
    cache: bool = False
    """Answers that were given to the same question before are taken from the store."""
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    """`name` and `sha256` of what it was read from."""
    typed: bool = True
    """The input's format tells numbers from text."""
    unattended: bool = False
    """Run by whichever server has the store; else only by the command that asks for it."""
    window: str | None = None
    """`completion_window`, as it was asked for."""


JOB_SPEC_JSON = TypeAdapter(JobSpec)


class RequestBuilder(Protocol):
    """How the input of a job is understood."""

    def parse_row(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        """The custom id of a row, and what is kept of it as JSON.

        Raises:
            RequestError: with every fault of the row.
        """
        ...

    def build_request(self, body: str) -> Request:
        """What such a row asks."""
        ...


def place_calls(calls: Iterable[Call]) -> Iterator[tuple[tuple[int, int], Call]]:
    """The calls of one item, each with its entry and its number within that entry: its unit's `repeat`.

    The number is the call's `sample`, unless the item has several prompts.
    """
    counted: dict[int, int] = {}
    for call in calls:
        number = counted.get(call.entry, 0)
        counted[call.entry] = number + 1
        yield (call.entry, number), call


Fingerprint = Mapping[str, Mapping[str, Any]]
"""What each model of a job stood for when it began: provider, adapter, address, upstream id, parameters sent."""
FINGERPRINT_JSON: TypeAdapter[Fingerprint] = TypeAdapter(dict[str, dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it."""

    number: int
    id: str
    created: float
    account_id: str
    spec: JobSpec
    fingerprint: Fingerprint
    state: JobState
    reason: str | None
    items: int
    units: int
    started: float | None
    ended: float | None
    rate: float | None
    """Units a second, of late."""
    owner: str | None
    alive: bool
    """Whoever owns it has said so within the last seconds."""
    forked_from: str | None

    @classmethod
    def from_row(cls, row: JobRow) -> Job:
        """Return the job that a row of the store holds."""
        return cls(
            number=row.number,
            id=row.id,
            created=row.created,
            account_id=row.account_id,
            spec=JOB_SPEC_JSON.validate_json(row.spec),
            fingerprint=FINGERPRINT_JSON.validate_json(row.fingerprint),
            state=row.state,
            reason=row.reason,
            items=row.items,
            units=row.units,
            started=row.started,
            ended=row.ended,
            rate=row.rate,
            owner=row.owner,
            alive=row.is_alive,
            forked_from=row.forked_from,
        )


class ResultGroup(NamedTuple):
    """What is counted together."""

    model: str
    """The entry's label."""
    result: str
    """`answered`, or the failure's kind."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    job: Job
    counts: Mapping[ResultGroup, WorkTotals]
    running: int = 0
    """Calls under way; 0 where another process runs it."""
    waiting: int = 0
    """Units whose next try has a time."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Units a second, of late, by model."""

    @property
    def ended(self) -> int:
        return sum(totals.calls for totals in self.counts.values())

    @property
    def answered(self) -> int:
        return sum(totals.calls for group, totals in self.counts.items() if group.result == "answered")

    @property
    def remaining(self) -> int:
        return max(self.job.units - self.ended, 0)

    @property
    def cost_usd(self) -> float | None:
        return sum_known(totals.cost_usd for totals in self.counts.values())

    @property
    def cost_unknown(self) -> int:
        return sum(totals.cost_unknown for totals in self.counts.values())

    @property
    def rate(self) -> float | None:
        """Units a second, of late."""
        return sum(self.rates.values()) if self.rates else self.job.rate

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the end at the pace of late; `None` where nothing is known of it."""
        rate = self.rate
        return self.remaining / rate if rate and self.remaining else 0.0 if not self.remaining else None

    @property
    def remaining_usd(self) -> float | None:
        """What the rest would cost at the mean of what has ended; `None` where no cost is known."""
        known = sum(totals.calls - totals.cost_unknown for group, totals in self.counts.items() if group.result == "answered")
        return self.cost_usd / known * self.remaining if self.cost_usd is not None and known else None
