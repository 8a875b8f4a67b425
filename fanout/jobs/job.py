"""Jobs: their specification, their row, their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

from pydantic import TypeAdapter

from fanout.core.errors import Fault, RequestError
from fanout.core.schema import Call
from fanout.core.usage import WorkTotals, sum_known
from fanout.dispatch.request import Request
from fanout.jobs.process_identity import is_gone
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import RUNNING_STATES, FailurePolicy, JobRow, JobState, WorkerLoad
from fanout.store.usage import ANSWERED

JobKind = Literal["rows", "requests"]
"""Rows of prompts for the job's models, or whole requests that name their own."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Specification of a job, stored as JSON in its row."""

    kind: JobKind = "rows"
    models: tuple[Mapping[str, Any], ...] = ()
    """`model`, `label` and parameters of each; none where the requests name their own."""
    repeats: int = 1
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    endpoint: str | None = None
    """Path of its requests, if they were sent one by one: `/v1/chat/completions`."""
    max_cost_usd: float | None = None
    deadline: float | None = None
    """Unix seconds."""
    attempts: int | None = None
    """Maximum attempts of a unit; `None`: as in the provider's row."""
    concurrency: int | None = None
    """Maximum concurrent calls of each account, over all processes that run it; `None`: as many as the account accepts."""
    self_fusions: bool = False
    """Each member of a fusion is also fused with itself, so that a report can tell what the others are worth."""
    stream: bool = False
    """Providers stream the answers, so that the time to first token is measured."""
    via: Literal["live", "batch"] = "live"
    """`batch`: the calls go to their providers' own batch APIs, which take up to a day and cost less."""
    live_rest: bool = False
    """What the batch APIs do not take or do not finish is sent at once."""
    cache: bool = False
    """Reuse stored answers to equal requests."""
    scorers: tuple[Mapping[str, Any], ...] = ()
    """Declarations of the scorers that score its answers."""
    failed: FailurePolicy = "score_zero"
    """Fixed before the run, because a later choice could decide which model wins."""
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    input: Mapping[str, str] = field(default_factory=dict)
    """`name` and `sha256` of the file it was read from."""
    typed: bool = True
    """The input's format distinguishes numbers from text."""
    unattended: bool = False
    """Run by any server on the store; otherwise only by the command that starts it."""
    window: str | None = None
    """`completion_window`, as the caller wrote it."""
    until_decided: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a `StoppingPlan`, where the job stops as soon as its answer is known."""
    key_id: str | None = None
    """The caller's key that made it, whose limits it keeps to."""
    judging: Mapping[str, str] = field(default_factory=dict)
    """Of a judge's job: the `job` whose answers it judges, the `scorer` that asks, and the `round`."""

    def to_json(self) -> str:
        """Return the specification as it is stored."""
        return _spec_json().dump_json(self, exclude_defaults=True).decode()


@cache
def _spec_json() -> TypeAdapter[JobSpec]:
    # At first use: making it takes 3 ms, which every start would pay (2026-11-28).
    return TypeAdapter(JobSpec)


class SpecChange(TypedDict, total=False):
    """Fields of a specification that may change between two runs: none of them changes what is sent."""

    max_cost_usd: float | None
    deadline: float | None
    attempts: int | None
    concurrency: int | None
    key_id: str | None


class RequestBuilder(Protocol):
    """Reader of a job's input: rows are parsed once, stored, and built into requests when they are sent."""

    def parse_row(self, values: Mapping[str, object]) -> tuple[str | None, str]:
        """Return the custom id of a row, and its body as JSON, or raise `RequestError` with every fault of the row."""
        ...

    def build_request(self, body: str) -> Request:
        """Return the request of a stored row."""
        ...


RequestBuilderFactory = Callable[[JobSpec, str], RequestBuilder]
"""Makes the request builder for jobs of one kind, from a job's specification and its account."""


def place_calls(calls: Iterable[Call]) -> Iterator[tuple[tuple[int, int], Call]]:
    """Yield the calls of one item, each with its entry and its number within that entry: its unit's `repeat`."""
    # Not the call's `sample`: with several prompts in one item, each prompt has a sample 0.
    counted: dict[int, int] = {}
    for call in calls:
        number = counted.get(call.entry, 0)
        counted[call.entry] = number + 1
        yield (call.entry, number), call


Fingerprint = Mapping[str, Mapping[str, Any]]
"""Configuration of each model when the job was created: provider, adapter, address, upstream id, parameters sent."""
FINGERPRINT_JSON: TypeAdapter[Fingerprint] = TypeAdapter(dict[str, dict[str, Any]])


def parse_entry_number(name: str) -> int:
    """Return the entry number in a fingerprint's name, for jobs of rows: 3 for `3: model`."""
    return int(name.partition(":")[0])


KILLED = "its process was killed"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was last read from the store."""

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
    """Units a second, recently."""
    forked_from: str | None
    owners: Sequence[str] = ()
    """The processes that run it, by leases that have not run out."""

    @classmethod
    def from_row(cls, row: JobRow) -> Job:
        """Return the job that a row of the store holds."""
        left_out = ("owner", "lease_until", "epoch", "final_state")
        values = {name: value for name, value in row._asdict().items() if name not in left_out}
        values["owners"] = [owner for owner in (row.owners or "").split("\n") if owner]
        values["spec"] = _spec_json().validate_json(row.spec)
        values["fingerprint"] = FINGERPRINT_JSON.validate_json(row.fingerprint)
        return cls(**values)

    @property
    def labels(self) -> Sequence[str]:
        """Labels of its entries in their order, sets and fusions written out; none where each line names models of its own."""
        return [name.partition(": ")[2] for name in self.fingerprint] if self.spec.kind == "rows" else []

    @property
    def dead_owners(self) -> Sequence[str]:
        """Owners whose processes are known to have ended, so that their leases need not run out first."""
        return [owner for owner in self.owners if is_gone(owner)]

    @property
    def is_free(self) -> bool:
        """No process runs the job."""
        # A killed process of this machine is seen at once; only one of another machine must let its lease run out.
        return all(map(is_gone, self.owners))

    @property
    def as_left(self) -> Job:
        """The job as its process has left it: one whose process was killed does not run, whatever is stored."""
        if self.state not in RUNNING_STATES or not self.is_free:
            return self
        if self.state == "cancelling":
            return replace(self, state="cancelled", reason="it was cancelled")
        # A server on this store goes on with its own jobs by itself; of others, their user decides.
        return replace(self, state="queued") if self.spec.unattended else replace(self, state="stopped", reason=KILLED)


async def find_job(store: JobStore, job_id: str, account_id: str | None = None) -> Job:
    """Return a job by its id.

    Args:
        job_id: its id.
        account_id: the account that must have it; `None`: any account.

    Raises:
        RequestError: there is no such job, or another account has it.
    """
    row = await store.find(job_id)
    # The same error for both: another account's job must not be distinguishable from none.
    if row is None or account_id not in (None, row.account_id):
        raise RequestError([Fault("id", f"no job `{job_id}`", "job_not_found")])
    return Job.from_row(row)


def build_state_error(sentence: str) -> RequestError:
    """Return the error for an operation that the job's state does not allow."""
    return RequestError([Fault("id", sentence, "wrong_state")])


class ResultGroup(NamedTuple):
    """Units that are counted together."""

    model: str
    """The entry's label."""
    result: str
    """`answered`, or the failure's kind."""


Counts = Mapping[ResultGroup, WorkTotals]


async def read_counts(store: JobStore, jobs: Sequence[Job]) -> list[Counts]:
    """Return the sums of each job by model and result."""
    found = await store.results.read_counts([job.number for job in jobs])
    return [{ResultGroup(*group): totals for group, totals in found[job.number].items()} for job in jobs]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job, in units; rates are recent, in units a second."""

    job: Job
    counts: Counts
    running: int = 0
    """Calls in flight; 0 where another process runs it alone."""
    waiting: int = 0
    """Units that wait for their retry."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """By model."""
    workers: Sequence[WorkerLoad] = ()
    """What each process does, where several may share it."""

    @property
    def ended(self) -> int:
        return sum(totals.calls for totals in self.counts.values())

    @property
    def answered(self) -> int:
        return sum(totals.calls for group, totals in self.counts.items() if group.result == ANSWERED)

    @property
    def remaining(self) -> int:
        # Job and counts are read one after the other, so a unit may have ended in between.
        return max(self.job.units - self.ended, 0)

    @property
    def cost_usd(self) -> float | None:
        """Sum of the known costs; `None` where none is known."""
        return sum_known(totals.cost_usd for totals in self.counts.values())

    @property
    def cost_unknown(self) -> int:
        """Answers whose cost is not known."""
        return sum(totals.cost_unknown for totals in self.counts.values())

    @property
    def rate(self) -> float | None:
        # Where another process runs the job, the rate is the one that it has written into the row.
        return sum(self.rates.values()) if self.rates else self.job.rate

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the end at the recent rate; `None` where there is none."""
        if not self.remaining:
            return 0.0
        return self.remaining / self.rate if self.rate else None

    @property
    def remaining_usd(self) -> float | None:
        """Expected cost of the rest, at the mean of the answers so far; `None` where no cost is known."""
        known = sum(totals.calls - totals.cost_unknown for group, totals in self.counts.items() if group.result == ANSWERED)
        return self.cost_usd / known * self.remaining if self.cost_usd is not None and known else None
