"""Errors as answers show them: OpenAI's envelope, and a failed call within a choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.core.errors import Fault
from fanout.core.schema import SHORTAGE_CODES, UNAVAILABLE_CODE, Failure, FailureKind, Outcome

STATUSES: Mapping[FailureKind, int] = {
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
"""HTTP status if all calls of a request failed in this way; 502 for every other kind, and for a mixture."""
TYPES: Mapping[FailureKind, str] = {
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
UNPAID_STATUSES = frozenset({429, 503})
"""Statuses after which nothing was charged, so that a client may retry automatically."""

BUSY_CODES = SHORTAGE_CODES | {UNAVAILABLE_CODE}
"""Codes of failures that answer 503 whatever their kind: nothing was sent, and it may be tried again later."""


class ChoiceErrorJson(TypedDict):
    """Reason why a call gave no answer. It holds no key, host or address of the provider."""

    message: Annotated[str, Doc("What went wrong, for people.")]
    type: Annotated[str, Doc("Class of the error, as in the envelope.")]
    param: Annotated[str | None, Doc("The field at fault.")]
    code: Annotated[str, Doc("What went wrong, for programs.")]
    kind: Annotated[FailureKind, Doc("Kind of failure.")]
    upstream_status: Annotated[NotRequired[int | None], Doc("HTTP status of the provider's answer.")]
    upstream_request_id: Annotated[
        NotRequired[str | None], Doc("The provider's id of the request, which its support asks for.")
    ]
    retry_after_s: Annotated[NotRequired[float | None], Doc("Seconds to wait, as the provider requested.")]


class ErrorDetailJson(TypedDict):
    """One wrong field; or one failed call, with its place and the kind of its failure."""

    message: Annotated[str, Doc("What is wrong, for people.")]
    param: Annotated[str | None, Doc("The field at fault.")]
    code: Annotated[str | None, Doc("What is wrong, for programs.")]
    index: Annotated[NotRequired[int | None], Doc("Index of the choice that the call would have given.")]
    entry: Annotated[NotRequired[int | None], Doc("Position in `model`, sets written out.")]
    sample: Annotated[NotRequired[int | None], Doc("Number of the sample within its entry.")]
    prompt_index: Annotated[NotRequired[int | None], Doc("Position in `prompt`, if that was a list.")]
    model: Annotated[NotRequired[str | None], Doc("The model as you wrote it.")]
    label: Annotated[NotRequired[str | None], Doc("Your name for the entry; by default the model's.")]
    attempts: Annotated[NotRequired[int | None], Doc("Attempts upstream, retries included.")]
    type: Annotated[NotRequired[str | None], Doc("Class of the error, as in the envelope.")]
    kind: Annotated[NotRequired[FailureKind | None], Doc("Kind of failure.")]
    upstream_status: Annotated[NotRequired[int | None], Doc("HTTP status of the provider's answer.")]
    upstream_request_id: Annotated[
        NotRequired[str | None], Doc("The provider's id of the request, which its support asks for.")
    ]
    retry_after_s: Annotated[NotRequired[float | None], Doc("Seconds to wait, as the provider requested.")]


class ErrorJson(TypedDict):
    message: Annotated[str, Doc("What is wrong and what is allowed, for people.")]
    type: Annotated[
        str,
        Doc("`invalid_request_error`, `authentication_error`, `rate_limit_error`, `configuration_error`, `server_error`, …"),
    ]
    param: Annotated[str | None, Doc("The first wrong field.")]
    code: Annotated[str | None, Doc("What is wrong, for programs: `invalid_value`, `model_not_found`, `all_failed`, …")]
    details: Annotated[
        NotRequired[Sequence[ErrorDetailJson] | None],
        Doc("Every wrong field; or, if all calls failed, each call with its failure."),
    ]


class ErrorAnswerJson(TypedDict):
    """OpenAI's error envelope."""

    error: Annotated[ErrorJson, Doc("What went wrong.")]


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error answer: HTTP status, error and headers."""

    status: int
    error: ErrorJson
    headers: Mapping[str, str] = field(default_factory=dict)


def render_error(
    status: int,
    message: str,
    *,
    type_: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    details: Sequence[ErrorDetailJson] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ErrorReply:
    """Return an error in the form that every OpenAI client can read."""
    error: ErrorJson = {"message": message, "type": type_, "param": param, "code": code}
    if details is not None:
        error["details"] = details
    return ErrorReply(status, error, headers or {})


def render_faults(faults: Sequence[Fault], status: int = 400) -> ErrorReply:
    """Return all wrong fields of a request as one error; its `param` and `code` are those of the first."""
    details: list[ErrorDetailJson] = [
        {"message": fault.message, "param": fault.path or None, "code": fault.kind} for fault in faults
    ]
    # Every fault in the one sentence: many clients show nothing but `message`.
    message = "; ".join(f"`{fault.path}`: {fault.message}" if fault.path else fault.message for fault in faults)
    return render_error(status, message, param=faults[0].path or None, code=faults[0].kind, details=details)


def render_all_failed(outcomes: Sequence[Outcome]) -> ErrorReply:
    """Return the error of a request whose calls all failed; `details` holds every call's failure."""
    # The error itself has only what all failures share: a client that reads no `details` must not act on one of several.
    failed = [(outcome, outcome.result) for outcome in outcomes if isinstance(outcome.result, Failure)]
    failures = [failure for _, failure in failed]
    statuses = {503 if failure.code in BUSY_CODES else STATUSES.get(failure.kind, 502) for failure in failures}
    # 502 for a mixture: no single cause, so a client must not react as if to one, such as by waiting after a 429.
    status = statuses.pop() if len(statuses) == 1 else 502
    first = render_failure(failures[0])
    is_same = len({(failure.kind, failure.message) for failure in failures}) == 1
    message = first["message"] if is_same else f"all {len(failures)} calls failed; the first: {first['message']}"
    return render_error(
        status,
        message,
        type_=first["type"] if len({failure.kind for failure in failures}) == 1 else "api_error",
        param=first["param"] if len({failure.param for failure in failures}) == 1 else None,
        code=first["code"] if len({(failure.kind, failure.code) for failure in failures}) == 1 else "all_failed",
        details=[_render_failed_call(outcome, failure) for outcome, failure in failed],
        headers=_retry_headers(status, failed),
    )


def render_failure(failure: Failure) -> ChoiceErrorJson:
    """Return a failure as a choice shows it."""
    error: ChoiceErrorJson = {
        "message": failure.message,
        "type": TYPES.get(failure.kind, "api_error"),
        "param": failure.param,
        # Never null: OpenAI's clients tell errors of one status apart by `code`.
        "code": failure.code or failure.kind,
        "kind": failure.kind,
    }
    # Without an upstream answer these fields would be null in most errors; they are left out to keep errors readable.
    if failure.status is not None:
        error["upstream_status"] = failure.status
    if failure.request_id is not None:
        error["upstream_request_id"] = failure.request_id
    if failure.retry_after_s is not None:
        error["retry_after_s"] = failure.retry_after_s
    return error


def _render_failed_call(outcome: Outcome, failure: Failure) -> ErrorDetailJson:
    call = outcome.call
    return {
        "index": call.index,
        "entry": call.entry,
        "sample": call.sample,
        "model": call.target.name,
        "label": call.target.label,
        "attempts": outcome.timing.attempts,
        **render_failure(failure),  # type: ignore[typeddict-item]  # mypy: it could have a `prompt_index`
    }


def _retry_headers(status: int, failed: Sequence[tuple[Outcome, Failure]]) -> dict[str, str]:
    # A call cancelled in flight may have been billed, so an automatic retry could be charged twice.
    may_be_billed = any(failure.kind == "cancelled" and outcome.timing.attempts for outcome, failure in failed)
    # Nobody sets a missing key between two attempts.
    is_lasting = any(failure.kind == "not_configured" for _, failure in failed)
    if status not in UNPAID_STATUSES or may_be_billed or is_lasting:
        return {"x-should-retry": "false"}
    # The shortest wait: after it at least one call can succeed. At least 1, because the header has whole seconds, and
    # OpenAI's clients ignore 0.
    waits_s = [failure.retry_after_s for _, failure in failed if failure.retry_after_s is not None]
    return {"Retry-After": str(max(1, math.ceil(min(waits_s))))} if waits_s else {}
