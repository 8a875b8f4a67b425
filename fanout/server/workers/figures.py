"""The page of metrics of several workers: counters are summed, also those of workers that have died."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic_core import from_json, to_json

from fanout.core.threads import run_in_thread
from fanout.observability.metrics import Metrics
from fanout.observability.series import Exported, merge, render_lines
from fanout.server.workers.seat import FIGURES, Seat


class WorkerExported(Exported):
    """The counts of a worker, by its process."""

    pid: int


class _Known(TypedDict):
    """What must outlive a leader: otherwise counters would seem to go back."""

    ended: Exported | None
    """Counters of the workers that have died."""
    last: dict[str, WorkerExported]
    """By the number of the place, as they were when the page was made last."""


class WorkersFigures:
    """The counts of all workers, gathered by the leader."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._known: _Known = from_json(seat.figures) if seat.figures else {"ended": None, "last": {}}

    async def render(self, own: Metrics, others: Mapping[int, bytes]) -> bytes:
        """Return the page, with the counts of this worker and those that others have sent."""
        mine: WorkerExported = {**own.export(), "pid": os.getpid()}
        page, known = await run_in_thread("figures", self._render, mine, others)
        await self._seat.keep(FIGURES, known)
        return page

    def _render(self, mine: WorkerExported, others: Mapping[int, bytes]) -> tuple[bytes, bytes]:
        known = self._known
        found: dict[str, WorkerExported] = {str(self._seat.number): mine}
        found |= {str(number): from_json(body) for number, body in others.items()}
        ended = known["ended"]
        for number, one in found.items():
            before = known["last"].get(number)
            if before and before["pid"] != one["pid"]:
                ended = merge([ended, _drop_gauges(before)] if ended else [_drop_gauges(before)])
        # Of one that is being replaced, or silent, what it had counted when it was last heard of.
        absent = [_drop_gauges(one) for number, one in known["last"].items() if number not in found]
        self._known = {"ended": ended, "last": known["last"] | found}
        total = merge([*([ended] if ended else []), *absent, *found.values()])
        pids = {number: one["pid"] for number, one in sorted(found.items())} | {"supervisor": os.getppid()}
        page = "".join(render_lines(total)).encode() + generate_latest(_make_registry(pids))
        return page, to_json(self._known)


def _drop_gauges(one: WorkerExported) -> Exported:
    return {"metrics": [metric for metric in one["metrics"] if metric["kind"] != "gauge"]}


def _make_registry(pids: Mapping[str, int]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Processes(pids))
    PlatformCollector(registry=registry)
    return registry


class _Processes(Collector):
    """The figures of each process: memory that processes share would be counted several times in a sum."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of each process, with its worker as a label."""
        families: dict[str, Metric] = {}
        for number, pid in self._pids.items():
            for family in _read_process(pid):
                kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    kept.add_sample(sample.name, {"worker": number}, sample.value)
        yield from families.values()


def _read_process(pid: int) -> list[Any]:
    return list(ProcessCollector(registry=None, pid=lambda: pid).collect())
