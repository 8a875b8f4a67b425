"""Units of jobs on their way."""

from __future__ import annotations

from dataclasses import dataclass

from fanout.core.schema import Call
from fanout.store.jobs.records import Unit


@dataclass(slots=True, eq=False)
class PendingUnit:
    """A unit to be sent."""

    unit: Unit
    call: Call
    attempt: int
    """Number of the next attempt."""
    closed: int = 0
    """Number of the attempt that ended the unit before it was reopened."""
    tries: int = 0
    """Attempts that this process has made."""
    waits: int = 0
    """Delays by the account's rate limit."""
    row_bytes: int = 0
    """Length of the stored row."""
    cache_key: bytes | None = None
    body: str = ""
    """The item as JSON, if the job's scorers need it; else empty."""
    prefix: bytes | None = None
    """Digest of its long beginning, which providers cache; see `prefix_gate`."""
    reserved_usd: float = 0.0
    """Money set aside for the next attempt, or for the one under way."""
    warms: bool = False
    """Others like it wait for its end."""
    has_ended: bool = False
    """Its end is recorded."""
