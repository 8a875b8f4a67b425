"""The interface of a place that evaluates the jobs it keeps: this process's own store, or a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.core.json_text import JsonObject
    from fanout.evaluate.decisions.options import GateOptions, PlanOptions
    from fanout.evaluate.importing.samples import ImportedSamples
    from fanout.rendering.decisions import GateJson, PlanJson
    from fanout.rendering.job import JobJson
    from fanout.rendering.report import ReportJson
    from fanout.rendering.scores import JobScoresJson
    from fanout.rendering.votes import BallotJson, VoteJson
    from fanout.store.jobs.records import FailurePolicy
    from fanout.store.votes import BallotKind, VoteChoice


OnProgress = Callable[[int], None]
"""Called with the number of answers scored so far."""


class EvaluationBackend(Protocol):
    """Scores and reports of a place that keeps jobs; raises like `JobBackend`."""

    async def score(self, job: JobJson, scorers: Sequence[JsonObject], on_progress: OnProgress | None = None) -> JobScoresJson:
        """Score the stored answers of a job."""

    async def report(self, job: JobJson, cluster: str | None = None) -> ReportJson:
        """Return the report of a job, its items grouped by a column if one is named."""

    async def store_samples(
        self, imported: ImportedSamples, *, name: str | None, files: Sequence[str], failed: FailurePolicy
    ) -> str:
        """Store imported samples as a job that has ended, and return its id."""

    async def draw_ballot(self, job_id: str, kind: BallotKind, rater: str | None) -> BallotJson:
        """Return the rater's next ballot; raise RequestError of the kind `ballots_exhausted` where none is left."""

    async def vote(self, ballot_id: str, *, choice: VoteChoice | None = None, score: float | None = None) -> VoteJson:
        """Record the vote on a ballot."""

    async def gate(self, job: JobJson, options: GateOptions, cluster: str | None = None) -> GateJson:
        """Return the verdict on a candidate."""

    async def plan(self, job: JobJson, options: PlanOptions) -> PlanJson:
        """Return how many items the next job needs, by this one's scores."""
