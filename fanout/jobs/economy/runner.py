"""Economy units: the units of one model of a job through its provider's batch API, at part of the price, within a day.

A unit is still sent at least once and recorded exactly once. Between the two it is at the provider, and here only its place is
kept, in the store: whoever runs the job next finds the batch there and takes its results.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from fanout.core.errors import ProviderError
from fanout.jobs.economy.ends import UnitEnds
from fanout.jobs.economy.results import ResultCollector
from fanout.jobs.economy.run import EconomyRun
from fanout.jobs.economy.submission import Submission

MAX_OPEN_BATCHES = 8
"""Batches of one model at its provider at once."""
MAX_CANCEL_WAIT_S = 60.0
"""Time that the results of a cancelled batch are waited for; later ones are taken when the job is resumed."""


async def run_in_batches(run: EconomyRun) -> None:
    """Submit a model's units and record their ends, until none is left, or the job is stopped."""
    await EconomyRunner(run).drive()


class EconomyRunner:
    """The economy batches of one model of a job."""

    def __init__(self, run: EconomyRun) -> None:
        ends = UnitEnds(run)
        self._run = run
        self._submission, self._results = Submission(run, ends), ResultCollector(run, ends)

    async def drive(self) -> None:
        """Submit the model's units and record their ends, until none is left, or the job is stopped."""
        await self._adopt()
        while self._run.may_send:
            while len(self._run.open) < MAX_OPEN_BATCHES and await self._submission.submit_next():
                pass
            if not self._run.open and not self._run.again and (self._run.queue.exhausted or self._run.source.is_stopped):
                return
            await self._pause(self._run.row.poll_s)
            await self._results.collect_results()
        await self._leave()

    async def _adopt(self) -> None:
        """Take up the batches of an earlier run."""
        for row in await self._run.batches.list_open(self._run.job.number):
            if (row.provider, row.model) != (self._run.provider, self._run.model):
                continue
            if row.vendor_id is None:
                try:
                    found = await self._run.api.find(row.token)
                except ProviderError:  # not sent again: the provider may have it, and is asked at the next look
                    await self._run.adopt(row)
                    continue
                if found is None:  # its units are sent again; the attempt that may have been charged stays recorded
                    await self._run.settlement.release_orphans(sum(unit.reserved_usd for unit in row.units))
                    await self._run.batches.remove(row.token)
                    continue
                await self._run.batches.set_vendor_id(row.token, found)
                row = row._replace(vendor_id=found)
            await self._run.adopt(row)

    async def _leave(self) -> None:
        """Leave the batches to the next run; those of a job that was cancelled are cancelled, and their answers taken."""
        if not self._run.should_cancel():
            return
        for vendor_id in [batch.row.vendor_id for batch in self._run.open if batch.row.vendor_id]:
            with suppress(ProviderError):
                await self._run.api.cancel(vendor_id)
        ends_at = time.monotonic() + MAX_CANCEL_WAIT_S
        while self._run.open and time.monotonic() < ends_at:
            await self._results.collect_results()
            if self._run.open:
                await asyncio.sleep(min(self._run.row.poll_s, 5.0))

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the job runs."""
        ends_at = time.monotonic() + seconds
        while not self._run.source.is_stopped and (left := ends_at - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._run.queue.changed_for_batches.wait()
            self._run.queue.changed_for_batches.clear()
