"""Statuses that many endpoints share."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.rendering.errors import ErrorAnswerJson
from fanout.server.openapi.endpoint import EVENTS, JSON, Content, Events, Shape, StatusAnswer

Answers = dict[int, StatusAnswer]
"""By status."""

ACCESS: Answers = {
    401: StatusAnswer("The key is missing or unknown.", headers=("WWW-Authenticate",)),
    403: StatusAnswer("No keys are set: only this machine may call, under a name of its own."),
}
BROKEN: Answers = {500: StatusAnswer("Fanout itself failed; its log has the details.", headers=("x-should-retry",))}
STOPPING: Answers = {503: StatusAnswer("The server is stopping.", headers=("Retry-After",))}
BODY: Answers = {
    413: StatusAnswer("The body is larger than FANOUT_MAX_BODY_BYTES."),
    415: StatusAnswer("The body is not declared as `application/json`."),
}
ALL_FAILED: Answers = {
    402: StatusAnswer("Every call failed: a provider's quota is used up.", headers=("x-should-retry",)),
    404: StatusAnswer(
        "Every call failed: no model has that name, or its vendor has shut it down.", headers=("x-should-retry",)
    ),
    429: StatusAnswer("Every call failed: a provider's limit, or one set here, is reached.", headers=("Retry-After",)),
    502: StatusAnswer(
        "Every call failed, for different reasons or through a provider's fault: see `details`.", headers=("x-should-retry",)
    ),
    503: StatusAnswer(
        "Every call failed: the server has no key for that provider. Or the server is stopping.",
        headers=("Retry-After", "x-should-retry"),
    ),
    504: StatusAnswer("Every call failed: no complete answer before the deadline.", headers=("x-should-retry",)),
}
REUSED = StatusAnswer(
    "The `Idempotency-Key` came with another body before; or its answer is too large to be given again.",
    headers=("x-should-retry",),
)
INVALID = "Wrong fields, all of them named in `details`. Or every call failed: the provider refused the request."
INVALID_PARAMETERS = "Wrong parameters, all of them named in `details`."
STORE_UNAVAILABLE = "Nothing is kept (FANOUT_STORE is `off`), or the database cannot be used now. Or the server is stopping."


def describe_lookup(
    content: Content, description: str, examples: Mapping[str, object] | None = None, *, error: Shape = ErrorAnswerJson
) -> Answers:
    """Return the answers of an endpoint that only looks something up."""
    found = {200: StatusAnswer(description, {JSON: content}, examples or {})}
    return {**found, **_errors({**ACCESS, **BROKEN, **STOPPING}, error)}


def describe_stored(
    content: Content,
    description: str,
    examples: Mapping[str, object] | None = None,
    *,
    invalid: str | None = None,
    missing: str | None = None,
    conflict: str | None = None,
) -> Answers:
    """Return the answers of an endpoint that needs the store.

    Args:
        content: what it holds.
        description: of the 200.
        examples: of the 200.
        invalid: description of the 400, if there is one.
        missing: description of the 404, if there is one.
        conflict: description of the 409, if there is one.
    """
    answers = {**describe_lookup(content, description, examples), **describe_error(503, STORE_UNAVAILABLE)}
    for status, sentence in ((400, invalid), (404, missing), (409, conflict)):
        if sentence is not None:
            answers |= describe_error(status, sentence)
    return answers


def describe_call(
    content: Content,
    events: Events,
    description: str,
    examples: Mapping[str, object] | None = None,
    *,
    error: Shape = ErrorAnswerJson,
) -> Answers:
    """Return the answers of an endpoint that calls models.

    Args:
        content: what it holds where it does not stream.
        events: what it holds where it streams.
        description: of the 200.
        examples: of the 200.
        error: shape of all other answers.
    """
    headers = ("x-comparison-id", "Idempotent-Replayed")
    answered = {200: StatusAnswer(description, {JSON: content, EVENTS: events}, examples or {}, headers)}
    refused = {400: StatusAnswer(INVALID, headers=("x-should-retry",)), 409: REUSED}
    return {**answered, **_errors({**refused, **ACCESS, **BODY, **ALL_FAILED, **BROKEN}, error)}


def describe_error(status: int, description: str, *, error: Shape = ErrorAnswerJson) -> Answers:
    """Return one error status."""
    return _errors({status: StatusAnswer(description)}, error)


def describe_body_errors() -> Answers:
    """Return the errors of a body that is too large or not JSON."""
    return _errors(BODY, ErrorAnswerJson)


def _errors(answers: Mapping[int, StatusAnswer], error: Shape) -> Answers:
    return {
        status: StatusAnswer(answer.description, {JSON: error}, answer.examples, answer.headers)
        for status, answer in answers.items()
    }
