"""Failures and faults → HTTP statuses and the error envelope."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic_core import from_json

from fanout.core.errors import Fault
from fanout.core.json_text import dump
from fanout.core.schema import Failure, FailureKind, Outcome

STATUS: Mapping[FailureKind, int] = {
    "not_found": 404,
    "not_configured": 503,
    "rate_limit": 429,
    "quota": 402,
    "bad_request": 400,
    "unsupported": 400,
    "content_filter": 400,
    "timeout": 504,
    "cancelled": 503,
}
"""Of a request all of whose calls failed so; every other kind is 502, and so is a mixture."""
TYPE: Mapping[FailureKind, str] = {
    "not_found": "invalid_request_error",
    "bad_request": "invalid_request_error",
    "unsupported": "invalid_request_error",
    "content_filter": "invalid_request_error",
    "not_configured": "configuration_error",
    "auth": "authentication_error",
    "rate_limit": "rate_limit_error",
    "quota": "insufficient_quota",
    "timeout": "timeout_error",
    "cancelled": "cancelled",
    "internal": "server_error",
}
UNPAID = frozenset({429, 503})
"""Statuses after which nothing was paid for, so that a client may try again by itself."""


def envelope(
    status: int,
    message: str,
    *,
    type_: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    details: Sequence[Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """OpenAI's error envelope, which every client of ours can read."""
    error: dict[str, Any] = {"message": message, "type": type_, "param": param, "code": code}
    if details is not None:
        error["details"] = details
    return web.Response(
        status=status, body=dump({"error": error}), content_type="application/json", headers=dict(headers or {})
    )


def for_scale(response: web.Response) -> web.Response:
    """The same error as Scale's clients read it: a `detail` beside the envelope."""
    body = from_json(response.text or "{}")
    response.body = dump({"detail": body["error"]["message"], **body})
    return response


def bad_request(faults: Sequence[Fault], status: int = 400) -> web.Response:
    """Every wrong field in one answer; `param` and `code` are the first one's."""
    details = [{"message": fault.message, "param": fault.path or None, "code": fault.kind} for fault in faults]
    message = "; ".join(f"`{fault.path}`: {fault.message}" if fault.path else fault.message for fault in faults)
    return envelope(status, message, param=faults[0].path or None, code=faults[0].kind, details=details)


def failure_error(failure: Failure) -> dict[str, Any]:
    """A failure as it stands in a choice."""
    known = {
        "upstream_status": failure.status,
        "upstream_request_id": failure.request_id,
        "retry_after_s": failure.retry_after_s,
    }
    return {
        "message": failure.message,
        "type": TYPE.get(failure.kind, "api_error"),
        "param": failure.param,
        "code": failure.code or failure.kind,
        "kind": failure.kind,
        **{name: value for name, value in known.items() if value is not None},
    }


def all_failed(outcomes: Sequence[Outcome]) -> web.Response:
    """The answer to a request none of whose calls was answered; every call's failure is in `details`."""
    failures = [outcome.result for outcome in outcomes if isinstance(outcome.result, Failure)]
    statuses = {STATUS.get(failure.kind, 502) for failure in failures}
    status = statuses.pop() if len(statuses) == 1 else 502
    first = failure_error(failures[0])
    same = len({(failure.kind, failure.message) for failure in failures}) == 1
    message = first["message"] if same else f"all {len(failures)} calls failed; the first: {first['message']}"
    details = [
        {
            "index": outcome.call.index,
            "entry": outcome.call.entry,
            "sample": outcome.call.sample,
            "model": outcome.call.target.name,
            "label": outcome.call.target.label,
            **failure_error(outcome.result),
        }
        for outcome in outcomes
        if isinstance(outcome.result, Failure)
    ]
    return envelope(
        status,
        message,
        type_=first["type"] if len({failure.kind for failure in failures}) == 1 else "api_error",
        param=first["param"] if len({failure.param for failure in failures}) == 1 else None,
        code=first["code"] if len({(failure.kind, failure.code) for failure in failures}) == 1 else "all_failed",
        details=details,
        headers=_retry_headers(status, outcomes),
    )


def _retry_headers(status: int, outcomes: Sequence[Outcome]) -> dict[str, str]:
    failures = [(outcome.result, outcome.timing.attempts) for outcome in outcomes if isinstance(outcome.result, Failure)]
    # One that was cancelled on its way may have been billed.
    if status not in UNPAID or any(failure.kind == "cancelled" and attempts for failure, attempts in failures):
        return {"x-should-retry": "false"}
    waits = [failure.retry_after_s for failure, _ in failures if failure.retry_after_s is not None]
    return {"Retry-After": str(max(1, math.ceil(min(waits))))} if waits else {}
