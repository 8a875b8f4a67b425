"""Bedrock's Converse format as plain data: what a query becomes, and what an answer says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanout.core.schema import (
    Answer,
    Choice,
    Completion,
    Content,
    FinishReason,
    ImagePart,
    Message,
    OtherPart,
    Query,
    TextPart,
)
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, refusal
from fanout.providers.mapping.images import decode_data_url
from fanout.providers.mapping.messages import SYSTEM_ROLES, list_messages, list_system_texts, refuse_part
from fanout.providers.mapping.openai_answers import build_completion
from fanout.providers.mapping.tools import Toolbox, WrittenFields, make_tool_call, parse_tool_calls, require_call_id
from fanout.providers.transport.native import as_count, as_object, as_objects, as_text

# Source for every field below: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and botocore
# 1.44.5, `data/bedrock-runtime/2023-09-30/service-2.json`.
INFERENCE = ("maxTokens", "temperature", "topP", "stopSequences")
MODELS_OWN = "additionalModelRequestFields"
TOP_LEVEL = frozenset(
    {
        *("toolConfig", "additionalModelResponseFieldPaths", "guardrailConfig"),
        *("outputConfig", "performanceConfig", "requestMetadata", "serviceTier"),
    }
)
BLOCKS = frozenset({"document", "video", "audio", "cachePoint", "guardContent", "searchResult"})
"""Parts that a caller may write as Converse has them."""

FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
BROKEN_OFF = frozenset({"malformed_model_output", "malformed_tool_use"})


def body_of(origin: Origin, sent: Mapping[str, Any], query: Query) -> dict[str, Any]:
    """The request's body. What is sent beside Converse's own fields goes to the model as it is.

    Raises:
        ProviderError: the query holds what cannot be said in Converse.
    """
    messages = list_messages(origin, query)
    body: dict[str, Any] = {"messages": _turns(origin, messages)}
    if system := list_system_texts(origin, messages):
        body["system"] = [{"text": said} for said in system]
    if inference := {name: sent[name] for name in INFERENCE if name in sent}:
        body["inferenceConfig"] = inference
    more = dict(as_object(sent.get(MODELS_OWN)))
    for name, value in sent.items():
        if name in TOP_LEVEL:
            body[name] = value
        elif name not in INFERENCE and name != MODELS_OWN:
            more[name] = value
    if more:
        body[MODELS_OWN] = more
    return body


def _turns(origin: Origin, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """User and assistant in turns, as Converse wants them: what stands side by side is put together."""
    made: list[dict[str, Any]] = []
    for message in messages:
        if message.role in SYSTEM_ROLES:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_message_blocks(origin, message))
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
    return made


def _message_blocks(origin: Origin, message: Message) -> Iterator[dict[str, Any]]:
    blocks = _blocks(origin, message.content)
    if message.role == "tool":
        # An empty text is refused, an empty list as well.
        yield {"toolResult": {"toolUseId": require_call_id(origin, message), "content": blocks or [{"text": " "}]}}
        return
    yield from blocks
    for call in parse_tool_calls(origin, message):
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}


def _blocks(origin: Origin, content: Content | None) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_block(origin, part) for part in content or () if not isinstance(part, TextPart) or part.text]


def _block(origin: Origin, part: TextPart | ImagePart | OtherPart) -> dict[str, Any]:
    if isinstance(part, OtherPart):
        if len(part.raw) != 1 or not BLOCKS.issuperset(part.raw):
            refuse_part(origin, part)
        return dict(part.raw)
    if isinstance(part, TextPart):
        return {"text": part.text}
    image = decode_data_url(part.url)
    return {"image": {"format": image.kind, "source": {"bytes": image.base64}}}


def written_tools(box: Toolbox) -> WrittenFields:
    """The tools as Converse has them. It knows no `none`: then none are sent."""
    lost = () if box.parallel else ("parallel_tool_calls",)
    if box.choice == "none":
        return {}, lost
    specs: list[dict[str, Any]] = []
    for function in box.functions:
        spec: dict[str, Any] = {"name": function.name, "inputSchema": {"json": function.parameters}}
        if function.description:
            spec["description"] = function.description
        if function.strict:
            spec["strict"] = True
        specs.append({"toolSpec": spec})
    config: dict[str, Any] = {"tools": specs}
    if box.choice == "required":
        config["toolChoice"] = {"any": {}}
    elif box.choice == "function":
        config["toolChoice"] = {"tool": {"name": box.name}}
    return {"toolConfig": config}, lost


def answered(origin: Origin, headers: Mapping[str, str], body: Mapping[str, Any]) -> Completion:
    """A whole answer.

    Raises:
        ProviderError: it is none.
    """
    message = as_object(as_object(body.get("output")).get("message"))
    if not message:
        raise origin.malformed("sent an answer without a message", "no_choices")
    said, thoughts, calls = "", "", []
    for block in as_objects(message.get("content")):
        said += as_text(block.get("text"))
        said += "".join(
            as_text(part.get("text")) for part in as_objects(as_object(block.get("citationsContent")).get("content"))
        )
        thoughts += thought_in(block)
        if use := as_object(block.get("toolUse")):
            calls.append(make_tool_call(use.get("name"), use.get("input"), use.get("toolUseId")))
    finish, native = parse_finish_reason(origin, headers, body.get("stopReason"))
    choice = Choice(Answer(said, thoughts or None, None, tuple(calls)), finish, native or None)
    return build_completion(origin, headers, {}, (choice,), parse_usage(body.get("usage")))


def parse_finish_reason(origin: Origin, headers: Mapping[str, str], reason: Any) -> tuple[FinishReason | None, str]:
    """The finish reason, and Converse's own word for it.

    Raises:
        ProviderError: the word says that the answer failed.
    """
    word = as_text(reason)[:100]
    if word in BROKEN_OFF:
        message = f"`{origin.name}` broke off its answer: `{word}`"
        raise refusal(origin, None, headers, {"message": message, "code": word}, kind="server")
    return FINISH.get(word), word


def thought_in(block: Mapping[str, Any]) -> str:
    """What was thought: whole in `reasoningText`, in a stream directly; encrypted thoughts are nothing to read."""
    reasoning = as_object(block.get("reasoningContent"))
    return as_text(as_object(reasoning.get("reasoningText", reasoning)).get("text"))


def parse_usage(raw: Any) -> Usage | None:
    """Tokens as this project counts them: Converse counts what came from or went to the cache beside the input."""
    figures = as_object(raw)
    given, answer, read, written = (
        as_count(figures.get(name)) for name in ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )
    if given is None and answer is None:
        return None
    total = None if given is None else given + (read or 0) + (written or 0)
    return Usage(total, answer, read, written, raw=figures)
