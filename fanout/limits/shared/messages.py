"""Messages between a process and an account's row: an ask, and the grant that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fanout.limits.shared.rules import SharedRules


class SliceDemand(NamedTuple):
    """Amounts that are wanted beyond those held."""

    interactive: int = 0
    batch: int = 0
    ahead: int = 0
    """To be there before it is wanted; everybody's wants come first."""
    need: int = 1
    """The least with which the first waiting call can start."""


NO_DEMAND = SliceDemand()


class UsedAmounts(NamedTuple):
    """Amounts that were used, by their age when the ask is sent, under the number of the ask that first had them."""

    number: int
    used: Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class SliceClaim:
    """The part of an ask that concerns one quantity: starts, tokens or places."""

    held: int = 0
    """Kept from earlier grants: not used yet, or reserved for calls under way. Everything else goes back."""
    demand: SliceDemand = NO_DEMAND
    reports: Sequence[UsedAmounts] = ()
    in_window: int = 0
    """Used by this process in the last period, or reserved."""


class SharedPause(NamedTuple):
    """A pause of a model's calls (empty: of all), by the time that is left."""

    model: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The holdings, uses and wants of one process."""

    member: str
    number: int
    rules: SharedRules
    starts: SliceClaim = field(default_factory=SliceClaim)
    tokens: SliceClaim = field(default_factory=SliceClaim)
    places: SliceClaim = field(default_factory=SliceClaim)
    """Of calls in flight. `held`: that may be in flight until the grant comes."""
    is_leaving: bool = False


class Part(NamedTuple):
    """An amount that may be used after a delay. Where it is a forecast: all that is free then."""

    delay_s: float
    amount: int


@dataclass(frozen=True, slots=True)
class SliceGrant:
    """Amounts that a process may use beside what it holds; delays are from the arrival of the grant."""

    starts: Sequence[Part]
    tokens: Sequence[Part]
    places: int | None
    """That it may have in flight from now on; `None`: any number."""
    members: int
    """Processes that share the account, this one included."""
    is_known: bool
    """All of them know of this process."""
    ask_s: float
    """The time until its next ask."""
    is_met: bool
    """It got all that it wanted."""
    rules: SharedRules
    """That are kept: the smallest limits of all processes."""
    pauses: Sequence[SharedPause] = ()
    expected_starts: Sequence[Part] = ()
    """What will be free if nobody uses anything."""
    expected_tokens: Sequence[Part] = ()
    spare_starts: int = 0
    """That a process with calls may keep ready, because so much more is free: far below a limit no call waits for an ask."""
    spare_tokens: int = 0
    spare_places: int = 0
