"""The providers of one configuration: its catalogue, its adapters, its prices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

import aiohttp

from fanout import providers
from fanout.config.catalogue import Catalogue, Model
from fanout.config.settings import ProviderSettings, Settings
from fanout.core.schema import Call, FittedParameters, Query, Target, Task
from fanout.core.threads import run_in_thread
from fanout.core.usage import Cost, Usage
from fanout.dispatch import pricing
from fanout.dispatch.routes import MAX_ROUTES, Route, RouteKey
from fanout.providers import ADAPTERS, ClosedProvider, PreparableProvider, Provider
from fanout.providers.economy import open_economy_api

if TYPE_CHECKING:
    from fanout.providers.economy.api import EconomyApi


class ProviderTable:
    """All providers of one configuration. Raises `ConfigError` if an adapter cannot be loaded.

    Args:
        settings: the configuration.
        session: whose connections the providers use.
        is_serving: see `open_dispatcher`.
        previous: the configuration before, of which the providers stay whose rows are the same.
    """

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession, *, is_serving: bool = False, previous: Self | None = None
    ) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings, is_serving=is_serving)
        self._is_serving, self._session = is_serving, session
        self._routes: dict[RouteKey, Route] = {}
        # Forty shipped providers wait for a key that few users have: each is made at its first call, by a caller's own key.
        self._providers: dict[str, Provider] = {}
        self._others: dict[tuple[str, Task], Provider] = {}
        """Providers of what models do beside answering, made at their first call."""
        self._economy_apis: dict[str, EconomyApi] = {}
        self._loading_prices: asyncio.Task[None] | None = None
        self.has_prices = False
        """The published prices are known to have been loaded."""
        if previous:
            self._take_over(previous)
        for name, row in settings.providers.items():
            # A module of the user's own at once, for it may have faults.
            if name not in self._providers and (not row.lacks() or row.adapter not in ADAPTERS):
                self._providers[name] = providers.create(row, session)

    def _take_over(self, previous: Self) -> None:
        """Keep what is the same: else embedded models would be trained again, and tokens of clouds fetched."""
        same = {name for name, row in self.settings.providers.items() if previous.settings.providers.get(name) == row}
        self._providers = {name: provider for name, provider in previous._providers.items() if name in same}
        self._others = {key: provider for key, provider in previous._others.items() if key[0] in same}
        self._loading_prices = previous._loading_prices

    def find_provider(self, target: Target, task: Task = "answer") -> Provider:
        """Return the provider that does a task for a target."""
        name = target.provider
        assert name is not None, "a call without a provider has a refusal and is never sent"
        row = self.settings.providers[name]
        # One object where one adapter does it all: the embedded models are trained once.
        if task == "answer" or providers.find_adapter(row.row, task) == providers.find_adapter(row.row, "answer"):
            return self._find(name)
        if (name, task) not in self._others:
            self._others[name, task] = providers.create(row, self._session, task)
        return self._others[name, task]

    def _find(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = providers.create(self.settings.providers[name], self._session)
        return provider

    def knows(self, model: Model) -> bool:
        """Return whether a provider has a model, as far as is known without a call."""
        provider = self._find(model.provider)
        return not isinstance(provider, ClosedProvider) or provider.knows(model.id)

    def find_economy_api(self, name: str) -> EconomyApi | None:
        """Return the batch API of a provider; `None` where its row names none."""
        row = self.settings.providers.get(name)
        if row is None or row.row.economy is None:
            return None
        if name not in self._economy_apis:
            self._economy_apis[name] = open_economy_api(row, self._session, self._find(name))
        return self._economy_apis[name]

    def find_row(self, call: Call) -> ProviderSettings:
        """Return the row of a call's provider."""
        assert call.target.provider is not None
        return self.settings.providers[call.target.provider]

    def find_route(self, call: Call) -> Route:
        """Return what is the same for all calls to an entry."""
        target, task = call.target, call.query.task
        route = self._routes.get((target.provider, target.name, task))
        return self._add_route(target, task) if route is None else route

    def _add_route(self, target: Target, task: Task) -> Route:
        assert target.provider is not None
        # All at once: counting which is oldest would cost every call.
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        found = self.catalogue.find(target.name)
        price = found.row.price if found and found.row else None
        row = self.settings.providers[target.provider]
        route = Route.make(self.find_provider(target, task), row, price)
        self._routes[target.provider, target.name, task] = route
        return route

    def compute_cost(
        self, call: Call, usage: Usage | None, answered: str | None = None, *, in_batch: bool = False
    ) -> Cost | None:
        """Return the cost of a call with that usage, by the model that answered; see `pricing.compute_cost`."""
        route = self.find_route(call)
        return (route.compute_batch_cost if in_batch else route.compute_cost)(call, usage, answered)

    async def prepare(self, calls: Iterable[Call] | None) -> None:
        """Prepare providers; one that cannot be prepared fails in its calls, which report the reason."""
        sent = {call.target.provider for call in calls if call.refusal is None} if calls is not None else set(self._providers)
        names = [name for name in sent if name is not None]
        work = [provider.prepare() for name in names if isinstance(provider := self._find(name), PreparableProvider)]
        # A provider that cannot be prepared must not stop the others.
        await asyncio.gather(*work, return_exceptions=True)

    def load_prices(self) -> asyncio.Task[None]:
        """Return the task that loads the prices in a thread, where 0.2 s hold up no call; a new one if the last has failed."""
        task = self._loading_prices
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._loading_prices = asyncio.create_task(run_in_thread("setup", pricing.load_prices))
        self.has_prices = task.done()
        return task

    def fit(self, target: Target, query: Query) -> FittedParameters:
        """Return the parameters of `query` as the target's provider accepts them."""
        route = self._routes.get((target.provider, target.name, query.task)) or self._add_route(target, query.task)
        return route.provider.fit(target, query)
