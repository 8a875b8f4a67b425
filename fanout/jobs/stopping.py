"""Stopping of a job whose answer is known, as jobs see it: `evaluate` has the rule.

Items run in a random order that follows from the job's seed, and only the complete prefix of that order is looked at: what ends
first, short and easy items, must not decide.
"""

from __future__ import annotations

import random
import secrets
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

from fanout.core.json_text import JsonObject
from fanout.store.jobs.records import Unit, UnitScore

MAX_WATCHED_ITEMS = 1_000_000
SEED_BITS = 48
"""Of an order's seed, so that JSON readers with floats keep it whole."""
LOOKAHEAD_ITEMS = 32
"""Items that are sent before those ahead of them have ended: what a decision wastes at most, for each model and process."""


@dataclass(frozen=True, slots=True)
class StoppingPlan:
    """When a job may stop; fixed before it runs and stored with it."""

    metric: str
    """Name of a scorer of the job."""
    seed: int
    """Of the order in which the items run."""
    margin: float | None = None
    """Differences below it count as none; `None`: equivalence is not looked for."""
    alpha: float = 0.05
    """Chance to see a difference where there is none, over all looks and pairs."""
    max_items: int | None = None
    """Most items that may be run; `None`: all."""


class StoppingStep(NamedTuple):
    """Something that became known."""

    sentence: str
    dropped_entry: int | None = None
    """A model that has lost, of which nothing more is to be sent."""
    is_final: bool = False
    """Nothing more is to be sent at all."""


class StoppingWatch(Protocol):
    """The watch on one job."""

    @property
    def order(self) -> Sequence[int]:
        """The items in the order in which they run."""

    @property
    def scorer(self) -> int:
        """The number of the scorer whose scores count."""

    @property
    def prefix(self) -> int:
        """Items that all models still running have completed, in that order."""

    @property
    def final(self) -> StoppingStep | None:
        """The decision, once there is one."""

    def reach(self, workers: int) -> int:
        """Return the number of items, in that order, that so many processes together may send by now."""
        ...

    @property
    def is_due(self) -> bool:
        """True once enough has ended for another look."""

    def record(self, unit: Unit, scores: Sequence[UnitScore], *, answered: bool) -> None:
        """Add the end of a unit; one that is known already changes nothing."""

    def look(self) -> Sequence[StoppingStep]:
        """Return what has become known since the last look. Takes long: it runs in a thread, one at a time."""


def shuffle_items(count: int, seed: int) -> array[int]:
    """Return the numbers of a job's items in a random order, for one seed always the same."""
    order = array("q", range(count))
    # Fisher and Yates by `random()`, which Python keeps the same between versions; `shuffle` it does not.
    draw = random.Random(seed).random  # noqa: S311 - the order must be repeatable, not secret
    for last in range(count - 1, 0, -1):
        chosen = int(draw() * (last + 1))
        order[last], order[chosen] = order[chosen], order[last]
    return order


def make_plan(metric: str, margin: float | None, alpha: float, max_items: int | None) -> JsonObject:
    """Return a plan as a job stores it, with the seed of a new order."""
    return asdict(StoppingPlan(metric, secrets.randbits(SEED_BITS), margin, alpha, max_items))


def parse_plan(stored: Mapping[str, Any]) -> StoppingPlan:
    """Return the plan that a job has stored."""
    return StoppingPlan(**stored)
