"""An upload: a multipart form whose file goes into the store piece by piece."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from fanout.core.errors import Fault, RequestError
from fanout.core.suggestions import did_you_mean
from fanout.server.request_body import BodyPace
from fanout.store.files import PART_BYTES, FileStore

PURPOSES = ("batch",)
FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
MAX_FIELD_BYTES = 512
MAX_NAME_CHARS = 512
MIN_LIFETIME_S, MAX_LIFETIME_S = 3_600, 2_592_000
"""Source: `ExpiresAfter`, https://github.com/openai/openai-openapi"""
MAX_LINES = 64
"""Outside of a form's parts. Each form has one for each part and a few at its end."""
PLAIN_ENCODINGS = ("", "identity", "binary", "8bit", "7bit")
"""Encodings of a part that leave its bytes as they are."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored file, and the other fields of its form; without a lifetime the file never expires."""

    filename: str
    size: int
    purpose: str
    lifetime_s: int | None


class UploadTooLargeError(Exception):
    """An upload exceeds the size limit."""


async def receive_upload(request: web.Request, files: FileStore, file_id: str, max_bytes: int) -> Upload:
    """Read the form of an upload and store its file. Only one piece of the file is held in memory.

    Raises:
        UploadTooLargeError: the file is larger than `max_bytes`.
        RequestError: names every wrong field.
    """
    form = _Form(files, file_id, max_bytes, BodyPace(request))
    try:
        reader = _FormReader(request.headers, request.content)
        while (part := await form.pace.wait(reader.next())) is not None:
            if not isinstance(part, BodyPartReader):
                form.faults.append(Fault("", "holds a multipart within the multipart"))
                break
            if not await form.read_part(part):
                break
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError) as error:
        # aiohttp raises all of these for a malformed frame; the last line of its message has the reason.
        reason = str(error).strip().rpartition("\n")[2].strip() or "it is broken off"
        raise RequestError([Fault("", f"the body is no multipart form: {reason[:100]}", "invalid_body")]) from None
    return form.finish()


class _FormReader(MultipartReader):
    """aiohttp's reader, for which no end of empty lines before the first part would be one step of the event loop."""

    _lines = 0

    async def _readline(self) -> bytes:
        self._lines += 1
        if self._lines > MAX_LINES:
            raise ValueError(f"over {MAX_LINES} lines stand outside of its parts")
        return await super()._readline()


class _Form:
    """The parts of a form, read one after the other."""

    def __init__(self, files: FileStore, file_id: str, max_bytes: int, pace: BodyPace) -> None:
        self._files, self._file_id, self._max_bytes = files, file_id, max_bytes
        self._filename = ""
        self._size: int | None = None
        self._fields: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.pace = pace

    async def read_part(self, part: BodyPartReader) -> bool:
        """Read a part. Return False if the rest of the form is not worth reading."""
        name = part.name or ""
        if name == "file" and self._size is None and part.filename is not None:
            return await self._read_file(part, part.filename)
        if name == "file":
            reason = "has no filename: send it as a file" if self._size is None else "stands twice"
            self.faults.append(Fault("file", reason))
            return False
        if name in FIELDS and name not in self._fields:
            value: bytes = await self.pace.wait(part.read_chunk(MAX_FIELD_BYTES))
            self._fields[name] = value.decode(errors="replace").strip()
            rest: bytes = await self.pace.wait(part.read_chunk(1))
            if rest:
                self.faults.append(Fault(name, f"has more than {MAX_FIELD_BYTES} bytes"))
                return False
            return True
        hint = did_you_mean(name, FIELDS) or f"; known: {', '.join(FIELDS)}"
        reason = "stands twice" if name in FIELDS else f"unknown field `{name[:64]}`{hint}"
        self.faults.append(Fault(name[:64], reason, "unknown_parameter"))
        return False  # an unknown part may be of any size, so it is not read

    async def _read_file(self, part: BodyPartReader, filename: str) -> bool:
        self._filename = filename[-MAX_NAME_CHARS:]
        if encoding := _find_encoding(part):
            self.faults.append(Fault("file", f"is encoded as `{encoding[:32]}`: send it as it is"))
            return False
        # Stored before the other fields are known, which may follow the file: it is too large to wait in memory.
        self._size = await self._store(part)
        return True

    async def _store(self, part: BodyPartReader) -> int:
        waiting, number, size = bytearray(), 0, 0
        while chunk := await self.pace.wait(part.read_chunk(PART_BYTES)):
            size += len(chunk)
            if size > self._max_bytes:  # counted on arrival, because the announced length may be missing or wrong
                raise UploadTooLargeError
            waiting += chunk
            while len(waiting) >= PART_BYTES:
                # Parts of equal size, so that a reader finds the part of an offset by division.
                await self._files.add_part(self._file_id, number, bytes(waiting[:PART_BYTES]))
                del waiting[:PART_BYTES]
                number += 1
        if waiting:
            await self._files.add_part(self._file_id, number, bytes(waiting))
        return size

    def finish(self) -> Upload:
        """Check the fields together, once all have been read; raise `RequestError` with every wrong one."""
        if self._size is None and not self.faults:
            self.faults.append(Fault("file", "is required", "missing_required_parameter"))
        if not self.faults or "purpose" in self._fields:
            self.faults += _find_faults(self._fields)
        if self.faults:
            raise RequestError(self.faults)
        lifetime = self._fields.get("expires_after[seconds]")
        return Upload(self._filename, self._size or 0, self._fields["purpose"], int(lifetime) if lifetime else None)


def _find_encoding(part: BodyPartReader) -> str:
    # A part's encoding would have to be undone, and a small upload could then unpack to any size.
    found = (part.headers.get(name, "").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding"))
    return next((encoding for encoding in found if encoding not in PLAIN_ENCODINGS), "")


def _find_faults(fields: Mapping[str, str]) -> list[Fault]:
    faults = []
    purpose, purposes = fields.get("purpose"), ", ".join(f"`{name}`" for name in PURPOSES)
    if purpose is None:
        faults.append(Fault("purpose", f"is required: {purposes}", "missing_required_parameter"))
    elif purpose not in PURPOSES:
        faults.append(Fault("purpose", f"`{purpose[:64]}` is not allowed: {purposes}"))
    anchor, lifetime = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor not in (None, "created_at"):
        faults.append(Fault("expires_after[anchor]", f"`{anchor[:64]}` is not allowed: `created_at`"))
    if (anchor is None) != (lifetime is None):
        faults.append(Fault("expires_after", "has both `anchor` and `seconds`, or neither"))
    if lifetime is not None and not _is_lifetime(lifetime):
        allowed = f"{MIN_LIFETIME_S} to {MAX_LIFETIME_S}"
        faults.append(Fault("expires_after[seconds]", f"`{lifetime[:32]}` is not allowed: {allowed}"))
    return faults


def _is_lifetime(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", text)) and MIN_LIFETIME_S <= int(text) <= MAX_LIFETIME_S
