"""Ballots, which name no model, and votes, which do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.units import to_rfc3339
from fanout.evaluate.voting.ballots import Ballot
from fanout.rendering.shared import PageJson
from fanout.store.votes import BallotKind, VoteChoice, VoteRow


class BallotAnswerJson(TypedDict):
    text: Annotated[str | None, Doc("Text of the answer; null: texts are not kept (FANOUT_HISTORY is not `full`).")]
    index: Annotated[
        int | None, Doc("Of a comparison, its place in `choices`, for a page that has the texts and hides the names.")
    ]


class BallotJson(TypedDict):
    """One answer or a pair, without the models' names."""

    object: Literal["ballot"]
    id: Annotated[str, Doc("Give it as `ballot_id` to vote.")]
    kind: Annotated[BallotKind, Doc("`pair`: two answers to choose between; `answer`: one to score.")]
    job_id: Annotated[str | None, Doc("Job whose answers these are.")]
    comparison_id: Annotated[str | None, Doc("Comparison whose answers these are.")]
    item: Annotated[int, Doc("Number of the row, from 0; of a comparison, the index of its prompt.")]
    prompt: Annotated[Any, Doc("The prompt, or the messages; null: texts are not kept.")]
    reference: Annotated[Any, Doc("The row's reference.")]
    answers: Annotated[Sequence[BallotAnswerJson], Doc("The first is `a`, the second `b`; the order is drawn and stored.")]


class VotedAnswerJson(TypedDict):
    model: Annotated[str, Doc("Label of the entry.")]
    entry: Annotated[int, Doc("Position of the model.")]
    repeat: Annotated[int, Doc("Number of the sample.")]


class VoteJson(TypedDict):
    """A vote, with the models' names."""

    object: Literal["vote"]
    id: Annotated[str, Doc("Id of the ballot.")]
    kind: Annotated[BallotKind, Doc("`pair` or `answer`.")]
    job_id: Annotated[str | None, Doc("Job that was voted on.")]
    comparison_id: Annotated[str | None, Doc("Comparison that was voted on.")]
    item: Annotated[int, Doc("Number of the row, from 0; of a comparison, the index of its prompt.")]
    account_id: Annotated[str | None, Doc("Account of the voter.")]
    rater: Annotated[str | None, Doc("Name of the voter within the account.")]
    voted_at: Annotated[str | None, Doc("Time of the vote: RFC 3339, UTC.")]
    choice: Annotated[VoteChoice | None, Doc("The choice of a pair.")]
    score: Annotated[float | None, Doc("The score of a single answer, 0 to 1.")]
    winner: Annotated[str | None, Doc("Label of the model that was chosen; null: neither.")]
    answers: Annotated[Sequence[VotedAnswerJson], Doc("`a` and `b` as they were shown.")]


class VoteListJson(PageJson):
    data: Annotated[Sequence[VoteJson], Doc("The votes of the page, the newest ballot first.")]


def render_ballot(ballot: Ballot) -> BallotJson:
    """Return a ballot as its voter may see it."""
    row = ballot.row
    return {
        "object": "ballot",
        "id": row.id,
        "kind": row.kind,
        "job_id": row.job_id,
        "comparison_id": row.comparison_id,
        "item": row.item,
        "prompt": ballot.prompt,
        "reference": ballot.reference,
        "answers": [{"text": answer.text, "index": answer.index} for answer in ballot.answers],
    }


def render_vote(row: VoteRow) -> VoteJson:
    """Return a vote with the models that it reveals."""
    return {
        "object": "vote",
        "id": row.id,
        "kind": row.kind,
        "job_id": row.job_id,
        "comparison_id": row.comparison_id,
        "item": row.item,
        "account_id": row.account_id or None,
        "rater": row.rater or None,
        "voted_at": to_rfc3339(row.voted),
        "choice": row.choice,
        "score": row.score,
        "winner": row.winner,
        "answers": [{"model": answer.model, "entry": answer.entry, "repeat": answer.repeat} for answer in row.answers],
    }
