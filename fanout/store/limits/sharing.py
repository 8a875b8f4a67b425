"""This process among those that share limits: one asker for each account, which asks while there is something to ask for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from uuid import uuid4

from pydantic import ValidationError

from fanout.core.errors import StoreClosedError, StoreError
from fanout.limits.shared.rules import SharedRules
from fanout.limits.shared.share import ProcessShare
from fanout.observability.logs import log
from fanout.store.engine.database import Database
from fanout.store.engine.listener import Listener
from fanout.store.limits.limit_table import PAUSES_CHANNEL, LimitTable, met_pause_json
from fanout.store.limits.pauses import LOOK_S, LOOK_WHERE_HEARD_S, PauseExchange

LEAVE_TIMEOUT_S = 2.0
"""At the end, for a store that does not answer."""


class SharedLimits:
    """All accounts that this process shares with others.

    Args:
        database: with their rows.
        listener: to the pauses that others announce; `None`: nobody announces any.
    """

    def __init__(self, database: Database, listener: Listener | None = None) -> None:
        self.member = uuid4().hex[:12]
        """Of this process, by which it knows its own pauses; of another run, another."""
        self._name = database.name
        self._listener = listener
        self.table = LimitTable(database)
        self.pauses = PauseExchange(self.table, self.member, LOOK_WHERE_HEARD_S if listener else LOOK_S, self)
        self.asks = 0
        """Transactions so far."""
        self._askers: dict[ProcessShare, Asker] = {}
        self._leaving: set[Asker] = set()
        """Of accounts that are used no longer, until their last ask has ended."""
        self._is_lost = False

    def join(self, provider: str, group: str | None, digest: str | None, rules: SharedRules) -> ProcessShare:
        """Return this process's part of an account. The store hears of it at the first call."""
        # Another name each time: who joins again may hold something before the others have heard that it had left.
        share = ProcessShare(uuid4().hex[:12], rules)
        account = name_account(provider, group, digest)
        asker = self._askers[share] = Asker(self, account, share)
        share.wake = asker.wake
        share.tell = partial(self.pauses.tell, account)
        share.watch = partial(self.pauses.watch, account, share)
        return share

    def leave(self, share: ProcessShare) -> None:
        """Give back what an account has that is used no longer."""
        self.pauses.forget(share)
        if asker := self._askers.pop(share, None):
            self._leaving.add(asker)
            asker.close()

    def forget(self, asker: Asker) -> None:
        """Let go of an asker that has left its account."""
        self._leaving.discard(asker)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Give everything back at the end."""
        with suppress(StoreError):  # nothing depends on it
            await self.table.delete_old()
        try:
            async with self._listener.hearing(PAUSES_CHANNEL, self._hear) if self._listener else nullcontext():
                yield
        finally:
            self.pauses.stop()
            askers = [*self._askers.values(), *self._leaving]
            tasks = [self.pauses.task, *(asker.task for asker in askers if asker.stop())]
            await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
            now = time.monotonic()
            members = [asker for asker in askers if asker.share.is_member]
            asks = [(asker.account, asker.share.build_ask(now, is_leaving=True)) for asker in members]
            with suppress(StoreError, TimeoutError):  # else all of it comes back when the lease ends
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self.pauses.finish()
                    if asks:
                        await self.table.leave(asks)

    def _hear(self, text: str) -> None:
        """Take over a pause that another process has announced."""
        try:
            met = met_pause_json().validate_json(text)
        except ValidationError:  # of another version, or of a stranger
            return
        if met.member != self.member:
            for share, asker in self._askers.items():
                if asker.account == met.account:
                    share.take_pauses([met.pause])

    def report_loss(self, error: StoreError) -> None:
        """Log once that the store is away."""
        if not self._is_lost and not isinstance(error, StoreClosedError):
            self._is_lost = True
            log.error("limits.store_lost", database=self._name, reason=str(error))

    def report_return(self) -> None:
        """Log that it is there again."""
        if self._is_lost:
            self._is_lost = False
            log.info("limits.store_found", database=self._name)


class Asker:
    """The asks of one account: one at a time, in a task of its own, begun by a timer."""

    def __init__(self, limits: SharedLimits, account: str, share: ProcessShare) -> None:
        self.account = account
        self.task: asyncio.Task[None] | None = None
        self._limits, self.share = limits, share
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = -1e9
        self._is_wanted = self._is_stopped = self._is_closed = False

    def wake(self) -> None:
        """Ask as soon as that may be."""
        # One at a time: an ask says what is held, which the answer to another under way would change.
        if self.task:
            self._is_wanted = True
        else:
            self._schedule(max(self._sent_at + self.share.spacing_s, time.monotonic()))

    def stop(self) -> bool:
        """Begin nothing more; return whether an ask is under way."""
        self._is_stopped = True
        if self._timer:
            self._timer.cancel()
        return self.task is not None

    def close(self) -> None:
        """Leave the account, once an ask that is under way has ended."""
        self._is_closed = True
        if self._timer:
            self._timer.cancel()
        if not self.task:
            self._leave()

    def _leave(self) -> None:
        if self.share.is_member and not self._is_stopped:
            self._begin(is_leaving=True)
        else:
            self._limits.forget(self)

    def _schedule(self, at: float) -> None:
        if self._is_stopped or self._is_closed or (self._timer and self._timer.when() <= at):
            return
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._begin)

    def _begin(self, *, is_leaving: bool = False) -> None:
        self._timer, self._is_wanted = None, False
        self.task = asyncio.create_task(self._ask(is_leaving=is_leaving), name="shared limits")
        self.task.add_done_callback(self._end)

    async def _ask(self, *, is_leaving: bool) -> None:
        share, self._sent_at = self.share, time.monotonic()
        self._limits.asks += 1
        ask = share.build_ask(self._sent_at, is_leaving=is_leaving)
        try:
            if is_leaving:
                share.leave()
                await self._limits.table.leave([(self.account, ask)])
            elif grant := await self._limits.table.ask(self.account, ask):
                share.accept(grant, self._sent_at, time.monotonic())
            self._limits.report_return()
        except StoreError as error:
            share.fail(self._sent_at, time.monotonic())
            if share.is_alone:
                self._limits.report_loss(error)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()):
            log.error("limits.ask_crashed", exc_info=error)
        if self._is_closed:
            self._leave()
            return
        if self._is_stopped:
            return
        pause_s = self.share.find_pause_s(time.monotonic())
        # Demand that came while the ask was on its way is not in it.
        if self._is_wanted:
            self.wake()
        if pause_s is not None:
            self._schedule(self._sent_at + pause_s)
        elif self.share.may_leave:
            self._begin(is_leaving=True)


def name_account(provider: str, group: str | None, digest: str | None) -> str:
    """Return the key of an account's row; of a caller's own key it shows no more than a digest of its digest."""
    owner = hashlib.sha256(digest.encode()).hexdigest()[:32] if digest else ""
    return "\n".join((provider, group or "", owner))
