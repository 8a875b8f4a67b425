"""Cost of a call: as the provider reports it, else by the price in `providers.json`, else by genai-prices.

A cost covers the whole usage or is `None`: without the part that has no known price, it would be too low and look exact.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from fanout.config.providers_file import PriceRow
from fanout.core.schema import Completion
from fanout.core.usage import MAX_USD, Cost, Usage, keep_plausible_usage

if TYPE_CHECKING:  # its import takes longer than a toy's answer, and most commands price nothing by it
    from genai_prices.types import ModelInfo, Provider, TieredPrices

SOURCE = f"genai-prices {version('genai-prices')}"
TOKEN_PRICES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}
"""Field of `TokenPrices` → field of genai-prices."""
OTHER_PRICES = frozenset({"requests_kcount", "output_reasoning_mtok"})
"""Prices of further quantities that every usage has, besides input and output tokens."""
PRICED_AS_TEXT = frozenset({"input_image_tokens", "cache_image_read_tokens"})
"""Units priced like text if a model has no separate price for them: vendors list one price for both."""
REPORTED = "reported"
"""The source of a cost that the provider states itself."""
DAY_S = 86_400
OTHER_TIERS = frozenset({"batch", "fast", "flex", "priority", "reserved", "scale"})
"""Tiers of service that cost more or less than the standard price; any other name means the standard price."""


@dataclass(frozen=True, slots=True)
class SteppedPrice:
    """A price that depends on the length of the input: the last step that the input exceeds applies to every token."""

    base: float
    steps: tuple[tuple[int, float], ...]

    def find(self, input_tokens: int) -> float:
        """Return the price for an input of that length."""
        return next((price for start, price in reversed(self.steps) if input_tokens > start), self.base)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices in US dollars per million tokens. Cached input and cache writes without a price cost as much as other input."""

    input: float | SteppedPrice
    output: float | SteppedPrice
    cached: float | SteppedPrice | None = None
    cache_write: float | SteppedPrice | None = None

    def price(self, usage: Usage) -> float | None:
        """Return the cost of a call; `None` where its tokens are unknown, or some of them may have a price of their own."""
        whole, output = usage.input_tokens, usage.output_tokens
        if whole is None or output is None or (usage.priced_apart and not _is_text(usage.priced_apart)):
            return None
        # Cached tokens are part of the input. Bounded, so that inconsistent reports never give a negative cost.
        per_input, per_output = self.input, self.output
        per_input = per_input.find(whole) if isinstance(per_input, SteppedPrice) else per_input
        per_output = per_output.find(whole) if isinstance(per_output, SteppedPrice) else per_output
        cost = output * per_output
        if not usage.cached_input_tokens and not usage.cache_write_tokens:
            return (cost + whole * per_input) / 1e6
        cached = min(usage.cached_input_tokens or 0, whole)
        written = min(usage.cache_write_tokens or 0, whole - cached)
        cost += (whole - cached - written) * per_input
        cost += cached * (per_input if self.cached is None else _find_price(self.cached, whole))
        cost += written * (per_input if self.cache_write is None else _find_price(self.cache_write, whole))
        return cost / 1e6


@dataclass(frozen=True, slots=True)
class PublishedPrice:
    """A model's price in genai-prices."""

    model: ModelInfo
    provider: Provider
    tier: str | None
    units: frozenset[str]
    """Units that have a price."""
    tokens: TokenPrices | None
    """`None`: tokens alone do not make the cost, or it depends on the hour."""

    def price(self, usage: Usage) -> float | None:
        """Return the cost of a call; `None` if any part of it is unknown."""
        apart = usage.priced_apart
        if self.tokens and not apart:
            return self.tokens.price(usage)
        for unit, count in (apart or {}).items():
            if count and unit not in self.units and unit not in PRICED_AS_TEXT:
                return None
        return self._delegate_to_library(usage)

    def _delegate_to_library(self, usage: Usage) -> float | None:
        """Return a cost by genai-prices' arithmetic, 0.1 ms a call."""
        from genai_prices import Usage as Units

        whole, output = usage.input_tokens, usage.output_tokens
        if whole is None or output is None:
            return None
        cached = min(usage.cached_input_tokens or 0, whole)
        counts = {
            "input_tokens": whole,
            "output_tokens": output,
            "cache_read_tokens": cached,
            "cache_write_tokens": min(usage.cache_write_tokens or 0, whole - cached),
            "output_reasoning_tokens": min(usage.reasoning_tokens or 0, output),
        }
        apart = {unit: count for unit, count in (usage.priced_apart or {}).items() if unit in self.units}
        try:
            price = self.model.calc_price(Units(**counts, **apart), self.provider, price_context=_to_context(self.tier))
        except ValueError:  # parts exceed their whole, or their cached share is unknown
            return None
        return float(price.total_price)


def load_prices() -> None:
    """Import genai-prices and read its data. Run it in a thread, else the first call with a price does it on the loop."""
    from genai_prices import Usage, types  # noqa: F401
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.data_units import unit_data  # noqa: F401

    get_snapshot()


def read_price(row: PriceRow | None) -> TokenPrices | None:
    """Return the price that `providers.json` has for a model; `None` where it has none."""
    if row is None:
        return None
    return TokenPrices(row.input_usd_per_mtok, row.output_usd_per_mtok, row.cached_usd_per_mtok, row.cache_write_usd_per_mtok)


def compute_cost(
    usage: Usage | None, own: TokenPrices | None, provider: str, model: str, answered: str | None = None
) -> Cost | None:
    """Return the cost of a call; `None` where the usage is unknown, or the price of anything that was used.

    Args:
        usage: the usage that the provider reported.
        own: the price in `providers.json`, if any.
        provider: the provider's name in genai-prices; empty where it has none.
        model: the model's name in the request.
        answered: the model's name in the answer, by which it is priced: aliases move, a deployment's name is its owner's.
    """
    if usage is None:
        return None
    # The provider's own figure is what it bills, discounts included.
    if usage.reported_cost_usd is not None:
        return _keep_plausible_cost(usage.reported_cost_usd, REPORTED)
    billed = _to_billed_usage(usage) if usage.billed else usage
    if billed is None:
        return None
    if own:
        usd, source = own.price(billed), "providers.json"
    else:
        found = find_price(provider, model, usage.service_tier, answered) if provider else None
        usd, source = (found.price(billed), f"{SOURCE}: {found.model.id}") if found else (None, SOURCE)
    return None if usd is None else _keep_plausible_cost(usd, source)


def _keep_plausible_cost(usd: float, source: str) -> Cost | None:
    """Return a cost; `None` where it cannot be one, as if no price were known: sums must fit into a database."""
    return Cost(usd, source) if 0 <= usd < MAX_USD else None


def keep_plausible_figures(answer: Completion) -> Completion:
    """Return an answer whose usage has no figure that cannot be one: an adapter of an operator's own may report anything."""
    usage = answer.usage
    if usage is None or (plausible := keep_plausible_usage(usage)) is usage:
        return answer
    return replace(answer, usage=plausible)


def compute_batch_cost(
    usage: Usage | None, own: TokenPrices | None, provider: str, model: str, answered: str | None, ratio: float
) -> Cost | None:
    """Return the cost of a call in a provider's batch, a part of its ordinary price. Arguments as for `compute_cost`."""
    # The ordinary price: few are published for batches, and those are the same part of it.
    cost = compute_cost(usage and replace(usage, service_tier=None), own, provider, model, answered)
    if cost is None or cost.source == REPORTED:
        return cost
    return Cost(cost.usd * ratio, f"{cost.source}, × {ratio:g} in a batch")


def _to_billed_usage(usage: Usage) -> Usage | None:
    """Return what the provider bills, where that is not what its model saw (Cohere); `None` for units without a price."""
    billed = dict(usage.billed or {})
    given, generated = billed.pop("input_tokens", None), billed.pop("output_tokens", None)
    if any(billed.values()):
        return None
    if given is None or generated is None:
        return usage
    return replace(usage, input_tokens=round(given), output_tokens=round(generated), cached_input_tokens=None)


def is_dated(answered: str, model: str) -> bool:
    """Return whether a name is the other's with a date or a number behind: `gpt-4o-2024-08-06` is `gpt-4o`."""
    rest = answered.removeprefix(model)
    return rest != answered and rest[:1] in "-@:" and rest[1:2].isdigit()


def find_price(provider: str, model: str, tier: str | None = None, answered: str | None = None) -> PublishedPrice | None:
    """Return the price that genai-prices has today; `None` where it has none, or cannot be read. Arguments: `compute_cost`."""
    # The day is part of the cache's key, because prices may change by date; as a number, which is found for every call.
    try:
        return _find_price_of_day(provider, model, answered, tier if tier in OTHER_TIERS else None, int(time.time()) // DAY_S)
    except OSError:  # no file may be opened: an answer that is there must not be lost for want of its price
        return None


@lru_cache(maxsize=4096)
def _find_price_of_day(provider: str, model: str, answered: str | None, tier: str | None, day: int) -> PublishedPrice | None:
    date_ = date(1970, 1, 1) + timedelta(days=day)
    found = _find_published_price(provider, answered or model, tier, date_)
    if found is None and answered and is_dated(answered, model):
        found = _find_published_price(provider, model, tier, date_)
    return found


@lru_cache(maxsize=4096)
def _find_published_price(provider_id: str, model_name: str, tier: str | None, day: date) -> PublishedPrice | None:
    from genai_prices.data_snapshot import get_snapshot

    # By exact name, and without the library's own cache: it guesses providers by parts of names, and grows with every name.
    providers = get_snapshot().providers
    provider = next((provider for provider in providers if provider.id == provider_id), None)
    model = provider.find_model(model_name, all_providers=providers) if provider else None
    if provider is None or model is None:
        return None
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    standard = model.get_prices(moment)
    price = model.get_prices(moment, _to_context(tier)) if tier else standard
    known = {name: value for name, value in vars(price).items() if value is not None}
    if "input_mtok" not in known or "output_mtok" not in known or (tier and price == standard):
        return None
    tokens = None
    if not _has_hourly_prices(model) and OTHER_PRICES.isdisjoint(known):
        tokens = TokenPrices(**{field: _convert_price(known[name]) for field, name in TOKEN_PRICES.items() if name in known})
    return PublishedPrice(model, provider, tier, _list_units(known), tokens)


def _to_context(tier: str | None) -> Mapping[str, str] | None:
    """Return a tier as genai-prices' variants name it: OpenAI's and Google's as a tier, Anthropic's as a speed."""
    return {"service_tier": tier, "speed": tier} if tier else None


def _list_units(prices: Mapping[str, object]) -> frozenset[str]:
    from genai_prices.data_units import unit_data

    return frozenset(unit for unit, described in unit_data.items() if described.get("price_key") in prices)


def _has_hourly_prices(model: ModelInfo) -> bool:
    from genai_prices.types import TimeOfDateConstraint

    prices = model.prices if isinstance(model.prices, list) else []
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices)


def _convert_price(price: Decimal | TieredPrices) -> float | SteppedPrice:
    if isinstance(price, Decimal):
        return float(price)
    return SteppedPrice(float(price.base), tuple((tier.start, float(tier.price)) for tier in price.tiers))


def _find_price(price: float | SteppedPrice, input_tokens: int) -> float:
    return price.find(input_tokens) if isinstance(price, SteppedPrice) else price


def _is_text(apart: Mapping[str, int]) -> bool:
    return not any(count for unit, count in apart.items() if unit not in PRICED_AS_TEXT)
