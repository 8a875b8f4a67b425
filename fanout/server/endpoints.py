"""All endpoints, in the order of the router. Each is declared beside its handler: see `openapi/endpoint.py`."""

from __future__ import annotations

from fanout.server.dialects.openai import completions as openai
from fanout.server.dialects.openai import embeddings, responses, tokens
from fanout.server.dialects.scale import completions as scale
from fanout.server.dialects.scale import directory
from fanout.server.dialects.thiggle import completion as thiggle
from fanout.server.openapi import pages
from fanout.server.openapi.endpoint import Endpoint
from fanout.server.page import routes as page
from fanout.server.resources import (
    audit,
    batches,
    comparison_events,
    comparisons,
    configuration,
    files,
    health,
    job_decisions,
    job_events,
    job_items,
    job_report,
    job_results,
    job_scores,
    jobs,
    keys,
    models,
    provider_figures,
    providers,
    usage,
    votes,
    workers,
)

ENDPOINTS: tuple[Endpoint, ...] = (
    *thiggle.ENDPOINTS,
    *openai.ENDPOINTS,
    *responses.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *tokens.ENDPOINTS,
    *scale.ENDPOINTS,
    *directory.ENDPOINTS,
    *models.ENDPOINTS,
    *providers.ENDPOINTS,
    *provider_figures.ENDPOINTS,
    *usage.ENDPOINTS,
    *files.ENDPOINTS,
    *batches.ENDPOINTS,
    *jobs.ENDPOINTS,
    *job_results.ENDPOINTS,
    *job_items.ENDPOINTS,
    *job_scores.ENDPOINTS,
    *job_report.ENDPOINTS,
    *job_decisions.ENDPOINTS,
    *job_events.ENDPOINTS,
    *comparison_events.ENDPOINTS,
    *comparisons.ENDPOINTS,
    *votes.ENDPOINTS,
    *keys.ENDPOINTS,
    *audit.ENDPOINTS,
    *workers.ENDPOINTS,
    *configuration.ENDPOINTS,
    *health.ENDPOINTS,
    *pages.ENDPOINTS,
    *page.ENDPOINTS,
)
