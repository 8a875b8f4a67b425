"""Scores of a job's answers, summed up by scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic_core import from_json
from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.store.jobs.records import ScorerRow


class ScorerJson(TypedDict):
    name: Annotated[str, Doc("Name of its scores in results and reports.")]
    version: Annotated[str, Doc("Type, version and options: equal where scores can be compared.")]
    declaration: Annotated[JsonObject, Doc("The scorer, as it was declared.")]
    scored: Annotated[int, Doc("Answers with a score.")]
    judge_jobs: Annotated[Sequence[str], Doc("Of a judge, the jobs in which it judges.")]
    unscored: Annotated[int, Doc("Answers that could not be scored: each result's `explanation` tells why.")]


class JobScoresJson(TypedDict):
    """Scorers of a job, and how many answers they have scored."""

    object: Literal["job.scores"]
    job_id: Annotated[str, Doc("Id of the job.")]
    scorers: Annotated[Sequence[ScorerJson], Doc("By name; of those with the same name, the one declared last.")]


def render_scores(
    job_id: str,
    scorers: Sequence[ScorerRow],
    counts: Mapping[int, tuple[int, int]],
    judge_jobs: Mapping[int, Sequence[str]],
) -> JobScoresJson:
    """Return the scorers of a job.

    Args:
        job_id: the job.
        scorers: the current scorers, one for each name.
        counts: by a scorer's number, the answers that it has examined and those to which it has given a value.
        judge_jobs: by a judge's number, the ids of its jobs.
    """
    return {
        "object": "job.scores",
        "job_id": job_id,
        "scorers": [_render(row, *counts.get(row.scorer, (0, 0)), judge_jobs.get(row.scorer, ())) for row in scorers],
    }


def _render(row: ScorerRow, seen: int, scored: int, judge_jobs: Sequence[str]) -> ScorerJson:
    # A scorer that failed on an answer has examined it: it is counted as unscored, not as still to come.
    return {
        "name": row.label,
        "version": row.version,
        "declaration": from_json(row.declaration),
        "scored": scored,
        "unscored": seen - scored,
        "judge_jobs": list(judge_jobs),
    }
