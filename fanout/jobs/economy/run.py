"""State of an economy run, shared by its parts: the model's queue, the batch API, the store, and the batches that are open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fanout.config.providers_file import EconomyRow, RetriesRow
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.scheduler import UnitScheduler
from fanout.jobs.settlement import UnitSettlement
from fanout.jobs.unit_journal import UnitJournal
from fanout.providers.economy.api import EconomyApi
from fanout.store.jobs.economy_batches import EconomyBatches, EconomyBatchRow
from fanout.store.jobs.records import Place


@dataclass(slots=True)
class OpenBatch:
    """A batch at the provider."""

    row: EconomyBatchRow
    reserved_usd: dict[Place, float] = field(default_factory=dict)
    """Money set aside for its units."""
    unreadable: int = 0
    """Looks in a row that have ended with an answer nobody could read."""
    attempts: dict[Place, int] = field(init=False)
    """The attempt of each of its units."""

    def __post_init__(self) -> None:
        self.attempts = {(unit.item, unit.entry, unit.repeat): unit.attempt for unit in self.row.units}


@dataclass(slots=True)
class EconomyRun:
    """The economy run of one model of a job."""

    job: Job
    epoch: int
    queue: ModelQueue
    dispatcher: Dispatcher
    api: EconomyApi
    batches: EconomyBatches
    journal: UnitJournal
    source: UnitScheduler
    settlement: UnitSettlement
    should_cancel: Callable[[], bool]
    """Tells that the job was stopped for good, so that its batches are cancelled."""
    provider: str = field(init=False)
    model: str = field(init=False)
    """The provider's name of it."""
    row: EconomyRow = field(init=False)
    retries: RetriesRow = field(init=False)
    open: list[OpenBatch] = field(default_factory=list)
    again: list[PendingUnit] = field(default_factory=list)
    """Units for the next batch, before new ones."""

    def __post_init__(self) -> None:
        self.provider, _, self.model = (name or "" for name in self.queue.key)
        row = self.dispatcher.settings.providers[self.provider].row
        assert row.economy is not None, "a queue goes in batches only where its provider has some"
        self.row, self.retries = row.economy, row.retries

    @property
    def labels(self) -> dict[str, str]:
        """Names for every line of the log about it."""
        return {"job": self.job.id, "provider": self.provider, "model": self.model}

    @property
    def may_send(self) -> bool:
        """New units may be sent."""
        return not (self.source.is_stopped or self.queue.closed_because)

    def add(self, batch: OpenBatch) -> None:
        """Count a batch as open."""
        self.source.running += len(batch.row.units)
        self.open.append(batch)

    async def adopt(self, row: EconomyBatchRow) -> None:
        """Count a batch of an earlier run as open."""
        reserved = {(unit.item, unit.entry, unit.repeat): unit.reserved_usd for unit in row.units}
        await self.settlement.adopt(list(reserved.values()))
        self.add(OpenBatch(row, reserved))

    def forget(self, batch: OpenBatch) -> None:
        """Count a batch as open no more."""
        self.open.remove(batch)
        self.source.running -= len(batch.row.units)
