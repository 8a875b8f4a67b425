"""Completions, put together in the same way for every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import JsonObject, dump
from fanout.core.schema import Choice, Completion, FinishReason
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import MAX_COUNT, as_count, as_name, as_text
from fanout.providers.mapping.priced_content import add_priced_content
from fanout.providers.mapping.reported_costs import read_cost_usd
from fanout.providers.mapping.tool_calls import NO_ARGUMENTS

Finish = tuple[FinishReason | None, str | None]
"""End of a choice: our reason, and the provider's own word where it is another.

The reason is `None` for a word that is not known: none is ever invented.
"""


def read_finish(word: object, reasons: Mapping[str, FinishReason], *, has_calls: bool = False) -> Finish:
    """Return the end that a provider's word means.

    Args:
        word: as the provider sent it.
        reasons: what its words mean.
        has_calls: the answer calls tools, which some providers report as an ordinary stop.
    """
    native = as_text(word)
    reason = reasons.get(native)
    # Clients run the tools only where the reason tells them to.
    if has_calls and reason == "stop":
        reason = "tool_calls"
    # Cut: an upstream chooses this word, and every record of the answer repeats it.
    return reason, native[:100] if native and native != reason else None


def read_index(choice: JsonObject) -> int:
    """Return the place of a choice among those of its answer; the first where it names none."""
    return as_count(choice.get("index")) or 0


def build_completion(origin: Origin, head: Mapping[str, Any], choices: tuple[Choice, ...], usage: Usage | None) -> Completion:
    """Return a whole answer.

    Args:
        origin: of the answer.
        head: any object that bears its id and model.
        choices: must not be empty.
        usage: as reported.

    Raises:
        ProviderError: there is no choice. Such an answer would vanish from the comparison.
    """
    if not choices:
        raise origin.no_answer_error("a choice", head)
    # The header is what the provider's support searches by; the id in the body a second best.
    request_id = origin.request_id or as_name(head.get("id"))
    usage = add_priced_content(usage, choices)
    return Completion(choices, usage, as_name(head.get("model")), request_id, as_name(head.get("system_fingerprint")))


def build_usage(
    input_tokens: int | None,
    output_tokens: int | None,
    cached: int | None = None,
    written: int | None = None,
    reasoning: int | None = None,
    *,
    apart: Mapping[str, int | None] | None = None,
    billed: Mapping[str, float] | None = None,
    service_tier: object = None,
    raw: JsonObject,
) -> Usage | None:
    """Return the usage of a call; `None` where the provider reported nothing.

    The parts never exceed their whole, whatever the provider sent: sums, prices and columns rely on it.

    Args:
        input_tokens: with what came from the cache and went into it.
        output_tokens: with reasoning.
        cached: input that came from the cache.
        written: input that went into the cache.
        reasoning: output that is thinking; more than the output stands beside it.
        apart: what may have a price of its own, see `Usage.priced_apart`.
        billed: units that are billed in place of tokens.
        service_tier: the tier that the call was served in.
        raw: the provider's own object, which may also state the cost.
    """
    cost_usd = read_cost_usd(raw)
    if input_tokens is None and output_tokens is None and not billed and cost_usd is None:
        return None
    if reasoning and output_tokens is not None and reasoning > output_tokens:
        output_tokens += reasoning
    # Sums of two counts may exceed what a count may be.
    if input_tokens is not None and input_tokens > MAX_COUNT:
        input_tokens = None
    if output_tokens is not None and output_tokens > MAX_COUNT:
        output_tokens = None
    if cached is not None:
        cached = _keep_part(cached, input_tokens)
    if written is not None:
        written = _keep_part(written, None if input_tokens is None else input_tokens - (cached or 0))
    if reasoning is not None:
        reasoning = _keep_part(reasoning, output_tokens)
    known = {name: count for name, count in apart.items() if count is not None} if apart else None
    known = known if known and any(known.values()) else None
    tier = None if service_tier is None else as_name(service_tier)
    return Usage(input_tokens, output_tokens, cached, written, reasoning, billed or None, cost_usd, raw, known, tier)


def _keep_part(part: int, whole: int | None) -> int | None:
    # Unknown instead of cut to fit: nobody can tell which of the two figures is wrong.
    return part if whole is not None and part <= whole else None


def add_cached_tokens(input_tokens: int | None, cached: int | None, written: int | None) -> int | None:
    """Return the input tokens of a provider that counts beside them what came from its cache and went into it."""
    return None if input_tokens is None else input_tokens + (cached or 0) + (written or 0)


def make_tool_call(name: object, arguments: object, call_id: object) -> JsonObject:
    """Return a whole tool call in OpenAI's shape; `arguments` is a JSON value, or the text of one."""
    text = arguments if isinstance(arguments, str) else "" if arguments is None else dump(arguments).decode()
    return begin_tool_call(name, text or NO_ARGUMENTS, call_id)


def begin_tool_call(name: object, text: str, call_id: object) -> JsonObject:
    """Return the first piece of a tool call in OpenAI's shape, with the text of its arguments so far."""
    return {"id": call_id, "type": "function", "function": {"name": str(name or ""), "arguments": text}}
