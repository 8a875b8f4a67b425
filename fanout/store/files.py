"""Files in the database: uploads, kept in parts, and the names under which the results of jobs can be downloaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    func,
    select,
    tuple_,
    update,
)

from fanout.store.engine.database import Database, Query
from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText
from fanout.store.engine.transactions import run_to_end

files = Table(
    "files",
    metadata,
    Column("id", StorableText, primary_key=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("filename", StorableText, nullable=False),
    Column("purpose", StorableText, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("job", StorableText),  # the job whose results it is made of when it is read; NULL: it was uploaded
    Column("expires", Double),
    Index("files_created", "created", "id"),
)
"""Files of OpenAI's `/v1/files`."""

file_parts = Table(
    "file_parts",
    metadata,
    Column("file", StorableText, nullable=False),
    Column("part", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("file", "part", name="file_parts_key"),
)
"""The content of uploads, in parts."""


PART_BYTES = 256 * 1024
"""The size of every part but the last. Parts keep memory and transactions small, however large the file."""
INCOMPLETE = -1
"""The value of `bytes` while an upload is under way: nobody sees the file yet."""
ABANDONED_AFTER_S = 86_400.0
"""The age at which an upload that is still incomplete has lost its sender."""


class FileRow(NamedTuple):
    """A file: the columns of its table, in their order. Times are Unix seconds."""

    id: str
    created: float
    account_id: str
    filename: str
    purpose: str
    bytes: int
    job: str | None = None
    """The job whose results it is made of whenever it is read; `None`: it was uploaded."""
    expires: float | None = None


class FileStore:
    """The files of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def begin_upload(self, file_id: str, *, created: float, account_id: str = "") -> None:
        """Reserve an id for an upload; nobody sees the file before `finish_upload`."""
        row = FileRow(file_id, created, account_id, filename="", purpose="", bytes=INCOMPLETE)
        async with self._database.write_transaction() as connection:
            await connection.execute(files.insert().values(row._asdict()))

    @run_to_end
    async def add_part(self, file_id: str, part: int, content: bytes) -> None:
        """Add part number `part`, of `PART_BYTES` unless it is the last."""
        async with self._database.write_transaction() as connection:
            await connection.execute(file_parts.insert().values(file=file_id, part=part, bytes=content))

    @run_to_end
    async def finish_upload(
        self, file_id: str, *, filename: str, purpose: str, size_bytes: int, expires: float | None = None
    ) -> None:
        """Show an upload that is complete."""
        values = {"filename": filename, "purpose": purpose, "bytes": size_bytes, "expires": expires}
        async with self._database.write_transaction() as connection:
            await connection.execute(update(files).where(files.c.id == file_id).values(values))

    @run_to_end
    async def add_results(self, file: FileRow) -> None:
        """Add the file of a job's results, or update the size of one that exists."""
        insert = self._database.insert(files).values(file._asdict())
        upsert = insert.on_conflict_do_update(index_elements=["id"], set_={"bytes": insert.excluded["bytes"]})
        async with self._database.write_transaction() as connection:
            await connection.execute(upsert)

    async def find(self, file_id: str) -> FileRow | None:
        """Return a file; `None` if there is none of that id, or it has expired."""
        rows = await self._database.fetch_all(_select_visible().where(files.c.id == file_id))
        return FileRow(*rows[0]) if rows else None

    async def list_files(
        self,
        *,
        limit: int,
        after: FileRow | None = None,
        newest_first: bool = True,
        purpose: str | None = None,
        account_id: str | None = None,
    ) -> Sequence[FileRow]:
        """Return files in the order of their creation.

        Args:
            limit: how many at most.
            after: only files that follow this one.
            newest_first: in reverse order.
            purpose: only files of this purpose.
            account_id: only files of this account.
        """
        # Paged by key, not by OFFSET: pages neither repeat nor skip a file while others come and go.
        place = tuple_(files.c.created, files.c.id)
        order = (files.c.created.desc(), files.c.id.desc()) if newest_first else (files.c.created, files.c.id)
        query = _select_visible().limit(limit).order_by(*order)
        if after is not None:
            other = tuple_(after.created, after.id)
            query = query.where(place < other if newest_first else place > other)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if account_id is not None:
            query = query.where(files.c.account_id == account_id)
        return [FileRow(*row) for row in await self._database.fetch_all(query)]

    @run_to_end
    async def read_part(self, file_id: str, part: int) -> bytes | None:
        """Return a part of an uploaded file; `None` past its end."""
        query = select(file_parts.c.bytes).where(file_parts.c.file == file_id, file_parts.c.part == part)
        async with self._database.read_transaction() as connection:
            found: bytes | None = (await connection.execute(query)).scalar_one_or_none()
        return found

    @run_to_end
    async def delete(self, file_id: str) -> None:
        """Delete a file and its content."""
        async with self._database.write_transaction() as connection:
            await connection.execute(file_parts.delete().where(file_parts.c.file == file_id))
            await connection.execute(files.delete().where(files.c.id == file_id))

    async def sweep(self) -> None:
        """Delete expired files and abandoned uploads."""
        now = time.time()
        is_abandoned = (files.c.bytes == INCOMPLETE) & (files.c.created < now - ABANDONED_AFTER_S)
        # One transaction for each file: others want to write, too.
        for row in await self._database.fetch_all(select(files.c.id).where((files.c.expires < now) | is_abandoned).limit(100)):
            await self.delete(row.id)


def _select_visible() -> Query:
    now = time.time()
    return select(files).where(files.c.bytes != INCOMPLETE, func.coalesce(files.c.expires, now + 1) > now)
