"""All endpoints, in the order of the router. Each is declared beside its handler: see `openapi/endpoint.py`."""

from __future__ import annotations

import re

from fanout.server.dialects import thiggle
from fanout.server.dialects.openai import chat, completions
from fanout.server.dialects.scale import completions as scale_completions
from fanout.server.dialects.scale import directory
from fanout.server.openapi import pages
from fanout.server.openapi.endpoint import Endpoint, Handler
from fanout.server.openapi.operations import OPERATIONS
from fanout.server.resources import batches, comparisons, files, health, job_events, job_results, jobs, models, providers, usage


def _legacy(method: str, path: str, handler: Handler) -> Endpoint:
    """Return an endpoint whose description still stands in `openapi/operations`."""
    return OPERATIONS[method, re.sub(r"\{(\w+):[^}]+\}", r"{\1}", path)].at(method, path, handler)


ENDPOINTS: tuple[Endpoint, ...] = (
    _legacy("POST", "/v1/completion", thiggle.completion),
    _legacy("POST", "/v1/completions", completions.completions),
    _legacy("POST", "/v1/chat/completions", chat.chat_completions),
    *(_legacy("POST", f"/{version}/completions", scale_completions.completions) for version in ("v2", "v3", "v4")),
    _legacy("POST", "/v4/chat-completions", scale_completions.chat_completions),
    _legacy("GET", "/v4/models", directory.list_models),
    _legacy("GET", "/user-info", directory.user_info),
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
