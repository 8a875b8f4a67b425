"""The interface of a place that keeps jobs: this process's own store, or a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import click

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.cli.batch.input import JobInput
    from fanout.cli.evaluation.backend import EvaluationBackend
    from fanout.core.json_text import JsonObject
    from fanout.jobs.job import JobSpec
    from fanout.rendering.job import JobEstimateJson, JobJson
    from fanout.store.jobs.records import ResultFilter


ID_PREFIXES = ("", "job_", "batch_")
"""What the user may leave out at the beginning of an id."""
SEARCHED_FOR_LAST = 50
"""Newest jobs among which the last one is looked for."""
LAST = "last"
"""Name of the newest job."""


class JobSnapshot(NamedTuple):
    """A job at one moment, and lines to show below it."""

    job: JobJson
    notes: Sequence[str] = ()


class JobBackend(Protocol):
    """A place that keeps jobs. Its jobs are as `GET /v1/jobs/{job_id}` returns them.

    A wrong request raises RequestError; a server or database that does not answer raises ServerError or StoreError.
    """

    async def choose_models(self, words: Sequence[str]) -> Sequence[str]:
        """Return the names that `-m` options stand for; without any: the set `mine`, else the embedded models."""

    async def estimate(self, spec: JobSpec, source: JobInput) -> JobEstimateJson:
        """Return the calls and the cost of a job without storing or sending anything."""

    async def create(self, spec: JobSpec, source: JobInput) -> JobJson:
        """Store a new job."""

    async def get(self, job_id: str) -> JobJson | None:
        """Return the job with this id."""

    async def find_by_prefix(self, prefix: str) -> list[JobJson]:
        """Return some of the jobs whose ids begin with a prefix."""

    async def list_jobs(self, limit: int, state: str | None = None) -> list[JobJson]:
        """Return the newest jobs, the newest first."""

    async def resume(self, job: JobJson, limits: JsonObject, source: JobInput | None, *, fork: bool) -> JobJson:
        """Queue a job again; with `fork`, create a new job with the same settings if its models or input have changed."""

    async def retry(self, job: JobJson, kinds: Sequence[str], limits: JsonObject) -> JobJson:
        """Queue the failed calls of a job again."""

    async def cancel(self, job: JobJson) -> JobJson:
        """Send no more calls of a job."""

    async def list_labels(self, job: JobJson) -> Sequence[str]:
        """Return the labels of the job's entries, if they are known before any call has ended."""

    def run(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        """Run a job to its end, or follow the server that runs it."""

    def watch(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        """Follow a job to its end without running it."""

    async def stop(self) -> None:
        """Send no more calls of the running job, and wait for those in flight."""

    def abort(self) -> None:
        """End the calls in flight."""

    async def export(
        self, job: JobJson, output: str, format_: str | None, chosen: ResultFilter, *, quote_formulas: bool = False
    ) -> None:
        """Write the results of a job to a file, or to standard output if it is `-`."""

    @property
    def evaluation(self) -> EvaluationBackend:
        """Scores and reports of the jobs kept there."""


async def find_job(jobs: JobBackend, name: str) -> JobJson:
    """Return the job with this id, the only one whose id begins with it, or the `last` one.

    Raises:
        ClickException: there is none, or there are several.
    """
    # The whole id first: it may be the beginning of another one.
    if name != LAST and (job := await jobs.get(name)):
        return job
    if name == LAST:  # the jobs of judges serve another one: nobody means them
        found = [job for job in await jobs.list_jobs(SEARCHED_FOR_LAST) if job["judging"] is None][:1]
    else:
        found = await jobs.find_by_prefix(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise click.ClickException(f"several jobs begin with `{name}`: {', '.join(job['id'] for job in found[:5])}")
    raise click.ClickException("there is no job yet" if name == LAST else f"no job `{name}`; `fanout batch list` shows them")
