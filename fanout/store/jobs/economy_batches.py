"""Economy batches of jobs: what is at a provider's batch API, so that another process finds it there after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, select, update

from fanout.core.errors import LeaseLostError
from fanout.store.engine.database import Database
from fanout.store.jobs.leases import lock_epochs
from fanout.store.tables import economy_batches


class BatchedUnit(NamedTuple):
    """A unit in a batch, by its place in the job, and the attempt that the batch is."""

    item: int
    entry: int
    repeat: int
    attempt: int
    reserved_usd: float = 0.0
    """Money set aside for it; older rows do not say."""


class EconomyBatchRow(NamedTuple):
    """A batch of one model of a job."""

    token: str
    """Ours, known before the provider gives it an id."""
    job: int
    provider: str
    model: str
    """The provider's name of it."""
    submitted: float
    """Unix seconds."""
    vendor_id: str | None
    """The provider's id; `None`: it is not known whether the provider has the batch."""
    units: Sequence[BatchedUnit]


class EconomyBatches:
    """The economy batches of a database's jobs. Every method raises `StoreError` if the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: EconomyBatchRow, epoch: int) -> None:
        """Add a batch before it is sent.

        Raises:
            LeaseLostError: another process has the job.
        """
        values = {**batch._asdict(), "units": to_json(batch.units).decode()}

        def write(connection: Connection) -> bool:
            if lock_epochs(connection, [(batch.job, None)]).get((batch.job, None)) != epoch:
                return False
            connection.execute(economy_batches.insert().values(values))
            return True

        if not await self._database.write(write):
            raise LeaseLostError

    async def set_vendor_id(self, token: str, vendor_id: str) -> None:
        """Write the provider's id of a batch."""
        await self._database.execute(
            update(economy_batches).where(economy_batches.c.token == token).values(vendor_id=vendor_id)
        )

    async def remove(self, token: str) -> None:
        """Forget a batch whose units have all been recorded, or that the provider has not taken."""
        await self._database.execute(economy_batches.delete().where(economy_batches.c.token == token))

    async def list_open(self, job: int) -> list[EconomyBatchRow]:
        """Return the batches of a job whose ends are not all recorded, in the order in which they were sent."""
        query = select(economy_batches).where(economy_batches.c.job == job).order_by(economy_batches.c.submitted)
        return await self._database.fetch_as(_make_row, query)


def _make_row(
    token: str, job: int, provider: str, model: str, submitted: float, vendor_id: str | None, units: str
) -> EconomyBatchRow:
    found = [BatchedUnit(*unit) for unit in from_json(units)]
    return EconomyBatchRow(token, job, provider, model, submitted, vendor_id, found)
