"""Files as `/v1/files` shows them."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from typing_extensions import Doc, TypedDict

from fanout.core.units import to_unix_seconds
from fanout.rendering.page import PageJson
from fanout.store.files import FileRow


class FileJson(TypedDict):
    """A file: uploaded, or made of a batch's results whenever it is read."""

    id: Annotated[str, Doc("Id of the file.")]
    object: Literal["file"]
    bytes: Annotated[int, Doc("Size; of a batch's results the size at the batch's end.")]
    created_at: Annotated[int, Doc("Unix seconds.")]
    expires_at: Annotated[int | None, Doc("Unix seconds; null: never.")]
    filename: Annotated[str, Doc("Name under which it was uploaded.")]
    purpose: Annotated[Literal["batch", "batch_output"], Doc("`batch`: uploaded; `batch_output`: a batch's results.")]
    status: Annotated[Literal["processed"], Doc("Deprecated by OpenAI; always `processed`.")]
    status_details: Annotated[None, Doc("Deprecated by OpenAI; always null.")]


class FileListJson(PageJson):
    data: Annotated[list[FileJson], Doc("The files.")]


class DeletedFileJson(TypedDict):
    id: Annotated[str, Doc("Id of the file.")]
    object: Literal["file"]
    deleted: Annotated[Literal[True], Doc("Always `true`.")]


def render_file(row: FileRow) -> FileJson:
    """Return a file without its content."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": to_unix_seconds(row.expires),
        "filename": row.filename,
        "purpose": cast(Literal["batch", "batch_output"], row.purpose),
        "status": "processed",
        "status_details": None,
    }
