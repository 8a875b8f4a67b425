"""Allowance of one run of a job whose money several processes share: drawn in slices, spent by the `Budget`, and given back."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from fanout.core.errors import LeaseLostError, StoreClosedError, StoreError
from fanout.jobs.budget import Budget
from fanout.jobs.job import Job
from fanout.jobs.process_identity import identify_process, is_gone
from fanout.observability.logs import log
from fanout.store.jobs.money import Grant, JobMoney

LOOK_INTERVAL_S = 1.0
"""Time between looks whether other processes need what is not used here."""
PAUSE_S = 0.2
"""The shortest time between two draws."""
ASK_AGAIN_S = 0.5
"""Time between two draws while there is nothing left, but others may still give back."""
SLICE_S = 1.0
"""Time for which a slice lasts, at the recent rate of spending."""
REFILL_BELOW = 0.25
"""Part of the last slice at which the next one is drawn, so that no call waits for it."""


class Allowance:
    """The money that one run of a job may spend, in its budget."""

    def __init__(
        self,
        money: JobMoney,
        job: Job,
        budget: Budget,
        pay_again: Callable[[], None],
        stop: Callable[[float], None],
    ) -> None:
        """Create it; `join` makes it known to the store, and `run` keeps it until it leaves.

        Args:
            money: of the store.
            job: has a limit.
            budget: may spend what was drawn, and nothing at first.
            pay_again: sends the units that wait for money.
            stop: is called with what was spent when no call can be paid any more, in any process.
        """
        self.holder = f"{identify_process()}#{secrets.token_hex(8)}"
        """Never used again, so that what was settled for a run that seemed dead is not spent by it later."""
        self._money, self._job, self._budget = money, job, budget
        self._limit_usd = job.spec.max_cost_usd or 0.0
        self._pay_again, self._stop = pay_again, stop
        self._due, self._looking = asyncio.Event(), asyncio.Lock()
        self._short_usd = math.inf
        """The cheapest call that could not be paid."""
        self._slice_usd = math.inf
        """The first one is as large as the store gives."""
        self._used_usd, self._drawn_at = 0.0, time.monotonic()
        """All that was used until the last slice was drawn."""
        self._is_scarce = False
        """Another process needs what is not used here."""
        self._dead_holders: list[str] = []
        self._is_refused = False
        """The last look has found too little, of which more may come back."""
        self._is_doubted = False
        """The last look has found no money anywhere."""
        budget.limit_usd, budget.spent_usd = 0.0, 0.0
        budget.on_refusal, budget.on_use = self._note_refusal, self._note_use

    async def run(self) -> None:
        """Draw, give back and renew the lease, until cancelled.

        Raises:
            LeaseLostError: this process has not been heard of for so long that its money was given to others.
        """
        self._due.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._due.wait()
            self._due.clear()
            await self.look()
            await asyncio.sleep(ASK_AGAIN_S if self._is_refused else PAUSE_S)

    async def look(self) -> bool:
        """Draw money if more is needed; else give back what is not, and see whether others need it.

        Returns:
            Whether a call that could not be paid should be tried again.
        """
        async with self._looking:
            try:
                if self._wants_more:
                    return await self._draw()
                await self._give_back()
            except (LeaseLostError, StoreClosedError):
                raise
            except StoreError as error:  # the lease outlasts several looks; the journal decides when to give up
                log.warning("job.money_failed", job=self._job.id, reason=str(error))
                self._due.set()
        return False

    async def adopt(self, reserved_usd: float) -> None:
        """Answer for calls that an earlier run has left under way."""
        await self._money.adopt(self._job.number, self.holder, reserved_usd)
        self._budget.limit_usd = (self._budget.limit_usd or 0.0) + reserved_usd

    async def release_orphans(self, reserved_usd: float) -> None:
        """Give back what an earlier run had set aside for calls that were never sent."""
        await self._money.release_orphans(self._job.number, reserved_usd)

    async def join(self) -> None:
        """Make this run known as a holder that has nothing yet."""
        await self._money.join(self._job.number, self.holder)

    async def leave(self) -> None:
        """Give back all that was not spent."""
        with suppress(StoreError):  # then its lease runs out
            await self._money.leave(self._job.number, self.holder)

    @property
    def is_short(self) -> bool:
        """A call waits for more money."""
        return self._short_usd < math.inf

    @property
    def _wants_more(self) -> bool:
        return self.is_short or (not self._is_scarce and self._budget.unused_usd < REFILL_BELOW * self._slice_usd)

    def _note_refusal(self, usd: float) -> None:
        self._short_usd = min(self._short_usd, usd)
        self._due.set()

    def _note_use(self) -> None:
        if self._wants_more:
            self._due.set()

    async def _draw(self) -> bool:
        budget, need_usd = self._budget, self._short_usd if self.is_short else 0.0
        if need_usd:
            # It does not pay for what waits: others may need it more, and nothing can be final while somebody keeps it.
            budget.drop_unused()
        self._measure_slice(need_usd)
        grant = await self._money.draw(
            *(self._job.number, self.holder, self._limit_usd),
            held_usd=budget.reserved_usd + budget.unused_usd,
            need_usd=need_usd,
            wish_usd=self._slice_usd,
            dead_holders=self._dead_holders,
        )
        if grant is None:
            raise LeaseLostError
        budget.limit_usd = (budget.limit_usd or 0.0) + grant.usd
        self._is_scarce, self._is_refused = grant.is_scarce, bool(need_usd) and not grant.usd and not grant.is_final
        if not grant.usd:  # a killed process of this machine is seen at once; another's lease must run out
            self._dead_holders = [holder for holder in grant.others if is_gone(holder.partition("#")[0])]
        if self._slice_usd == math.inf:
            self._slice_usd = grant.usd
        return self._continue(grant) if need_usd else False

    def _continue(self, grant: Grant) -> bool:
        """Send what waited for money; stop the job where there is none, and none can come back."""
        if grant.is_final and self._is_doubted:
            self._stop(grant.spent_usd)
            return False
        # Once more: what waited may have been dropped or paid meanwhile, and something cheaper may be there.
        self._is_doubted, self._short_usd = grant.is_final, math.inf
        self._pay_again()
        return grant.is_final or grant.usd > 0

    async def _give_back(self) -> None:
        budget = self._budget
        self._is_doubted = self._is_refused = False
        budget.drop_unused(keep_usd=0.0 if self._is_scarce else 2 * self._slice_usd)
        if (is_scarce := await self._report()) and budget.unused_usd:
            budget.drop_unused()
            is_scarce = await self._report()
        self._is_scarce = is_scarce

    async def _report(self) -> bool:
        held_usd = self._budget.reserved_usd + self._budget.unused_usd
        is_scarce = await self._money.give_back(self._job.number, self.holder, held_usd)
        if is_scarce is None:
            raise LeaseLostError
        return is_scarce

    def _measure_slice(self, need_usd: float) -> None:
        """Make the next slice as large as what was used lately within `SLICE_S`."""
        used_usd, now = self._budget.spent_usd + self._budget.reserved_usd, time.monotonic()
        if self._used_usd or used_usd:
            rate = max(used_usd - self._used_usd, 0.0) / max(now - self._drawn_at, PAUSE_S)
            self._slice_usd = max(rate * SLICE_S, need_usd)
        self._used_usd, self._drawn_at = used_usd, now
