"""`/v1/votes` and ballots: people's blind choices between answers, and their scores."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from fanout.core.errors import Fault, RequestError
from fanout.evaluate.voting.ballots import cast_vote, draw_from_comparison, draw_from_job
from fanout.rendering.votes import BallotJson, VoteJson, VoteListJson, render_ballot, render_vote
from fanout.requests.bodies import ObjectBody
from fanout.server.afterwork import AFTERWORK
from fanout.server.lifecycle import JOB_STORE, STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import (
    INVALID_PARAMETERS,
    JSON,
    Answers,
    Endpoint,
    StatusAnswer,
    list_body_error_answers,
    list_store_answers,
)
from fanout.server.request_body import read_body
from fanout.server.resources.jobs import ACCOUNT, JOB_ID, WRONG_FIELDS
from fanout.server.resources.listing import ListQuery, page_response, read_query
from fanout.server.resources.storage import find_own_job, needs_store
from fanout.server.responses import json_response
from fanout.store.engine.text_columns import clean_text
from fanout.store.history.records import StoredComparison
from fanout.store.votes import Subject, VoteChoice, Voter


class BallotBody(ObjectBody):
    """A ballot to draw; all fields are optional."""

    kind: Literal["pair", "answer"] | None = None
    """`pair`, the default: two answers to choose between; `answer`: one to score."""
    rater: str | None = Field(None, min_length=1, max_length=64)
    """Name of the voter, where several share an account: each has ballots of their own."""


class VoteBody(ObjectBody):
    """A vote on a ballot."""

    ballot_id: str = Field(min_length=1, max_length=64)
    """Id of the ballot."""
    choice: VoteChoice | None = None
    """For a pair: the answer that is better, `tie`, or `both_bad`."""
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """For a single answer."""


class VotesQuery(ListQuery):
    """The part of the list of votes to show."""

    job_id: str | None = Field(None, min_length=1, max_length=256)
    """Only votes on this job."""
    comparison_id: str | None = Field(None, min_length=1, max_length=256)
    """Only votes on this comparison."""


def _to_voter(request: web.Request, body: BallotBody) -> Voter:
    return Voter(auth.choose_account(request) or "", body.rater or "")


@needs_store
async def draw_job_ballot(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/jobs/{job_id}/ballots`."""
    body = await read_body(request, BallotBody)
    job = await find_own_job(request)
    ballot = await draw_from_job(request.app[JOB_STORE], job, _to_voter(request, body), body.kind or "pair")
    return json_response(render_ballot(ballot), 201)


@needs_store
async def draw_comparison_ballot(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/comparisons/{id}/ballots`."""
    body = await read_body(request, BallotBody)
    stored = await _find_own_comparison(request)
    ballot = await draw_from_comparison(request.app[JOB_STORE], stored, _to_voter(request, body), body.kind or "pair")
    return json_response(render_ballot(ballot), 201)


async def _find_own_comparison(request: web.Request) -> StoredComparison:
    id_ = request.match_info["id"]
    # Cleaned: a NUL in the path would be an error of PostgreSQL instead of a 404.
    request.app[AFTERWORK].finish()  # it may have ended just now
    stored = await request.app[STORE].history.find(clean_text(id_)[:256])
    if stored is None or auth.find_account(request) not in (None, stored.comparison.account_id):
        sentence = f"no comparison has the id {id_!a:.80}: it was never kept, or it is older than what is kept"
        raise RequestError([Fault("id", sentence, "comparison_not_found")])
    return stored


@needs_store
async def vote(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/votes`."""
    body = await read_body(request, VoteBody)
    # The key's account alone decides: a header could name whoever drew the ballot.
    account_id = auth.find_account(request)
    row = await cast_vote(request.app[JOB_STORE], body.ballot_id, account_id, body.choice, body.score)
    return json_response(render_vote(row))


@needs_store
async def list_votes(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/votes`."""
    query, store = read_query(request, VotesQuery), request.app[JOB_STORE]
    own, before = auth.find_account(request), None
    if query.after is not None:
        last = await store.votes.find(query.after)
        if last is None or own not in (None, last.account_id):
            raise RequestError([Fault("after", f"no vote has the id {query.after!a:.80}: give a page's `last_id`")])
        before = last.number
    found = await store.votes.list_votes(
        limit=query.limit + 1,  # one more than shown tells if there is another page
        before=before,
        account_id=auth.choose_account(request, query.account_id),
        subject=Subject(query.job_id, query.comparison_id),
    )
    shown = found[: query.limit]
    return await page_response(shown, render_vote, [row.id for row in shown], has_more=len(found) > query.limit)


def _list_ballot_answers(missing: str) -> Answers:
    found = list_store_answers(
        BallotJson, "", invalid=WRONG_FIELDS, missing=missing, conflict="It has as many ballots as one may have."
    )
    # Drawing creates: 201 stands in its place.
    del found[200]
    return {201: StatusAnswer("The ballot.", {JSON: BallotJson}), **found, **list_body_error_answers()}


BALLOT = (
    "Draws two answers to one prompt that this voter has not had, or one answer, in an order drawn here; names are hidden "
    "until the vote. A ballot that was not voted on is shown again. 404 when nothing is left."
)
ENDPOINTS = (
    Endpoint(
        "POST /v1/jobs/{job_id}/ballots",
        draw_job_ballot,
        id="draw_job_ballot",
        tag="Votes",
        summary="Draw the next blind pair of a job",
        description=BALLOT,
        path_parameters=JOB_ID,
        body=BallotBody,
        answers=_list_ballot_answers("There is no such job, or nothing is left to vote on."),
    ),
    Endpoint(
        "POST /v1/comparisons/{id}/ballots",
        draw_comparison_ballot,
        id="draw_comparison_ballot",
        tag="Votes",
        summary="Draw a blind pair of a comparison",
        description=BALLOT + " The comparison must have ended. Its votes are deleted with it.",
        path_parameters={"id": ("Id of the comparison.", "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e")},
        body=BallotBody,
        answers=_list_ballot_answers("There is no such comparison, or nothing is left to vote on."),
    ),
    Endpoint(
        "POST /v1/votes",
        vote,
        id="vote",
        tag="Votes",
        summary="Vote on a ballot",
        description="Once for each ballot. The answer reveals the models. Votes on a job are a ranking of their own in its "
        "report, and labels for its judges.",
        body=VoteBody,
        answers={
            **list_store_answers(
                VoteJson,
                "The vote.",
                invalid=WRONG_FIELDS,
                missing="There is no such ballot.",
                conflict="It has been voted on.",
            ),
            **list_body_error_answers(),
        },
    ),
    Endpoint(
        "GET /v1/votes",
        list_votes,
        id="votes",
        tag="Votes",
        summary="All votes",
        description="The newest ballots first.",
        query=VotesQuery,
        headers=ACCOUNT,
        answers=list_store_answers(VoteListJson, "A page of them.", invalid=INVALID_PARAMETERS),
    ),
)
