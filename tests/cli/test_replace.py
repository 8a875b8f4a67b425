"""`fanout replace` and the warning of `fanout check`: a model ends, and another is to take its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.builders.settings import write_providers_file
from tests.support.cli import run_fanout
from tests.support.server import serve
from tests.support.upstream.server import Upstream

SOON = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()


def write_config(upstream: Upstream, folder: Path) -> Path:
    models = {
        "old": {"provider": "up", "id": "say-yes", "kind": "chat", "deprecated_on": SOON, "successor": "new"},
        "new": {"provider": "up", "id": "say-yes-tokens-2", "kind": "chat"},
        "worse": {"provider": "up", "id": "say-no", "kind": "chat"},
    }
    return write_providers_file(upstream.url, folder, more={"models": models}, retries={"attempts": 1})


async def test_the_successor_passes_a_worse_candidate_fails_and_few_prompts_do_not_tell(
    upstream: Upstream, tmp_path: Path
) -> None:
    config, store = str(write_config(upstream, tmp_path)), str(tmp_path / "fanout.db")
    rows = [{"prompt": f"q{number}", "reference": "yes"} for number in range(100)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "few.jsonl").write_text(json.dumps(rows[0]))
    options = ("--config", config, "--scorer", "exact")
    passed = await run_fanout("replace", "old", "prompts.jsonl", *options, cwd=tmp_path, FANOUT_STORE=store)
    failed = await run_fanout("replace", "old", "prompts.jsonl", "--to", "worse", *options, cwd=tmp_path, FANOUT_STORE=store)
    few = await run_fanout("replace", "old", "few.jsonl", *options, cwd=tmp_path, FANOUT_STORE=store)
    checked = await run_fanout("check", "--config", config, FANOUT_STORE=store)

    assert (passed.code, failed.code, few.code) == (0, 1, 4), passed.err + failed.err + few.err
    assert "new in place of old: pass" in passed.out
    assert "worse in place of old: fail" in failed.out
    lines = [line.split() for line in passed.out.splitlines()]
    assert next(line[:3] for line in lines if line[:1] == ["refusal"]) == ["refusal", "0.000", "0.000"]
    assert f"`old` ends on {SOON}, its vendor names `new` as successor; `fanout replace old` compares them" in checked.out


async def test_without_a_file_the_prompts_come_from_the_history(upstream: Upstream, tmp_path: Path) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    empty = await run_fanout("replace", "old", "--config", str(config), cwd=tmp_path, FANOUT_STORE=store)
    async with serve(config, FANOUT_STORE=store, FANOUT_HISTORY="full") as server:
        for number in range(3):
            body = {"model": ["old", "worse"], "messages": [{"role": "user", "content": f"q{number % 2}"}], "max_tokens": 7}
            async with server.session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
    sent = len(upstream.requests)
    compared = await run_fanout("replace", "old", "--config", str(config), cwd=tmp_path, FANOUT_STORE=store)
    prompts = {request.body["messages"][0]["content"] for request in upstream.requests[sent:]}

    assert (empty.code, "the history has no prompt that `old` has answered" in empty.err) == (2, True), empty.err
    assert compared.code == 4, compared.err
    assert (prompts, len(upstream.requests) - sent) == ({"q0", "q1"}, 4)
    assert all(request.body["max_tokens"] == 7 for request in upstream.requests[sent:])
