"""`/v1/jobs/{job_id}/events`: a job's progress as server-sent events."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.rendering.job import JobJson, render_job
from fanout.server.event_stream import PING, PING_INTERVAL_S, start
from fanout.server.lifecycle import JOB_MANAGER, LIFECYCLE
from fanout.server.openapi.endpoint import EVENTS, Endpoint, Events, StatusAnswer, list_store_answers
from fanout.server.resources.jobs import JOB_ID, MISSING
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.store.jobs.records import ENDED_STATES

POLL_INTERVAL_S = 1.0


@needs_store
async def stream_job(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/jobs/{job_id}/events`: the job, whenever it changes, until it has ended or the server stops."""
    job_id, manager = (await find_own_job(request)).id, request.app[JOB_MANAGER]
    progress = await manager.read_progress(job_id)
    response = await start(request)
    sent, sent_at = b"", time.monotonic()
    while True:
        # Compared as it is sent, so that no event repeats the one before.
        state = encode_json(render_job(progress))
        if state != sent:
            await response.write(b"data: " + state + b"\n\n")
            sent, sent_at = state, time.monotonic()
        elif time.monotonic() - sent_at >= PING_INTERVAL_S:
            await response.write(PING)
            sent_at = time.monotonic()
        if progress.job.state in ENDED_STATES:
            await response.write(b"data: [DONE]\n\n")
            break
        if request.app[LIFECYCLE].is_stopping:
            break  # without `[DONE]`, so that the client reconnects, when the job continues
        # Polled, because the job may run in another process, which shares only the database.
        await asyncio.sleep(POLL_INTERVAL_S)
        progress = await manager.read_progress(job_id)
    await response.write_eof()
    return response


ENDPOINTS = (
    Endpoint(
        "GET /v1/jobs/{job_id}/events",
        stream_job,
        id="job_events",
        tag="Jobs",
        summary="A job's progress, as it comes",
        description="The job, once a second while it changes, until it has ended; `: ping` while nothing does. A stream that "
        "ends without `[DONE]` ends because the server stops: the job goes on with the next one.",
        path_parameters=JOB_ID,
        answers={
            **list_store_answers(JobJson, "", missing=MISSING),
            200: StatusAnswer("Server-sent events.", {EVENTS: Events(JobJson)}),
        },
    ),
)
