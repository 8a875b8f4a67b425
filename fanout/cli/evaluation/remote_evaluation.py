"""Evaluation of jobs by the server that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

import click

from fanout.cli.client import ServerClient
from fanout.cli.evaluation.backend import OnProgress
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


class RemoteEvaluation:
    """Scores and reports of a server's jobs."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def score(self, job: JobJson, scorers: Sequence[JsonObject], on_progress: OnProgress | None = None) -> JobScoresJson:
        return cast(JobScoresJson, await self._client.post(f"/v1/jobs/{job['id']}/scores", {"scorers": list(scorers)}))

    async def report(self, job: JobJson, cluster: str | None = None) -> ReportJson:
        query = {} if cluster is None else {"cluster": cluster}
        return cast(ReportJson, await self._client.get(f"/v1/jobs/{job['id']}/report", **query))

    async def store_samples(
        self, imported: ImportedSamples, *, name: str | None, files: Sequence[str], failed: FailurePolicy
    ) -> str:
        raise click.UsageError("imports go into the store of this configuration: leave out --server")

    async def draw_ballot(self, job_id: str, kind: BallotKind, rater: str | None) -> BallotJson:
        body = {"kind": kind, **({} if rater is None else {"rater": rater})}
        return cast(BallotJson, await self._client.post(f"/v1/jobs/{job_id}/ballots", body))

    async def vote(self, ballot_id: str, *, choice: VoteChoice | None = None, score: float | None = None) -> VoteJson:
        given = {"choice": choice} if choice is not None else {"score": score}
        return cast(VoteJson, await self._client.post("/v1/votes", {"ballot_id": ballot_id, **given}))

    async def gate(self, job: JobJson, options: GateOptions, cluster: str | None = None) -> GateJson:
        query = _to_query({**asdict(options), "cluster": cluster})
        return cast(GateJson, await self._client.get(f"/v1/jobs/{job['id']}/gate", **query))

    async def plan(self, job: JobJson, options: PlanOptions) -> PlanJson:
        query = _to_query(asdict(options))
        return cast(PlanJson, await self._client.get(f"/v1/jobs/{job['id']}/plan", **query))


def _to_query(options: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items() if value is not None}
