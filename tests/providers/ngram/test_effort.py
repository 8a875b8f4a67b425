"""Bounds on the work of the embedded models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fanout.core.errors import ProviderError
from fanout.core.messages import Message, TextPart
from fanout.core.schema import Call, Completion, Delta, FittedParameters, Query, RequestScope, Target
from fanout.providers.ngram.effort import (
    BURST_S,
    MAX_PROMPT_CHARACTERS,
    MAX_REQUEST_STEPS,
    MAX_SHARE,
    MAX_STOP_CHARACTERS,
    Effort,
)
from fanout.providers.ngram.embedding import embed

VOCABULARY = 4_000


def make_call(query: Query | None = None, scope: RequestScope | None = None, **sent: Any) -> Call:
    target = Target("local/ngram-2", "local/ngram-2", "local", "ngram-2")
    return Call(0, 0, 0, target, query or Query(prompt="a"), fitted=FittedParameters(sent), scope=scope or RequestScope())


@pytest.mark.parametrize(
    ("query", "sent", "param"),
    [
        (Query(prompt="x" * (MAX_PROMPT_CHARACTERS + 1)), {}, "prompt"),
        (Query(prompt_tokens=(1,) * MAX_PROMPT_CHARACTERS), {}, "prompt"),
        (Query(messages=(Message("user", "x" * MAX_PROMPT_CHARACTERS),) * 2), {}, "messages"),
        (Query(messages=(Message("user", (TextPart("x" * MAX_PROMPT_CHARACTERS),) * 2),)), {}, "messages"),
        (Query(inputs=("x" * MAX_PROMPT_CHARACTERS, "x"), task="embed"), {}, "input"),
        (Query(prompt="x"), {"suffix": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "suffix"),
        (Query(prompt="x"), {"stop": ("x" * MAX_STOP_CHARACTERS, "y")}, "stop"),
        (Query(prompt="x"), {"n": 16, "suffix": "x", "max_tokens": 10_000}, "max_tokens"),
    ],
    ids=["prompt", "tokens", "messages", "parts", "inputs", "suffix", "stop", "work"],
)
def test_a_call_that_is_too_much_work_is_refused_with_its_bound(query: Query, sent: Mapping[str, Any], param: str) -> None:
    with pytest.raises(ProviderError) as caught:
        Effort().begin(make_call(query, **sent), VOCABULARY)
    failure = caught.value.failure
    assert (failure.kind, failure.param) == ("bad_request", param)
    assert "at most" in failure.message


def test_the_work_of_a_request_is_that_of_all_its_calls() -> None:
    effort, scope = Effort(), RequestScope()
    share = MAX_REQUEST_STEPS // 4
    for _ in range(4):
        effort.begin(make_call(scope=scope, max_tokens=share), VOCABULARY)
    with pytest.raises(ProviderError, match="for one request"):
        effort.begin(make_call(scope=scope, max_tokens=1), VOCABULARY)
    effort.begin(make_call(max_tokens=share), VOCABULARY)  # another request


def test_texts_are_embedded_one_by_one_in_a_thread() -> None:
    call = make_call(Query(inputs=("a b", "c"), task="embed"))
    assert Effort().begin(call, VOCABULARY)
    *pauses, completion = embed(call, ())
    assert pauses == [None, None], "after each text another call may take its turn"
    assert completion is not None
    assert len(completion.vectors) == 2


@pytest.mark.parametrize(
    ("sent", "is_long"),
    [
        ({}, False),
        ({"top_k": 50}, False),
        ({"top_k": VOCABULARY}, False),
        ({"top_k": VOCABULARY - 1}, True),
        ({"logit_bias": dict.fromkeys(map(str, range(200)), 1.0)}, True),
        ({"repetition_penalty": 1.2}, True),
        ({"stop": ("x",) * 64}, True),
    ],
    ids=["plain", "top_k", "all", "nearly all", "biases", "penalty", "stops"],
)
async def test_tokens_that_take_long_are_written_in_a_thread(sent: Mapping[str, Any], is_long: bool) -> None:
    effort, threads = Effort(), []

    def work() -> Iterator[Delta | Completion | None]:
        threads.append(threading.current_thread())
        yield None

    found = effort.begin(make_call(Query(prompt="word " * 100), **sent), VOCABULARY)
    assert found == is_long
    await effort.take_turn(work(), is_long=found)
    assert threads[0].name.startswith("embedded") == is_long


def test_calls_give_way_once_they_have_taken_their_share_of_the_process() -> None:
    effort, now, worked = Effort(), time.monotonic(), 0.0
    while not (pause_s := effort.count_pause_s(0.01, now)):
        worked += 0.01
        now += 0.01
    assert worked == pytest.approx(BURST_S / (1 - MAX_SHARE), abs=0.05)  # while it works it earns, too
    began, worked = now, 0.0
    for _ in range(1_000):
        now += pause_s
        pause_s = effort.count_pause_s(0.01, now)
        worked += 0.01
    assert worked / (now - began) == pytest.approx(MAX_SHARE, rel=0.05)
    assert effort.count_pause_s(BURST_S / 2, now + 3600) == 0  # after a rest it may take its burst again
