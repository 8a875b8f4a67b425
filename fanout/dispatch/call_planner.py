"""The configuration of a Dispatcher: calls are planned by the newest, and end under the one that they were planned by."""

from __future__ import annotations

import resource
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import aiohttp

from fanout.config.catalogue import Catalogue
from fanout.config.settings import Settings
from fanout.core.schema import Call
from fanout.core.usage import Cost, Usage
from fanout.dispatch.plan import plan
from fanout.dispatch.request import Request
from fanout.dispatch.upstreams import Upstreams
from fanout.limits.answer_memory import AnswerMemory
from fanout.limits.limiter import InFlightCap
from fanout.limits.registry import LimiterRegistry, Sharing


class CallPlanner:
    """Planner of calls, over limits and memory that outlive a configuration."""

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession, *, is_serving: bool, sharing: Sharing | None = None
    ) -> None:
        self._is_serving = is_serving
        self.answers = AnswerMemory(settings.environment.held_bytes)
        self.cap = InFlightCap(settings.environment.max_in_flight or resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self.limiters = LimiterRegistry(self.cap, max_waiting=settings.environment.max_waiting, sharing=sharing)
        self.upstreams = Upstreams(settings, session, self.limiters, is_serving=is_serving)

    @property
    def settings(self) -> Settings:
        """The operator's, by which new calls are made."""
        return self.upstreams.settings

    @property
    def catalogue(self) -> Catalogue:
        """The models of these settings."""
        return self.upstreams.catalogue

    async def reload(self, settings: Settings) -> None:
        """Make new calls by other settings: those that are planned or run end under theirs, and limiters keep their counts.

        Raises:
            ConfigError: an adapter cannot be loaded; nothing has changed.
        """
        upstreams = self.upstreams.replace(settings)
        await upstreams.prepare(None)
        self.upstreams = upstreams
        self.limiters.configure({name: row.row.limits for name, row in settings.providers.items()})

    def find_upstreams(self, call: Call) -> Upstreams:
        """Return the configuration that a call was planned under."""
        planned = call.scope.configuration
        return planned if isinstance(planned, Upstreams) else self.upstreams

    async def prepare(self, calls: Iterable[Call] | None = None) -> None:
        """Prepare providers, which would otherwise count as a model's time; if given, only those of `calls`."""
        await self.upstreams.prepare(calls)

    def plan(self, request: Request, entries: Collection[int] | None = None) -> list[Call]:
        """Return the calls of a request, or those of some of its entries; see `plan.plan`."""
        upstreams = self.upstreams  # once, for jobs plan in threads, beside which another may take its place
        today, max_calls = datetime.now(UTC).date(), upstreams.settings.environment.max_calls
        scope = self.answers.open_scope(upstreams)
        return plan(request, upstreams.catalogue, upstreams.fit, max_calls, today, entries, scope)

    def compute_cost(
        self, call: Call, usage: Usage | None, answered: str | None = None, *, in_batch: bool = False
    ) -> Cost | None:
        """Return the cost of a call with that usage, by the model that answered; `None` where a price is not known."""
        return self.find_upstreams(call).compute_cost(call, usage, answered, in_batch=in_batch)

    def choose_newest(self, call: Call) -> Upstreams:
        """Return the configuration for a unit of a job, which may have been planned long ago: the newest that fits it."""
        planned = self.find_upstreams(call)
        name = call.target.provider or ""
        old, new = planned.settings.providers.get(name), self.settings.providers.get(name)
        return self.upstreams if old and new and old.adapter == new.adapter else planned
