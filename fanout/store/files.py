"""Files in the database: uploads, kept in parts, and the names under which the results of jobs can be downloaded."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, cast

from sqlalchemy import case, func, select, tuple_, update

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.store.engine.database import Database, Query
from fanout.store.tables import file_parts, files

PART_BYTES = 256 * 1024
"""The size of every part but the last. Parts keep memory and transactions small, however large the file."""
INCOMPLETE = -1
"""The value of `bytes` while an upload is under way: nobody sees the file yet."""
ABANDONED_AFTER_S = 86_400.0
"""The age at which an upload that is still incomplete has lost its sender."""


class FileRow(NamedTuple):
    """A file: the columns of its table, in their order."""

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
    """The files of a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin_upload(self, file_id: str, *, created: float, account_id: str = "") -> None:
        """Reserve an id for an upload; nobody sees the file before `finish_upload`."""
        row = FileRow(file_id, created, account_id, filename="", purpose="", bytes=INCOMPLETE)
        await self._database.execute(files.insert().values(row._asdict()))

    async def add_part(self, file_id: str, part: int, content: bytes) -> None:
        """Add part number `part`, of `PART_BYTES` unless it is the last."""
        await self._database.execute(file_parts.insert().values(file=file_id, part=part, bytes=content))

    async def finish_upload(
        self, file_id: str, *, filename: str, purpose: str, size_bytes: int, expires: float | None = None
    ) -> None:
        """Show an upload that is complete."""
        values = {"filename": filename, "purpose": purpose, "bytes": size_bytes, "expires": expires}
        await self._database.execute(update(files).where(files.c.id == file_id).values(values))

    async def add_results(self, file: FileRow) -> None:
        """Add the file of a job's results, or update the size of one that exists."""
        insert = self._database.insert(files).values(file._asdict())
        # It exists if the process died after writing it, or if the job went on after its first end.
        upsert = insert.on_conflict_do_update(index_elements=["id"], set_={"bytes": insert.excluded["bytes"]})
        await self._database.execute(upsert)

    async def find(self, file_id: str) -> FileRow | None:
        """Return a file; `None` if there is none of that id, or it has expired."""
        row = await self._database.fetch_one(_select_visible().where(files.c.id == file_id))
        return FileRow(*row) if row else None

    async def list_files(
        self,
        *,
        limit: int,
        after: FileRow | None = None,
        newest_first: bool = True,
        purpose: str | None = None,
        account_id: str | None = None,
    ) -> Sequence[FileRow]:
        """Return files in the order of their creation; only those that follow `after`, if it is given."""
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
        return await self._database.fetch_as(FileRow, query)

    async def read_part(self, file_id: str, part: int) -> bytes | None:
        """Return a part of an uploaded file; `None` past its end."""
        query = select(file_parts.c.bytes).where(file_parts.c.file == file_id, file_parts.c.part == part)
        row = await self._database.fetch_one(query)
        return row.bytes if row else None

    async def measure_account(self, account_id: str, *, with_unfinished: bool = True) -> tuple[int, int]:
        """Return the number of an account's uploads, those under way, too, and their bytes, as far as they are known."""
        now = time.time()
        size = func.coalesce(func.sum(case((files.c.bytes != INCOMPLETE, files.c.bytes), else_=0)), 0)
        is_kept = func.coalesce(files.c.expires, now + 1) > now
        query = select(func.count(), size).where(files.c.account_id == account_id, files.c.job.is_(None), is_kept)
        if not with_unfinished:
            query = query.where(files.c.bytes != INCOMPLETE)
        count, size_bytes = await self._database.fetch_one(query)
        return int(count), int(size_bytes)

    async def delete(self, file_id: str) -> None:
        """Delete a file and its content."""
        parts = file_parts.delete().where(file_parts.c.file == file_id)
        await self._database.execute(parts, files.delete().where(files.c.id == file_id))

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


async def find_file(store: FileStore, file_id: str, param: str = "file_id", account_id: str | None = None) -> FileRow:
    """Look up the file that the field `param` of a request names; raise `RequestError` if the account has none of that id.

    Without an account (`None`) every account's files are found.
    """
    row = await store.find(file_id)
    if row is None or account_id not in (None, row.account_id):
        raise RequestError([Fault(param, f"no file `{file_id[:100]}`", "file_not_found")])
    return row


def open_stored_file(store: FileStore, file_id: str, size: int) -> BinaryIO:
    """Open an uploaded file for a thread. Call this on the event loop, which must keep running."""
    return cast(BinaryIO, _StoredFileReader(store, file_id, size))


class _StoredFileReader(io.RawIOBase):
    """A raw reader that holds one part at a time."""

    def __init__(self, store: FileStore, file_id: str, size: int) -> None:
        self._store, self._file_id, self._size = store, file_id, size
        self._loop = asyncio.get_running_loop()
        self._offset = 0
        self._part: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        return self._offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the caller passes a writable view of bytes
        number, start = divmod(self._offset, PART_BYTES)
        if self._part[0] != number:
            # Fetched by the event loop: the database's connections belong to it, and may not be used in this thread.
            fetched = asyncio.run_coroutine_threadsafe(self._fetch(number), self._loop).result()
            if fetched is None and self._offset < self._size:
                raise OSError("the file was deleted")
            self._part = (number, fetched or b"")
        found = self._part[1][start : start + len(buffer)]
        buffer[: len(found)] = found
        self._offset += len(found)
        return len(found)

    async def _fetch(self, number: int) -> bytes | None:
        try:
            return await self._store.read_part(self._file_id, number)
        except StoreError as error:  # readers of rows expect the errors of a file
            raise OSError(str(error)) from error
