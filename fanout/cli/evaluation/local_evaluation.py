"""Evaluation of jobs in this configuration's store, by this process."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.cli.evaluation.backend import OnProgress
from fanout.core.json_text import JsonObject
from fanout.evaluate.decisions.job_decisions import gate_job, plan_job
from fanout.evaluate.decisions.options import GateOptions, PlanOptions
from fanout.evaluate.importing.imported_job import store_samples
from fanout.evaluate.importing.samples import ImportedSamples
from fanout.evaluate.judging.checks import check_judges
from fanout.evaluate.judging.judging import Judging, summarize_scores
from fanout.evaluate.report.job_report import report_job
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.evaluate.scoring.scoring import score_results
from fanout.evaluate.voting.ballots import cast_vote, draw_from_job
from fanout.jobs.job import Job, find_job
from fanout.jobs.manager import JobManager
from fanout.rendering.decisions import GateJson, PlanJson, render_gate, render_plan
from fanout.rendering.job import JobJson
from fanout.rendering.report import ReportJson, render_report
from fanout.rendering.scores import JobScoresJson, render_scores
from fanout.rendering.votes import BallotJson, VoteJson, render_ballot, render_vote
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import FailurePolicy
from fanout.store.votes import BallotKind, VoteChoice, Voter


class LocalEvaluation:
    """Scores and reports of a store's jobs."""

    def __init__(self, store: JobStore, manager: JobManager) -> None:
        self._store, self._manager = store, manager

    async def score(self, job: JobJson, scorers: Sequence[JsonObject], on_progress: OnProgress | None = None) -> JobScoresJson:
        kept = await find_job(self._store, job["id"])
        parsed = parse_scorers(scorers, allow_functions=True)
        check_judges(self._manager.planner.dispatcher, parsed)
        await score_results(self._store, kept.number, parsed, on_progress)
        await Judging(self._store, self._manager).advance(kept)
        return render_scores(kept.id, *await summarize_scores(self._store, kept))

    async def report(self, job: JobJson, cluster: str | None = None) -> ReportJson:
        return render_report(await report_job(self._store, await find_job(self._store, job["id"]), cluster))

    async def store_samples(
        self, imported: ImportedSamples, *, name: str | None, files: Sequence[str], failed: FailurePolicy
    ) -> str:
        return await store_samples(self._store, imported, name=name, files=files, failed=failed)

    async def draw_ballot(self, job_id: str, kind: BallotKind, rater: str | None) -> BallotJson:
        job = await find_job(self._store, job_id)
        return render_ballot(await draw_from_job(self._store, job, Voter(job.account_id, rater or ""), kind))

    async def vote(self, ballot_id: str, *, choice: VoteChoice | None = None, score: float | None = None) -> VoteJson:
        return render_vote(await cast_vote(self._store, ballot_id, None, choice, score))

    async def gate(self, job: JobJson, options: GateOptions, cluster: str | None = None) -> GateJson:
        found = await find_job(self._store, job["id"])
        earlier = await self._find_earlier(options)
        return render_gate(found.id, await gate_job(self._store, found, options, cluster, earlier))

    async def plan(self, job: JobJson, options: PlanOptions) -> PlanJson:
        found = await find_job(self._store, job["id"])
        return render_plan(await plan_job(self._store, found, options, await self._find_earlier(options)), found.id)

    async def _find_earlier(self, options: GateOptions | PlanOptions) -> Job | None:
        """Return the job that has the baseline; `None`: it is the same one."""
        return None if options.baseline_job is None else await find_job(self._store, options.baseline_job)
