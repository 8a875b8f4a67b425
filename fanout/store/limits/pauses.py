"""Pauses of accounts, between this process and the others: written as they are met, and looked for where no ask brings them."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from fanout.core.errors import StoreError
from fanout.limits.shared.messages import SharedPause
from fanout.limits.shared.rules import MAX_ASK_S
from fanout.limits.shared.share import MIN_FAILURES, RETRY_S, ProcessShare
from fanout.observability.logs import log
from fanout.store.limits.limit_table import MAX_AGE_S, LimitTable, MetPause

LOOK_S = MAX_ASK_S
"""Between two looks while calls are made."""
LOOK_WHERE_HEARD_S = 1.0
"""The same where pauses are announced: only what was lost has to be found."""
SPACING_S = MAX_ASK_S / 5
"""The shortest time between two transactions."""
IDLE_LOOKS = 4
"""Looks without a call after which nothing is looked for: calls that come rarely find a pause known."""
MAX_WATCHED = 10_000
"""Callers bring accounts of their own. What goes beyond it only hears of pauses."""
MAX_PAUSES = 10_000
"""Callers choose the names of models, too. What goes beyond it holds the calls of this process alone."""
PauseKey = tuple[str, str]
"""Account and model."""


class LossReporter(Protocol):
    """Whoever says that the store is away, and that it is there again."""

    def report_loss(self, error: StoreError) -> None:
        """Log once that the store is away."""
        ...

    def report_return(self) -> None:
        """Log that it is there again."""
        ...


class PauseExchange:
    """One transaction at a time, for all accounts: it writes what this process has met and reads what the others have.

    Args:
        table: with the accounts' rows.
        member: this process, as the others know it.
        look_s: the time between two looks while calls are made.
        reporter: logs that the store is away.
    """

    def __init__(self, table: LimitTable, member: str, look_s: float, reporter: LossReporter) -> None:
        self._table, self._member, self._look_s, self._reporter = table, member, look_s, reporter
        self.task: asyncio.Task[None] | None = None
        self.exchanges = 0
        """Transactions so far."""
        self._met: dict[PauseKey, tuple[float, str]] = {}
        """Ends and reasons of pauses that the others do not know of."""
        self._known: dict[PauseKey, float] = {}
        """Ends of pauses that they do know of."""
        self._watched: dict[ProcessShare, tuple[str, int]] = {}
        """Accounts whose pauses are looked for, and the looks since their last call."""
        self._began_at, self._due = -math.inf, math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._cleaned_at = time.monotonic()
        self._is_stopped = False

    def tell(self, account: str, model: str | None, until: float, reason: str) -> None:
        """Tell the others of a pause of a model (`None`: of all) that an upstream has requested of this process."""
        key = (account, model or "")
        known_until = self._known.get(key, -math.inf)
        if until > known_until and (key in self._met or len(self._met) < MAX_PAUSES):
            # Calls that were in flight are refused one after the other, and each makes a pause longer that is known already.
            becomes_longer = key in self._met or known_until > time.monotonic()
            self._met[key] = (until, reason)
            self._schedule(LOOK_S if becomes_longer else SPACING_S)

    def watch(self, account: str, share: ProcessShare) -> None:
        """Look for the pauses of an account from now on, at once and as long as it has calls."""
        if len(self._watched) < MAX_WATCHED:
            self._watched[share] = (account, 0)
            share.is_informed = True
            self._schedule(SPACING_S)

    def forget(self, share: ProcessShare) -> None:
        """Look no longer for the pauses of an account that is used no longer."""
        self._watched.pop(share, None)

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopped = True
        if self._timer:
            self._timer.cancel()

    async def finish(self) -> None:
        """Tell the others, at the end, what they do not know of."""
        self._watched.clear()
        if self._met:
            await self._exchange()

    def _schedule(self, spacing_s: float) -> None:
        due = self._began_at + spacing_s
        if self._is_stopped or due >= self._due:
            return
        self._due = due
        if self.task is None:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._due, self._begin)

    def _begin(self) -> None:
        # Now, and not when the task comes to run: what is met until then would be due at once.
        self._timer, self._due, self._began_at = None, math.inf, time.monotonic()
        self.task = asyncio.create_task(self._exchange(), name="shared pauses")
        self.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()):
            log.error("limits.exchange_crashed", exc_info=error)
        if self._due < math.inf and not self._is_stopped:
            self._set_timer()

    async def _exchange(self) -> None:
        now = time.monotonic()
        self.exchanges += 1
        self._known = {key: end for key, end in self._known.items() if end > now}
        self._met = {key: met for key, met in self._met.items() if met[0] > now}
        sent, watched = dict(self._met), dict(self._watched)
        pauses = [
            MetPause(account, SharedPause(model, end - now, reason), self._member)
            for (account, model), (end, reason) in sent.items()
        ]
        try:
            found = await self._table.exchange_pauses(pauses, {account for account, _ in watched.values()})
            # A pause leaves a row of its account behind, and callers bring accounts of their own.
            if sent and now - self._cleaned_at > MAX_AGE_S:
                self._cleaned_at = now
                await self._table.delete_old()
        except StoreError as error:
            self._fail(error)
            return
        self._failures = 0
        self._reporter.report_return()
        # Those that came or became longer while this was on its way are in the next one.
        self._met = {key: met for key, met in self._met.items() if sent.get(key) != met}
        if len(self._known) > MAX_PAUSES:  # one that is not known is told once more
            self._known.clear()
        self._known |= {key: end for key, (end, _) in sent.items()}
        for share, (account, _) in watched.items():
            share.take_pauses(found.get(account, ()))
        self._let_go_of_idle()
        if self._watched:
            self._schedule(self._look_s)

    def _fail(self, error: StoreError) -> None:
        self._failures += 1
        if self._failures >= MIN_FAILURES:
            self._reporter.report_loss(error)
        self._let_go_of_idle()
        if self._met or self._watched:
            self._schedule(max(RETRY_S, self._look_s))

    def _let_go_of_idle(self) -> None:
        """Look no longer for what has no calls, or learns of pauses by its asks since a reload."""
        for share, (account, idle_looks) in list(self._watched.items()):
            if share.rules.has_limits:
                del self._watched[share]
            elif share.take_activity():
                self._watched[share] = (account, 0)
            elif idle_looks < IDLE_LOOKS:
                self._watched[share] = (account, idle_looks + 1)
            else:
                del self._watched[share]
                share.is_informed = False
