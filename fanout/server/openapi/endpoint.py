"""An endpoint and its answers: the source of both the routes and the OpenAPI document.

To add an endpoint, declare an `Endpoint` beside its handler and list it in `server/endpoints.py`. Its answers' shapes are the
`TypedDict`s that the renderers in `fanout/rendering` return; each is named `<component>Json`, and the `Doc`s of its
fields are the descriptions. `list_lookup_answers`, `list_store_answers` and `list_call_answers` return the answers by status
that many endpoints share.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from fanout.core.json_text import JsonObject
from fanout.rendering.errors import ErrorAnswerJson

JSON, EVENTS, MULTIPART = "application/json", "text/event-stream", "multipart/form-data"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shape = type[object]
"""A `TypedDict` of an answer."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a stream."""

    data: Shape | tuple[Shape, ...]
    """Shape of each event's data, which is JSON."""
    done: bool = True
    """The data of the last event is `[DONE]`."""


Content = Shape | tuple[Shape, ...] | Events | JsonObject
"""A shape, one of several shapes, the events of a stream, or a JSON schema."""


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """One status of an endpoint."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    """Media type → content."""
    examples: Mapping[str, object] = field(default_factory=dict)
    """Name → JSON answer."""
    headers: tuple[str, ...] = ()
    """Names of `document.HEADERS`, beside those that every answer has."""


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A method and path, its handler, and its description."""

    method_and_path: str
    """As aiohttp's router writes them: `GET /v1/models/{model:.+}`."""
    handler: Handler
    id: str
    tag: str
    """One of `document.TAGS`."""
    summary: str
    answers: Mapping[int, StatusAnswer]
    description: str = ""
    body: type[BaseModel] | None = None
    form: JsonObject | None = None
    """Schema of a `multipart/form-data` body."""
    examples: Mapping[str, JsonObject] = field(default_factory=dict)
    """Name → JSON body; or, if there is no body, the parameters of a query. Each works on a fresh machine."""
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    """Names of `document.REQUEST_HEADERS`."""
    path_parameters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → description and example."""
    is_public: bool = False
    """Served without any API key."""

    @property
    def method(self) -> str:
        return self.method_and_path.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.method_and_path.partition(" ")[2]

    @property
    def template(self) -> str:
        """The path without the patterns of its parameters: `/v1/models/{model}`."""
        # OpenAPI knows no patterns; with them paths would be no templates for its tools.
        return re.sub(r"\{(\w+):[^}]+\}", r"{\1}", self.path)

    @property
    def route(self) -> tuple[str, str]:
        """Method and template, which together identify the endpoint."""
        return self.method, self.template


Answers = dict[int, StatusAnswer]
"""Answers of an endpoint by HTTP status."""

ACCESS: Answers = {
    401: StatusAnswer("The key is missing or unknown.", headers=("WWW-Authenticate",)),
    403: StatusAnswer(
        "There are no keys: only this machine may call, by a loopback address or `localhost` and through no proxy. Or the "
        "key's role does not allow it. Or the account that is named is not the key's."
    ),
    429: StatusAnswer("Too many wrong keys have come from this address.", headers=("Retry-After",)),
}
BROKEN: Answers = {500: StatusAnswer("Fanout itself failed; its log has the details.", headers=("x-should-retry",))}
STOPPING: Answers = {503: StatusAnswer("The server is stopping.", headers=("Retry-After",))}
BODY: Answers = {
    408: StatusAnswer("The body comes too slowly."),
    413: StatusAnswer("The body is larger than FANOUT_MAX_BODY_BYTES."),
    415: StatusAnswer("The body is not declared as `application/json`, or its `Content-Encoding` is not accepted."),
}
RATE_HEADERS = tuple(f"x-ratelimit-{part}-{of}" for of in ("requests", "tokens") for part in ("limit", "remaining", "reset"))
ALL_FAILED: Answers = {
    402: StatusAnswer(
        "The budget of the key is spent: nothing was called. Or every call failed: a provider's quota is used up.",
        headers=("Retry-After", "x-should-retry"),
    ),
    404: StatusAnswer(
        "Every call failed: no model has that name, or its vendor has shut it down.", headers=("x-should-retry",)
    ),
    429: StatusAnswer(
        "A limit of the key is reached: nothing was called. Or every call failed: a provider's limit, or one set here, is "
        "reached. Or too many wrong keys have come from this address.",
        headers=("Retry-After", "x-should-retry", *RATE_HEADERS),
    ),
    502: StatusAnswer(
        "Every call failed, for different reasons or through a provider's fault: see `details`.", headers=("x-should-retry",)
    ),
    503: StatusAnswer(
        "Every call failed: the server has no key for that provider, or does not call it because its calls keep failing. "
        "Or the server is stopping.",
        headers=("Retry-After", "x-should-retry"),
    ),
    504: StatusAnswer("Every call failed: no complete answer before the deadline.", headers=("x-should-retry",)),
}
REUSED = StatusAnswer(
    "The `Idempotency-Key` was used with another body before; or its answer is too large to be repeated.",
    headers=("x-should-retry",),
)
INVALID = "Wrong fields, all of them named in `details`. Or every call failed: the provider refused the request."
INVALID_PARAMETERS = "Wrong parameters, all of them named in `details`."
STORE_UNAVAILABLE = "Nothing is stored (FANOUT_STORE is `off`), or the database cannot be used now. Or the server is stopping."


def list_lookup_answers(
    content: Content, description: str, examples: Mapping[str, object] | None = None, *, error: Shape = ErrorAnswerJson
) -> Answers:
    """Return the answers of an endpoint that only looks something up."""
    found = {200: StatusAnswer(description, {JSON: content}, examples or {})}
    return {**found, **_errors({**ACCESS, **BROKEN, **STOPPING}, error)}


def list_store_answers(
    content: Content,
    description: str,
    examples: Mapping[str, object] | None = None,
    *,
    invalid: str | None = None,
    missing: str | None = None,
    conflict: str | None = None,
) -> Answers:
    """Return the answers of an endpoint that needs the store, with the 400, 404 and 409 that have a description."""
    answers = {**list_lookup_answers(content, description, examples), **list_error_answers(503, STORE_UNAVAILABLE)}
    for status, sentence in ((400, invalid), (404, missing), (409, conflict)):
        if sentence is not None:
            answers |= list_error_answers(status, sentence)
    return answers


def list_call_answers(
    content: Content,
    events: Events | None,
    description: str,
    examples: Mapping[str, object] | None = None,
    *,
    error: Shape = ErrorAnswerJson,
) -> Answers:
    """Return the answers of an endpoint that calls models; `content` is that of a whole answer, `events` of a streamed one."""
    headers = ("x-comparison-id", "Idempotent-Replayed", *RATE_HEADERS)
    answered = {
        200: StatusAnswer(description, {JSON: content, **({EVENTS: events} if events else {})}, examples or {}, headers)
    }
    refused = {400: StatusAnswer(INVALID, headers=("x-should-retry",)), 409: REUSED}
    return {**answered, **_errors({**refused, **ACCESS, **BODY, **ALL_FAILED, **BROKEN}, error)}


def list_error_answers(status: int, description: str, *, error: Shape = ErrorAnswerJson) -> Answers:
    """Return one error status."""
    return _errors({status: StatusAnswer(description)}, error)


def list_body_error_answers() -> Answers:
    """Return the errors of a body that is too large or not JSON."""
    return _errors(BODY, ErrorAnswerJson)


def _errors(answers: Mapping[int, StatusAnswer], error: Shape) -> Answers:
    return {
        status: StatusAnswer(answer.description, {JSON: error}, answer.examples, answer.headers)
        for status, answer in answers.items()
    }
