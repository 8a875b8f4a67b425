"""OpenAPI 3.1, made from the endpoints that the server routes.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import fanout
from fanout.core.json_text import JsonObject
from fanout.server.openapi.components import (
    REFERENCE,
    ComponentSchema,
    list_shapes,
    make_components,
    name_component,
    strip_noise,
)
from fanout.server.openapi.endpoint import JSON, MULTIPART, Content, Endpoint, Events, StatusAnswer

TAGS = (
    "Compare",
    "OpenAI and Konko",
    "Files and batches",
    "Jobs",
    "Votes",
    "Scale",
    "History",
    "Models and usage",
    "Keys",
    "Server",
)
"""Groups of endpoints, in the order in which the document shows them."""
HEADERS: Mapping[str, JsonObject] = {
    "x-request-id": {"description": "The request's id: yours if you sent one, else a new one.", "schema": {"type": "string"}},
    "x-should-retry": {
        "description": "`false`: do not retry; it would fail again or be charged twice.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Retry-After": {"description": "Seconds to wait before another try.", "schema": {"type": "integer", "minimum": 1}},
    "x-comparison-id": {
        "description": "Id of this request in the history: `GET /v1/comparisons/{id}`.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true`: this is the stored answer to the first request with this `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    **{
        f"x-ratelimit-{part}-{of}": {"description": f"{sentence} {of} a minute, where it has one.", "schema": {"type": kind}}
        for of in ("requests", "tokens")
        for part, sentence, kind in (
            ("limit", "The key's limit on", "integer"),
            ("remaining", "Left of the key's limit on", "integer"),
            ("reset", "Time, such as `1m30s`, until all is left of the key's limit on", "string"),
        )
    },
    "Location": {"description": "URL of the created resource.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
}
EVERY_ANSWER = ("x-request-id",)
REQUEST_HEADERS: Mapping[str, tuple[str, JsonObject]] = {
    "Idempotency-Key": (
        "A name of your own for this request, 1 to 255 printable ASCII characters. For a day, the same request with the same "
        "key gets the same answer, and nothing is called or charged again.",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "Last-Event-ID": ("The `id` of the last event that has arrived; absent: from the beginning.", {"type": "integer"}),
    "x-selected-account-id": (
        "The key's own account, or absent. Without keys: the account to which usage is attributed; 256 characters are kept.",
        {"type": "string"},
    ),
    "X-OpenAI-Api-Key": (
        "Your own key for OpenAI, used for its models in this request alone. "
        "Another provider's header is its `key_header` in providers.json.",
        {"type": "string"},
    ),
}
SECURITY: Mapping[str, JsonObject] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `/v1/keys`, or one of FANOUT_API_KEYS."},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, as Scale's clients send it.",
    },
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "The same, as Azure's clients send it."},
}
ANY_KEY: list[JsonObject] = [{"bearer": []}, {"x-api-key": []}, {"api-key": []}, {}]
"""The last, `{}`: without keys, local calls need none."""


def make_document(endpoints: Sequence[Endpoint], *, description: str) -> JsonObject:
    """Return the OpenAPI document of the endpoints, group by group."""
    # A tag that is not in the list raises here, at the start, not in a reader's browser.
    grouped = sorted(endpoints, key=lambda endpoint: TAGS.index(endpoint.tag))
    paths: dict[str, JsonObject] = {}
    for endpoint in grouped:
        paths.setdefault(endpoint.template, {})[endpoint.method.lower()] = _describe_operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fanout",
            "version": fanout.__version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in grouped)],
        "paths": paths,
        "components": {"schemas": make_components(endpoints), "headers": dict(HEADERS), "securitySchemes": dict(SECURITY)},
        "security": ANY_KEY,
    }


def _describe_operation(endpoint: Endpoint) -> JsonObject:
    operation: JsonObject = {"operationId": endpoint.id, "tags": [endpoint.tag], "summary": endpoint.summary}
    if endpoint.description:
        operation["description"] = endpoint.description
    if parameters := [*_list_path_parameters(endpoint), *_list_query_parameters(endpoint), *_list_request_headers(endpoint)]:
        operation["parameters"] = parameters
    if endpoint.body:
        content = {"schema": _refer_to(endpoint.body), **_list_examples(endpoint.examples)}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if endpoint.form:
        operation["requestBody"] = {"required": True, "content": {MULTIPART: {"schema": endpoint.form}}}
    operation["responses"] = {str(status): _describe_answer(answer) for status, answer in sorted(endpoint.answers.items())}
    # An empty list takes away the document's own requirement; leaving it out would inherit it.
    if endpoint.is_public:
        operation["security"] = []
    return operation


def _describe_answer(answer: StatusAnswer) -> JsonObject:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERY_ANSWER, *answer.headers)}
    described: JsonObject = {"description": answer.description, "headers": headers}
    if answer.content:
        described["content"] = {
            media: {"schema": _describe_content(content), **(_list_examples(answer.examples) if media == JSON else {})}
            for media, content in answer.content.items()
        }
    return described


def _describe_content(content: Content) -> JsonObject:
    if isinstance(content, dict):
        return content
    references = [_refer_to(shape) for shape in list_shapes(content)]
    schema: JsonObject = references[0] if len(references) == 1 else {"anyOf": references}
    return _describe_event(schema, content) if isinstance(content, Events) else schema


def _refer_to(shape: type[object]) -> JsonObject:
    return {"$ref": REFERENCE + name_component(shape.__name__)}


def _describe_event(data: JsonObject, events: Events) -> JsonObject:
    """Return one event in the form that OpenAPI 3.2 gives it; 3.1 does not define schemas of `text/event-stream`."""
    held: JsonObject = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
    last: list[JsonObject] = [{"const": "[DONE]"}] if events.done else []
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [held, *last]}}}


def _list_examples(examples: Mapping[str, object]) -> JsonObject:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}


def _list_path_parameters(endpoint: Endpoint) -> Iterator[JsonObject]:
    for name, (description, example) in endpoint.path_parameters.items():
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema, "example": example}


def _list_query_parameters(endpoint: Endpoint) -> Iterator[JsonObject]:
    """Yield the fields of the query's model, each with its own description."""
    if endpoint.query is None:
        return
    example: Mapping[str, object] = next(iter(endpoint.examples.values()), {})
    # Inline, not as a component: a query is no object that a client could send.
    whole = strip_noise(endpoint.query.model_json_schema(by_alias=True, schema_generator=ComponentSchema))
    for name, schema in whole["properties"].items():
        required = {"required": True} if name in whole.get("required", ()) else {}
        # Moved, not copied: a parameter and its schema both have a place for it, and generators print both.
        described = {"description": schema.pop("description")} if "description" in schema else {}
        shown = {"example": example[name]} if name in example else {}
        plain = _remove_null(schema)
        style = {"style": "deepObject", "explode": True} if plain.get("type") == "object" else {}
        yield {"name": name, "in": "query", **required, **described, **style, "schema": plain, **shown}


def _remove_null(schema: JsonObject) -> JsonObject:
    """Return the schema of a parameter without null: a parameter is present or absent, never null."""
    members = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **members[0]}


def _list_request_headers(endpoint: Endpoint) -> Iterator[JsonObject]:
    for name in endpoint.headers:
        description, schema = REQUEST_HEADERS[name]
        yield {"name": name, "in": "header", "description": description, "schema": schema}
