"""`GET /v1/comparisons` and `GET /v1/comparisons/{id}`: the history of interactive requests and their answers."""

from __future__ import annotations

import re
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.threads import run_in_thread
from fanout.core.units import parse_time
from fanout.rendering.errors import render_error
from fanout.rendering.history import (
    PastComparisonsJson,
    PastComparisonWholeJson,
    render_past_choice,
    render_past_comparison,
    render_request,
)
from fanout.requests.bodies import Metadata
from fanout.server.lifecycle import STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, list_store_answers
from fanout.server.resources.listing import DAY_S, page_response, time_schema, validate_query, write_list
from fanout.server.resources.storage import store_failed_response, store_off_response
from fanout.server.responses import error_response
from fanout.store.engine.text_columns import clean_name, clean_text
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.records import MAX_NUMBER, StoredComparison, first_number_at

MAX_LIMIT = 100
MAX_SEARCH_TEXTS = 16
SearchText = Annotated[str, Field(min_length=1, max_length=256)]
METADATA_FILTER = re.compile(r"metadata(?:\.(.+)|\[(.+)\])", re.DOTALL)
"""A filter by metadata: `metadata.KEY`, or as OpenAI's clients write it, `metadata[KEY]`."""
BOOLEANS = {"true": True, "false": False}
STATUS_PATTERN = re.compile("[1-5][0-9][0-9]")


def _parse_from(text: str) -> int:
    return first_number_at(parse_time(text)[0])


def _parse_to(text: str) -> int:
    # A date stands for its whole day.
    seconds, is_date = parse_time(text)
    return first_number_at(seconds + DAY_S if is_date else seconds)


def _parse_boolean(text: str) -> bool:
    if text not in BOOLEANS:
        raise ValueError(f"`{text[:40]}` is not allowed: `true` or `false`")
    return BOOLEANS[text]


def _parse_status(text: str) -> int:
    if not STATUS_PATTERN.fullmatch(text):
        raise ValueError(f"`{text[:40]}` is not allowed: an HTTP status, 100 to 599")
    return int(text)


def _parse_limit(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"`{text[:40]}` is not allowed: a whole number from 1 to {MAX_LIMIT}")
    return int(text)


class ComparisonsQuery(BaseModel):
    """Filters and page of the history."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=256)
    """Model of one of its answers, as the caller wrote it."""
    label: str | None = Field(None, max_length=256)
    """Label of one of its answers; of the same one, if `model` is given too."""
    metadata: Metadata | None = None
    """Metadata of the caller: `metadata.KEY=VALUE`, or `metadata[KEY]=VALUE`. All that are given must match."""
    from_: Annotated[int | None, BeforeValidator(_parse_from), time_schema("2026-11-01")] = Field(None, alias="from")
    """Earliest time of the request: a date or an RFC 3339 time."""
    to: Annotated[int | None, BeforeValidator(_parse_to), time_schema("2026-11-20T09:30:00Z")] = None
    """Latest time of the request: a date, whose whole day is included, or an RFC 3339 time, which is not."""
    account_id: str | None = Field(None, max_length=256)
    """Only this account's requests; empty: only those without an account; absent: the key's own; without keys
    by the header `x-selected-account-id`, else all."""
    status: Annotated[
        int | None, BeforeValidator(_parse_status), WithJsonSchema({"type": "integer", "minimum": 100, "maximum": 599})
    ] = None
    """HTTP status of the answer; 499: the client left before there was one."""
    failed: Annotated[bool | None, BeforeValidator(_parse_boolean), WithJsonSchema({"type": "boolean"})] = None
    """`true`: at least one call failed; `false`: none did."""
    text: Annotated[list[SearchText], Field(max_length=MAX_SEARCH_TEXTS)] | None = None
    """Text that the request or an answer holds, upper and lower case alike; given several times: all of them. Looked for
    in the newest 10,000 comparisons, as far as their texts are kept."""
    id_prefix: str | None = Field(None, min_length=1, max_length=64)
    """Beginning of the id."""
    limit: Annotated[
        int,
        BeforeValidator(_parse_limit),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 20}),
    ] = 20
    """Most comparisons of a page."""
    after: str | None = Field(None, min_length=1, max_length=64)
    """The `last_id` of the page before."""

    @field_validator("to")
    @classmethod
    def _check_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        since = info.data.get("from_")
        if value is not None and since is not None and value < since:
            raise ValueError("is before `from`")
        return value

    def to_filter(self, account_id: str | None, before: int | None) -> ComparisonFilter:
        """Return the query as the store takes it; `before` is the number of the last comparison of the page before."""
        until = MAX_NUMBER if self.to is None else self.to
        return ComparisonFilter(
            since=self.from_ or 0,
            # Numbers grow with time, so the page after a comparison is all that is numbered below it.
            until=until if before is None else min(until, before),
            account_id=None if account_id is None else clean_name(account_id),
            model=None if self.model is None else clean_name(self.model),
            label=None if self.label is None else clean_name(self.label),
            metadata={clean_text(name): clean_text(value) for name, value in (self.metadata or {}).items()},
            texts=self.text or (),
            id_prefix=None if self.id_prefix is None else clean_text(self.id_prefix),
            status=self.status,
            failed=self.failed,
            limit=self.limit + 1,  # one more than shown tells if there is another page
        )


async def list_comparisons(request: web.Request) -> web.Response:
    """Serve `GET /v1/comparisons`."""
    query = _read_query(request)
    if STORE not in request.app:
        return store_off_response(request, "no history is kept")
    history = request.app[STORE].history
    try:
        before = None
        if query.after is not None and (before := await history.find_number(query.after, auth.find_account(request))) is None:
            raise RequestError([Fault("after", f"no comparison has the id {query.after!a:.80}: give a page's `last_id`")])
        found = await history.list_comparisons(query.to_filter(auth.choose_account(request, query.account_id), before))
    except StoreError as error:
        return _read_failed_response(request, error)
    shown = found[: query.limit]
    ids = [stored.comparison.id for stored in shown]
    return await page_response(shown, render_past_comparison, ids, has_more=len(found) > len(shown))


async def get_comparison(request: web.Request) -> web.Response:
    """Serve `GET /v1/comparisons/{id}`."""
    if STORE not in request.app:
        return store_off_response(request, "no history is kept")
    id_ = request.match_info["id"]
    try:
        stored = await request.app[STORE].history.find(clean_text(id_)[:256])
    except StoreError as error:
        return _read_failed_response(request, error)
    if stored is None or auth.find_account(request) not in (None, stored.comparison.account_id):
        message = f"no comparison has the id {id_!a:.80}: it was never kept, or it is older than what is kept"
        return error_response(request, render_error(404, message, param="id", code="comparison_not_found"))
    return web.Response(body=await run_in_thread("answers", _write, stored), content_type="application/json")


def _write(stored: StoredComparison) -> bytearray:
    head = {**render_past_comparison(stored), "request": render_request(stored.comparison.request)}
    return write_list(map(render_past_choice, stored.answers), head, field="choices")


def _read_query(request: web.Request) -> ComparisonsQuery:
    # The filters by metadata become one field, so that a single validation names every wrong parameter.
    given: dict[str, object] = {}
    metadata: dict[str, str] = {}
    faults = []
    for name in request.query:
        filter_, values = METADATA_FILTER.fullmatch(name), request.query.getall(name)
        key = (filter_[1] or filter_[2]) if filter_ else name
        if (len(values) > 1 and name != "text") or (filter_ and key in metadata):
            faults.append(Fault(name[:80], "is given more than once: once is allowed"))
        if filter_:
            metadata[key] = values[0]
        else:
            given[name] = values if name == "text" else values[0]
    if "metadata" in given:
        faults.append(Fault("metadata", "is written `metadata.KEY=VALUE`"))
        del given["metadata"]
    return validate_query({**given, **({"metadata": metadata} if metadata else {})}, ComparisonsQuery, faults)


def _read_failed_response(request: web.Request, error: StoreError) -> web.Response:
    return store_failed_response(request, error, "history.read_failed", "the history cannot be read now")


EXAMPLE = {
    "id": "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e",
    "object": "comparison",
    "created": "2026-11-20T09:30:00.000Z",
    "path": "/v1/completion",
    "stream": False,
    "account_id": "team-a",
    "request_id": "6c1f0a52-8e3a-4a0e-9d2e-0c1a7f6f7a11",
    "request_digest": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "status": 200,
    "client_left": False,
    "entries": [{"entry": 0, "model": "gpt-6-luna", "label": "gpt-6-luna"}],
    "answered": 1,
    "failed": 0,
    "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cached_tokens": 0, "unknown": 0},
    "cost_usd": 0.0000047,
    "cost_unknown": 0,
    "timing": {"total_ms": 416, "overhead_ms": 1},
    "metadata": {"experiment": "7"},
}
EXAMPLE_PAGE = {"object": "list", "data": [EXAMPLE], "first_id": EXAMPLE["id"], "last_id": EXAMPLE["id"], "has_more": False}
ENDPOINTS = (
    Endpoint(
        "GET /v1/comparisons",
        list_comparisons,
        id="list_comparisons",
        tag="History",
        summary="Past requests and their outcomes",
        description="Every interactive request that made calls, through whichever endpoint, streamed or not, failed or "
        "abandoned by its client, as soon as it has ended. The newest come first, in pages. FANOUT_HISTORY sets what is kept "
        "of each, FANOUT_HISTORY_DAYS for how long. All filters that are given must match.",
        query=ComparisonsQuery,
        examples={"a model's in a month": {"model": "local/ngram-5", "from": "2026-11-01", "to": "2026-11-30", "limit": 10}},
        answers=list_store_answers(PastComparisonsJson, "A page.", {"the last page": EXAMPLE_PAGE}, invalid=INVALID_PARAMETERS),
    ),
    Endpoint(
        "GET /v1/comparisons/{id}",
        get_comparison,
        id="comparison",
        tag="History",
        summary="One comparison with its answers",
        description="Each answer in the fields that it had. With FANOUT_HISTORY=full also the request and the texts.",
        path_parameters={"id": ("Id of the comparison.", str(EXAMPLE["id"]))},
        answers=list_store_answers(
            PastComparisonWholeJson, "The comparison.", missing="No comparison has this id, or it is older than what is kept."
        ),
    ),
)
