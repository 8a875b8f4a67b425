"""Jobs before the scripted upstream: `async with open_jobs(upstream.url, tmp_path) as opened`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.manager import JobManager, open_job_manager
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Unit
from fanout.store.opening import Store, open_store
from fanout.store.tables import attempts, failures
from tests.support.builders.settings import write_providers_file


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """An open job manager with its stores and dispatcher."""

    manager: JobManager
    jobs: JobStore
    dispatcher: Dispatcher
    store: Store

    async def create(self, count: int, *models: str | Mapping[str, Any], **spec: Any) -> Job:
        """Create a job of so many prompts: `q0`, `q1` and so on."""
        named = tuple({"model": model} if isinstance(model, str) else model for model in models)
        return await self.manager.create(JobSpec(models=named, **spec), make_rows(count))

    async def list_results(self, job: Job) -> list[Any]:
        """Return every unit that has ended."""
        found: list[Any] = []
        while page := await self.jobs.results.list_results(job.number, after=tuple(found[-1][:3]) if found else None):
            found += page
        return found


def make_rows(count: int) -> Iterator[InputRow]:
    return (InputRow(number + 1, {"prompt": f"q{number}"}) for number in range(count))


async def list_attempts(kept: OpenJobs, unit: Unit) -> Sequence[tuple[int, str | None]]:
    """Return every attempt of a unit in the store, with the kind of its failure if it has one."""
    same = and_(*(column == failures.c[column.name] for column in attempts.primary_key))
    query = select(attempts.c.attempt, failures.c.kind).select_from(attempts.outerjoin(failures, same))
    of_unit = [attempts.c[name] == value for name, value in unit._asdict().items()]
    rows = await kept.store.database.fetch_all(query.where(*of_unit).order_by(attempts.c.attempt))
    return [(number, kind) for number, kind in rows]


@asynccontextmanager
async def open_jobs(
    upstream_url: str,
    folder: Path,
    *,
    store: str | None = None,
    owner: str | None = None,
    environ: Mapping[str, str] | None = None,
    run_waiting: bool = False,
    shares_limits: bool = False,
    **row: Any,
) -> AsyncGenerator[OpenJobs]:
    """Open jobs in `folder/jobs.db` or in `store`; `row` is the provider's, its waits last 20 ms at most."""
    row = {"retries": {"attempts": 3, "max_delay_s": 0.02}, **row}
    settings = load_settings(write_providers_file(upstream_url, folder, **row), {"HOME": str(folder), **(environ or {})})
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_store(store or str(folder / "jobs.db"), shares_limits=shares_limits))
        assert opened
        dispatcher = await stack.enter_async_context(open_dispatcher(settings, sharing=opened.limits))
        jobs = JobStore(opened.database)
        open_scorer = make_scorer_factory(jobs, allow_functions=True)
        async with open_job_manager(jobs, dispatcher, run_waiting=run_waiting, owner=owner, open_scorer=open_scorer) as manager:
            yield OpenJobs(manager, jobs, dispatcher, opened)
