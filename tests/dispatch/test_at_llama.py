"""The Dispatcher before a real llama.cpp server."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

from tests.support.builders.dispatcher import expect_completion, name_outcome, open_observed_dispatcher, read_text
from tests.support.llama.process import ENDLESS, LONG_TOKENS, Llama

TINY = "up/tiny"
ON: dict[str, Any] = {"logit_bias": ENDLESS}
LONG: dict[str, Any] = {"max_tokens": LONG_TOKENS, **ON}


async def test_the_dispatcher_runs_streams_and_cancels_calls(llama: Llama, tmp_path: Path) -> None:
    async with open_observed_dispatcher(llama.url, tmp_path, api_key_env="UP_KEY", environ={"UP_KEY": llama.key}) as opened:
        (whole,) = await opened.run(TINY, **ON, max_tokens=8)
        async with (
            llama.expect_release(),
            aclosing(opened.dispatcher.stream(opened.plan(TINY, **LONG), deadline_s=60)) as pieces,
        ):
            await anext(pieces)

    assert read_text(whole)
    usage = expect_completion(whole).usage
    assert usage
    assert 0 < (usage.output_tokens or 0) <= 8
    assert [name_outcome(outcome) for outcome in opened.outcomes] == ["ok", "cancelled"]
