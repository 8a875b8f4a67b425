"""Files in the database: what was uploaded, in pieces, and the names under which the results of jobs can be fetched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, func, select, tuple_, update

from fanout.store.engine.database import Database
from fanout.store.engine.tables import file_parts, files
from fanout.store.engine.transactions import run_to_end, told

PART_BYTES = 256 * 1024
"""Of every piece but the last."""
INCOMPLETE = -1
"""In `bytes`: not whole yet, so shown to nobody."""
ABANDONED_AFTER_S = 86_400.0
"""An upload that is not whole after so long has lost its sender."""


class FileStore:
    """The files of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def begin(self, id: str, *, created: float, account_id: str = "") -> None:
        """Makes place for an upload; nobody sees it before `finish`."""
        row = {"id": id, "created": created, "account_id": account_id, "filename": "", "purpose": "", "bytes": INCOMPLETE}
        async with told(self._database.writing) as connection:
            await connection.execute(files.insert().values(**row))

    @run_to_end
    async def add_part(self, id: str, part: int, content: bytes) -> None:
        """Takes in piece number `part`, of `PART_BYTES` unless it is the last."""
        async with told(self._database.writing) as connection:
            await connection.execute(file_parts.insert().values(file=id, part=part, bytes=content))

    @run_to_end
    async def finish(self, id: str, **values: Any) -> None:
        """An upload is whole: its `bytes`, `filename`, `purpose` and `expires`."""
        async with told(self._database.writing) as connection:
            await connection.execute(update(files).where(files.c.id == id).values(**values))

    @run_to_end
    async def add(self, row: Mapping[str, Any]) -> None:
        """A file that is made from a job's results whenever it is read; one that is known already gets the new figures."""
        insert = self._database.inserting(files).values(**row)
        made = insert.on_conflict_do_update(index_elements=["id"], set_={"bytes": insert.excluded["bytes"]})
        async with told(self._database.writing) as connection:
            await connection.execute(made)

    async def file(self, id: str) -> Row[Any] | None:
        """A file's row; `None` where there is none, or it has expired."""
        rows = await self._rows(self._visible().where(files.c.id == id))
        return rows[0] if rows else None

    async def listed(
        self,
        *,
        most: int,
        after: Row[Any] | None = None,
        newest_first: bool = True,
        purpose: str | None = None,
        account_id: str | None = None,
    ) -> Sequence[Row[Any]]:
        """Files in the order of their making.

        Args:
            after: only files that come behind this one.
        """
        place = tuple_(files.c.created, files.c.id)
        asked = self._visible().limit(most)
        asked = asked.order_by(
            *((files.c.created.desc(), files.c.id.desc()) if newest_first else (files.c.created, files.c.id))
        )
        if after is not None:
            other = tuple_(after.created, after.id)
            asked = asked.where(place < other if newest_first else place > other)
        if purpose is not None:
            asked = asked.where(files.c.purpose == purpose)
        if account_id is not None:
            asked = asked.where(files.c.account_id == account_id)
        return await self._rows(asked)

    @run_to_end
    async def part(self, id: str, part: int) -> bytes | None:
        """A piece of an uploaded file; `None` behind its end."""
        asked = select(file_parts.c.bytes).where(file_parts.c.file == id, file_parts.c.part == part)
        async with told(self._database.reading) as connection:
            found: bytes | None = (await connection.execute(asked)).scalar_one_or_none()
        return found

    @run_to_end
    async def delete(self, id: str) -> None:
        """Removes a file and what it holds."""
        async with told(self._database.writing) as connection:
            await connection.execute(file_parts.delete().where(file_parts.c.file == id))
            await connection.execute(files.delete().where(files.c.id == id))

    async def sweep(self) -> None:
        """Removes what has expired, and uploads that were never finished."""
        now = time.time()
        abandoned = (files.c.bytes == INCOMPLETE) & (files.c.created < now - ABANDONED_AFTER_S)
        for row in await self._rows(select(files.c.id).where((files.c.expires < now) | abandoned).limit(100)):
            await self.delete(row.id)

    def _visible(self) -> Select[Any]:
        return select(files).where(files.c.bytes != INCOMPLETE, func.coalesce(files.c.expires, time.time() + 1) > time.time())

    @run_to_end
    async def _rows(self, asked: Select[Any]) -> Sequence[Row[Any]]:
        async with told(self._database.reading) as connection:
            found: Sequence[Row[Any]] = (await connection.execute(asked)).all()
            return found
