"""Where jobs are kept: in this process's own store, or at a server. Jobs are as `GET /v1/jobs/{job_id}` answers them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import click

from fanout.cli.batch.input import Input

Job = dict[str, Any]
PREFIXES = ("", "job_", "batch_")
"""What may be left out at the beginning of an id."""
LAST = "last"


class Seen(NamedTuple):
    """A job at a moment, and what else is to be known."""

    job: Job
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a new job asks: the fields of `POST /v1/jobs` without its rows."""

    models: Sequence[str]
    repeats: int = 1
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    cache: bool = False
    name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    """Of lines of OpenAI's batches, which name their own models."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Cost, deadline, attempts, concurrency: what may be changed later."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which results are asked for."""

    failed: bool | None = None
    model: str | None = None
    kind: str | None = None
    different: bool = False


class Jobs(Protocol):
    """What is asked wrongly is a RequestError; a server or a database that does not answer a ServerError or a StoreError."""

    async def estimate(self, asked: Asked, source: Input) -> dict[str, Any]:
        """What a job would ask; nothing is kept or sent."""
        ...

    async def create(self, asked: Asked, source: Input) -> Job: ...

    async def job(self, id: str) -> Job | None: ...

    async def begun(self, name: str) -> list[Job]:
        """Some of the jobs whose ids begin so."""
        ...

    async def listed(self, most: int, state: str | None = None) -> list[Job]:
        """The newest first."""
        ...

    async def resume(self, job: Job, changes: Mapping[str, Any], source: Input | None, *, fork: bool) -> Job:
        """Has a job go on, or asks everything anew in another one."""
        ...

    async def retry(self, job: Job, kinds: Sequence[str], changes: Mapping[str, Any]) -> Job: ...

    async def cancel(self, job: Job) -> Job: ...

    async def labels(self, job: Job) -> Sequence[str]:
        """What its entries are called, where that is known before any has ended."""
        ...

    def run(self, job: Job) -> AsyncGenerator[Seen]:
        """Runs a job to its end, or sees it run."""
        ...

    def watch(self, job: Job) -> AsyncGenerator[Seen]:
        """The same without running it."""
        ...

    async def stop(self) -> None:
        """Has nothing more sent of the job that runs; what is under way is waited for."""
        ...

    def cut(self) -> None:
        """Ends what is under way."""
        ...

    async def export(self, job: Job, output: str, format: str | None, which: Which) -> None:
        """Writes its results; `-` is standard output."""
        ...


Open = AbstractAsyncContextManager[Jobs]


async def named(jobs: Jobs, name: str) -> Job:
    """The job of that id, of the only id that begins so, or the `last` one that was made.

    Raises:
        ClickException: there is none, or there are several.
    """
    if name != LAST and (job := await jobs.job(name)):
        return job
    found = await jobs.listed(1) if name == LAST else await jobs.begun(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise click.ClickException(f"`{name}` is how several jobs begin: {', '.join(job['id'] for job in found[:5])}")
    raise click.ClickException("there is no job yet" if name == LAST else f"no job `{name}`; `fanout batch list` shows them")
