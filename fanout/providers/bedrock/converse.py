"""Bedrock's Converse format as plain data: what a query becomes, and what an answer says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanout.core.schema import Answer, Choice, Completion, Content, FinishReason, ImagePart, Message, OtherPart, Query, TextPart
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Source, refusal
from fanout.providers.mapping.images import decoded
from fanout.providers.mapping.messages import SYSTEM, no_part, systems, turns
from fanout.providers.mapping.openai_answers import completion
from fanout.providers.mapping.tools import Toolbox, Written, answered_call, calls_of, tool_call
from fanout.providers.transport.native import count, mapping, objects, text

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


def body_of(source: Source, sent: Mapping[str, Any], query: Query) -> dict[str, Any]:
    """The request's body. What is sent beside Converse's own fields goes to the model as it is.

    Raises:
        ProviderError: the query holds what cannot be said in Converse.
    """
    messages = turns(source, query)
    body: dict[str, Any] = {"messages": _turns(source, messages)}
    if system := systems(source, messages):
        body["system"] = [{"text": said} for said in system]
    if inference := {name: sent[name] for name in INFERENCE if name in sent}:
        body["inferenceConfig"] = inference
    more = dict(mapping(sent.get(MODELS_OWN)))
    for name, value in sent.items():
        if name in TOP_LEVEL:
            body[name] = value
        elif name not in INFERENCE and name != MODELS_OWN:
            more[name] = value
    if more:
        body[MODELS_OWN] = more
    return body


def _turns(source: Source, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """User and assistant in turns, as Converse wants them: what stands side by side is put together."""
    made: list[dict[str, Any]] = []
    for message in messages:
        if message.role in SYSTEM:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_message_blocks(source, message))
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
    return made


def _message_blocks(source: Source, message: Message) -> Iterator[dict[str, Any]]:
    blocks = _blocks(source, message.content)
    if message.role == "tool":
        # An empty text is refused, an empty list as well.
        yield {"toolResult": {"toolUseId": answered_call(source, message), "content": blocks or [{"text": " "}]}}
        return
    yield from blocks
    for call in calls_of(source, message):
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}


def _blocks(source: Source, content: Content | None) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_block(source, part) for part in content or () if not isinstance(part, TextPart) or part.text]


def _block(source: Source, part: TextPart | ImagePart | OtherPart) -> dict[str, Any]:
    if isinstance(part, OtherPart):
        if len(part.raw) != 1 or not BLOCKS.issuperset(part.raw):
            no_part(source, part)
        return dict(part.raw)
    if isinstance(part, TextPart):
        return {"text": part.text}
    image = decoded(part.url)
    return {"image": {"format": image.kind, "source": {"bytes": image.base64}}}


def written_tools(box: Toolbox) -> Written:
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


def answered(source: Source, headers: Mapping[str, str], body: Mapping[str, Any]) -> Completion:
    """A whole answer.

    Raises:
        ProviderError: it is none.
    """
    message = mapping(mapping(body.get("output")).get("message"))
    if not message:
        raise source.malformed("sent an answer without a message", "no_choices")
    said, thoughts, calls = "", "", []
    for block in objects(message.get("content")):
        said += text(block.get("text"))
        said += "".join(text(part.get("text")) for part in objects(mapping(block.get("citationsContent")).get("content")))
        thoughts += thought_in(block)
        if use := mapping(block.get("toolUse")):
            calls.append(tool_call(use.get("name"), use.get("input"), use.get("toolUseId")))
    finish, native = finish_of(source, headers, body.get("stopReason"))
    choice = Choice(Answer(said, thoughts or None, None, tuple(calls)), finish, native or None)
    return completion(source, headers, {}, (choice,), usage_of(body.get("usage")))


def finish_of(source: Source, headers: Mapping[str, str], reason: Any) -> tuple[FinishReason | None, str]:
    """The finish reason, and Converse's own word for it.

    Raises:
        ProviderError: the word says that the answer failed.
    """
    word = text(reason)[:100]
    if word in BROKEN_OFF:
        message = f"`{source.name}` broke off its answer: `{word}`"
        raise refusal(source, None, headers, {"message": message, "code": word}, kind="server")
    return FINISH.get(word), word


def thought_in(block: Mapping[str, Any]) -> str:
    """What was thought: whole in `reasoningText`, in a stream directly; encrypted thoughts are nothing to read."""
    reasoning = mapping(block.get("reasoningContent"))
    return text(mapping(reasoning.get("reasoningText", reasoning)).get("text"))


def usage_of(raw: Any) -> Usage | None:
    """Tokens as this project counts them: Converse counts what came from or went to the cache beside the input."""
    figures = mapping(raw)
    given, answer, read, written = (
        count(figures.get(name)) for name in ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )
    if given is None and answer is None:
        return None
    total = None if given is None else given + (read or 0) + (written or 0)
    return Usage(total, answer, read, written, raw=figures)
