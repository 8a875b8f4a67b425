"""Usage → cost: what the provider reported, else the price in `providers.json`, else genai-prices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from genai_prices.types import ModelPrice

from fanout.config import PriceRow
from fanout.schema import Cost, Usage

Pricer = Callable[[Usage], float | None]
PLAIN_PRICES = {"input_mtok": 0, "output_mtok": 1, "cache_read_mtok": 2, "cache_write_mtok": 3}


def published(provider: str, model: str) -> Pricer | None:
    """The pricer that genai-prices has for a model today; `None` where it has none.

    Loading its data takes 0.1 s and 30 MB at the first call in a process: `load()` does it off the event loop.
    """
    return _published(provider, model, datetime.now(UTC).date())


def load() -> None:
    """Reads the price data. Run in a thread."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def cost_of(usage: Usage | None, own: PriceRow | None, provider: str, model: str) -> Cost | None:
    """What a call cost; `None` where the usage or the price is unknown.

    Args:
        own: the price in `providers.json`, if any.
        provider: its name in genai-prices; empty where it has none.
    """
    if usage is None:
        return None
    if usage.reported_cost_usd is not None:
        return Cost(usage.reported_cost_usd, "reported")
    if own:
        rates = (own.input_usd_per_mtok, own.output_usd_per_mtok, own.cached_usd_per_mtok, own.cache_write_usd_per_mtok)
        usd, source = _cost(usage, *rates), "providers.json"
    else:
        pricer = published(provider, model) if provider else None
        usd, source = pricer(usage) if pricer else None, SOURCE
    return None if usd is None else Cost(usd, source)


SOURCE = f"genai-prices {version('genai-prices')}"


def _cost(
    usage: Usage, per_input: float, per_output: float, per_cached: float | None, per_cache_write: float | None
) -> float | None:
    """By US dollars per million tokens; cached input without a price of its own costs as other input."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    fresh = max(usage.input_tokens - cached - written, 0)
    read = cached * (per_input if per_cached is None else per_cached)
    wrote = written * (per_input if per_cache_write is None else per_cache_write)
    return (fresh * per_input + read + wrote + usage.output_tokens * per_output) / 1e6


@lru_cache(maxsize=4096)
def _published(provider: str, model: str, day: date) -> Pricer | None:
    """Prices may change by date, so the day is part of the key."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        found_provider, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    price = found.get_prices(datetime.now(UTC))
    plain = _plain(price)
    if plain:
        return lambda usage: _cost(usage, *plain)

    def tiered(usage: Usage) -> float | None:
        """Prices that depend on the length, the hour or other units: genai-prices' own arithmetic, 0.1 ms a call."""
        from genai_prices import Usage as Units

        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        units = Units(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_input_tokens or 0,
            cache_write_tokens=usage.cache_write_tokens or 0,
        )
        return float(found.calc_price(units, found_provider).total_price)

    return tiered


def _plain(price: ModelPrice) -> tuple[float, float, float | None, float | None] | None:
    """Input, output, cached and cache-write prices, where these flat ones are all there is."""
    given: dict[str, Any] = {name: value for name, value in vars(price).items() if value is not None}
    extra = {name for name in given if name not in PLAIN_PRICES and "audio" not in name and "image" not in name}
    flat = all(isinstance(given[name], Decimal) for name in given if name in PLAIN_PRICES)
    if extra or not flat or "input_mtok" not in given or "output_mtok" not in given:
        return None
    cached, written = given.get("cache_read_mtok"), given.get("cache_write_mtok")
    return (
        float(given["input_mtok"]),
        float(given["output_mtok"]),
        None if cached is None else float(cached),
        None if written is None else float(written),
    )
