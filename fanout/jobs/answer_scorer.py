"""Scoring of a job's answers as they end, as jobs see it: `evaluate` has the scorers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from fanout.jobs.job import Job
from fanout.jobs.stopping import StoppingWatch
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.store.jobs.records import UnitScore


class AnswerScorer(Protocol):
    """The scorers of one job."""

    watch: StoppingWatch | None
    """Decides when the job may stop; `None`: when all has ended."""

    async def score(self, body: str, outcome: StoredOutcome) -> Sequence[UnitScore]:
        """Return the scores of one answer; it never fails, and never blocks the event loop.

        Args:
            body: the item, as JSON.
            outcome: of the unit, with a completion.
        """
        ...


AnswerScorerFactory = Callable[[Job], Awaitable[AnswerScorer]]
"""Opens the scorers that a job declares. Raises RequestError where they cannot be used here."""
