"""OpenAPI 3.1, made from the models that validate requests, and from those of answers in `operations/`.

An endpoint is described by an `Operation`, under its method and path in a mapping. To add one: give the model of its body or
query, its answers by status, and an example; `operations/shared.py` has the statuses of whatever calls models or looks up.
Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

import fanout

REFERENCE = "#/components/schemas/"
JSON, EVENTS, MULTIPART = "application/json", "text/event-stream", "multipart/form-data"
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a stream."""

    data: type[BaseModel] | tuple[type[BaseModel], ...]
    """What is in the data of each, as JSON."""
    done: bool = True
    """`[DONE]` is the data of the last one."""


Content = type[BaseModel] | tuple[type[BaseModel], ...] | Events | Schema
"""A model, one of several models, the events of a stream, or a schema."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One status of an operation."""

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    """Media type → what it holds."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Name → a JSON answer."""
    headers: tuple[str, ...] = ()
    """Names of `HEADERS`, beside those that every answer has."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is said of one endpoint."""

    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    body: type[BaseModel] | None = None
    form: Schema | None = None
    """Of a `multipart/form-data` body, where it is one."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Name → a JSON body; or one query, as an object, where there is no body. Every one works on a fresh machine."""
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    """Names of `REQUEST_HEADERS`."""
    path: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name of a part of the path → what it is, and an example."""
    public: bool = False
    """Needs no key."""


Operations = Mapping[tuple[str, str], Operation]
HEADERS: Mapping[str, Schema] = {
    "x-request-id": {"description": "The request's id: yours if you sent one, else a new one.", "schema": {"type": "string"}},
    "x-should-retry": {
        "description": "`false`: the same request again would fail again, or be paid for again.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Retry-After": {"description": "Seconds to wait before another try.", "schema": {"type": "integer", "minimum": 1}},
    "x-comparison-id": {
        "description": "Where the history has this request: `GET /v1/comparisons/{id}`.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true`: this is the answer that the first request with this `Idempotency-Key` had.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Where what was made can be looked at.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
}
EVERY_ANSWER = ("x-request-id",)
REQUEST_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "Idempotency-Key": (
        "A name of your own for this request, 1 to 255 printable ASCII characters. For a day, the same request with the same "
        "key has the same answer, and nothing is called or paid for again.",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "x-selected-account-id": (
        "Whom the usage is counted for, in `GET /v1/usage`. 256 characters are kept.",
        {"type": "string"},
    ),
    "X-OpenAI-Api-Key": (
        "Your own key for OpenAI, used for its models in this request alone. "
        "Another provider's header is its `key_header` in providers.json.",
        {"type": "string"},
    ),
}
SECURITY: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "One of FANOUT_API_KEYS."},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, as Scale's clients send it.",
    },
}
ANY_KEY: list[Schema] = [{"bearer": []}, {"x-api-key": []}, {}]
"""The last: where no key is set, the machine itself may call without one."""


def document(
    routes: Iterable[tuple[str, str]], operations: Operations, *, description: str, glossary: Mapping[str, str]
) -> Schema:
    """The OpenAPI document of the routes, by method and path, that have an operation; in the order of the operations.

    Args:
        glossary: what fields mean of which their models say nothing, by name.
    """
    known = set(routes)
    served = [(*route, operation) for route, operation in operations.items() if route in known]
    schemas = _schemas((operation for _, _, operation in served), glossary)
    paths: dict[str, Schema] = {}
    for method, path, operation in served:
        paths.setdefault(path, {})[method.lower()] = _operation(operation)
    tags = dict.fromkeys(operation.tag for _, _, operation in served)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fanout",
            "version": fanout.__version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {"schemas": schemas, "headers": dict(HEADERS), "securitySchemes": dict(SECURITY)},
        "security": ANY_KEY,
    }


def routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """Method and path of every route; HEAD is a GET without its body."""
    for route in app.router.routes():
        if route.resource is not None and route.method != "HEAD":
            yield route.method, route.resource.canonical


class _Schemas(GenerateJsonSchema):
    """Without the titles that pydantic makes of names: they say nothing more."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schemas(operations: Iterable[Operation], glossary: Mapping[str, str]) -> dict[str, Schema]:
    models: dict[type[BaseModel], None] = {}
    for operation in operations:
        contents = [_models(content) for answer in operation.answers.values() for content in answer.content.values()]
        for model in (*_models(operation.body), *(model for found in contents for model in found)):
            models |= dict.fromkeys((model, *_hidden(model)))
    _, whole = models_json_schema(
        [(model, "validation") for model in models], ref_template=f"{REFERENCE}{{model}}", schema_generator=_Schemas
    )
    schemas = {name: _plain(schema) for name, schema in sorted(whole["$defs"].items())}
    for schema in schemas.values():
        for name, inner in schema.get("properties", {}).items():
            if name in glossary:
                inner.setdefault("description", glossary[name])
    return schemas


def _models(content: Content | None) -> tuple[type[BaseModel], ...]:
    if isinstance(content, Events):
        return _models(content.data)
    return content if isinstance(content, tuple) else (content,) if isinstance(content, type) else ()


def _hidden(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Models that a model names only inside a schema written by hand: pydantic does not follow those."""
    for info in model.model_fields.values():
        yield from _named_in(info.annotation)


def _named_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for member in get_args(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member
        else:
            yield from _named_in(member)


def _plain(schema: Any) -> Any:
    """Without what is no news: titles of models, and that what is absent is null."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    noise = {"title"} if isinstance(schema.get("title"), str) else set()
    if schema.get("default", ...) is None:
        noise |= {"default"}
    return {name: _plain(value) for name, value in schema.items() if name not in noise}


def _operation(operation: Operation) -> Schema:
    made: Schema = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        made["description"] = operation.description
    if parameters := [*_path(operation), *_query(operation), *_request_headers(operation)]:
        made["parameters"] = parameters
    if operation.body:
        content = {"schema": {"$ref": REFERENCE + operation.body.__name__}, **_examples(operation.examples)}
        made["requestBody"] = {"required": True, "content": {JSON: content}}
    if operation.form:
        made["requestBody"] = {"required": True, "content": {MULTIPART: {"schema": operation.form}}}
    made["responses"] = {str(status): _answer(answer) for status, answer in sorted(operation.answers.items())}
    if operation.public:
        made["security"] = []
    return made


def _answer(answer: Answer) -> Schema:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERY_ANSWER, *answer.headers)}
    made: Schema = {"description": answer.description, "headers": headers}
    if answer.content:
        made["content"] = {
            media: {"schema": _content(content), **(_examples(answer.examples) if media == JSON else {})}
            for media, content in answer.content.items()
        }
    return made


def _content(content: Content) -> Schema:
    if isinstance(content, dict):
        return content
    refs = [{"$ref": REFERENCE + model.__name__} for model in _models(content)]
    schema: Schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return _event(schema, content) if isinstance(content, Events) else schema


def _event(data: Schema, events: Events) -> Schema:
    """One event, in the form that OpenAPI 3.2 gives it; 3.1 leaves open what a schema of `text/event-stream` says."""
    held: Schema = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
    last: list[Schema] = [{"const": "[DONE]"}] if events.done else []
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [held, *last]}}}


def _examples(examples: Mapping[str, Any]) -> Schema:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}


def _path(operation: Operation) -> Iterator[Schema]:
    for name, (description, example) in operation.path.items():
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema, "example": example}


def _query(operation: Operation) -> Iterator[Schema]:
    """A model's fields as parameters of the query, each with its own description."""
    if operation.query is None:
        return
    example: Mapping[str, Any] = next(iter(operation.examples.values()), {})
    whole = _plain(operation.query.model_json_schema(by_alias=True, schema_generator=_Schemas))
    for name, schema in whole["properties"].items():
        required = {"required": True} if name in whole.get("required", ()) else {}
        stated = {"description": schema.pop("description")} if "description" in schema else {}
        shown = {"example": example[name]} if name in example else {}
        plain = _not_null(schema)
        style = {"style": "deepObject", "explode": True} if plain.get("type") == "object" else {}
        yield {"name": name, "in": "query", **required, **stated, **style, "schema": plain, **shown}


def _not_null(schema: Schema) -> Schema:
    """A parameter is given or not: it cannot be null."""
    members = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **members[0]}


def _request_headers(operation: Operation) -> Iterator[Schema]:
    for name in operation.headers:
        description, schema = REQUEST_HEADERS[name]
        yield {"name": name, "in": "header", "description": description, "schema": schema}
