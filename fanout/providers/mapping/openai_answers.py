"""What an answer in OpenAI's shape says, whole or in chunks; every field may be missing, null or of another type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fanout.core.schema import Answer, Choice, Completion, FinishReason, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, refusal, request_id

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
EXTRAS = ("annotations", "audio")
"""Fields of a message, or of a delta, that go back to the caller as they are."""
BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource"})
"""Finish reasons of answers that failed (Mistral, OpenRouter; Z.ai; DeepSeek)."""


def build_completion(
    origin: Origin, headers: Mapping[str, str], head: Mapping[str, Any], choices: tuple[Choice, ...], usage: Usage | None
) -> Completion:
    """A whole answer; `head` is any object that bears its id and model.

    Raises:
        ProviderError: it has no choice. That is no answer, and would vanish from the comparison.
    """
    if not choices:
        raise origin.malformed("sent an answer without a choice", "no_choices")
    return Completion(
        choices,
        usage,
        _name(head.get("model")),
        request_id(headers) or _name(head.get("id")),
        _name(head.get("system_fingerprint")),
    )


def check_choice(origin: Origin, headers: Mapping[str, str], raw: Mapping[str, Any]) -> None:
    """A choice may itself be a failure: by an `error` of its own (OpenRouter) or by its finish reason.

    Raises:
        ProviderError: it is one.
    """
    if error := raw.get("error"):
        raise refusal(origin, None, headers, find_error({"error": error}))
    word = raw.get("finish_reason")
    if isinstance(word, str) and word in BROKEN_OFF:
        raise refusal(origin, None, headers, {"message": f"`{origin.name}` broke off its answer: `{word}`", "code": word})


def _name(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def parse_choice(raw: Mapping[str, Any]) -> Choice:
    """One choice of a whole answer, chat (`message`) or text (`text`)."""
    message = raw.get("message")
    if isinstance(message, dict):
        answer = parse_message(message)
    else:
        text = raw.get("text")
        answer = Answer(text if isinstance(text, str) else "")
    logprobs = raw.get("logprobs")
    word = raw.get("finish_reason")
    return Choice(
        answer, parse_finish_reason(word), native_finish_reason(raw, word), parse_logprobs(logprobs) if logprobs else None
    )


def parse_message(message: Mapping[str, Any]) -> Answer:
    text, reasoning = parse_texts(message)
    refusal = message.get("refusal")
    calls = message.get("tool_calls") or convert_legacy_call(message)
    return Answer(
        text,
        reasoning,
        refusal if isinstance(refusal, str) and refusal else None,
        tuple(_without_index(call) for call in calls if isinstance(call, dict)) if isinstance(calls, list) else (),
        pick_extras(message),
    )


def pick_extras(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: message[name] for name in EXTRAS if message.get(name)}


def parse_texts(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Text and reasoning of a message or a delta.

    Source: `content` as parts, thinking among them: Mistral; `reasoning_content`: DeepSeek, Z.ai; `reasoning`: Groq,
    OpenRouter.
    """
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning:
        reasoning = None
    if isinstance(content, str):
        return content, reasoning
    if not isinstance(content, list):
        return "", reasoning
    text = "".join(_texts(content, "text"))
    thought = "".join(_texts(content, "thinking"))
    return text, (reasoning or "") + thought or None


def _texts(parts: list[Any], kind: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str) and kind == "text":
            yield part
        elif isinstance(part, dict) and part.get("type", "text") == kind:
            inner = part.get(kind)
            if isinstance(inner, str):
                yield inner
            elif isinstance(inner, list):
                yield from _texts(inner, "text")


def parse_finish_reason(word: Any) -> FinishReason | None:
    """`None` for a word that is not known: a finish reason is never invented."""
    return FINISH.get(word) if isinstance(word, str) else None


def native_finish_reason(raw: Mapping[str, Any], word: Any) -> str | None:
    """The provider's own word (OpenRouter: the model's host's), where it is not ours as well."""
    native = raw.get("native_finish_reason") or word
    return native[:100] if isinstance(native, str) and native != parse_finish_reason(word) else None


def parse_logprobs(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """Either of the two shapes, on either path: llama.cpp gives chat's for text, Together text's for chat."""
    if not isinstance(raw, dict):
        return None
    content, tokens = raw.get("content"), raw.get("tokens")
    if isinstance(content, list):
        return tuple(_token(item) for item in content if isinstance(item, dict))
    if isinstance(tokens, list):
        return tuple(_legacy_tokens(tokens, raw.get("token_logprobs"), raw.get("top_logprobs")))
    return None


def _token(item: Mapping[str, Any]) -> TokenLogprob:
    top = item.get("top_logprobs")
    others = [one for one in top if isinstance(one, dict)] if isinstance(top, list) else []
    pairs = [(one.get("token"), _finite(one.get("logprob"))) for one in others]
    return TokenLogprob(str(item.get("token", "")), _finite(item.get("logprob")), _best_first(pairs), _utf8(item.get("bytes")))


def _utf8(numbers: Any) -> bytes | None:
    try:
        return bytes(numbers) if isinstance(numbers, list) else None
    except (TypeError, ValueError):
        return None


def _legacy_tokens(tokens: list[Any], logprobs: Any, tops: Any) -> Iterator[TokenLogprob]:
    numbers = logprobs if isinstance(logprobs, list) else []
    alternatives = tops if isinstance(tops, list) else []
    for place, token in enumerate(tokens):
        top = alternatives[place] if place < len(alternatives) else None
        pairs = [(name, _finite(value)) for name, value in top.items()] if isinstance(top, dict) else []
        yield TokenLogprob(str(token), _finite(numbers[place]) if place < len(numbers) else None, _best_first(pairs))


def _best_first(pairs: list[tuple[Any, float | None]]) -> tuple[tuple[str, float], ...]:
    known = [(token, value) for token, value in pairs if isinstance(token, str) and value is not None]
    return tuple(sorted(known, key=lambda pair: -pair[1]))


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def parse_usage(raw: Any) -> Usage | None:
    """Tokens as this project counts them: input with what came from the cache, output with reasoning.

    Source: https://platform.openai.com/docs/api-reference/chat/object; `prompt_cache_hit_tokens`: DeepSeek; `cost`: OpenRouter.
    Gemini's and xAI's OpenAI paths count thinking only in `total_tokens`: what is in the total and nowhere else is reasoning.
    """
    if not isinstance(raw, dict):
        return None
    given, answered, total = (
        _count(raw.get("prompt_tokens")),
        _count(raw.get("completion_tokens")),
        _count(raw.get("total_tokens")),
    )
    inside, outside = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    cached = written = reasoning = None
    if isinstance(inside, dict):
        cached, written = _count(inside.get("cached_tokens")), _count(inside.get("cache_write_tokens"))
    if cached is None:
        cached = _count(raw.get("prompt_cache_hit_tokens"))
    if isinstance(outside, dict):
        reasoning = _count(outside.get("reasoning_tokens"))
    if given is not None and answered is not None and total is not None and total > given + answered:
        reasoning = reasoning or total - given - answered
        answered = total - given
    cost = _finite(raw.get("cost"))
    if given is None and answered is None and cost is None:
        return None
    return Usage(given, answered, cached, written, reasoning, None, cost, raw)


def convert_legacy_call(message: Mapping[str, Any]) -> list[Any]:
    """`function_call`, which `tool_calls` replaced, as one of those."""
    call = message.get("function_call")
    return [{"type": "function", "function": call}] if isinstance(call, dict) else []


def _without_index(call: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in call.items() if name != "index"}
