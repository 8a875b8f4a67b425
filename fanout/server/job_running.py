"""The jobs of a server's or a worker's store: what runs them, and the process's place among those that share the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from importlib import import_module

from aiohttp import web

import fanout
from fanout.core.errors import ConfigError, Fault
from fanout.evaluate.judging.judging import open_judging
from fanout.evaluate.scoring.scoring import make_scorer_factory
from fanout.jobs.accounts import is_within
from fanout.jobs.activity import describe_activity
from fanout.jobs.backlog import BacklogReader
from fanout.jobs.job import Job, JobKind, JobSpec, RequestBuilder, RequestBuilderFactory
from fanout.jobs.manager import JobManager, open_job_manager
from fanout.jobs.model_check import ModelCheck
from fanout.jobs.openai_batches import OpenAIBatchWorker, open_batch_worker
from fanout.jobs.presence import Presence
from fanout.server.accounts import job_gate
from fanout.server.accounts.admission import KEY_LEDGER
from fanout.server.accounts.directory import KEY_DIRECTORY
from fanout.server.dialects.openai.batch_files import measure_files
from fanout.server.lifecycle import (
    BATCH_STORE,
    BATCH_WORKER,
    DISPATCHER,
    FILE_STORE,
    JOB_MANAGER,
    JOB_STORE,
    JUDGING,
    METRICS,
    PRESENCE,
    STORE,
)
from fanout.server.role import Role
from fanout.server.routes import ROUTES
from fanout.store.batches import BatchStore
from fanout.store.files import FileStore
from fanout.store.jobs.job_store import JobStore

ROLE = web.AppKey("role", Role)


def _make_line_builder(spec: JobSpec, account_id: str) -> RequestBuilder:
    # Imported in a thread, with the endpoints whose bodies they are: no start waits for these 28 ms (2026-11-29).
    from fanout.requests.openai.batch_lines import LineRequestBuilder

    return LineRequestBuilder(spec, account_id)


BUILDERS: dict[JobKind, RequestBuilderFactory] = {"requests": _make_line_builder}


async def run_jobs(app: web.Application) -> AsyncIterator[None]:
    """Run the jobs of the store, if there is one and as far as they are this process's to run, until the cleanup."""
    if STORE not in app:
        yield
        return
    database, role, dispatcher = app[STORE].database, app[ROLE], app[DISPATCHER]
    if role.kind == "worker":  # which has nothing that is imported later
        import_module("fanout.requests.openai.batch_lines")
    if database.in_memory and not role.takes_jobs(dispatcher.settings):
        sentence = "is `off`, but nobody else could run the jobs of a store in memory; set FANOUT_STORE, or leave it on"
        raise ConfigError("environment", [Fault("FANOUT_WORK", sentence)])
    app[FILE_STORE], app[BATCH_STORE], app[JOB_STORE] = FileStore(database), BatchStore(database), JobStore(database)
    async with open_job_manager(
        app[JOB_STORE],
        dispatcher,
        BUILDERS,
        run_waiting=role.takes_jobs(dispatcher.settings),
        open_scorer=make_scorer_factory(app[JOB_STORE], allow_functions=False),
        open_gate=partial(job_gate.open_gate, app[KEY_DIRECTORY], app[KEY_LEDGER], dispatcher),
        may_take=partial(_may_take, app, ModelCheck()),
    ) as manager:
        app[JOB_MANAGER] = manager
        async with (
            _open_batches(app, manager) as batches,
            open_judging(app[JOB_STORE], manager) as judging,
            _open_presence(app, manager),
        ):
            app[JUDGING] = judging
            if batches:
                app[BATCH_WORKER] = batches
            yield
        manager.executor.leave()
        dispatcher.stop()  # the grace period of calls still in flight is over


def _may_take(app: web.Application, check: ModelCheck, job: Job) -> bool:
    role, planner = app[ROLE], app[JOB_MANAGER].planner
    # Else its builder would be imported on the event loop.
    if job.spec.kind == "requests" and not app[ROUTES].are_complete:
        return False
    if not is_within(job, role.list_accounts(planner.dispatcher.settings)):
        return False
    return role.kind == "serve" or check.fits(job, planner)


def _open_batches(app: web.Application, manager: JobManager) -> AbstractAsyncContextManager[OpenAIBatchWorker | None]:
    """Open what makes jobs of batches: that of a server, of which every store with batches has one."""
    if app[ROLE].kind == "worker":
        return nullcontext()
    measure = partial(measure_files, manager, app[JOB_STORE])
    return open_batch_worker(manager, app[BATCH_STORE], app[FILE_STORE], measure, lambda: app[ROUTES].are_complete)


def _open_presence(app: web.Application, manager: JobManager) -> AbstractAsyncContextManager[None]:
    """Keep the process's row among those that share the store; a server alone on a SQLite file needs none."""
    role, store, dispatcher = app[ROLE], app[STORE], app[DISPATCHER]
    backlog = BacklogReader(app[JOB_STORE], store, lambda: dispatcher.settings)
    app[PRESENCE] = presence = Presence(
        store.processes,
        role.kind,
        fanout.__version__,
        lambda: role.list_accounts(dispatcher.settings),
        lambda: describe_activity(manager, dispatcher),
        after_beat=backlog.refresh if role.reads_backlog else None,
    )
    if store.database.dialect == "sqlite" and not role.shares_store:
        return nullcontext()
    app[METRICS].backlog = lambda: backlog.by_account
    return presence.running()
