"""Uploaded files as open files, for readers that run in a thread."""

from __future__ import annotations

import asyncio
import io
from typing import BinaryIO, cast

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.store.files import PART_BYTES, FileRow, FileStore


async def find_file(files: FileStore, file_id: str, param: str = "file_id") -> FileRow:
    """Look up the file that the field `param` of a request names.

    Raises:
        RequestError: there is no such file.
    """
    row = await files.find(file_id)
    if row is None:
        raise RequestError([Fault(param, f"no file `{file_id[:100]}`", "file_not_found")])
    return row


def open_stored_file(files: FileStore, file_id: str, size: int) -> BinaryIO:
    """Open an uploaded file for a thread. Call this on the event loop, which must keep running."""
    return cast(BinaryIO, _StoredFileReader(files, file_id, size))


class _StoredFileReader(io.RawIOBase):
    """A raw reader that has the event loop fetch the parts. It holds one part at a time."""

    def __init__(self, files: FileStore, file_id: str, size: int) -> None:
        self._files, self._file_id, self._size = files, file_id, size
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
            return await self._files.read_part(self._file_id, number)
        except StoreError as error:
            raise OSError(str(error)) from error
