"""`GET /v1/audit`: who changed what, when."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fanout.rendering.keys import ChangeListJson, render_change
from fanout.server.accounts.callers import require_admin
from fanout.server.lifecycle import STORE
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, list_store_answers
from fanout.server.resources.listing import page_response, parse_whole_number, read_query
from fanout.server.resources.storage import needs_store


class AuditQuery(BaseModel):
    """The part of the changes to show."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(20, ge=1, le=100)
    """Most changes of a page."""
    after: Annotated[int | None, BeforeValidator(parse_whole_number)] = Field(None, ge=1)
    """The `last_id` of the page before."""
    subject: str | None = Field(None, max_length=256)
    """Only the changes of this, such as a key's id."""


@needs_store
async def list_changes(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/audit`."""
    require_admin(request)
    query = read_query(request, AuditQuery)
    found = await request.app[STORE].audit.list_changes(limit=query.limit + 1, before=query.after, subject=query.subject)
    shown = found[: query.limit]
    return await page_response(shown, render_change, [str(row.number) for row in shown], has_more=len(found) > query.limit)


EXAMPLE = {
    "id": "1",
    "object": "audit_record",
    "time": "2026-11-27T20:00:00.000Z",
    "event": "key.created",
    "actor": "environment:operator",
    "subject": "key_0b54b61c9df74f0f9d3b5a2d",
    "details": {"prefix": "3k9x2m7qp0ab", "account_id": "team-a", "name": "nightly evaluation", "budget_day_usd": 5.0},
}
ENDPOINTS = (
    Endpoint(
        "GET /v1/audit",
        list_changes,
        id="audit",
        tag="Keys",
        summary="Who changed what",
        description="For administrators. The newest first. Records are never changed or deleted.",
        query=AuditQuery,
        answers=list_store_answers(
            ChangeListJson,
            "A page of changes.",
            {"one change": {"object": "list", "data": [EXAMPLE], "first_id": "1", "last_id": "1", "has_more": False}},
            invalid=INVALID_PARAMETERS,
        ),
    ),
)
