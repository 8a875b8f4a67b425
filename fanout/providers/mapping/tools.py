"""Tools, their calls and the form of an answer between OpenAI's shape, which callers speak, and formats that have another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fanout.core.json_text import dump, parse
from fanout.core.schema import Fitted, Message
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.messages import refuse

FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
"""Source: https://platform.openai.com/docs/api-reference/chat/create"""
FORMAT = "response_format"


class Function(NamedTuple):
    name: str
    description: str | None
    parameters: Mapping[str, Any]
    """JSON Schema of an object."""
    strict: bool


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a model may call."""

    functions: tuple[Function, ...]
    choice: str | None = None
    """`none`, `required` or `function`; `None`: as the model likes."""
    name: str | None = None
    """The one function to call."""
    parallel: bool = True


WrittenFields = tuple[Mapping[str, Any], tuple[str, ...]]
"""The format's own fields, and the names of OpenAI's that it cannot express."""


def convert_tools(fitted: Fitted, write: Callable[[Toolbox], WrittenFields]) -> Fitted:
    """`fitted` with the tools as a format writes them; where one of them is no plain function, all are ignored."""
    asked = {name: fitted.sent[name] for name in FIELDS if name in fitted.sent}
    if not asked:
        return fitted
    sent = {name: value for name, value in fitted.sent.items() if name not in FIELDS}
    box = _toolbox(asked)
    if box is None:
        return replace(fitted, sent=sent, ignored=(*fitted.ignored, *sorted(asked)))
    fields, lost = write(box)
    return replace(fitted, sent={**sent, **fields}, ignored=(*fitted.ignored, *(name for name in lost if name in asked)))


def _toolbox(asked: Mapping[str, Any]) -> Toolbox | None:
    tools, choice = asked.get("tools"), asked.get("tool_choice")
    functions = [_function(tool) for tool in tools] if isinstance(tools, list) and tools else [None]
    known = tuple(function for function in functions if function)
    if len(known) < len(functions):
        return None
    name = None
    if isinstance(choice, dict):
        inner = choice.get("function")
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str):
            return None
        choice = "function"
    if choice not in (None, "auto", "none", "required", "function"):
        return None
    return Toolbox(known, None if choice == "auto" else choice, name, asked.get("parallel_tool_calls") is not False)


def _function(tool: Any) -> Function | None:
    inner = tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return None
    description, parameters = inner.get("description"), inner.get("parameters")
    return Function(
        inner["name"],
        description if isinstance(description, str) else None,
        parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}},
        inner.get("strict") is True,
    )


def convert_response_format(fitted: Fitted, write: Callable[[Mapping[str, Any] | None], Mapping[str, Any]]) -> Fitted:
    """`fitted` with the form of the answer as a format writes it: JSON of the schema that `write` gets, or of any."""
    asked = fitted.sent.get(FORMAT)
    if asked is None:
        return fitted
    sent = {name: value for name, value in fitted.sent.items() if name != FORMAT}
    kind, inner = (asked.get("type"), asked.get("json_schema")) if isinstance(asked, dict) else (None, None)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind == "text":
        return replace(fitted, sent=sent)
    if kind == "json_object" or (kind == "json_schema" and isinstance(schema, dict)):
        return replace(fitted, sent={**sent, **write(schema if kind == "json_schema" else None)})
    return replace(fitted, sent=sent, ignored=(*fitted.ignored, FORMAT))


class ToolCall(NamedTuple):
    """A tool call of the model's in an earlier turn."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    raw: Mapping[str, Any]


def parse_tool_calls(origin: Origin, message: Message) -> list[ToolCall]:
    """The tool calls that an assistant's message carries.

    Raises:
        ProviderError: they are of a kind that only OpenAI has, or their arguments are no JSON object.
    """
    raw = message.extra.get("tool_calls")
    if message.role == "function" or message.extra.get("function_call"):
        refuse(origin, "takes tool calls, not the older function calls")
    return [_called(origin, call) for call in raw] if isinstance(raw, list) else []


def _called(origin: Origin, call: Any) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        refuse(origin, "takes no tool calls but those of functions")
    arguments = function.get("arguments") or "{}"
    try:
        value = parse(arguments.encode(errors="replace")) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    if not isinstance(value, dict):
        refuse(origin, "takes tool calls only with a JSON object as their arguments")
    return ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), value, call)


def require_call_id(origin: Origin, message: Message) -> str:
    """Which call a tool's message answers."""
    name = message.extra.get("tool_call_id")
    if not isinstance(name, str):
        refuse(origin, "needs `tool_call_id` in a tool's message")
    return name


def make_tool_call(name: Any, arguments: Any, call_id: Any) -> dict[str, Any]:
    """A tool call in OpenAI's shape; `arguments` is a JSON value, or the text of one."""
    text = arguments if isinstance(arguments, str) else dump({} if arguments is None else arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": str(name or ""), "arguments": text}}
