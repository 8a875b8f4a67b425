"""Provider, row and price of the calls to one entry, found once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from fanout.config.providers_file import PriceRow
from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call
from fanout.core.usage import Cost, Usage
from fanout.dispatch.pricing import TokenPrices, compute_batch_cost, compute_cost, read_price
from fanout.limits.limiter import Limiter
from fanout.providers import Provider
from fanout.providers.transport.http import HttpProvider

RouteKey = tuple[str | None, str, str]
"""Provider, the name that was written, and task."""
MAX_ROUTES = 1024
"""Callers choose the names of models: of more, all are found anew."""


@dataclass(slots=True, eq=False)
class Route:
    """The provider of an entry, its row, its price and its account's limits."""

    provider: Provider
    http: HttpProvider | None
    """The provider, if its calls may be exchanges."""
    settings: ProviderSettings
    price: TokenPrices | None
    """The entry's own."""
    priced_as: str
    """The provider's name in the published prices; empty where it has none."""
    needs_prices: bool
    """Answers are priced by the published prices, which must be loaded."""
    limiter: Limiter | None = None
    """Of calls without a caller's key, once there is one."""

    @classmethod
    def make(cls, provider: Provider, settings: ProviderSettings, price: PriceRow | None) -> Route:
        """Return the route to a provider."""
        http = provider if isinstance(provider, HttpProvider) and provider.may_exchange else None
        priced_as = settings.priced_as
        return cls(provider, http, settings, read_price(price), priced_as, needs_prices=price is None and priced_as != "")

    def compute_cost(self, call: Call, usage: Usage | None, answered: str | None) -> Cost | None:
        """Return the cost of a call with that usage, by the model that answered; see `pricing.compute_cost`."""
        return compute_cost(usage, self.price, self.priced_as, call.target.model or "", answered)

    def compute_batch_cost(self, call: Call, usage: Usage | None, answered: str | None) -> Cost | None:
        """Return the cost of a call through the batch API of its provider, if that has one."""
        if (economy := self.settings.row.economy) is None:
            return self.compute_cost(call, usage, answered)
        return compute_batch_cost(usage, self.price, self.priced_as, call.target.model or "", answered, economy.price_ratio)
