"""The processes that share a store, as answers show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.jobs.activity import ActivityJson
from fanout.jobs.presence import is_lost
from fanout.store.processes import ProcessKind, ProcessRow


class ProcessJson(TypedDict):
    """A process that shares the store."""

    id: Annotated[str, Doc("Its identity, as the owner of jobs.")]
    object: Literal["process"]
    kind: Annotated[ProcessKind, Doc("`serve` and `worker` by their commands; `batch`: a job run by a command.")]
    host: str
    pid: int
    version: Annotated[str, Doc("Its version of Fanout.")]
    state: Annotated[
        Literal["working", "draining", "lost"],
        Doc("`draining`: it will end and takes nothing new. `lost`: it was killed, or not heard of for 15 s."),
    ]
    accounts: Annotated[Sequence[str] | None, Doc("Providers' accounts whose jobs it takes; null: all, none: no job.")]
    age_s: Annotated[float, Doc("Seconds since its start.")]
    seen_s: Annotated[float, Doc("Seconds since it was last heard of.")]
    activity: Annotated[ActivityJson, Doc("What it did when it was last heard of.")]


class ProcessListJson(TypedDict):
    object: Literal["list"]
    data: Annotated[Sequence[ProcessJson], Doc("The oldest first, at most 1,000.")]


def render_process(row: ProcessRow) -> ProcessJson:
    """Return a process."""
    return {
        "id": row.id,
        "object": "process",
        "kind": row.kind,
        "host": row.host,
        "pid": row.pid,
        "version": row.version,
        "state": "lost" if is_lost(row) else row.state,
        "accounts": None if row.accounts is None else from_json(row.accounts),
        # Never below 0: the clock of a SQLite file begins anew when the machine is started.
        "age_s": round(max(row.now - row.started, 0.0), 1),
        "seen_s": round(max(row.now - row.seen, 0.0), 1),
        "activity": from_json(row.activity),
    }
