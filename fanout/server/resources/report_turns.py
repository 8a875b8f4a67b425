"""Turns at reports and searches, which take long: one of each account at a time, so that nobody has all threads."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from aiohttp import web

from fanout.server.middleware import auth


class ReportTurns:
    """The turns of all accounts."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    def of_account(self, account: str | None) -> asyncio.Lock:
        """Return the lock that is an account's turn, to be held while a report is made."""
        # Held by whoever waits for it or has it, and forgotten with the last of them.
        lock = self._locks.get(account)
        if lock is None:
            lock = self._locks[account] = asyncio.Lock()
        return lock


REPORT_TURNS = web.AppKey("report_turns", ReportTurns)


def take_turn(request: web.Request) -> asyncio.Lock:
    """Return the turn of the caller's account."""
    return request.app[REPORT_TURNS].of_account(auth.find_account(request))
