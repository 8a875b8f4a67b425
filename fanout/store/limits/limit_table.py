"""The table of shared limits: a row for each account and limit group, read and written in one short transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, delete, func, select, update

from fanout.limits.shared.account import SharedAccount
from fanout.limits.shared.messages import Ask, SharedPause, SliceGrant
from fanout.store.engine.database import Database
from fanout.store.shared_tables import shared_limits

MAX_AGE_S = 3600.0
"""Rows that nobody has written for so long tell nothing any more."""
PAUSES_CHANNEL = "fanout_pauses"
MAX_ANNOUNCED_CHARS = 7900
"""PostgreSQL announces no longer ones; without an announcement the others find the pause by themselves."""
Result = TypeVar("Result")


class MetPause(NamedTuple):
    """A pause that a process has met, as the others learn of it."""

    account: str
    pause: SharedPause
    member: str
    """The process that met it."""


@cache
def state_json() -> TypeAdapter[SharedAccount]:
    """Return the reader and writer of an account's state as it is stored."""
    # At first use: making it takes 6 ms, which every start would pay (2026-11-28).
    return TypeAdapter(SharedAccount)


@cache
def met_pause_json() -> TypeAdapter[MetPause]:
    """Return the reader and writer of a pause as the others learn of it."""
    return TypeAdapter(MetPause)


class LimitTable:
    """The rows, and the transactions on them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        columns = (shared_limits.c.account, shared_limits.c.state, database.lease_clock().label("now"))
        self._select = select(*columns).where(shared_limits.c.account == bindparam("of")).with_for_update()
        self._select_some = select(*columns).where(shared_limits.c.account.in_(bindparam("some", expanding=True)))
        self._insert = database.insert_or_ignore(shared_limits).values(written=0.0, state="")
        self._update = update(shared_limits).where(shared_limits.c.account == bindparam("of"))
        self._delete = delete(shared_limits).where(shared_limits.c.account == bindparam("of"))

    async def ask(self, account: str, ask: Ask) -> SliceGrant | None:
        """Return what one process gets of an account; see `SharedAccount.answer`."""
        return await self._database.write(lambda connection: self._answer(connection, account, ask))

    async def leave(self, asks: Sequence[tuple[str, Ask]]) -> None:
        """Let a process leave accounts, in one transaction."""

        def write(connection: Connection) -> None:
            for account, ask in sorted(asks, key=lambda pair: pair[0]):  # or two processes could wait for each other
                self._answer(connection, account, ask)

        await self._database.write(write)

    async def exchange_pauses(self, met: Iterable[MetPause], accounts: Collection[str]) -> Mapping[str, Sequence[SharedPause]]:
        """Write the pauses that a process has met, and return those of other accounts, in one transaction."""

        def exchange(connection: Connection) -> Mapping[str, Sequence[SharedPause]]:
            for account, pauses in groupby(sorted(met), key=attrgetter("account")):  # sorted as in `leave`
                self._pause(connection, account, list(pauses))
            return self._read_pauses(connection, accounts) if accounts else {}

        return await self._database.write(exchange)

    async def delete_old(self) -> None:
        """Delete rows whose processes all ended without saying so."""
        now, written = self._database.lease_clock(), shared_limits.c.written
        # Later than now: written before this machine was started, or before the clock was set back.
        await self._database.execute(delete(shared_limits).where(~written.between(now - MAX_AGE_S, now + MAX_AGE_S)))

    def _answer(self, connection: Connection, account: str, ask: Ask) -> SliceGrant | None:
        return self._change(connection, account, lambda state, now: state.answer(ask, now), is_new=not ask.is_leaving)

    def _pause(self, connection: Connection, account: str, met: Sequence[MetPause]) -> None:
        self._change(connection, account, lambda state, now: state.pause([one.pause for one in met], now))
        if self._database.dialect == "sqlite":
            return
        for text in (met_pause_json().dump_json(one).decode() for one in met):
            if len(text) <= MAX_ANNOUNCED_CHARS:
                connection.execute(select(func.pg_notify(PAUSES_CHANNEL, text)))

    def _read_pauses(self, connection: Connection, accounts: Collection[str]) -> Mapping[str, Sequence[SharedPause]]:
        rows = connection.execute(self._select_some, {"some": list(accounts)}).all()
        return {row.account: state_json().validate_json(row.state).list_pauses(row.now) for row in rows if row.state}

    def _change(
        self,
        connection: Connection,
        account: str,
        change: Callable[[SharedAccount, float], Result],
        *,
        is_new: bool = True,
    ) -> Result | None:
        """Change the state of an account, and return what the change returns; `None` where there is no row, nor a new one."""
        found = connection.execute(self._select, {"of": account}).one_or_none()
        # Again, because another process may delete the row that this one has just found missing.
        while found is None:
            if not is_new:
                return None
            connection.execute(self._insert, {"account": account})
            found = connection.execute(self._select, {"of": account}).one_or_none()
        state = state_json().validate_json(found.state) if found.state else SharedAccount()
        # The clock was read after the row was locked, or before: an earlier time lets less be free.
        result = change(state, found.now)
        if state.is_spent:
            connection.execute(self._delete, {"of": account})
        else:
            values = {"of": account, "written": state.at, "state": state_json().dump_json(state).decode()}
            connection.execute(self._update, values)
        return result
