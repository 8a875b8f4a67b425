"""Hooks: what the operator's own Python does to calls and answers, and what happens when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError
from fanout.core.schema import Delta, Outcome
from tests.support.builders.dispatcher import (
    ObservedDispatcher,
    expect_failure,
    name_outcome,
    open_observed_dispatcher,
    read_text,
)
from tests.support.builders.jobs import open_jobs
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.hooks import failing
from tests.support.server import serve
from tests.support.upstream.server import Upstream

REDACTING, FAILING = "tests.support.hooks.redacting", "tests.support.hooks.failing"


def open_hooked(upstream: Upstream, folder: Path, hooks: str, **environ: str) -> Any:
    return open_observed_dispatcher(upstream.url, folder, environ={"FANOUT_HOOKS": hooks, **environ})


async def run(opened: ObservedDispatcher, prompt: str, *models: str, **sampling: Any) -> list[Outcome]:
    calls = opened.dispatcher.plan(build_request(prompt, models, **sampling))
    return await opened.dispatcher.run(calls, deadline_s=5)


async def stream(opened: ObservedDispatcher, prompt: str, *models: str) -> tuple[list[Delta], list[Outcome]]:
    calls = opened.dispatcher.plan(build_request(prompt, models))
    pieces = [piece async for piece in opened.dispatcher.stream(calls, deadline_s=5)]
    return [piece for piece in pieces if isinstance(piece, Delta)], [piece for piece in pieces if isinstance(piece, Outcome)]


async def test_a_hook_changes_what_is_sent_and_what_is_answered(upstream: Upstream, tmp_path: Path) -> None:
    async with open_hooked(upstream, tmp_path, REDACTING) as opened:
        whole, broken = await run(opened, "Who is Ada?", "up/echo", "up/400")
        deltas, (streamed,) = await stream(opened, "Who is Ada?", "up/echo-chunks-7")

    sent = [json.dumps(request.body) for request in upstream.requests]
    assert all("PERSON" in body and "Ada" not in body for body in sent)
    assert "Who is Ada?" in read_text(whole)
    assert "PERSON" not in read_text(whole)
    assert name_outcome(broken) == "bad_request"
    (delta,) = deltas  # held until the hook had seen the whole answer
    assert delta.text == read_text(streamed)
    assert "Who is Ada?" in delta.text
    assert streamed.timing.first_token_s is not None
    assert whole.timing.hooks_s is not None
    assert 0 <= whole.timing.hooks_s <= whole.timing.total_s


async def test_parameters_are_fitted_to_the_changed_query_and_calls_keep_their_place(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_hooked(upstream, tmp_path, REDACTING) as opened:
        outcomes = await run(opened, "Ada", "up/echo", "up/ok", max_tokens=7)
    assert [outcome.call.index for outcome in outcomes] == [0, 1]
    assert all(request.body["max_tokens"] == 7 for request in upstream.requests)


async def test_a_refused_call_is_not_sent_and_a_refused_answer_is_not_shown(upstream: Upstream, tmp_path: Path) -> None:
    async with open_hooked(upstream, tmp_path, f"{REDACTING}:open") as opened:
        refused, beside = await run(opened, "forbidden", "up/ok", "no-such-model")
        assert upstream.requests == []
        answered, other = await run(opened, "hi", "up/say-forbidden", "up/ok")
        deltas, (streamed,) = await stream(opened, "hi", "up/say-forbidden-chunks-3")

    failure = expect_failure(refused)
    assert (failure.kind, failure.code, failure.message) == ("content_filter", "hook_refused", "nobody may ask about this")
    assert (refused.timing.attempts, name_outcome(beside)) == (0, "not_found")
    assert expect_failure(answered).message == "the answer tells too much"
    assert name_outcome(other) == "ok"
    assert deltas == []
    assert (expect_failure(streamed).code, expect_failure(streamed).partial) == ("hook_refused", None)


@pytest.mark.parametrize("prompt", ["crash", "cancel", "wrong", "hang", "exit", "late", "late-odd"])
@pytest.mark.parametrize("mode", ["", ":closed", ":open"])
async def test_a_hook_that_fails_ends_its_calls_or_lets_them_go_on(
    upstream: Upstream, tmp_path: Path, prompt: str, mode: str
) -> None:
    async with open_hooked(upstream, tmp_path, FAILING + mode, FANOUT_HOOK_TIMEOUT_S="0.05") as opened:
        (failed,) = await run(opened, prompt, "up/ok")
        (fine,) = await run(opened, "hi", "up/ok")

    assert name_outcome(fine) == "ok"
    if mode == ":open":
        assert read_text(failed) == "This is ok."
    else:
        failure = expect_failure(failed)
        assert (failure.kind, failure.code) == ("internal", "hook_failed")
        assert failure.message.startswith(f"the hook `{FAILING}` failed {'after' if 'late' in prompt else 'before'} the call")
        assert failed.timing.attempts == (1 if "late" in prompt else 0)


async def test_a_long_answer_that_was_held_comes_in_pieces_and_each_choice_in_its_place(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_hooked(upstream, tmp_path, REDACTING) as opened:
        deltas, outcomes = await stream(opened, "hi", "up/mb-1", "up/ok")
    assert [name_outcome(outcome) for outcome in outcomes] == ["ok", "ok"]
    assert len(deltas) > 10
    for outcome in outcomes:
        told = "".join(delta.text for delta in deltas if delta.call_index == outcome.call.index)
        assert told == read_text(outcome)


async def test_texts_to_embed_and_their_vectors_pass_hooks_too(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_HOOKS=f"{FAILING},{REDACTING}") as server:
        client = Client(server)
        body = {"model": "local/ngram-2", "input": "hello"}
        good = await client.send("POST", "/v1/embeddings", body)
        failed = await client.send("POST", "/v1/embeddings", body | {"input": "crash late"})
    assert (good.status, len(good.json["data"])) == (200, 1)
    assert (failed.status, failed.json["error"]["code"]) == (502, "hook_failed")


async def test_a_hook_is_called_once_for_a_call_and_a_held_stream_is_retried(upstream: Upstream, tmp_path: Path) -> None:
    async with open_hooked(upstream, tmp_path, f"{FAILING},{REDACTING}") as opened:
        deltas, (outcome,) = await stream(opened, "Ada", "up/cut-then-echo")
    assert outcome.timing.attempts == 2
    assert [delta.text for delta in deltas] == [read_text(outcome)], "nothing of the first attempt was passed on"


async def test_answers_and_metrics_show_the_time_of_hooks_apart_and_jobs_have_them_too(
    upstream: Upstream, tmp_path: Path
) -> None:
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, FANOUT_HOOKS=REDACTING) as server:
        client = Client(server)
        reply = await client.complete(model="up/ok")
        page = (await client.send("GET", "/metrics")).body.decode()
        refused = await client.complete(model="up/ok", prompt="forbidden")
    async with open_jobs(upstream.url, tmp_path, environ={"FANOUT_HOOKS": REDACTING}) as kept:
        job = await kept.create(2, "up/say-PERSON")
        await kept.manager.run(job.id)
        results = await kept.list_results(job)

    assert reply.choice["timing"]["hooks_ms"] >= 0
    assert 'fanout_call_hooks_seconds_count{gen_ai_operation_name="chat"' in page
    assert (refused.status, refused.json["error"]["code"]) == (400, "hook_refused")
    assert ["Ada" in row.record for row in results] == [True, True]


async def test_without_hooks_there_is_no_time_of_theirs(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened:
        (outcome,) = await opened.run("up/ok")
    assert outcome.timing.hooks_s is None


async def test_a_reload_takes_other_hooks_and_keeps_those_that_are_the_same(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path)
    failing.CREATED.clear()
    async with open_hooked(upstream, tmp_path, FAILING) as opened:
        await opened.dispatcher.reload(load_settings(config, {"FANOUT_HOOKS": FAILING, "FANOUT_TIMEOUT_S": "9"}))
        assert len(failing.CREATED) == 1
        await opened.dispatcher.reload(load_settings(config, {"FANOUT_HOOKS": REDACTING}))
        (outcome,) = await run(opened, "forbidden", "up/ok")
        assert expect_failure(outcome).code == "hook_refused"
        await opened.dispatcher.reload(load_settings(config, {}))
        (outcome,) = await run(opened, "forbidden", "up/ok")
        assert name_outcome(outcome) == "ok"


async def test_every_module_that_cannot_be_loaded_is_named(upstream: Upstream, tmp_path: Path) -> None:
    hooks = "no.such.module,tests.support.hooks.faulty,tests.support.hooks.leaving,tests.support.hooks"
    with pytest.raises(ConfigError) as caught:
        async with open_hooked(upstream, tmp_path, hooks):
            raise AssertionError("it was opened")
    assert [fault.message.split("`")[1] for fault in caught.value.faults] == [
        "no.such.module",
        "create()",
        "tests.support.hooks.leaving",
        "tests.support.hooks",
    ]


@pytest.mark.parametrize("value", ["company.redact:ajar", "company-redact", "a..b", "/path/to.py"])
def test_a_declaration_that_is_no_module_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="FANOUT_HOOKS: a hook is the dotted name of a module"):
        load_settings(None, {"FANOUT_HOOKS": value, "HOME": str(tmp_path)})
