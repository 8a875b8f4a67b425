"""A Dispatcher before the scripted upstream: `async with dispatching(upstream.url, tmp_path, concurrency=1) as opened`."""

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
from tests.support.upstreams import providers_file

LIMITS = ("requests_per_minute", "burst", "tokens_per_minute", "concurrency")


@dataclass(slots=True)
class Opened:
    """A Dispatcher, and all that its observers were told."""

    dispatcher: Dispatcher
    events: list[Outcome | Retry] = field(default_factory=list)

    def calls(self, *models: str | Mapping[str, Any], **sampling: Any) -> list[Call]:
        return self.dispatcher.plan(build_request("hi", models, **sampling))

    async def run(
        self, *models: str | Mapping[str, Any], deadline_s: float = 5.0, return_when: int | None = None, **sampling: Any
    ) -> list[Outcome]:
        calls = self.calls(*models, **sampling)
        return await self.dispatcher.run(calls, deadline_s=deadline_s, return_when=return_when)

    async def streamed(self, *models: str | Mapping[str, Any], deadline_s: float = 30.0, **sampling: Any) -> None:
        """Reads a stream to its end."""
        async for _ in self.dispatcher.stream(self.calls(*models, **sampling), deadline_s=deadline_s):
            pass

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.events if isinstance(event, Outcome)]

    @property
    def retries(self) -> list[Retry]:
        return [event for event in self.events if isinstance(event, Retry)]

    def limiter(self, provider: str = "up") -> Limiter:
        return next(limiter for limiter in self.dispatcher.limiters if limiter.name == provider)


@asynccontextmanager
async def dispatching(
    upstream_url: str,
    folder: Path,
    *,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
    **row: Any,
) -> AsyncGenerator[Opened]:
    """A Dispatcher over `providers_file`; limits may be named directly. Its own waits between attempts last 20 ms at most."""
    limits = {name: row.pop(name) for name in LIMITS if name in row}
    row = {"retries": {"attempts": 3, "max_delay_s": 0.02}, "limits": limits, **row}
    opened: Opened | None = None

    def observe(event: Outcome | Retry) -> None:
        assert opened
        opened.events.append(event)

    settings = load_settings(providers_file(upstream_url, folder, more=more, **row), environ or {})
    async with open_dispatcher(settings, observers=[observe]) as dispatcher:
        opened = Opened(dispatcher)
        yield opened
    assert dispatcher.cap.used == 0, "a place was not given back"


def failed(outcome: Outcome) -> Failure:
    assert isinstance(outcome.result, Failure), outcome.result
    return outcome.result


def answered(outcome: Outcome) -> Completion:
    assert isinstance(outcome.result, Completion), outcome.result
    return outcome.result


def text(outcome: Outcome) -> str:
    return answered(outcome).choices[0].message.text


def word(outcome: Outcome) -> str:
    """`ok`, or the kind of the failure."""
    return outcome.result.kind if isinstance(outcome.result, Failure) else "ok"
