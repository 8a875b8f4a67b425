"""Blind votes over HTTP: ballots of jobs and comparisons, and the votes on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fanout.rendering.report import ReportJson
from fanout.rendering.votes import BallotJson, VoteJson, VoteListJson
from tests.support.batches import create_job, read_answer, wait_for_state, write_config
from tests.support.builders.settings import write_providers_file
from tests.support.dialects import CannedUpstream
from tests.support.server import Server, serve
from tests.support.shapes import check_shape
from tests.support.upstream.canned import serve_answers
from tests.support.upstream.server import Upstream

MODELS = ["up/say-yes", "up/say-no"]


async def draw(server: Server, path: str, **body: Any) -> dict[str, Any]:
    status, ballot = await read_answer(server.session.post(f"{path}/ballots", json=body))
    assert status == 201, ballot
    check_shape(ballot, BallotJson)
    found: dict[str, Any] = ballot
    return found


async def vote(server: Server, ballot: dict[str, Any], **body: Any) -> dict[str, Any]:
    status, voted = await read_answer(server.session.post("/v1/votes", json={"ballot_id": ballot["id"], **body}))
    assert status == 200, voted
    check_shape(voted, VoteJson)
    found: dict[str, Any] = voted
    return found


async def run_job(server: Server, prompts: list[str], models: Sequence[Any] = MODELS, **fields: Any) -> str:
    job = await create_job(server.session, prompts, models, **fields)
    path = f"/v1/jobs/{job['id']}"
    await wait_for_state(server.session, path)
    return path


async def test_every_pair_of_a_job_is_drawn_once_blind_and_revealed_by_its_vote(any_store_server: Server) -> None:
    path = await run_job(any_store_server, [f"p{number}" for number in range(20)])
    items, winners, firsts = [], [], []
    for _ in range(20):
        ballot = await draw(any_store_server, path)
        assert "say" not in str(ballot), "a ballot names no model"
        assert ballot["prompt"] == f"p{ballot['item']}"
        choice = "ab"[[answer["text"] for answer in ballot["answers"]].index("yes")]
        voted = await vote(any_store_server, ballot, choice=choice)
        items.append(ballot["item"])
        winners.append(voted["winner"])
        firsts.append(voted["answers"][0]["model"])
        assert sorted(answer["model"] for answer in voted["answers"]) == sorted(MODELS)

    assert sorted(items) == list(range(20))
    assert set(winners) == {"up/say-yes"}
    assert set(firsts) == set(MODELS), "each of the two is shown first now and then: by chance once in 500,000 runs not"
    status, answer = await read_answer(any_store_server.session.post(f"{path}/ballots", json={}))
    assert (status, answer["error"]["code"]) == (404, "ballots_exhausted")


async def test_further_calls_of_a_member_are_on_no_ballot(store_server: Server) -> None:
    path = await run_job(store_server, ["p0"], ["up/say-yes", {"fusion": {"of": ["up/say-yes"] * 3, "by": "up/say-no"}}])
    voted = await vote(store_server, await draw(store_server, path), choice="a")
    status, _ = await read_answer(store_server.session.post(f"{path}/ballots", json={}))

    assert [answer["model"].startswith("fusion") for answer in voted["answers"]].count(True) == 1
    assert status == 404, "one pair alone is to be had"


async def test_an_open_ballot_is_shown_again_and_each_rater_has_their_own(store_server: Server) -> None:
    path = await run_job(store_server, ["p0"])
    first = await draw(store_server, path)
    assert await draw(store_server, path) == first, "a page that is loaded again shows the same"
    other = await draw(store_server, path, rater="ann")
    assert other["id"] != first["id"]
    assert (await vote(store_server, other, choice="tie"))["rater"] == "ann"
    voted = await vote(store_server, first, choice="both_bad")
    assert (voted["winner"], voted["choice"], voted["rater"]) == (None, "both_bad", None)


async def test_a_single_answer_is_scored_blind(store_server: Server) -> None:
    path = await run_job(store_server, ["p0"])
    scores = {}
    for value in (0.25, 1):
        ballot = await draw(store_server, path, kind="answer")
        assert len(ballot["answers"]) == 1
        voted = await vote(store_server, ballot, score=value)
        scores[voted["answers"][0]["model"]] = voted["score"]

    assert sorted(scores.values()) == [0.25, 1]
    assert sorted(scores) == sorted(MODELS)


async def test_a_wrong_or_second_vote_is_refused_with_its_reason(store_server: Server) -> None:
    path = await run_job(store_server, ["p0"])
    ballot = await draw(store_server, path)

    async def refuse(**body: Any) -> tuple[int, str, str]:
        status, answer = await read_answer(store_server.session.post("/v1/votes", json={"ballot_id": ballot["id"], **body}))
        return status, answer["error"]["code"], answer["error"]["message"]

    status, _, message = await refuse()
    assert (status, message) == (400, "`choice`: is required: the ballot shows two answers")
    status, _, message = await refuse(score=1)
    assert (status, "`score`: is not allowed" in message, "`choice`: is required" in message) == (400, True, True)
    assert (await refuse(choice="c"))[0] == 400
    assert (await refuse(choice="a", score=7))[0] == 400
    await vote(store_server, ballot, choice="a")
    assert (await refuse(choice="b"))[:2] == (409, "wrong_state")
    ballot["id"] = "ballot_none"
    assert (await refuse(choice="a"))[:2] == (404, "ballot_not_found")


async def test_votes_are_listed_newest_first_by_page_and_by_what_was_voted_on(any_store_server: Server) -> None:
    session = any_store_server.session
    path = await run_job(any_store_server, ["p0", "p1", "p2"])
    votes = [await vote(any_store_server, await draw(any_store_server, path), choice=choice) for choice in ("a", "b", "tie")]
    ids = [one["id"] for one in votes]
    await draw(any_store_server, path, rater="not voted yet")
    job_id = path.rpartition("/")[2]
    status, page = await read_answer(session.get("/v1/votes", params={"job_id": job_id, "limit": 2}))
    check_shape(page, VoteListJson)
    _, rest = await read_answer(session.get("/v1/votes", params={"after": page["last_id"]}))
    _, none = await read_answer(session.get("/v1/votes", params={"job_id": "job_none"}))
    wrong, _ = await read_answer(session.get("/v1/votes", params={"after": "ballot_none"}))

    assert (status, [row["id"] for row in page["data"]], page["has_more"]) == (200, ids[:0:-1], True)
    assert ([row["choice"] for row in rest["data"]], none["data"], wrong) == (["a"], [], 400)


@pytest.mark.parametrize("history", ["full", "usage"])
async def test_a_comparison_is_voted_on_with_its_texts_where_they_are_kept(
    history: str, upstream: Upstream, tmp_path: Path
) -> None:
    config = write_config(upstream, tmp_path)
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY=history) as server:
        _, answer = await read_answer(server.session.post("/v1/completion", json={"model": MODELS, "prompt": "sure?"}))
        ballot = await draw(server, f"/v1/comparisons/{answer['id']}")
        voted = await vote(server, ballot, choice="b")
        status, _ = await read_answer(server.session.post(f"/v1/comparisons/{answer['id']}/ballots", json={}))
        unknown, _ = await read_answer(server.session.post("/v1/comparisons/none/ballots", json={}))

    shown = [answer["choices"][one["index"]]["text"] for one in ballot["answers"]]
    models = [f"up/say-{text}" for text in shown]
    assert [one["text"] for one in ballot["answers"]] == (shown if history == "full" else [None, None])
    assert ballot["prompt"] == ("sure?" if history == "full" else None)
    assert [one["model"] for one in voted["answers"]] == models
    assert (voted["winner"], voted["comparison_id"]) == (models[1], answer["id"])
    assert (status, unknown) == (404, 404)


async def test_an_account_sees_neither_the_ballots_nor_the_votes_of_another(upstream: Upstream, tmp_path: Path) -> None:
    config, keys = write_config(upstream, tmp_path), "team-a:key-one-abcdefghij,team-b:key-two-abcdefghij"
    own, other = ({"Authorization": f"Bearer key-{name}-abcdefghij"} for name in ("one", "two"))
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_API_KEYS=keys) as server:
        post, get = server.session.post, server.session.get
        body = {"items": [{"prompt": "p"}], "models": MODELS}
        _, job = await read_answer(post("/v1/jobs", json=body, headers=own))
        await wait_for_own_job(server, job["id"], own)
        _, ballot = await read_answer(post(f"/v1/jobs/{job['id']}/ballots", json={}, headers=own))
        drawn, _ = await read_answer(post(f"/v1/jobs/{job['id']}/ballots", json={}, headers=other))
        vote_body = {"ballot_id": ballot["id"], "choice": "a"}
        foreign, _ = await read_answer(post("/v1/votes", json=vote_body, headers=other))
        voted, _ = await read_answer(post("/v1/votes", json=vote_body, headers=own))
        _, theirs = await read_answer(get("/v1/votes", headers=other))
        _, ours = await read_answer(get("/v1/votes", headers=own))

    assert (drawn, foreign, voted) == (404, 404, 200)
    assert (theirs["data"], len(ours["data"]), ours["data"][0]["account_id"]) == ([], 1, "team-a")


async def wait_for_own_job(server: Server, job_id: str, headers: dict[str, str]) -> None:
    server.session.headers.update(headers)
    await wait_for_state(server.session, f"/v1/jobs/{job_id}")
    del server.session.headers["Authorization"]


async def test_votes_on_a_job_are_a_ranking_and_scores_of_their_own_in_its_report(store_server: Server) -> None:
    path = await run_job(store_server, [f"p{number}" for number in range(16)])
    for number in range(16):
        ballot = await draw(store_server, path)
        better = "ab"[[answer["text"] for answer in ballot["answers"]].index("yes")]
        await vote(store_server, ballot, choice=better if number % 4 else "both_bad")
    for _ in range(32):
        ballot = await draw(store_server, path, kind="answer")
        await vote(store_server, ballot, score=1 if ballot["answers"][0]["text"] == "yes" else 0)
    status, report = await read_answer(store_server.session.get(f"{path}/report"))
    assert status == 200, report
    check_shape(report, ReportJson)
    (votes,) = report["preferences"]
    (pair,) = votes["pairs"]

    assert votes["verdict"] == "votes: up/say-yes is preferred to every other model, 16 judgements"
    assert [one["model"] for one in votes["ratings"]] == MODELS
    assert (pair["wins"], pair["ties"], pair["both_bad"], pair["losses"], pair["win_rate"]["value"]) == (12, 4, 4, 0, 0.875)
    assert "votes: by one person: it is their taste" in report["notes"]
    assert report["metrics"][0]["verdict"].startswith("people: up/say-yes is best, 1 ")


async def test_a_refusal_is_what_a_ballot_shows_of_an_answer_without_text(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I must not."}
    upstream = CannedUpstream(whole={"choices": [{"message": message, "finish_reason": "stop"}]})
    environ = {"FANOUT_STORE": str(tmp_path / "fanout.db"), "FANOUT_HISTORY": "full"}
    async with serve_answers(upstream.answer) as canned:
        config = write_providers_file(f"{canned.url}/v1", tmp_path)
        async with serve(config, **environ) as server:
            job = await run_job(server, ["p"], ["up/a", "up/b"])
            _, compared = await read_answer(
                server.session.post("/v1/completion", json={"model": ["up/a", "up/b"], "prompt": "p"})
            )
            for path in (job, f"/v1/comparisons/{compared['id']}"):
                assert [answer["text"] for answer in (await draw(server, path))["answers"]] == ["I must not."] * 2


async def test_draws_at_once_by_one_voter_are_one_ballot_of_a_pair(store_server: Server) -> None:
    path = await run_job(store_server, ["p0"])
    drawn = await asyncio.gather(*(draw(store_server, path) for _ in range(12)))

    assert len({ballot["id"] for ballot in drawn}) == 1, "else one voter would vote on a pair several times"


async def test_a_ballot_on_responses_shows_their_input(upstream: Upstream, tmp_path: Path) -> None:
    config, items = (
        write_config(upstream, tmp_path),
        [{"role": "user", "content": "sure?"}, {"role": "user", "content": "now?"}],
    )
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY="full") as server:
        for given in ("sure?", items):
            _, answer = await read_answer(server.session.post("/v1/responses", json={"model": MODELS, "input": given}))
            assert (await draw(server, f"/v1/comparisons/{answer['id']}"))["prompt"] == given


async def test_nobody_votes_on_embeddings(tmp_path: Path) -> None:
    async with serve(FANOUT_STORE=str(tmp_path / "fanout.db")) as server:
        body = {"model": ["local/ngram-3", "local/ngram-5"], "input": "The"}
        _, answer = await read_answer(server.session.post("/v1/embeddings", json=body))
        status, refused = await read_answer(server.session.post(f"/v1/comparisons/{answer['id']}/ballots", json={}))
    assert (status, refused["error"]["code"]) == (404, "ballots_exhausted")
