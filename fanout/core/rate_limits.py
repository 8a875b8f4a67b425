"""An account's limits, as a provider reports them with its answers."""

from __future__ import annotations

from fanout.core.value_type import value_type


@value_type(frozen=True, slots=True)
class Remaining:
    """Remains of one of an account's limits, as the provider reports them; `None`: not reported."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    """Time until all of `limit` is available again, counted from when this was read."""


@value_type(frozen=True, slots=True)
class RateLimitStatus:
    """An account's limits as an answer's headers report them."""

    requests: Remaining = Remaining()
    tokens: Remaining = Remaining()
