"""Usage → cost: what the provider reported, else the price in `providers.json`, else genai-prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from genai_prices.types import ModelInfo, Provider, TieredPrices, TimeOfDateConstraint

from fanout.config.settings import PriceRow
from fanout.core.usage import Cost, Usage

Pricer = Callable[[Usage], float | None]
SOURCE = f"genai-prices {version('genai-prices')}"
TOKEN_PRICES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
OTHER_PRICES = frozenset({"requests_kcount", "output_reasoning_mtok"})
"""Prices of what our usage also counts. The rest (audio, pages, searches, …) it does not, so that those change nothing."""


@dataclass(frozen=True, slots=True)
class SteppedPrice:
    """A price that depends on the length of the input: the last step that the input goes beyond holds for every token."""

    base: float
    steps: tuple[tuple[int, float], ...]

    def at(self, input_tokens: int) -> float:
        return next((price for start, price in reversed(self.steps) if input_tokens > start), self.base)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """US dollars per million tokens. Cached input without a price of its own costs as other input, and so do cache writes."""

    input: float | SteppedPrice
    output: float | SteppedPrice
    cached: float | SteppedPrice | None = None
    cache_write: float | SteppedPrice | None = None

    def __call__(self, usage: Usage) -> float | None:
        """What a call cost; `None` where its tokens are unknown."""
        whole, output = usage.input_tokens, usage.output_tokens
        if whole is None or output is None:
            return None
        cached = min(usage.cached_input_tokens or 0, whole)
        written = min(usage.cache_write_tokens or 0, whole - cached)
        per_input = _at(self.input, whole)
        cost = (whole - cached - written) * per_input + output * _at(self.output, whole)
        cost += cached * (per_input if self.cached is None else _at(self.cached, whole))
        cost += written * (per_input if self.cache_write is None else _at(self.cache_write, whole))
        return cost / 1e6


def load_prices() -> None:
    """Reads the price data, 20 ms (2026-11-20). Run in a thread, else the first call with a price does it on the event loop."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def compute_cost(usage: Usage | None, own: PriceRow | None, provider: str, model: str) -> Cost | None:
    """What a call cost; `None` where the usage or the price is unknown.

    Args:
        own: the price in `providers.json`, if any.
        provider: its name in genai-prices; empty where it has none.
    """
    if usage is None:
        return None
    if usage.reported_cost_usd is not None:
        return Cost(usage.reported_cost_usd, "reported")
    usage = _as_billed(usage)
    if own:
        rates = (own.input_usd_per_mtok, own.output_usd_per_mtok, own.cached_usd_per_mtok, own.cache_write_usd_per_mtok)
        usd, source = TokenPrices(*rates)(usage), "providers.json"
    else:
        pricer = find_pricer(provider, model) if provider else None
        usd, source = pricer(usage) if pricer else None, SOURCE
    return None if usd is None else Cost(usd, source)


def _as_billed(usage: Usage) -> Usage:
    """What the provider bills, where that is not what its model saw (Cohere)."""
    given, answered = (usage.billed.get(f"{way}_tokens") for way in ("input", "output")) if usage.billed else (None, None)
    if given is None or answered is None:
        return usage
    return replace(usage, input_tokens=round(given), output_tokens=round(answered), cached_input_tokens=None)


def find_pricer(provider: str, model: str) -> Pricer | None:
    """The pricer that genai-prices has for a model today; `None` where it has none."""
    return _find_pricer(provider, model, datetime.now(UTC).date())


@lru_cache(maxsize=4096)
def _find_pricer(provider: str, model: str, day: date) -> Pricer | None:
    """Prices may change by date, so the day is part of the key."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        found_provider, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    if found_provider.id != provider:  # it also guesses, by parts of names: `google-lab` would cost what Google does
        return None
    price = vars(found.get_prices(datetime.combine(day, time.min, UTC)))
    given = {name: value for name, value in price.items() if value is not None}
    if "input_mtok" not in given or "output_mtok" not in given:
        return None
    if _by_the_hour(found) or not OTHER_PRICES.isdisjoint(given):
        return lambda usage: _calculated(found, found_provider, usage)
    return TokenPrices(*(_rate(given.get(name)) for name in TOKEN_PRICES))


def _by_the_hour(model: ModelInfo) -> bool:
    prices = model.prices if isinstance(model.prices, list) else []
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices)


def _rate(price: Any) -> Any:
    """A price as a number, or in steps."""
    if isinstance(price, TieredPrices):
        return SteppedPrice(float(price.base), tuple((tier.start, float(tier.price)) for tier in price.tiers))
    return None if price is None else float(price)


def _at(rate: float | SteppedPrice, input_tokens: int) -> float:
    return rate.at(input_tokens) if isinstance(rate, SteppedPrice) else rate


def _calculated(model: ModelInfo, provider: Provider, usage: Usage) -> float | None:
    """Prices that depend on the hour, or on more than tokens in and out: genai-prices' own arithmetic, 0.1 ms a call."""
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
