"""Costs that providers state themselves, beside the tokens: the one table of where each host states them.

| field of the usage | host | meaning |
|---|---|---|
| `cost`, a number | OpenRouter, Vercel | US dollars; 0 is free |
| `cost.total_cost` | Perplexity | US dollars |
| `cost_in_usd_ticks` | xAI | 10⁻¹⁰ US dollars; 0 states nothing: Azure's Grok sends it always |
| `estimated_cost` | DeepInfra | US dollars |
| `cost_details.upstream_inference_cost` | OpenRouter | with a key of one's own (`is_byok`): its bill; `cost` is the fee |

Source: https://openrouter.ai/docs/use-cases/usage-accounting, https://docs.perplexity.ai/api-reference/chat-completions-post,
https://docs.x.ai/developers/cost-tracking, https://deepinfra.com/docs/advanced/cost (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping

from fanout.core.usage import MAX_USD
from fanout.providers.mapping.json_fields import as_number, as_object

FIELDS: tuple[tuple[str, str | None, float], ...] = (
    ("cost", None, 1),
    ("cost", "total_cost", 1),
    ("cost_in_usd_ticks", None, 1e-10),
    ("estimated_cost", None, 1),
)
"""Field, the field within it, US dollars a unit. The first that states a cost is taken."""
NAMES = frozenset({"cost_details", *(name for name, _, _ in FIELDS)})
ZERO_STATES_NOTHING = frozenset({"cost_in_usd_ticks"})


def read_cost_usd(usage: Mapping[str, object]) -> float | None:
    """Return the US dollars that an answer cost by its provider's own statement; `None` where it states nothing."""
    if NAMES.isdisjoint(usage):  # nearly always
        return None
    stated = next((cost for field in FIELDS if (cost := _read_field(usage, *field)) is not None), None)
    upstream = _read_field(usage, "cost_details", "upstream_inference_cost", 1)
    if usage.get("is_byok") is True:
        return None if upstream is None else _keep_plausible(upstream + (stated or 0))
    return stated or upstream if upstream else stated


def _read_field(usage: Mapping[str, object], name: str, inner: str | None, usd: float) -> float | None:
    value = usage.get(name)
    if inner is not None:
        fields = as_object(value)
        value = fields.get(inner) if fields.get("currency") in (None, "USD") else None
    number = as_number(value)
    return None if number is None or (number == 0 and name in ZERO_STATES_NOTHING) else _keep_plausible(number * usd)


def _keep_plausible(usd: float) -> float | None:
    return usd if 0 <= usd < MAX_USD else None
