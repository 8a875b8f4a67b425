"""The part that a process plays on its store: a server, which may run jobs, or a worker, which does nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fanout.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Role:
    """The part of one process."""

    kind: Literal["serve", "worker"] = "serve"
    shares_store: bool = False
    """Others use its SQLite file at the same time; a PostgreSQL database is always shared."""
    reads_backlog: bool = True
    """It serves metrics, and of several processes behind one port it is the one that reads what all have before them."""
    accounts: tuple[str, ...] = ()
    """Of a worker: those whose jobs it takes; none: those that are ready here."""

    def list_accounts(self, settings: Settings) -> Sequence[str] | None:
        """Return the accounts whose jobs are taken by a configuration; `None`: all."""
        if self.kind == "worker":
            # Not all: a job of an account without a key here would fail, while another machine may have the key.
            return self.accounts or list_ready_accounts(settings)
        # All, as a server that is alone must: it would leave a job waiting for ever, without a word.
        return None if settings.environment.work == "on" else ()

    def takes_jobs(self, settings: Settings) -> bool:
        """Return whether any job is taken."""
        return self.kind == "worker" or settings.environment.work == "on"


SERVER = Role()
"""A server of one process."""


def list_ready_accounts(settings: Settings) -> Sequence[str]:
    """Return the accounts that can be called now."""
    return [name for name, provider in settings.providers.items() if not provider.lacks()]
