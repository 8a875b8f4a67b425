"""Tools, their calls and the form of an answer: from OpenAI's shape, which callers write, for formats that have another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fanout.core.json_text import JsonObject, parse
from fanout.core.messages import Message
from fanout.core.schema import FittedParameters
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object, as_text
from fanout.providers.mapping.messages import CACHE_CONTROL, to_text

TOOL_FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
"""Source: https://platform.openai.com/docs/api-reference/chat/create"""
RESPONSE_FORMAT = "response_format"


class Function(NamedTuple):
    """A function that a model may call."""

    name: str
    description: str | None
    parameters: JsonObject
    """JSON Schema of an object."""
    is_strict: bool
    cache_control: JsonObject
    """Empty: no mark of the cache."""

    def describe(self, **fields: object) -> JsonObject:
        """Return name, description and a format's own `fields`, as nearly every format declares a function."""
        return {"name": self.name, **({"description": self.description} if self.description else {}), **fields}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The functions that a model may call, and which of them it must."""

    functions: tuple[Function, ...]
    choice: str | None = None
    """`none`, `required` or `function`; `None`: as the model likes."""
    name: str | None = None
    """The one function to call."""
    is_parallel: bool = True


class ToolFields(NamedTuple):
    """Tools as a format has them."""

    fields: JsonObject
    """Of the request."""
    ignored: tuple[str, ...] = ()
    """Those of OpenAI's fields that the format cannot express."""


def convert_tools(
    fitted: FittedParameters, convert: Callable[[Toolbox], ToolFields], *, has_cache_control: bool = False
) -> FittedParameters:
    """Return `fitted` with the tools as a format has them; where one of them is no plain function, all are ignored."""
    given = {name: fitted.sent[name] for name in TOOL_FIELDS if name in fitted.sent}
    if not given:
        return fitted
    sent = {name: value for name, value in fitted.sent.items() if name not in TOOL_FIELDS}
    toolbox = _parse_toolbox(given)
    # Tools that the format cannot carry: none is sent, for half of them would mislead.
    if toolbox is None:
        return replace(fitted, sent=sent, ignored=(*fitted.ignored, *sorted(given)))
    fields, lost = convert(toolbox)
    ignored = [name for name in lost if name in given]
    if not has_cache_control and any(function.cache_control for function in toolbox.functions):
        ignored.append(CACHE_CONTROL)
    return replace(fitted, sent={**sent, **fields}, ignored=(*fitted.ignored, *ignored))


def convert_response_format(fitted: FittedParameters, convert: Callable[[JsonObject | None], JsonObject]) -> FittedParameters:
    """Return `fitted` with the form of the answer as a format has it.

    Args:
        fitted: the parameters.
        convert: gets the JSON Schema of the answer; `None`: any JSON will do.
    """
    given = fitted.sent.get(RESPONSE_FORMAT)
    if given is None:
        return fitted
    sent = {name: value for name, value in fitted.sent.items() if name != RESPONSE_FORMAT}
    kind = as_object(given).get("type")
    schema = as_object(as_object(given).get("json_schema")).get("schema")
    # The default everywhere: nothing is lost by not sending it.
    if kind == "text":
        return replace(fitted, sent=sent)
    if kind == "json_object" or (kind == "json_schema" and isinstance(schema, dict)):
        return replace(fitted, sent={**sent, **convert(schema if kind == "json_schema" else None)})
    # Listed, not guessed: an answer in another form than requested is worse than one that says so.
    return replace(fitted, sent=sent, ignored=(*fitted.ignored, RESPONSE_FORMAT))


def _parse_toolbox(given: Mapping[str, Any]) -> Toolbox | None:
    tools, choice = given.get("tools"), given.get("tool_choice")
    functions = [_parse_function(tool) for tool in tools] if isinstance(tools, list) and tools else [None]
    known = tuple(function for function in functions if function)
    # Tools of a vendor's own, such as its web search, exist at that vendor alone.
    if len(known) < len(functions):
        return None
    name = None
    if isinstance(choice, dict):
        name = as_object(choice.get("function")).get("name")
        if not isinstance(name, str):
            return None
        choice = "function"
    if choice not in (None, "auto", "none", "required", "function"):
        return None
    return Toolbox(known, None if choice == "auto" else choice, name, given.get("parallel_tool_calls") is not False)


def _parse_function(tool: object) -> Function | None:
    fields = as_object(tool)
    function = as_object(fields.get("function")) if fields.get("type", "function") == "function" else {}
    if not isinstance(function.get("name"), str):
        return None
    parameters = function.get("parameters")
    return Function(
        function["name"],
        as_text(function.get("description")) or None,
        parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}},
        function.get("strict") is True,
        as_object(fields.get(CACHE_CONTROL) or function.get(CACHE_CONTROL)),
    )


class ToolCall(NamedTuple):
    """A tool call that the model made in an earlier turn."""

    id: str
    name: str
    arguments: JsonObject
    raw: JsonObject


def parse_tool_calls(origin: Origin, message: Message) -> list[ToolCall]:
    """Return the tool calls that an assistant's message carries.

    Raises:
        ProviderError: they are of a kind that only OpenAI has, or their arguments are no JSON object.
    """
    raw = message.extra.get("tool_calls")
    if message.role == "function" or message.extra.get("function_call"):
        raise origin.request_error("takes tool calls, not the older function calls")
    return [_parse_tool_call(origin, call) for call in raw] if isinstance(raw, list) else []


def _parse_tool_call(origin: Origin, call: object) -> ToolCall:
    fields = as_object(call)
    function = fields.get("function")
    if not isinstance(function, dict):
        raise origin.request_error("takes only tool calls of functions")
    arguments = function.get("arguments") or "{}"
    try:
        # Callers send back what a model wrote, which may be no JSON.
        value = parse(arguments.encode(errors="replace")) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise origin.request_error("takes tool calls only with a JSON object as their arguments")
    return ToolCall(str(fields.get("id") or ""), str(function.get("name") or ""), value, fields)


def parse_tool_result(origin: Origin, message: Message) -> tuple[str, str]:
    """Return the id of the call that a tool's message answers, and its text.

    Raises:
        ProviderError: it names no call, or holds more than text.
    """
    return get_tool_call_id(origin, message), to_text(origin, message.content)


def get_tool_call_id(origin: Origin, message: Message) -> str:
    """Return the id of the call that a tool's message answers.

    Raises:
        ProviderError: it names none.
    """
    call_id = message.extra.get("tool_call_id")
    if not isinstance(call_id, str):
        raise origin.request_error("needs `tool_call_id` in a tool's message")
    return call_id
