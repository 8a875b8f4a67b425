"""Statuses that many operations have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.rendering.errors import ErrorAnswerJson
from fanout.server.openapi.endpoint import EVENTS, JSON, Answer, Content, Events, Shape

KEYS = {
    401: Answer("No key, or one that is not known here.", headers=("WWW-Authenticate",)),
    403: Answer("Without keys only this machine may call, by a name of its own."),
}
BROKEN = {500: Answer("A fault of Fanout itself; its log has the details.", headers=("x-should-retry",))}
STOPPING = {503: Answer("The server is stopping.", headers=("Retry-After",))}
BODY = {
    413: Answer("The body is larger than FANOUT_MAX_BODY_BYTES."),
    415: Answer("The body is not declared as `application/json`."),
}
CALLED = {
    402: Answer("Every call failed: a provider's quota is used up.", headers=("x-should-retry",)),
    404: Answer("Every call failed: no model has that name, or its vendor has shut it down.", headers=("x-should-retry",)),
    429: Answer("Every call failed: a provider's limit, or the one set here, is reached.", headers=("Retry-After",)),
    502: Answer(
        "Every call failed, each in its own way, or for a provider's fault: `details` has each.", headers=("x-should-retry",)
    ),
    503: Answer(
        "Every call failed: the server has no key for that provider. Or the server is stopping.",
        headers=("Retry-After", "x-should-retry"),
    ),
    504: Answer("Every call failed: no complete answer before the deadline.", headers=("x-should-retry",)),
}
REUSED = Answer(
    "The `Idempotency-Key` came with another body before; or its answer is too large to be given again.",
    headers=("x-should-retry",),
)
INVALID = "Wrong fields, all of them named in `details`. Or every call failed: the provider refused what was asked."


def reading(
    model: Content, description: str, examples: Mapping[str, Any] | None = None, *, error: Shape = ErrorAnswerJson
) -> dict[int, Answer]:
    """The answers of what only looks something up."""
    good = {200: Answer(description, {JSON: model}, examples or {})}
    return {**good, **_failed({**KEYS, **BROKEN, **STOPPING}, error)}


def calling(
    whole: Content,
    events: Events,
    description: str,
    examples: Mapping[str, Any] | None = None,
    *,
    error: Shape = ErrorAnswerJson,
) -> dict[int, Answer]:
    """The answers of what calls models.

    Args:
        whole: what it answers where it does not stream.
    """
    good = {200: Answer(description, {JSON: whole, EVENTS: events}, examples or {}, ("x-comparison-id", "Idempotent-Replayed"))}
    wrong = {400: Answer(INVALID, headers=("x-should-retry",)), 409: REUSED}
    return {**good, **_failed({**wrong, **KEYS, **BODY, **CALLED, **BROKEN}, error)}


def failing(status: int, description: str, *, error: Shape = ErrorAnswerJson) -> dict[int, Answer]:
    """One more status with the error's envelope."""
    return _failed({status: Answer(description)}, error)


def _failed(answers: Mapping[int, Answer], error: Shape) -> dict[int, Answer]:
    return {
        status: Answer(answer.description, {JSON: error}, answer.examples, answer.headers) for status, answer in answers.items()
    }
