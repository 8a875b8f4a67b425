"""Provider, row and price of the calls to one entry, found once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from fanout.config.providers_file import PriceRow
from fanout.config.settings import ProviderSettings
from fanout.dispatch.pricing import TokenPrices, read_price
from fanout.providers import Provider
from fanout.providers.transport.http import HttpProvider

RouteKey = tuple[str | None, str, str]
"""Provider, the name that was written, and task."""
MAX_ROUTES = 1024
"""Callers choose the names of models: of more, all are found anew."""


@dataclass(frozen=True, slots=True)
class Route:
    """The provider of an entry, its row and its price."""

    provider: Provider
    http: HttpProvider | None
    """The provider, if its calls may be exchanges."""
    settings: ProviderSettings
    price: TokenPrices | None
    """The entry's own."""
    needs_prices: bool
    """Answers are priced by the published prices, which must be loaded."""

    @classmethod
    def make(cls, provider: Provider, settings: ProviderSettings, price: PriceRow | None) -> Route:
        """Return the route to a provider."""
        http = provider if isinstance(provider, HttpProvider) else None
        return cls(provider, http, settings, read_price(price), settings.row.prices != "")
