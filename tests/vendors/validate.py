"""Validation of requests with the vendors' own types, run in the environment `vendors`, which has them.

usage: python validate.py < requests > report
Requests: a JSON list of `{"name", "format", "body"}`. Report: a JSON object, name → the faults found.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import get_type_hints, is_typeddict  # the vendors' TypedDicts are these, not the standard library's

CLOSED = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

Body = dict[str, Any]
Check = Callable[[Body], list[str]]


def find(path: str) -> Any:
    """Return the object of a dotted name, `package.module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def check_typed_dict(path: str) -> Check:
    """Return the check against a vendor's TypedDict; unknown fields are faults at any depth unless the vendor allows them."""

    def check(body: Body) -> list[str]:
        adapter = build_strict(path)  # kept alive while values are validated late
        try:
            exhaust(adapter.validate_python(body))
        except ValidationError as error:
            return to_faults(error)
        return []

    return check


@lru_cache(maxsize=64)
def build_strict(path: str) -> TypeAdapter[Any]:
    wanted = find(path)
    forbid(wanted, set())
    return TypeAdapter(wanted)


def forbid(annotation: Any, seen: set[int]) -> None:
    """Make every TypedDict within an annotation refuse unknown fields."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    if is_typeddict(annotation):
        config = getattr(annotation, "__pydantic_config__", {})
        if config.get("extra") != "allow":
            annotation.__pydantic_config__ = {**config, **CLOSED}
        for inner in get_type_hints(annotation, include_extras=True).values():
            forbid(inner, seen)
    for inner in typing.get_args(annotation):
        forbid(inner, seen)


def exhaust(value: Any) -> None:
    """Read values to their end that pydantic validates only then (`Iterable[…]`)."""
    if isinstance(value, dict):
        for item in value.values():
            exhaust(item)
    elif isinstance(value, list | tuple | Iterator):
        for item in value:
            exhaust(item)


def check_model(path: str) -> Check:
    """Return the check against a vendor's pydantic model."""

    def check(body: Body) -> list[str]:
        return check_type(find(path), body)

    return check


def check_type(wanted: Any, value: Any, path: str = "") -> list[str]:
    """Return the faults of a value of a type made of models; unknown fields are faults."""
    try:
        made = TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        return to_faults(error, path)
    return list(find_unknown(made, value, path))


def find_unknown(made: Any, value: Any, path: str) -> Iterator[str]:
    if isinstance(made, BaseModel) and isinstance(value, Mapping):
        names = {alias: name for name, field in type(made).model_fields.items() for alias in (name, field.alias or name)}
        for key, item in value.items():
            if key in names:
                yield from find_unknown(getattr(made, names[key]), item, f"{path}.{key}")
            else:
                yield f"{path}.{key}: not a field of {type(made).__name__}"
    elif isinstance(made, list | tuple) and isinstance(value, list):
        for number, (one, other) in enumerate(zip(made, value, strict=True)):
            yield from find_unknown(one, other, f"{path}[{number}]")


def to_faults(error: ValidationError, path: str = "") -> list[str]:
    return [f"{path}.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]


def choose_by_stream(whole: Check, streamed: Check) -> Check:
    return lambda body: (streamed if body.get("stream") else whole)(body)


def check_stainless(module: str) -> Check:
    """Return the check against the two TypedDicts of the generator that most vendors use."""
    name = f"{module}.completion_create_params:CompletionCreateParams"
    return choose_by_stream(check_typed_dict(f"{name}NonStreaming"), check_typed_dict(f"{name}Streaming"))


def check_gemini(body: Body) -> list[str]:
    """Check each field of a request against Google's type for it."""
    content, tool = find("google.genai.types:Content"), find("google.genai.types:Tool")
    fields = {
        "contents": types.GenericAlias(list, (content,)),
        "systemInstruction": content,
        "generationConfig": find("google.genai.types:GenerationConfig"),
        "tools": types.GenericAlias(list, (tool,)),
        "toolConfig": find("google.genai.types:ToolConfig"),
    }
    return check_fields(fields, ("contents",), body)


def check_cohere(body: Body) -> list[str]:
    """Check against the client's method, which takes one argument for each field."""
    method = find("cohere.v2.raw_client:RawV2Client").chat
    hints = get_type_hints(method, include_extras=True)
    names = [name for name in inspect.signature(method).parameters if name not in ("self", "request_options")]
    return check_fields({"stream": bool, **{name: hints[name] for name in names}}, ("model", "messages"), body)


def check_fields(fields: Mapping[str, Any], required: tuple[str, ...], body: Body) -> list[str]:
    wrong = [f".{name}: missing" for name in required if name not in body]
    for name, value in body.items():
        wrong += check_type(fields[name], value, f".{name}") if name in fields else [f".{name}: unknown"]
    return wrong


def check_botocore(operation: str) -> Check:
    """Return the check against AWS's service model."""

    def check(body: Body) -> list[str]:
        service = find("botocore.session:Session")().get_service_model("bedrock-runtime")
        shape = service.operation_model(operation).input_shape
        report = find("botocore.validate:ParamValidator")().validate({"modelId": "m", **body}, shape)
        return [report.generate_report()] if report.has_errors() else []

    return check


FORMATS: dict[str, Check] = {
    "openai chat": check_stainless("openai.types.chat"),
    "openai text": check_stainless("openai.types"),
    "groq chat": check_typed_dict("groq.types.chat.completion_create_params:CompletionCreateParams"),
    "together chat": check_stainless("together.types.chat"),
    "together text": check_stainless("together.types"),
    "fireworks chat": check_stainless("fireworks.types.chat"),
    "fireworks text": check_stainless("fireworks.types"),
    "mistral chat": choose_by_stream(
        check_model("mistralai.client.models:ChatCompletionRequest"),
        check_model("mistralai.client.models:ChatCompletionStreamRequest"),
    ),
    "anthropic": choose_by_stream(
        check_typed_dict("anthropic.types.message_create_params:MessageCreateParamsNonStreaming"),
        check_typed_dict("anthropic.types.message_create_params:MessageCreateParamsStreaming"),
    ),
    "gemini": check_gemini,
    "cohere": check_cohere,
    "bedrock": check_botocore("Converse"),
}
"""By the name that test_vendors.py gives a format: a new one is a line here and a line there."""


if __name__ == "__main__":
    report = {request["name"]: FORMATS[request["format"]](request["body"]) for request in json.load(sys.stdin)}
    json.dump(report, sys.stdout)
