"""Answers in OpenAI's shape, whole or in chunks; every field may be missing, null or of another type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanout.core.schema import Answer, Choice, FinishReason, TokenLogprob
from fanout.providers.mapping.completions import Finish, read_finish
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_number, as_object, as_objects, as_text
from fanout.providers.mapping.other_content import REASONING_NAMES, WITHOUT_CONTENT, get_content, pick_extras
from fanout.providers.mapping.tool_calls import parse_calls

USUAL_FIELDS = WITHOUT_CONTENT | {"role", "content"}
"""Fields of a message with nothing beside its text."""
FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "function_call",
    "eos": "stop",  # Together
    "eos_token": "stop",  # TGI
    "stop_sequence": "stop",
    "model_length": "length",  # Mistral
    "sensitive": "content_filter",  # Z.ai
}
PLAIN_ENDS: Mapping[str, Finish] = {word: (word, None) for word, reason in FINISH.items() if word == reason}
"""Ends of nearly all answers, in words that are ours, too."""
BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource"})
"""Finish reasons of answers that failed (Mistral, OpenRouter; Z.ai; DeepSeek)."""


def parse_choice(origin: Origin, raw: Mapping[str, Any]) -> Choice:
    """Return one choice of a whole answer, chat (`message`) or text (`text`).

    Raises:
        ProviderError: it is a failure.
    """
    finish = parse_finish(origin, raw)
    message, logprobs = raw.get("message") or raw.get("delta"), raw.get("logprobs")
    if type(message) is not dict or not message.get("content"):
        message = find_message(message, raw.get("text"))
    answer = _parse_message(message) if isinstance(message, dict) else Answer(as_text(raw.get("text")))
    return Choice(answer, *finish, parse_logprobs(logprobs) if logprobs else None)


def find_message(message: object, text: object) -> object:
    """Return a message or a delta as an object with its text, whichever of the three a host leaves out."""
    if isinstance(message, str):
        return {"content": message}
    # Hosts that serve both paths with one piece of code may fill the field of the other.
    if text and isinstance(message, dict) and not message.get("content"):
        return {**message, "content": text}
    return message


def parse_finish(origin: Origin, raw: Mapping[str, Any]) -> Finish:
    """Return a choice's end; OpenRouter adds the word of the model's own host, which says more than its own.

    Raises:
        ProviderError: the choice is itself a failure, by an `error` of its own (OpenRouter) or by its finish reason.
    """
    if error := raw.get("error"):
        raise origin.upstream_error(find_error({"error": error}))
    word = as_text(raw.get("finish_reason"))
    if word in PLAIN_ENDS and "native_finish_reason" not in raw:
        return PLAIN_ENDS[word]
    if word in BROKEN_OFF:
        raise origin.finish_error(word)
    reason, native = read_finish(word, FINISH)
    if hosts_own := as_text(raw.get("native_finish_reason")):
        native = hosts_own[:100] if hosts_own != reason else None
    return reason, native


def _parse_message(message: Mapping[str, Any]) -> Answer:
    text = message.get("content")
    # Nearly every message is a text, and its other fields are null or empty (2026-11-28).
    if type(text) is str and not [name for name, value in message.items() if value and name not in USUAL_FIELDS]:
        return Answer(text)
    text, reasoning = parse_texts(message)
    calls = parse_calls(message) if message.get("tool_calls") or message.get("function_call") else ()
    return Answer(text, reasoning, parse_refusal(message), calls, pick_extras(message))


def parse_refusal(message: Mapping[str, Any]) -> str | None:
    """Return the words of a message or a delta for not answering, which may also be parts of its content."""
    content, refusal = get_content(message), as_text(message.get("refusal"))
    if isinstance(content, list):
        refusal += "".join(_find_texts(content, "refusal"))
    return refusal or None


def parse_texts(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return text and reasoning of a message or a delta.

    Source: `content` as parts, thinking among them: Mistral.
    """
    content = get_content(message)
    reasoning = next((text for name in REASONING_NAMES if (text := as_text(message.get(name)))), "")
    if isinstance(content, str):
        return content, reasoning or None
    reasoning += "".join(_find_texts(content, "thinking"))
    return "".join(_find_texts(content, "text")), reasoning or None


def _find_texts(parts: list[Any], kind: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str) and kind == "text":
            yield part
        elif isinstance(part, dict) and part.get("type", "text") == kind:
            inner = part.get(kind)
            if isinstance(inner, str):
                yield inner
            elif isinstance(inner, list):
                yield from _find_texts(inner, "text")


def parse_logprobs(raw: object) -> tuple[TokenLogprob, ...] | None:
    """Return the tokens of either shape, on either path: llama.cpp sends chat's for text, Together text's for chat."""
    if not isinstance(raw, dict):
        return None
    content, tokens = raw.get("content"), raw.get("tokens")
    if isinstance(content, list):
        return tuple(map(_parse_token, as_objects(content)))
    if isinstance(tokens, list):
        return tuple(_parse_legacy_tokens(tokens, raw.get("token_logprobs"), raw.get("top_logprobs")))
    return None


def _parse_token(item: Mapping[str, Any]) -> TokenLogprob:
    pairs = [(other.get("token"), as_number(other.get("logprob"))) for other in as_objects(item.get("top_logprobs"))]
    token = str(item.get("token", ""))
    return TokenLogprob(token, as_number(item.get("logprob")), rank_tokens(pairs), _to_utf8(item.get("bytes")))


def _to_utf8(numbers: object) -> bytes | None:
    try:
        return bytes(numbers) if isinstance(numbers, list) else None
    except (TypeError, ValueError):
        return None


def _parse_legacy_tokens(tokens: list[Any], logprobs: object, tops: object) -> Iterator[TokenLogprob]:
    numbers = logprobs if isinstance(logprobs, list) else []
    alternatives = tops if isinstance(tops, list) else []
    for place, token in enumerate(tokens):
        top = as_object(alternatives[place] if place < len(alternatives) else None)
        pairs = [(name, as_number(value)) for name, value in top.items()]
        yield TokenLogprob(str(token), as_number(numbers[place]) if place < len(numbers) else None, rank_tokens(pairs))


def rank_tokens(pairs: Sequence[tuple[object, float | None]]) -> tuple[tuple[str, float | None], ...]:
    """Return alternatives, the likeliest first, and last those whose log probability is unknown."""
    named = [(token, value) for token, value in pairs if isinstance(token, str)]
    return tuple(sorted(named, key=lambda pair: math.inf if pair[1] is None else -pair[1]))
