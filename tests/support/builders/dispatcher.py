"""A Dispatcher before the scripted upstream, and the events it emits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.core.schema import Call, Completion, Failure, Outcome, Retry
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.limits.limiter import Limiter
from fanout.limits.registry import Sharing
from tests.support.builders.settings import write_providers_file

LIMITS = ("requests_per_minute", "burst", "tokens_per_minute", "token_bucket", "concurrency")


@dataclass(slots=True)
class ObservedDispatcher:
    """A Dispatcher and the events that its observers received."""

    dispatcher: Dispatcher
    events: list[Outcome | Retry] = field(default_factory=list)

    def plan(self, *models: str | Mapping[str, Any], **sampling: Any) -> list[Call]:
        return self.dispatcher.plan(build_request("hi", models, **sampling))

    async def run(
        self, *models: str | Mapping[str, Any], deadline_s: float = 5.0, return_when: int | None = None, **sampling: Any
    ) -> list[Outcome]:
        calls = self.plan(*models, **sampling)
        return await self.dispatcher.run(calls, deadline_s=deadline_s, return_when=return_when)

    async def stream(self, *models: str | Mapping[str, Any], deadline_s: float = 30.0, **sampling: Any) -> None:
        """Read a stream to its end."""
        async for _ in self.dispatcher.stream(self.plan(*models, **sampling), deadline_s=deadline_s):
            pass

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.events if isinstance(event, Outcome)]

    @property
    def retries(self) -> list[Retry]:
        return [event for event in self.events if isinstance(event, Retry)]

    def find_limiter(self, provider: str = "up") -> Limiter:
        return next(limiter for limiter in self.dispatcher.limiters if limiter.name == provider)


@asynccontextmanager
async def open_observed_dispatcher(
    upstream_url: str,
    folder: Path,
    *,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
    sharing: Sharing | None = None,
    **row: Any,
) -> AsyncGenerator[ObservedDispatcher]:
    """Open a Dispatcher; `row` is its provider's and may name limits directly. Waits between attempts last 20 ms at most."""
    limits = {name: row.pop(name) for name in LIMITS if name in row}
    row = {"retries": {"attempts": 3, "max_delay_s": 0.02}, "limits": limits, **row}
    opened: ObservedDispatcher | None = None

    def observe(event: Outcome | Retry) -> None:
        assert opened
        opened.events.append(event)

    settings = load_settings(write_providers_file(upstream_url, folder, more=more, **row), environ or {})
    async with open_dispatcher(settings, observers=[observe], sharing=sharing) as dispatcher:
        opened = ObservedDispatcher(dispatcher)
        yield opened
    assert dispatcher.cap.used == 0, "a place was not released"


def expect_failure(outcome: Outcome) -> Failure:
    assert isinstance(outcome.result, Failure), outcome.result
    return outcome.result


def expect_completion(outcome: Outcome) -> Completion:
    assert isinstance(outcome.result, Completion), outcome.result
    return outcome.result


def read_text(outcome: Outcome) -> str:
    return expect_completion(outcome).choices[0].message.text


def name_outcome(outcome: Outcome) -> str:
    """Return `ok`, or the kind of the failure."""
    return outcome.result.kind if isinstance(outcome.result, Failure) else "ok"
