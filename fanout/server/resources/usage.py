"""`GET /v1/usage`: calls, tokens, cost and failures, by account, model and time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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

from fanout.core.errors import RequestError, StoreError
from fanout.core.faults import Fault, to_faults
from fanout.core.suggestions import did_you_mean
from fanout.core.units import to_rfc3339
from fanout.core.usage import total_tokens
from fanout.observability.logs import log
from fanout.rendering.encoding import encode_json
from fanout.rendering.errors import error_reply
from fanout.server.lifecycle import STORE
from fanout.server.responses import error_response
from fanout.store.usage.sums import GroupUsage, UsageFilter

MINUTE, DAY = 60, 86_400
MAX_MINUTE = 253_402_300_740
"""The last minute of the year 9999: later times cannot be written."""
TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?")
"""Source: RFC 3339 §5.6, `full-date` or `date-time`."""
FORMS = "a date, `2026-11-20`, or a time with its zone, `2026-11-20T09:30:00Z`"
GROUPS = {name: name for name in ("model", "provider", "upstream_model", "day", "hour")} | {"account": "account_id"}
"""What a caller may group by → its name in the answer, and in the store."""
MAX_ROWS = 10_000
CHUNK_ROWS = 100


def _start(text: str) -> int:
    """Unix seconds of the minute that a time lies in."""
    moment, _ = parse_moment(text)
    return _minute(moment // MINUTE)


def _end(text: str) -> int:
    """Unix seconds of the first minute that lies wholly behind a time, or behind a date's day."""
    moment, is_date = parse_moment(text)
    return _minute((moment + DAY) // MINUTE if is_date else -(-moment // MINUTE))


def _minute(number: float) -> int:
    return min(max(int(number) * MINUTE, 0), MAX_MINUTE)


def parse_moment(text: str) -> tuple[float, bool]:
    """Unix seconds, and whether only a date was given."""
    # In a query `+` is a space: who forgot to write %2B means the zone's sign.
    given = re.sub(r" (\d\d:\d\d)$", r"+\1", text).upper()
    try:
        moment = datetime.fromisoformat(given if TIME_PATTERN.fullmatch(given) else "")
    except ValueError:
        raise ValueError(f"`{text[:80]}` is not allowed: {FORMS}") from None
    zoned = moment.replace(tzinfo=moment.tzinfo or UTC)
    return (zoned - datetime.fromtimestamp(0, UTC)).total_seconds(), len(given) == len("2026-11-20")


def _groups(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in GROUPS]
    if wrong:
        hints = "; ".join(f"`{name[:40]}` is not allowed{did_you_mean(name, GROUPS)}" for name in wrong[:8])
        raise ValueError(f"{hints}; allowed: {', '.join(GROUPS)}, separated by commas")
    return tuple(dict.fromkeys(names))


GROUP_BY = {
    "type": "string",
    "pattern": f"^(({'|'.join(GROUPS)})(,({'|'.join(GROUPS)}))*)?$",
    "examples": ["day,model"],
}


def time_schema(example: str) -> WithJsonSchema:
    """A time in a query, as OpenAPI says it."""
    return WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}], "examples": [example]})


class UsageQuery(BaseModel):
    """What usage is asked for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    account_id: str | None = Field(None, max_length=256)
    """One account's; empty: what was asked without an account; absent: all accounts'."""
    from_: Annotated[int | None, BeforeValidator(_start), time_schema("2026-11-01")] = Field(None, alias="from")
    """From when on, as a date or an RFC 3339 time, rounded down to its minute; absent: from the beginning."""
    to: Annotated[int | None, BeforeValidator(_end), time_schema("2026-11-20T09:30:00Z")] = None
    """Until when: a date's whole day, or before a time, rounded up to its minute; absent: until now."""
    group_by: Annotated[tuple[str, ...], BeforeValidator(_groups), WithJsonSchema(GROUP_BY)] = Field(
        ("account", "model"), json_schema_extra={"default": "account,model"}
    )
    """What each row is the sum of: names out of `model`, `account`, `provider`, `upstream_model`, `day` and `hour` (UTC), with
    commas between them. Empty: one row for all."""

    @field_validator("to")
    @classmethod
    def _in_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        since = info.data.get("from_")
        if value is not None and since is not None and value < since:
            raise ValueError(f"{_time(value)} is before `from`, {_time(since)}")
        return value

    def question(self) -> UsageFilter:
        now = int(time.time()) // MINUTE * MINUTE + MINUTE
        return UsageFilter(
            since=self.from_ or 0,
            until=now if self.to is None else self.to,
            account_id=self.account_id,
            group_by=tuple(GROUPS[name] for name in self.group_by),
            limit=MAX_ROWS + 1,
        )


async def get_usage(request: web.Request) -> web.Response:
    """Serves `GET /v1/usage`."""
    asked = _read(request)
    if STORE not in request.app:
        return respond_unavailable(request, "no usage is kept: FANOUT_STORE is `off`", "configuration_error", "store_off")
    question = asked.question()
    try:
        sums = await request.app[STORE].usage.report(question)
    except StoreError as error:
        log.error("usage cannot be read", database=request.app[STORE].name, reason=str(error))
        return respond_unavailable(
            request, "usage cannot be read now; the log has the details", "server_error", "store_unavailable"
        )
    if len(sums) > MAX_ROWS:
        raise RequestError([Fault("group_by", f"makes more than {MAX_ROWS} rows: group by less, or ask for less")])
    head = {"object": "list", "from": _time(question.since) if question.since else None, "to": _time(question.until)}
    rows = await _rows(sums)
    body = b"".join((encode_json({**head, "group_by": asked.group_by})[:-1], b',"data":[', b",".join(rows), b"]}"))
    return web.Response(body=body, content_type="application/json")


def _read(request: web.Request) -> UsageQuery:
    """The query, validated whole.

    Raises:
        RequestError: with every wrong parameter.
    """
    given = {name: request.query.getall(name) for name in request.query}
    joined = {name: ",".join(values) if name == "group_by" else values[0] for name, values in given.items()}
    faults = [
        Fault(name, f"is given {len(values)} times: once is allowed")
        for name, values in given.items()
        if len(values) > 1 and name in ("account_id", "from", "to")
    ]
    try:
        asked = UsageQuery.model_validate(joined)
    except ValidationError as error:
        faults += to_faults(error, UsageQuery)
    if faults:
        raise RequestError(faults)
    return asked


async def _rows(sums: Sequence[GroupUsage]) -> list[bytes]:
    rows = []
    for start in range(0, len(sums), CHUNK_ROWS):
        rows += [encode_json(render_usage(total)) for total in sums[start : start + CHUNK_ROWS]]
        await asyncio.sleep(0)  # others have their turn: ten thousand rows take 50 ms
    return rows


def render_usage(total: GroupUsage) -> dict[str, Any]:
    """A row of the answer."""
    totals = total.totals
    return {
        **_group_json(total.group),
        "requests": totals.calls,
        "answered": total.answered,
        "failures": total.failures,
        "prompt_tokens": totals.input_tokens,
        "completion_tokens": totals.output_tokens,
        "total_tokens": total_tokens(totals.input_tokens, totals.output_tokens),
        "cached_tokens": totals.cached_tokens,
        "unknown_usage": totals.unknown_usage,
        "cost_usd": None if totals.cost_usd is None else round(totals.cost_usd, 12),
        "cost_unknown": totals.cost_unknown,
    }


def _group_json(group: Mapping[str, Any]) -> dict[str, Any]:
    written = {"day": lambda seconds: _time(seconds)[:10], "hour": _time}
    return {name: written[name](value) if name in written else value or None for name, value in group.items()}


def respond_unavailable(request: web.Request, message: str, kind: str, code: str) -> web.Response:
    """The store is off, or cannot be read now."""
    retry = {"x-should-retry": "false"} if code == "store_off" else {}
    return error_response(request, error_reply(503, message, type_=kind, code=code, headers=retry))


def _time(seconds: float) -> str:
    return to_rfc3339(seconds, "auto")
