"""Usage in OpenAI's format, under every name that hosts give it.

- Input from the cache: `prompt_tokens_details.cached_tokens`; `prompt_cache_hit_tokens` (DeepSeek), `num_cached_tokens`
  (Mistral), `cached_tokens` beside `prompt_tokens` (Moonshot, Together), `cache_read_input_tokens` (gateways to Anthropic).
- Input that went into the cache: `cache_write_tokens` (OpenAI, OpenRouter), `cache_creation_input_tokens` (Vercel, DashScope).
- `total_tokens` shows what stands outside of both counts: thinking (xAI, Gemini), audio heard (Mistral), input of the cache.
- Thinking above `completion_tokens` stands beside them (Perplexity's deep research), whatever the total is.

Source: https://platform.openai.com/docs/api-reference/chat/object, genai-prices 0.2.3 `extractors`, recorded traffic (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping

from fanout.core.usage import Usage
from fanout.providers.mapping.completions import build_usage
from fanout.providers.mapping.json_fields import as_count, as_object, find_count

INPUT_DETAILS = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details")
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
CACHED = frozenset(
    {"cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cache_read_input_tokens", "cache_read_tokens"}
)
WRITTEN = frozenset({"cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens"})
REASONING = frozenset({"reasoning_tokens"})
WRITTEN_DETAILS = ("cache_creation", "cache_creation_token_details")
MODALITIES = {
    f"{name}_tokens": (f"input_{name}_tokens", f"cache_{name}_read_tokens", f"output_{name}_tokens")
    for name in ("audio", "image", "video")
}
"""Field of the details → what it is as input, as input from the cache and as output, see `Usage.priced_apart`."""
EMPTY: Mapping[str, object] = {}
PLAIN = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
"""Most answers state these alone, or beside them the next."""
USUAL = PLAIN | frozenset((*INPUT_DETAILS, *OUTPUT_DETAILS))
USUAL_INPUT, USUAL_OUTPUT = frozenset({"cached_tokens"}), frozenset({"reasoning_tokens"})


def parse_usage(raw: object, service_tier: object = None) -> Usage | None:
    """Return tokens as this project counts them: input with what came from the cache, output with reasoning."""
    if not isinstance(raw, dict):
        return None
    heard = spoken = EMPTY
    cached = written = reasoning = apart = None
    if not PLAIN.issuperset(raw):
        heard, spoken = _find_details(raw, INPUT_DETAILS), _find_details(raw, OUTPUT_DETAILS)
        # Most answers have no other field, and are spared the search for a dozen names (2026-11-27).
        if USUAL.issuperset(raw) and USUAL_INPUT.issuperset(heard) and (not spoken or USUAL_OUTPUT.issuperset(spoken)):
            cached = as_count(heard.get("cached_tokens"))
            reasoning = as_count(spoken.get("reasoning_tokens")) if spoken else None
        else:
            cached, written = find_count((raw, heard), CACHED), find_count((raw, heard), WRITTEN)
            reasoning = find_count((raw, spoken), REASONING)
            apart = _count_apart(raw, heard, spoken)
    prompt, completion = as_count(raw.get("prompt_tokens")), as_count(raw.get("completion_tokens"))
    total = as_count(raw.get("total_tokens"))
    if prompt is not None and completion is not None and total is not None and total > prompt + completion:
        outside = total - prompt - completion
        # Exactly the thinking stands outside: nothing of the input can, so it is not searched there.
        if reasoning != outside:
            prompt += _count_input_beside(outside, prompt, _count_modalities(heard), (cached or 0) + (written or 0))
        # What else stands only in the total is thinking, which is part of the output, and billed so.
        if thinking := total - prompt - completion:
            reasoning = reasoning or thinking
            completion += thinking
    return build_usage(prompt, completion, cached, written, reasoning, apart=apart, service_tier=service_tier, raw=raw)


def _find_details(raw: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    for name in names:
        if name in raw and type(details := raw[name]) is dict and details:
            return details
    return EMPTY


def _count_modalities(details: Mapping[str, object]) -> int:
    return sum(as_count(details.get(name)) or 0 for name in MODALITIES) if details else 0


def _count_input_beside(outside: int, prompt: int, heard: int, stored: int) -> int:
    """Return how many of the tokens that stand in the total alone are input: audio and the like, or what the cache holds."""
    # Only where the numbers fit: else a host's own counting would be billed as input.
    return next((part for part in (heard, stored) if part and (part == outside or prompt < part < outside)), 0)


def _count_apart(
    raw: Mapping[str, object], heard: Mapping[str, object], spoken: Mapping[str, object]
) -> dict[str, int | None] | None:
    """Return what may have a price of its own."""
    apart: dict[str, int | None] = {}
    for name, (as_input, from_cache, as_output) in MODALITIES.items():
        if name in heard:
            apart[as_input] = as_count(heard[name])
            if cached := as_object(heard.get("cached_tokens_details")):
                # 0 where the details leave it out: absent there means none.
                apart[from_cache] = as_count(cached.get(name)) or 0
        if name in spoken:
            apart[as_output] = as_count(spoken[name])
    if written := _find_details(raw, WRITTEN_DETAILS) or _find_details(heard, WRITTEN_DETAILS):
        apart["cache_write_1h_tokens"] = as_count(written.get("ephemeral_1h_input_tokens"))
    if "citation_tokens" in raw:
        apart["citation_tokens"] = as_count(raw["citation_tokens"])
    return apart or None
