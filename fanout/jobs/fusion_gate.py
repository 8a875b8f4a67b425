"""Fusions of a job: each waits until the units of its members have ended, and then takes its place in its model's queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.store.jobs.records import Place, Unit

MAX_FUSIONS = 4_096
"""Fusions of a job that wait or are to be sent: beyond it, no new rows are read until some have ended."""


@dataclass(slots=True)
class _WaitingFusion:
    queue: ModelQueue
    open_members: dict[Place, ModelQueue]


class FusionGate:
    """The fusions of a run that have not ended, for all rows that have been read."""

    def __init__(self) -> None:
        self.fusions: dict[int, Sequence[int]] = {}
        """Members' entries by the entry of their fusion, where all items have the same."""
        self.dropped: set[int] = set()
        """Entries that have lost."""
        self._waiting: dict[Place, _WaitingFusion] = {}
        self._wanted_by: dict[Place, list[Place]] = {}
        """Fusions that wait for a member."""
        self._released: dict[Place, ModelQueue] = {}

    @property
    def is_full(self) -> bool:
        """No further row may be read."""
        return len(self._waiting) + len(self._released) >= MAX_FUSIONS

    def is_dropped(self, entry: int) -> bool:
        """Return whether nothing more is sent of an entry: it has lost, and is no member of a fusion that goes on."""
        dropped = self.dropped
        return entry in dropped and not any(entry in of and fusion not in dropped for fusion, of in self.fusions.items())

    def hold(self, unit: PendingUnit, queue: ModelQueue, open_units: Mapping[Place, ModelQueue]) -> bool:
        """Hold a fusion until its members have ended; return whether it may be sent now, because they have.

        Args:
            unit: the fusion.
            queue: the queue in which it will be sent.
            open_units: the units of its item that have not ended, and their queues.
        """
        _, item, entry, repeat = unit.unit
        fusion, of = (item, entry, repeat), unit.call.fusion.of if unit.call.fusion else ()
        open_members = {member: open_units[member] for at in of if (member := (item, at, repeat)) in open_units}
        if any(needed.closed_because for needed in (queue, *open_members.values())):
            return False  # it stays open: a resumed job sends it
        if not open_members:
            self._released[fusion] = queue
            return True
        self._waiting[fusion] = _WaitingFusion(queue, open_members)
        queue.waiting += 1
        for member in open_members:
            self._wanted_by.setdefault(member, []).append(fusion)
        return False

    def record_end(self, unit: Unit) -> list[tuple[Place, ModelQueue]]:
        """Forget a unit that has ended; return the fusions that may be sent now.

        Their queues wait for them until the caller has put them there: a queue without anything ends.
        """
        place = (unit.item, unit.entry, unit.repeat)
        ready = []
        self._released.pop(place, None)
        for fusion in self._wanted_by.pop(place, ()):
            waiting = self._waiting.get(fusion)
            if waiting is None:
                continue
            del waiting.open_members[place]
            if not waiting.open_members:
                del self._waiting[fusion]
                self._released[fusion] = waiting.queue
                ready.append((fusion, waiting.queue))
        return ready

    def holds(self, place: Place) -> bool:
        """Return whether a fusion waits or is to be sent."""
        return place in self._waiting or place in self._released

    def drop_closed(self) -> list[Place]:
        """Forget the fusions that will not be sent because a queue has closed, and return them."""
        self._released = {place: queue for place, queue in self._released.items() if not queue.closed_because}
        hopeless = [
            (place, waiting.queue)
            for place, waiting in self._waiting.items()
            if any(queue.closed_because for queue in (waiting.queue, *waiting.open_members.values()))
        ]
        for place, queue in hopeless:
            del self._waiting[place]
            queue.waiting -= 1
        return [place for place, _ in hopeless]
