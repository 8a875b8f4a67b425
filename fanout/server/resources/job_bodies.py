"""Request bodies of `/v1/jobs`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from fanout.core.errors import Fault
from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.sampling import at_most
from fanout.core.sampling_fields import AllSampling
from fanout.core.schema import FailureKind
from fanout.core.units import LAST_MINUTE
from fanout.evaluate.scoring.declarations import MAX_SCORERS
from fanout.jobs.job import JobSpec
from fanout.jobs.stopping import MAX_WATCHED_ITEMS, make_plan
from fanout.requests.bodies import EntryCount, Metadata, ObjectBody, entries_schema, to_entry_list
from fanout.requests.fusions import MEMBERS_SCHEMA, FusibleEntry, FusionFields, MemberCount, ToMemberList
from fanout.store.jobs.records import FailurePolicy

MAX_REPEATS = 128
MAX_DEADLINE_S = 10**8
"""Three years."""


def _parse_deadline(value: object) -> object:
    # Seconds from now, or an RFC 3339 time. Other types are left to be refused by pydantic.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value <= MAX_DEADLINE_S:
            raise ValueError(f"{value:g} is not allowed: above 0, at most {MAX_DEADLINE_S:,} seconds from now")
        # Fixed now: a job that waits in a queue must not push its own deadline before it.
        return time.time() + value
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        # Has no zone, so the check below gives the one message for both faults.
        moment = datetime.min
    if moment.tzinfo is None:
        raise ValueError(f"`{value[:40]}` is not allowed: seconds from now, or a time with its zone, `2026-11-20T09:30:00Z`")
    return moment.timestamp()


def _check_future(moment: float) -> float:
    if moment <= time.time():  # every call of the job would expire unsent
        raise ValueError("has passed")
    if moment > LAST_MINUTE:
        raise ValueError("is not allowed: the year 9999 is the last")
    return moment


Deadline = Annotated[
    float,
    BeforeValidator(_parse_deadline, json_schema_input_type=Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | AwareDatetime),
    AfterValidator(_check_future),
]


ScorerList = Annotated[list[str | JsonObject], Field(min_length=1, max_length=MAX_SCORERS), at_most(MAX_SCORERS, "scorers")]


class JobSampling(AllSampling):
    """Sampling parameters; `null` is as if absent. Samples are a job's `repeats`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class JobFusion(FusionFields):
    """One answer made of the answers of several models."""

    of: Annotated[list[JobEntry], IN_STEPS, ToMemberList, MemberCount, MEMBERS_SCHEMA]
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""


class JobEntry(JobSampling, FusibleEntry):
    """One model of a job, with parameters of its own, or a fusion, whose own call they are for."""

    fusion: JobFusion | None = None
    """One answer made of the answers of several models; instead of `model`."""


JobEntry.model_rebuild()


class JobChanges(ObjectBody):
    """Limits of a job, which may be changed while it exists."""

    max_cost_usd: float | None = Field(None, gt=0)
    """Most US dollars that it may cost: it stops before it would cost more."""
    deadline: Deadline | None = None
    """Time at which unfinished calls expire: seconds from now, or an RFC 3339 time."""
    attempts: int | None = Field(None, ge=1, le=10)
    """Most attempts of a call; absent: as in the provider's row."""
    concurrency: int | None = Field(None, ge=1, le=100_000)
    """Most calls in flight for each account; absent: as many as it bears."""

    def to_changes(self) -> JsonObject:
        """Return the limits that are given, by the fields of `JobSpec`."""
        # Given, not non-null: `null` lifts a limit, an absent field leaves it.
        return {name: getattr(self, name) for name in self.model_fields_set & JobChanges.model_fields.keys()}


class ResumeBody(JobChanges):
    """New limits for a resumed job."""

    fork: bool | None = None
    """Repeats everything in a new job, if its models have changed since."""


class RetryBody(JobChanges):
    """New limits, and the failures to retry."""

    kinds: Annotated[list[FailureKind], Field(max_length=32), at_most(32, "kinds")] | None = None
    """Only failures of these kinds: `rate_limit`, `timeout`, …; absent: all."""


class StoppingBody(ObjectBody):
    """When a job may stop because its answer is known."""

    metric: str = Field(min_length=1, max_length=64)
    """Name of one of the job's scorers, whose scores lie within 0 to 1."""
    margin: float | None = Field(None, gt=0, lt=1)
    """Differences below it count as none: the job also stops when models are equal within it. Absent: it does not."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Chance to see a difference where there is none, over the whole job."""
    max_items: int | None = Field(None, ge=1, le=MAX_WATCHED_ITEMS)
    """Most rows to run; absent: all."""

    def to_plan(self) -> JsonObject:
        """Return the plan as a job stores it, with a new order."""
        return make_plan(self.metric, self.margin, self.alpha, self.max_items)


class ScoresBody(ObjectBody):
    """Scorers to apply to stored answers."""

    scorers: ScorerList
    """Names, or objects with a `type` and options; docs/evaluation.md lists them."""


class JobBody(JobChanges):
    """A batch comparison: every row is sent to every model."""

    items: Annotated[list[JsonObject], Field(min_length=1), IN_STEPS] | None = None
    """The rows: each has `prompt` or `messages`, or values for the template's variables; and optionally `system`,
    `reference`, `custom_id`, sampling parameters of its own, and columns of yours."""
    input_file_id: str | None = Field(None, min_length=1, max_length=256)
    """Instead of `items`: an uploaded file of rows, JSONL, CSV, TSV or Parquet by its name."""
    fork_of: str | None = Field(None, min_length=1, max_length=256)
    """Instead of all fields but the limits: a job whose rows and models are used again."""
    models: Annotated[list[JobEntry], IN_STEPS, to_entry_list(JobEntry), EntryCount, entries_schema("JobEntry")] | None = None
    """A model, a set, an object with a model and parameters of its own, or a list of these."""
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    """Samples of each row and model."""
    template: str | None = Field(None, max_length=100_000)
    """The prompt, with the row's columns as `{{name}}`."""
    system: str | None = None
    """A system message, for rows that have none."""
    parameters: JobSampling | None = None
    """Sampling parameters of all models and rows that have none of their own."""
    strict_parameters: bool = False
    """A parameter that a model does not support fails its call instead of being ignored or adjusted."""
    self_fusions: bool = False
    """Fuses every fusion's members with themselves, too, each: its report then compares it with that of its best member."""
    stream: bool = False
    """Providers stream the answers, so that results and report have the time to first token."""
    via: Literal["live", "batch"] = "live"
    """`batch`: calls go to their providers' own batch APIs, which take up to a day and cost about half."""
    live_rest: bool = False
    """With `via: batch`: calls that a batch API does not take or does not finish, and those of models with fewer than
    10, are sent at once, at the ordinary price."""
    cache: bool = False
    """Answers that other jobs received to the same requests are reused."""
    scorers: ScorerList | None = None
    """Scorers of its answers: names, or objects with a `type` and options; docs/evaluation.md lists them."""
    failed: FailurePolicy = "score_zero"
    """What a failed call counts in its report: a score of 0, or its row is left out for all models."""
    until_decided: StoppingBody | None = None
    """Runs the rows in a random order and stops as soon as they show which model is better, or that none is."""
    name: str | None = Field(None, max_length=256)
    """Your name for the job."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours."""
    account_id: str | None = Field(None, max_length=256)
    """Account to which the usage is assigned; absent: the key's own; without keys by the header
    `x-selected-account-id`."""
    dry_run: bool = False
    """Returns the number of calls and an estimate of their cost; nothing is stored or sent."""

    def find_faults(self) -> list[Fault]:
        """Return what is wrong between fields."""
        sources = [name for name in ("items", "input_file_id", "fork_of") if getattr(self, name) is not None]
        if not sources:
            return [Fault("items", "is required, or `input_file_id`, or `fork_of`", "missing_required_parameter")]
        faults = [Fault(name, f"stands beside `{sources[0]}`: one of them is allowed") for name in sources[1:]]
        if self.fork_of is not None:
            # A field beside `fork_of` would be ignored, and the caller would believe in it.
            others = self.model_fields_set - JobChanges.model_fields.keys() - {"fork_of", *sources}
            return faults + [Fault(name, "is the forked job's own: leave it out") for name in sorted(others)]
        if self.models is None:
            faults.append(Fault("models", "is required", "missing_required_parameter"))
        return faults

    def to_spec(self, source: Mapping[str, str], scorers: Sequence[JsonObject], *, typed: bool) -> JobSpec:
        """Return the job. `source` is name and id of its input file; if `typed`, its rows distinguish numbers from text."""
        return JobSpec(
            # Unset fields are left out: a null would remove the job's own value for that entry.
            models=tuple(entry.model_dump(exclude_unset=True) for entry in self.models or ()),
            repeats=self.repeats,
            template=self.template,
            system=self.system,
            parameters=self.parameters.model_dump(exclude_unset=True) if self.parameters else {},
            strict=self.strict_parameters,
            max_cost_usd=self.max_cost_usd,
            deadline=self.deadline,
            attempts=self.attempts,
            concurrency=self.concurrency,
            stream=self.stream,
            via=self.via,
            live_rest=self.live_rest,
            cache=self.cache,
            self_fusions=self.self_fusions,
            scorers=tuple(scorers),
            failed=self.failed,
            until_decided=self.until_decided.to_plan() if self.until_decided else {},
            name=self.name,
            metadata=self.metadata or {},
            input=source,
            typed=typed,
            unattended=True,
        )


def locate_fault(fault: Fault, body: JobBody) -> Fault:
    """Return a fault with its place as the request has it: `items[2].prompt` instead of `line 3: prompt`."""
    line, _, field = fault.path.partition(": ")
    if body.items is None or not line.startswith("line "):
        return fault
    place = f"items[{int(line.removeprefix('line ')) - 1}]"
    return Fault(f"{place}.{field}" if field else place, fault.message, fault.kind)
