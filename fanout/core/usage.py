"""Sums of usage and cost: the only place that adds tokens and money of which some are unknown.

Unknown is `None`, never 0. A sum covers the known figures alone and is `None` only where none is known; beside the sum is the
number of answers missing from it. An answer whose usage lacks its input or its output tokens counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol, Self, TypeVar

from fanout.core.json_text import JsonObject
from fanout.core.value_type import value_type

Number = TypeVar("Number", int, float)

MAX_TOKENS = 10**12
"""Of one call. Larger reports are ignored, because sums must fit into a database's integers."""
MAX_USD = 1e9
"""Of one call, likewise."""


@value_type(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input_tokens` includes the cached ones, `output_tokens` the reasoning ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    billed: Mapping[str, float] | None = None
    """Units the provider bills, where they differ from its tokens (Cohere)."""
    reported_cost_usd: float | None = None
    raw: JsonObject | None = None
    priced_apart: Mapping[str, int] | None = None
    """Tokens among those above, and other units, that may have a price of their own, by genai-prices' names.

    For instance `input_audio_tokens`, `cache_audio_read_tokens`, `cache_write_1h_tokens`, `web_searches`.
    """
    service_tier: str | None = None
    """Tier that the call was served in, where the provider reports one: it may have prices of its own."""

    @classmethod
    def of_plain_model(cls, input_tokens: int, output_tokens: int) -> Self:
        """Return the usage of a model that neither caches nor reasons, of which the parts are known, too: none."""
        return cls(input_tokens, output_tokens, cached_input_tokens=0, cache_write_tokens=0, reasoning_tokens=0)


class TokenCounts(Protocol):
    """The tokens of one call, as far as they are summed."""

    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def cached_input_tokens(self) -> int | None: ...


@value_type(frozen=True, slots=True)
class Cost:
    """Price of one call."""

    usd: float
    source: str
    """`not_called`, `reported`, `providers.json`, or by whose published price: `genai-prices 0.2.3: gpt-4o`."""


@dataclass(slots=True)
class UsageTotals:
    """Sums over calls; `None`: not known of any of them."""

    calls: int = 0
    """Calls that ended, answered or not."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    unknown_usage: int = 0
    """Answered calls whose usage the provider did not report."""
    cost_usd: float | None = None
    cost_unknown: int = 0
    """Answered calls with no known price."""

    def add_failure(self) -> None:
        """Add a call that gave no answer: its usage and cost are neither known nor missing."""
        self.calls += 1

    def add_answer(self, usage: TokenCounts | None, cost_usd: float | None) -> None:
        """Add an answered call."""
        # Each answer is added four times, by a report, a log line, the history and the ledger: so without calls of functions.
        self.calls += 1
        whole = output = None
        if usage is not None:
            if (whole := usage.input_tokens) is not None:
                self.input_tokens = whole + (self.input_tokens or 0)
            if (output := usage.output_tokens) is not None:
                self.output_tokens = output + (self.output_tokens or 0)
            if (cached := usage.cached_input_tokens) is not None:
                self.cached_tokens = cached + (self.cached_tokens or 0)
        # Half a usage cannot be priced, so it counts as missing, though its known half is added.
        if whole is None or output is None:
            self.unknown_usage += 1
        # A price of 0 is known: the embedded models are free.
        if cost_usd is None:
            self.cost_unknown += 1
        else:
            self.cost_usd = cost_usd if self.cost_usd is None else self.cost_usd + cost_usd

    def add(self, more: Self) -> None:
        """Add the sums over other calls."""
        self.calls += more.calls
        self.input_tokens = add_known(self.input_tokens, more.input_tokens)
        self.output_tokens = add_known(self.output_tokens, more.output_tokens)
        self.cached_tokens = add_known(self.cached_tokens, more.cached_tokens)
        self.unknown_usage += more.unknown_usage
        self.cost_usd = add_known(self.cost_usd, more.cost_usd)
        self.cost_unknown += more.cost_unknown

    def as_columns(self) -> dict[str, int | float | None]:
        """Return the sums by the names of the columns they are stored in."""
        # Not `asdict`, which would deep-copy every value of each written row.
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class WorkTotals(UsageTotals):
    """Sums over units of batch jobs: also the attempts they took and their time."""

    attempts: int = 0
    total_ms: int = 0

    def add(self, more: Self) -> None:
        """Add the sums over other units."""
        UsageTotals.add(self, more)
        self.attempts += more.attempts
        self.total_ms += more.total_ms


USAGE_SUMS = tuple(UsageTotals.__dataclass_fields__)
WORK_SUMS = tuple(WorkTotals.__dataclass_fields__)
"""Columns that the sums are stored in."""


def add_known(known: Number | None, more: Number | None) -> Number | None:
    """Return the sum of two figures, of which either may be unknown: `None` only where both are."""
    return more if known is None else known if more is None else known + more


def sum_known(figures: Iterable[Number | None]) -> Number | None:
    """Return the sum of the known figures; `None` where none is."""
    return reduce(add_known, figures, None)


def sum_complete(figures: Iterable[Number | None]) -> Number | None:
    """Return the sum of the figures; `None` where any is unknown."""
    total: Number | None = 0
    for figure in figures:
        total = None if total is None or figure is None else total + figure
    return total


def total_tokens(input_tokens: int | None, output_tokens: int | None) -> int | None:
    """Return the sum of both counts; `None` if either is unknown."""
    return None if input_tokens is None or output_tokens is None else input_tokens + output_tokens


def keep_plausible_usage(usage: Usage) -> Usage:
    """Return `usage` with plausible counts; an implausible one becomes `None`, as if not reported."""
    # Nearly every report is plausible: then nothing is made, not even a tuple of them.
    if (
        0 <= (usage.input_tokens or 0) <= MAX_TOKENS
        and 0 <= (usage.output_tokens or 0) <= MAX_TOKENS
        and 0 <= (usage.cached_input_tokens or 0) <= MAX_TOKENS
        and 0 <= (usage.cache_write_tokens or 0) <= MAX_TOKENS
        and 0 <= (usage.reasoning_tokens or 0) <= MAX_TOKENS
    ):
        return usage
    return replace(
        usage,
        input_tokens=_keep_plausible_tokens(usage.input_tokens),
        output_tokens=_keep_plausible_tokens(usage.output_tokens),
        cached_input_tokens=_keep_plausible_tokens(usage.cached_input_tokens),
        cache_write_tokens=_keep_plausible_tokens(usage.cache_write_tokens),
        reasoning_tokens=_keep_plausible_tokens(usage.reasoning_tokens),
    )


def _keep_plausible_tokens(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= MAX_TOKENS else None


NO_USAGE = Usage()
