"""All endpoints, in the order of the router. Each is declared beside its handler: see `openapi/endpoint.py`."""

from __future__ import annotations

import re

from fanout.server.dialects.openai import chat
from fanout.server.dialects.openai import completions as text
from fanout.server.dialects.scale import completions as scale
from fanout.server.dialects.scale import directory
from fanout.server.dialects.thiggle import completion as thiggle
from fanout.server.openapi import pages
from fanout.server.openapi.endpoint import Endpoint, Handler
from fanout.server.openapi.operations import OPERATIONS
from fanout.server.resources import batches, comparisons, files, health, job_events, job_results, jobs, models, providers, usage


def _legacy(method: str, path: str, handler: Handler) -> Endpoint:
    """Return an endpoint whose description still stands in `openapi/operations`."""
    return OPERATIONS[method, re.sub(r"\{(\w+):[^}]+\}", r"{\1}", path)].at(method, path, handler)


ENDPOINTS: tuple[Endpoint, ...] = (
    *thiggle.ENDPOINTS,
    *text.ENDPOINTS,
    *chat.ENDPOINTS,
    *scale.ENDPOINTS,
    *directory.ENDPOINTS,
    *models.ENDPOINTS,
    *providers.ENDPOINTS,
    *usage.ENDPOINTS,
    *files.ENDPOINTS,
    _legacy("POST", "/v1/batches", batches.create_batch),
    _legacy("GET", "/v1/batches", batches.list_batches),
    _legacy("GET", "/v1/batches/{batch_id}", batches.get_batch),
    _legacy("POST", "/v1/batches/{batch_id}/cancel", batches.cancel_batch),
    _legacy("POST", "/v1/jobs", jobs.create_job),
    _legacy("GET", "/v1/jobs", jobs.list_jobs),
    _legacy("GET", "/v1/jobs/{job_id}", jobs.get_job),
    _legacy("GET", "/v1/jobs/{job_id}/results", job_results.list_results),
    _legacy("GET", "/v1/jobs/{job_id}/results.{format:jsonl|csv|parquet}", job_results.export_results),
    _legacy("GET", "/v1/jobs/{job_id}/events", job_events.stream_job),
    _legacy("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel_job),
    _legacy("POST", "/v1/jobs/{job_id}/resume", jobs.resume_job),
    _legacy("POST", "/v1/jobs/{job_id}/retry", jobs.retry_job),
    *comparisons.ENDPOINTS,
    *health.ENDPOINTS,
    *pages.ENDPOINTS,
)
