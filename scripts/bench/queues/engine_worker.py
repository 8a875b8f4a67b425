"""Spike: the same chunks carried by procrastinate, with the recovery of stalled jobs that its documentation describes.

usage: engine_worker.py URL STEP_S CONCURRENCY

The fence of a record is the job's number of attempts, which the engine raises when it retries: a row lock on its own table.
A task that finds itself fenced out can only end: the engine then retries or finishes the job, whoever has it by now. With
LATE=retry the chunk is taken from its new carrier and called again; with LATE=finish it counts as carried.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any

import procrastinate
from units import LEASE_S, RENEW_S, call_units, connect, read_arguments, report

WRITE = """
WITH held AS (SELECT attempts FROM procrastinate_jobs WHERE id = $1 AND attempts = $2 FOR SHARE),
written AS (
    INSERT INTO records SELECT $3::integer * 100 + place - 1, attempts + 1, answer
    FROM held, unnest($4::text[]) WITH ORDINALITY AS one (answer, place) ON CONFLICT DO NOTHING
)
SELECT count(*) FROM held"""
IS_RECORDED = "SELECT EXISTS (SELECT FROM records WHERE unit = $1::integer * 100)"


class LeaseLostError(Exception):
    """The engine has given the chunk to another worker."""


def build_app(url: str, step_s: float, pools: list[Any]) -> Any:
    """Return the engine with its two tasks."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=2, max_size=8))

    async def carry(context: Any, number: int) -> None:
        job = context.job
        report("start", number, job.attempts)
        if job.attempts and await pools[0].fetchval(IS_RECORDED, number):
            return report("end", number, job.attempts)  # its end was lost, for that is a statement of its own
        answers = await call_units(number, step_s)
        if not await pools[0].fetchval(WRITE, job.id, job.attempts, number, answers):
            report("refused", number, job.attempts)
            if os.environ.get("LATE") != "finish":
                raise LeaseLostError
            return None
        return report("end", number, job.attempts)

    async def retry_stalled(timestamp: int) -> None:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LEASE_S):
            with suppress(procrastinate.exceptions.ConnectorException):  # it has ended meanwhile
                await app.job_manager.retry_job(job)

    # Every failure is retried: a task that fails for good because the database was away would lose its units.
    app.task(name="carry", queue="chunks", pass_context=True, retry=procrastinate.RetryStrategy(wait=0))(carry)
    recovery = app.task(name="retry_stalled", queue="chunks", queueing_lock="retry_stalled", priority=100)(retry_stalled)
    app.periodic(cron="* * * * * *")(recovery)
    return app


async def main() -> None:
    arguments = read_arguments()
    logging.basicConfig(level=logging.ERROR)
    pools: list[Any] = []
    app = build_app(arguments.url, arguments.step_s, pools)
    async with app.open_async():
        pools.append(await connect(arguments.url))
        await app.run_worker_async(
            queues=["chunks"],
            concurrency=arguments.concurrency,
            fetch_job_polling_interval=RENEW_S,
            update_heartbeat_interval=RENEW_S,
            stalled_worker_timeout=LEASE_S,
            shutdown_graceful_timeout=LEASE_S,
        )


if __name__ == "__main__":
    asyncio.run(main())
