"""The backlog of each account over all processes that share a store, as figures by which workers are added and removed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AccountBacklog:
    """The units of unattended jobs that an account has before it."""

    units: int
    """Units that have not ended."""
    seconds: float | None
    """Time for them at the recent rate of all processes, or where there is none at the account's limit; `None`: unknown."""
    least_seconds: float | None
    """Time for them at the account's limit, which no more processes make shorter; `None`: there is none."""
    workers: int
    """Live processes that take its jobs."""
