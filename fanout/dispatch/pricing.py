"""Cost of a call: as the provider reports it, else by the price in `providers.json`, else by genai-prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices.types import ModelInfo, Provider, TieredPrices, TimeOfDateConstraint

from fanout.config.providers_file import PriceRow
from fanout.core.usage import Cost, Usage

Pricer = Callable[[Usage], float | None]
SOURCE = f"genai-prices {version('genai-prices')}"
TOKEN_PRICES = {"input": "input_mtok", "output": "output_mtok", "cached": "cache_read_mtok", "cache_write": "cache_write_mtok"}
"""Field of `TokenPrices` → field of genai-prices."""
OTHER_PRICES = frozenset({"requests_kcount", "output_reasoning_mtok"})
"""Prices of other things that our usage counts. It counts no audio, pages, searches, …, so their prices change nothing."""


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
    """Prices in US dollars per million tokens. Cached input and cache writes cost as other input where they have no price."""

    input: float | SteppedPrice
    output: float | SteppedPrice
    cached: float | SteppedPrice | None = None
    cache_write: float | SteppedPrice | None = None

    def __call__(self, usage: Usage) -> float | None:
        """Return the cost of a call; `None` where its tokens are unknown."""
        whole, output = usage.input_tokens, usage.output_tokens
        if whole is None or output is None:
            return None
        # Cached tokens are among the input's. Bounded, so that a host's odd figures never give a negative cost.
        cached = min(usage.cached_input_tokens or 0, whole)
        written = min(usage.cache_write_tokens or 0, whole - cached)
        per_input = _find_price(self.input, whole)
        cost = (whole - cached - written) * per_input + output * _find_price(self.output, whole)
        cost += cached * (per_input if self.cached is None else _find_price(self.cached, whole))
        cost += written * (per_input if self.cache_write is None else _find_price(self.cache_write, whole))
        return cost / 1e6


def load_prices() -> None:
    """Read the price data, 20 ms (2026-11-20). Run it in a thread, else the first call with a price reads it on the loop."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def compute_cost(usage: Usage | None, own: PriceRow | None, provider: str, model: str) -> Cost | None:
    """Return the cost of a call; `None` where the usage or the price is unknown.

    `own` is the price in `providers.json`; `provider` the provider's name in genai-prices, empty where it has none.
    """
    if usage is None:
        return None
    # The provider's own figure is what it bills, discounts included.
    if usage.reported_cost_usd is not None:
        return Cost(usage.reported_cost_usd, "reported")
    usage = _to_billed_usage(usage)
    if own:
        rates = (own.input_usd_per_mtok, own.output_usd_per_mtok, own.cached_usd_per_mtok, own.cache_write_usd_per_mtok)
        usd, source = TokenPrices(*rates)(usage), "providers.json"
    else:
        pricer = find_pricer(provider, model) if provider else None
        usd, source = pricer(usage) if pricer else None, SOURCE
    return None if usd is None else Cost(usd, source)


def _to_billed_usage(usage: Usage) -> Usage:
    """Return what the provider bills, where that is not what its model saw (Cohere)."""
    billed = usage.billed or {}
    given, generated = billed.get("input_tokens"), billed.get("output_tokens")
    if given is None or generated is None:
        return usage
    return replace(usage, input_tokens=round(given), output_tokens=round(generated), cached_input_tokens=None)


def find_pricer(provider: str, model: str) -> Pricer | None:
    """Return the pricer that genai-prices has for a model today; `None` where it has none."""
    return _find_pricer(provider, model, datetime.now(UTC).date())


@lru_cache(maxsize=4096)
def _find_pricer(provider: str, model: str, day: date) -> Pricer | None:
    # The day is part of the cache's key, because prices may change by date.
    from genai_prices.data_snapshot import get_snapshot

    try:
        found_provider, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    if found_provider.id != provider:  # genai-prices also guesses by parts of names: `google-lab` would cost what Google does
        return None
    price = vars(found.get_prices(datetime.combine(day, time.min, UTC)))
    known = {name: value for name, value in price.items() if value is not None}
    if "input_mtok" not in known or "output_mtok" not in known:
        return None
    if _has_hourly_prices(found) or not OTHER_PRICES.isdisjoint(known):
        return lambda usage: _delegate_to_library(found, found_provider, usage)
    return TokenPrices(**{field: _convert_price(known[name]) for field, name in TOKEN_PRICES.items() if name in known})


def _has_hourly_prices(model: ModelInfo) -> bool:
    prices = model.prices if isinstance(model.prices, list) else []
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices)


def _convert_price(price: Decimal | TieredPrices) -> float | SteppedPrice:
    if isinstance(price, TieredPrices):
        return SteppedPrice(float(price.base), tuple((tier.start, float(tier.price)) for tier in price.tiers))
    return float(price)


def _find_price(price: float | SteppedPrice, input_tokens: int) -> float:
    return price.find(input_tokens) if isinstance(price, SteppedPrice) else price


def _delegate_to_library(model: ModelInfo, provider: Provider, usage: Usage) -> float | None:
    """Return a cost that depends on the hour, or on more than tokens in and out: genai-prices' arithmetic, 0.1 ms a call."""
    from genai_prices import Usage as Units

    whole, output = usage.input_tokens, usage.output_tokens
    if whole is None or output is None:
        return None
    cached = min(usage.cached_input_tokens or 0, whole)
    units = Units(
        input_tokens=whole,
        output_tokens=output,
        cache_read_tokens=cached,
        cache_write_tokens=min(usage.cache_write_tokens or 0, whole - cached),
        output_reasoning_tokens=min(usage.reasoning_tokens or 0, output),
    )
    return float(model.calc_price(units, provider).total_price)
