"""`GET /v1/comparisons`, `GET /v1/comparisons/{id}`: the history of what was asked interactively, and how it was answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import from_json

from fanout.core.errors import RequestError, StoreError
from fanout.core.faults import Fault, to_faults
from fanout.core.units import to_rfc3339
from fanout.core.usage import total_tokens
from fanout.observability.logs import log
from fanout.rendering.encoding import encode_json
from fanout.rendering.errors import TYPES, error_reply
from fanout.server.lifecycle import STORE
from fanout.server.middleware.history import CLIENT_LEFT
from fanout.server.resources.usage import DAY, parse_moment, respond_unavailable, time_schema
from fanout.server.responses import error_response
from fanout.store.engine.text_columns import clean_name, clean_text
from fanout.store.history.filters import ComparisonFilter
from fanout.store.history.records import MAX_NUMBER, AnswerRow, ComparisonRow, StoredComparison, first_number_at

MAX_PAGE = 100
CHUNK_ROWS = 50
METADATA_FILTER = re.compile(r"metadata(?:\.(.+)|\[(.+)\])", re.DOTALL)
"""A filter by metadata: `metadata.KEY`, or as OpenAI's clients write it, `metadata[KEY]`."""
BOOLEANS = {"true": True, "false": False}
STATUS_PATTERN = re.compile("[1-5][0-9][0-9]")


def _start(text: str) -> int:
    return first_number_at(parse_moment(text)[0])


def _end(text: str) -> int:
    """A date's whole day is before its end."""
    seconds, is_date = parse_moment(text)
    return first_number_at(seconds + DAY if is_date else seconds)


def _boolean(text: str) -> bool:
    if text not in BOOLEANS:
        raise ValueError(f"`{text[:40]}` is not allowed: `true` or `false`")
    return BOOLEANS[text]


def _status(text: str) -> int:
    if not STATUS_PATTERN.fullmatch(text):
        raise ValueError(f"`{text[:40]}` is not allowed: an HTTP status, 100 to 599")
    return int(text)


def _limit(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MAX_PAGE):
        raise ValueError(f"`{text[:40]}` is not allowed: a whole number from 1 to {MAX_PAGE}")
    return int(text)


Words = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class ComparisonsQuery(BaseModel):
    """Which comparisons are asked for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str | None = Field(None, max_length=256)
    """Of one of its answers, as the caller wrote it."""
    label: str | None = Field(None, max_length=256)
    """Of one of its answers; of the same one, where `model` is given too."""
    metadata: Words | None = None
    """What the caller's metadata holds: `metadata.KEY=VALUE`, or `metadata[KEY]=VALUE`; several must all be there."""
    from_: Annotated[int | None, BeforeValidator(_start), time_schema("2026-11-01")] = Field(None, alias="from")
    """Asked from this time on: a date or an RFC 3339 time."""
    to: Annotated[int | None, BeforeValidator(_end), time_schema("2026-11-20T09:30:00Z")] = None
    """Asked on this date or before it, or before this time."""
    account_id: str | None = Field(None, max_length=256)
    """One account's; empty: what was asked without an account."""
    status: Annotated[
        int | None, BeforeValidator(_status), WithJsonSchema({"type": "integer", "minimum": 100, "maximum": 599})
    ] = None
    """The HTTP status of the answer; 499: the client left before it had one."""
    failed: Annotated[bool | None, BeforeValidator(_boolean), WithJsonSchema({"type": "boolean"})] = None
    """Whether any of its calls failed."""
    limit: Annotated[
        int,
        BeforeValidator(_limit),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 20}),
    ] = 20
    """Most comparisons of the answer."""
    after: str | None = Field(None, min_length=1, max_length=64)
    """The `last_id` of a page: the next one begins behind it."""

    @field_validator("to")
    @classmethod
    def _in_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        since = info.data.get("from_")
        if value is not None and since is not None and value < since:
            raise ValueError("is before `from`")
        return value

    def question(self, before: int | None) -> ComparisonFilter:
        until = MAX_NUMBER if self.to is None else self.to
        return ComparisonFilter(
            since=self.from_ or 0,
            until=until if before is None else min(until, before),
            account_id=None if self.account_id is None else clean_name(self.account_id),
            model=None if self.model is None else clean_name(self.model),
            label=None if self.label is None else clean_name(self.label),
            metadata={clean_text(name): clean_text(value) for name, value in (self.metadata or {}).items()},
            status=self.status,
            failed=self.failed,
            limit=self.limit + 1,
        )


async def list_comparisons(request: web.Request) -> web.Response:
    """Serves `GET /v1/comparisons`."""
    asked = _read(request)
    if STORE not in request.app:
        return _off(request)
    history = request.app[STORE].history
    try:
        before = None
        if asked.after is not None and (before := await history.find_number(asked.after)) is None:
            raise RequestError([Fault("after", f"no comparison has the id {asked.after!a:.80}: give a page's `last_id`")])
        found = await history.list_comparisons(asked.question(before))
    except StoreError as error:
        return _unreadable(request, error)
    shown, rows = found[: asked.limit], []
    for start in range(0, len(shown), CHUNK_ROWS):
        rows += [encode_json(render_comparison(one)) for one in shown[start : start + CHUNK_ROWS]]
        await asyncio.sleep(0)
    ids = [one.comparison.id for one in shown]
    ends = (ids[0], ids[-1]) if ids else (None, None)
    tail = {"first_id": ends[0], "last_id": ends[1], "has_more": len(found) > len(shown)}
    text = b"".join((b'{"object":"list","data":[', b",".join(rows), b"],", encode_json(tail)[1:]))
    return web.Response(body=text, content_type="application/json")


async def get_comparison(request: web.Request) -> web.Response:
    """Serves `GET /v1/comparisons/{id}`."""
    if STORE not in request.app:
        return _off(request)
    id_ = request.match_info["id"]
    try:
        found = await request.app[STORE].history.find(clean_text(id_)[:256])
    except StoreError as error:
        return _unreadable(request, error)
    if found is None:
        message = f"no comparison has the id {id_!a:.80}: it was never kept, or it is older than what is kept"
        return error_response(request, error_reply(404, message, param="id", code="comparison_not_found"))
    rows = []
    for start in range(0, len(found.answers), CHUNK_ROWS):
        rows += [encode_json(render_choice(answer)) for answer in found.answers[start : start + CHUNK_ROWS]]
        await asyncio.sleep(0)
    head = encode_json({**render_comparison(found), "request": _asked(found.comparison.request)})
    return web.Response(body=b"".join((head[:-1], b',"choices":[', b",".join(rows), b"]}")), content_type="application/json")


def _read(request: web.Request) -> ComparisonsQuery:
    """The query, validated whole.

    Raises:
        RequestError: with every wrong parameter.
    """
    given: dict[str, Any] = {}
    words: dict[str, str] = {}
    faults = []
    for name in request.query:
        word, values = METADATA_FILTER.fullmatch(name), request.query.getall(name)
        key = (word[1] or word[2]) if word else name
        if len(values) > 1 or (word and key in words):
            faults.append(Fault(name[:80], "is given more than once: once is allowed"))
        if word:
            words[key] = values[0]
        else:
            given[name] = values[0]
    if "metadata" in given:
        faults.append(Fault("metadata", "is written `metadata.KEY=VALUE`"))
        del given["metadata"]
    try:
        asked = ComparisonsQuery.model_validate({**given, **({"metadata": words} if words else {})})
    except ValidationError as error:
        faults += to_faults(error, ComparisonsQuery)
    if faults:
        raise RequestError(list(dict.fromkeys(faults)))
    return asked


def render_comparison(found: StoredComparison) -> dict[str, Any]:
    """A comparison without its answers."""
    row = found.comparison
    return {
        "id": row.id,
        "object": "comparison",
        "created": to_rfc3339(row.created),
        "path": row.path,
        "stream": row.stream,
        "account_id": row.account_id or None,
        "request_id": row.request_id,
        "request_digest": row.digest.hex(),
        "status": row.status,
        "client_left": row.status == CLIENT_LEFT,
        "entries": [{"entry": entry, "model": model, "label": label} for entry, model, label in found.entries],
        "answered": row.answered,
        "failed": row.failed,
        "usage": {**_tokens(row), "unknown": row.unknown_usage},
        "cost_usd": row.cost_usd,
        "cost_unknown": row.cost_unknown,
        "timing": {"total_ms": row.total_ms, "overhead_ms": row.overhead_ms},
        "metadata": found.metadata or {},
    }


def render_choice(row: AnswerRow) -> dict[str, Any]:
    """An answer, in the fields that it had."""
    said = from_json(row.content) if row.content else {}
    place = {"index": row.place, "entry": row.entry, "sample": row.sample}
    if row.prompt is not None:
        place["prompt_index"] = row.prompt
    rate = round(row.output_tokens * 1e3 / row.call_ms, 2) if row.output_tokens is not None and row.call_ms else None
    beside = {name: said[name] for name in ("reasoning", "refusal", "tool_calls") if name in said}
    return {
        **place,
        "model": row.model,
        "label": row.label,
        "text": said.get("text"),
        **beside,
        "finish_reason": row.finish_reason,
        "usage": {**_tokens(row), "prediction_time_ms": row.call_ms},
        "provider": row.provider,
        "upstream_model": row.upstream_model,
        "timing": {
            "queued_ms": row.queued_ms,
            "ttft_ms": row.ttft_ms,
            "total_ms": row.total_ms,
            "attempts": row.attempts,
            "tokens_per_second": rate,
        },
        "cost_usd": row.cost_usd,
        "cost_source": row.cost_source,
        "error": _error(row, said) if row.kind else None,
    }


def _tokens(row: ComparisonRow | AnswerRow) -> dict[str, int | None]:
    return {
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "total_tokens": total_tokens(row.input_tokens, row.output_tokens),
        "cached_tokens": row.cached_tokens,
    }


def _error(row: AnswerRow, said: Mapping[str, Any]) -> dict[str, Any]:
    types: Mapping[Any, str] = TYPES
    return {
        "message": said.get("message"),
        "type": types.get(row.kind, "api_error"),
        "code": row.code or row.kind,
        "kind": row.kind,
        "upstream_status": row.upstream_status,
    }


def _asked(text: str | None) -> Any:
    """What was sent, which was JSON."""
    try:
        return None if text is None else from_json(text)
    except ValueError:  # half a character in it, or nested beyond all sense
        return text


def _off(request: web.Request) -> web.Response:
    return respond_unavailable(request, "no history is kept: FANOUT_STORE is `off`", "configuration_error", "store_off")


def _unreadable(request: web.Request, error: StoreError) -> web.Response:
    log.error("history cannot be read", database=request.app[STORE].name, reason=str(error))
    return respond_unavailable(
        request, "the history cannot be read now; the log has the details", "server_error", "store_unavailable"
    )
