"""The table of shared limits: a row for each account and limit group, read and written in one short transaction."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, delete, select, update

from fanout.limits.shared.account import SharedAccount
from fanout.limits.shared.messages import Ask, SliceGrant
from fanout.store.engine.database import Database
from fanout.store.shared_tables import shared_limits

MAX_AGE_S = 3600.0
"""Rows that nobody has written for so long tell nothing any more."""
STATE = TypeAdapter(SharedAccount)


class LimitTable:
    """The rows, and the transactions on them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._select = (
            select(shared_limits.c.state, database.lease_clock().label("now"))
            .where(shared_limits.c.account == bindparam("of"))
            .with_for_update()
        )
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

    async def delete_old(self) -> None:
        """Delete rows whose processes all ended without saying so."""
        now, written = self._database.lease_clock(), shared_limits.c.written
        # Later than now: written before this machine was started, or before the clock was set back.
        await self._database.execute(delete(shared_limits).where(~written.between(now - MAX_AGE_S, now + MAX_AGE_S)))

    def _answer(self, connection: Connection, account: str, ask: Ask) -> SliceGrant | None:
        found = connection.execute(self._select, {"of": account}).one_or_none()
        # Again, because another process may delete the row that this one has just found missing.
        while found is None:
            if ask.is_leaving:
                return None
            connection.execute(self._insert, {"account": account})
            found = connection.execute(self._select, {"of": account}).one_or_none()
        state = STATE.validate_json(found.state) if found.state else SharedAccount()
        # The clock was read after the row was locked, or before: an earlier time lets less be free.
        grant = state.answer(ask, found.now)
        if state.is_spent:
            connection.execute(self._delete, {"of": account})
        else:
            values = {"of": account, "written": state.at, "state": STATE.dump_json(state).decode()}
            connection.execute(self._update, values)
        return grant
