"""Files, batches and jobs, described."""

from __future__ import annotations

from typing import Any, Literal

from fanout.core.schema import FailureKind
from fanout.rendering.errors import ErrorAnswerJson
from fanout.server.openapi.endpoint import EVENTS, JSON, Answer, Content, Events
from fanout.server.openapi.operations.answers import Adjustment, Said
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import BODY, failing, reading
from fanout.server.resources.batches import BatchBody
from fanout.server.resources.job_bodies import JobBody, ResumeBody, RetryBody
from fanout.server.resources.job_results import ExportQuery, ResultsQuery
from fanout.server.resources.jobs import JobsQuery
from fanout.server.resources.listing import ListQuery


class Page(Said):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    """Where the next page goes on, as `after`."""
    has_more: bool


class BatchError(Said):
    """One thing that is wrong with the input."""

    code: str
    line: int | None
    """Of the input file, from 1."""
    message: str
    param: str | None


class BatchErrors(Said):
    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(Said):
    """Calls: a line whose `model` is a list has one for each entry."""

    total: int
    completed: int
    failed: int


class Batch(Said):
    """OpenAI's batch. Times are Unix seconds; null: that has not happened."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    """What is wrong with the input; then nothing was sent."""
    input_file_id: str
    completion_window: str
    status: Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    """The answers, once it has ended; null where there are none."""
    error_file_id: str | None
    """What could not be answered, or was not asked any more, once it has ended."""
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(Page):
    data: list[Batch]


class JobProgress(Said):
    """How far it is, in calls."""

    ended: int
    answered: int
    failed: int
    left: int
    running: int
    """Under way now; 0 where another process runs it."""
    waiting: int
    """To be tried again at a time of their own."""
    calls_per_second: float | None
    """Of late."""
    left_s: float | None
    """To the end at that pace; null: not known."""
    cost_usd: float | None
    cost_unknown: int
    """Answers with no known price."""
    left_usd: float | None
    """What the rest would cost at the mean of what has ended."""


class JobCounts(Said):
    """Sums of one entry of `models`."""

    model: str
    """Its label."""
    ended: int
    answered: int
    failures: dict[str, int]
    """By kind: `rate_limit`, `timeout`, …"""
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    unknown_usage: int
    cost_usd: float | None
    cost_unknown: int
    mean_ms: int | None
    """Of a call's last try, its waiting here included."""


class Job(Said):
    """A job, and how far it is."""

    id: str
    object: Literal["job"]
    created_at: int
    """Unix seconds, as the two that follow."""
    started_at: int | None
    ended_at: int | None
    account_id: str | None
    name: str | None
    kind: Literal["rows", "requests"]
    """`rows` of prompts for its models; `requests`: a batch, whose requests name their own."""
    state: Literal["loading", "queued", "running", "cancelling", "stopped", "cancelled", "expired", "done"]
    """`stopped`: by its cost, or an account that takes no more; it can be resumed, like one that was cancelled or expired."""
    reason: str | None
    """Why it is in that state."""
    models: list[dict[str, Any]]
    repeats: int
    template: str | None
    system: str | None
    parameters: dict[str, Any]
    strict_parameters: bool
    endpoint: str | None
    max_cost_usd: float | None
    deadline: str | None
    attempts: int | None
    concurrency: int | None
    cache: bool
    input: dict[str, Any]
    """What is known of the file that it was read from."""
    forked_from: str | None
    metadata: dict[str, str]
    items: int
    """Its rows."""
    calls: int
    """Rows × models × repeats."""
    progress: JobProgress
    counts: list[JobCounts]


class JobList(Page):
    data: list[Job]


class ModelEstimate(Said):
    model: str
    calls: int
    prompt_tokens: int
    """A quarter of the prompts' bytes."""
    completion_tokens: int
    """The most that is allowed, or a guess."""
    guessed: bool
    """Some calls set no length."""
    cost_usd: float | None


class JobEstimate(Said):
    """What a job would ask; nothing of it was kept or sent."""

    object: Literal["job.estimate"]
    items: int
    calls: int
    models: list[ModelEstimate]
    cost_usd: float | None
    """null where the price of any model is not known."""
    cost_unknown: list[str]
    """Models whose price is not known."""
    least_s: float | None
    """What the configured limits need at least; null where there are none."""


class JobResult(Said):
    """How one call ended."""

    item: int
    """The row, from 0."""
    line: int
    """Of the input, from 1."""
    custom_id: str | None
    entry: int
    repeat: int
    model: str
    label: str
    provider: str | None
    upstream_model: str | None
    prompt: Any
    """The prompt, or the messages."""
    reference: Any
    text: str | None
    reasoning: str | None
    tool_calls: list[dict[str, Any]] | None
    finish_reason: str | None
    native_finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    queued_ms: int | None
    ttft_ms: int | None
    prediction_time_ms: int | None
    total_ms: int | None
    attempts: int
    tokens_per_second: float | None
    cost_usd: float | None
    cost_source: str | None
    ignored_parameters: list[str]
    adjusted_parameters: dict[str, Adjustment]
    error_kind: FailureKind | None
    error_code: str | None
    error_message: str | None
    request_id: str | None
    """The provider's."""
    cached_from: str | None
    """The job whose answer this is."""
    ended: str
    values: dict[str, Any] | None
    """The row's other columns."""


class JobResults(Said):
    object: Literal["list"]
    data: list[JobResult]
    has_more: bool
    next: str | None
    """The `after` of the next page."""


def _kept(good: dict[int, Answer], *more: dict[int, Answer]) -> dict[int, Answer]:
    """With what every operation on the store may answer."""
    unavailable = "Nothing is kept (FANOUT_STORE is `off`), or the database cannot be used now. Or the server is stopping."
    answers = {**good, **failing(503, unavailable)}
    for others in more:
        answers |= others
    return answers


def _bad(what: str = "Wrong parameters, all of them named in `details`.") -> dict[int, Answer]:
    return failing(400, what)


def _none(what: str) -> dict[int, Answer]:
    return failing(404, f"There is no such {what}.")


def _state(what: str) -> dict[int, Answer]:
    return failing(409, what)


def _taking(form: str = "") -> dict[int, Answer]:
    told = {status: Answer(answer.description, {JSON: ErrorAnswerJson}) for status, answer in BODY.items()}
    if form:
        told[413] = Answer("The file is larger than FANOUT_MAX_FILE_BYTES.", {JSON: ErrorAnswerJson})
        told[415] = Answer(f"The body is not declared as `{form}`.", {JSON: ErrorAnswerJson})
    return told


def _made(model: Content, description: str) -> dict[int, Answer]:
    return {201: Answer(description, {JSON: model}, headers=("Location",))}


BATCH = {"batch_id": ("The batch's id.", "batch_0123456789abcdef0123456789abcdef")}
JOB = {"job_id": ("The job's id.", "job_0123456789abcdef0123456789abcdef")}
ACCOUNT = ("x-selected-account-id",)
CHANGED = "The job is in a state that does not allow it, or its models mean something else by now: every difference is named."
JOBS: Operations = {
    ("POST", "/v1/jobs"): Operation(
        id="create_job",
        tag="Jobs",
        summary="Ask many prompts of many models",
        description="Every row of `items`, or of an uploaded file, is asked of every model, `repeats` times, at the pace that "
        "each account bears. The input is checked whole first: a bad row is named with its line, and then nothing is sent. "
        "What has been answered is never asked again, also across a restart of the server. Keys of your own are not taken.",
        body=JobBody,
        examples={
            "two prompts, two models": {
                "items": [{"prompt": "The return statement"}, {"prompt": "A class definition"}],
                "models": ["local/ngram-3", "local/ngram-5"],
                "parameters": {"max_tokens": 20, "seed": 7},
            },
            "a template, and what it would cost": {
                "items": [{"word": "return", "reference": "a statement"}, {"word": "class"}],
                "template": "The {{word}} statement",
                "models": "embedded",
                "repeats": 3,
                "dry_run": True,
            },
        },
        headers=ACCOUNT,
        answers=_kept(
            {
                **reading(JobEstimate, "With `dry_run`: what would be asked."),
                **_made(Job, "The job, which waits to be run."),
            },
            _bad("Wrong fields or rows, all of them named in `details`; or no file has that id."),
            _none("file or job, named by `input_file_id` or `fork_of`"),
            _state(CHANGED),
            _taking(),
        ),
    ),
    ("GET", "/v1/jobs"): Operation(
        id="jobs",
        tag="Jobs",
        summary="All jobs",
        description="The newest first, batches among them.",
        query=JobsQuery,
        headers=ACCOUNT,
        answers=_kept(reading(JobList, "A page of them."), _bad(), _none("job, named by `after`")),
    ),
    ("GET", "/v1/jobs/{job_id}"): Operation(
        id="job",
        tag="Jobs",
        summary="One job, and how far it is",
        path=JOB,
        answers=_kept(reading(Job, "The job."), _none("job")),
    ),
    ("GET", "/v1/jobs/{job_id}/events"): Operation(
        id="job_events",
        tag="Jobs",
        summary="A job's progress, as it comes",
        description="The job, once a second while it changes, until it has ended; `: ping` while nothing does. A stream that "
        "ends without `[DONE]` ends because the server stops: the job goes on with the next one.",
        path=JOB,
        answers=_kept({**reading(Job, ""), 200: Answer("Server-sent events.", {EVENTS: Events(Job)})}, _none("job")),
    ),
    ("GET", "/v1/jobs/{job_id}/results"): Operation(
        id="job_results",
        tag="Jobs",
        summary="A job's results, by pages",
        description="In the order of the input, as far as they have come; `next` is the `after` of the next page.",
        path=JOB,
        query=ResultsQuery,
        answers=_kept(reading(JobResults, "A page of them."), _bad(), _none("job")),
    ),
    ("GET", "/v1/jobs/{job_id}/results.{format}"): Operation(
        id="job_export",
        tag="Jobs",
        summary="A job's results, as a file",
        description="All at once, streamed: JSONL, CSV or Parquet, with the same fields as in the pages.",
        path={**JOB, "format": ("`jsonl`, `csv` or `parquet`.", "csv")},
        query=ExportQuery,
        answers=_kept(
            {
                **reading(Job, ""),
                200: Answer(
                    "The file.",
                    {
                        "application/jsonl": {"type": "string"},
                        "text/csv": {"type": "string"},
                        "application/vnd.apache.parquet": {"type": "string", "format": "binary"},
                    },
                ),
            },
            _bad("Wrong parameters, all of them named in `details`; or Parquet, where pyarrow is not installed."),
            _none("job, or no such format"),
        ),
    ),
    ("POST", "/v1/jobs/{job_id}/cancel"): Operation(
        id="cancel_job",
        tag="Jobs",
        summary="Cancel a job",
        description="Nothing more is sent; what is under way is waited for, and kept. It can be resumed.",
        path=JOB,
        answers=_kept(reading(Job, "The job."), _none("job"), _state("It has ended.")),
    ),
    ("POST", "/v1/jobs/{job_id}/resume"): Operation(
        id="resume_job",
        tag="Jobs",
        summary="Go on with a job",
        description="One that was stopped, cancelled or expired goes on where it was; what has ended stays. Fields that are "
        "given take the place of the job's own. Where its models mean something else by now it does not go on: `fork` asks all "
        "rows anew, in a new job.",
        path=JOB,
        body=ResumeBody,
        answers=_kept(
            {**reading(Job, "The job, which waits to be run."), **_made(Job, "With `fork`: the new job.")},
            _bad("Wrong fields, all of them named in `details`."),
            _none("job"),
            _state(CHANGED),
            _taking(),
        ),
    ),
    ("POST", "/v1/jobs/{job_id}/retry"): Operation(
        id="retry_job",
        tag="Jobs",
        summary="Ask again what has failed",
        description="All failures of a job that has ended, or those of some kinds; answers are never asked again.",
        path=JOB,
        body=RetryBody,
        answers=_kept(
            reading(Job, "The job, which waits to be run."),
            _bad("Wrong fields, all of them named in `details`."),
            _none("job"),
            _state(CHANGED),
            _taking(),
        ),
    ),
}
BATCHES: Operations = {
    ("POST", "/v1/batches"): Operation(
        id="create_batch",
        tag="Files and batches",
        summary="Run a file of requests",
        description="OpenAI's batches: their client's examples run unmodified. Each line of the file is "
        '`{"custom_id": …, "method": "POST", "url": <endpoint>, "body": …}`; `model` in a body may be a list, which gives one '
        "line of output for every entry, told apart by its `entry`. The file is checked whole first: if a line is bad, the "
        "batch is `failed`, `errors` names every such line, and nothing was sent.",
        body=BatchBody,
        headers=ACCOUNT,
        answers=_kept(
            reading(Batch, "The batch, which is `validating`."),
            _bad("Wrong fields, all of them named in `details`."),
            _none("file"),
            _taking(),
        ),
    ),
    ("GET", "/v1/batches"): Operation(
        id="batches",
        tag="Files and batches",
        summary="All batches",
        description="The newest first.",
        query=ListQuery,
        headers=ACCOUNT,
        answers=_kept(reading(BatchList, "A page of them."), _bad(), _none("batch, named by `after`")),
    ),
    ("GET", "/v1/batches/{batch_id}"): Operation(
        id="batch",
        tag="Files and batches",
        summary="One batch",
        path=BATCH,
        answers=_kept(reading(Batch, "The batch."), _none("batch")),
    ),
    ("POST", "/v1/batches/{batch_id}/cancel"): Operation(
        id="cancel_batch",
        tag="Files and batches",
        summary="Cancel a batch",
        description="Nothing more is sent; what is under way is waited for. What was answered is in the output file.",
        path=BATCH,
        answers=_kept(reading(Batch, "The batch."), _none("batch"), _state("It has ended.")),
    ),
}
OPERATIONS: Operations = {**BATCHES, **JOBS}
