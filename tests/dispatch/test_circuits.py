"""Circuits: a host or model that keeps failing is not called, but for one probe at a time."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from fanout.config.providers_file import CircuitRow, LimitsRow
from fanout.core.errors import ProviderError
from fanout.core.schema import Outcome
from fanout.limits.circuits import MAX_CIRCUITS, MAX_PAUSE_BETWEEN_FAILURES_S, Circuits
from fanout.limits.limiter import Limiter
from fanout.limits.queue import Priority
from fanout.store.jobs.records import Unit
from tests.support.builders.dispatcher import (
    expect_failure,
    name_outcome,
    open_observed_dispatcher,
)
from tests.support.builders.jobs import list_attempts, open_jobs
from tests.support.builders.limiter import acquire, wait_for_waiters
from tests.support.upstream.server import Upstream

SOON = {"failures": 3, "sustained_s": 0, "probe_after_s": 0.05}
"""Three failures open it, and it is probed at once."""
LONG = SOON | {"probe_after_s": 60}


def find_codes(outcomes: list[Outcome]) -> list[str | None]:
    return [expect_failure(outcome).code for outcome in outcomes]


async def test_a_model_that_keeps_failing_is_unavailable_at_once_and_no_other_is_touched(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": LONG}) as opened:
        (first,) = await opened.run("up/503")
        sent = len(upstream.requests)
        again, other, unknown = await opened.run("up/503", "up/ok", "up/no-such-model")

        assert (expect_failure(first).status, first.timing.attempts, sent) == (503, 3, 3)
        failure = expect_failure(again)
        assert (failure.kind, failure.code, again.timing.attempts) == ("server", "provider_unavailable", 0)
        assert "`503` of `up` has failed 3 times in a row" in failure.message
        assert failure.retry_after_s is not None
        assert 50 < failure.retry_after_s <= 60
        assert (name_outcome(other), name_outcome(unknown)) == ("ok", "not_found")
        assert len(upstream.requests_for("503")) == 3


async def test_a_retry_after_the_opening_is_not_made(upstream: Upstream, tmp_path: Path) -> None:
    circuit = LONG | {"failures": 2}
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": circuit}) as opened:
        (outcome,) = await opened.run("up/503")
    assert (expect_failure(outcome).code, outcome.timing.attempts) == ("provider_unavailable", 2)


async def test_one_probe_at_a_time_closes_the_circuit_when_it_is_answered(upstream: Upstream, tmp_path: Path) -> None:
    model = "up/503-times-3-then-sleep-0.1"
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": SOON}) as opened:
        await opened.run(model)
        await asyncio.sleep(0.06)
        outcomes = await opened.run(*[model] * 5)
        assert [name_outcome(outcome) for outcome in outcomes] == ["ok", *["server"] * 4]
        assert find_codes(outcomes[1:]) == ["provider_unavailable"] * 4
        assert all("is being tried again now" in expect_failure(outcome).message for outcome in outcomes[1:])
        assert [name_outcome(outcome) for outcome in await opened.run(*[model] * 5)] == ["ok"] * 5


async def test_a_probe_that_fails_opens_the_circuit_again(upstream: Upstream, tmp_path: Path) -> None:
    model = "up/503-times-4-then-ok"
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": SOON}) as opened:
        await opened.run(model)
        await asyncio.sleep(0.06)
        opened.find_limiter().configure(LimitsRow.model_validate({"circuit": LONG}))
        (probe,) = await opened.run(model)
        assert (expect_failure(probe).code, probe.timing.attempts) == ("provider_unavailable", 1)
        assert len(upstream.requests) == 4
        (circuit,) = opened.find_limiter().circuits.list_open()
    assert circuit.probe_in_s is not None
    assert circuit.probe_in_s > 50, "the next probe is as far away as the first was"


async def test_a_cancelled_probe_leaves_the_next_call_to_probe(upstream: Upstream, tmp_path: Path) -> None:
    model = "up/503-times-3-then-hang-times-1-then-ok"
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": SOON}) as opened:
        await opened.run(model)
        await asyncio.sleep(0.06)
        task = asyncio.create_task(opened.run(model))
        await upstream.wait_for_requests(4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [name_outcome(outcome) for outcome in await opened.run(model)] == ["ok"]


async def test_without_a_connection_the_whole_account_is_unavailable_and_no_other(upstream: Upstream, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    dead: dict[str, Any] = {"adapter": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "limits": {"circuit": LONG}}
    more = {"providers": {"dead": dead | {"retries": {"attempts": 3, "max_delay_s": 0.01}}}}
    async with open_observed_dispatcher(upstream.url, tmp_path, more=more, limits={"circuit": LONG}) as opened:
        await opened.run("dead/one")
        outcomes = await opened.run("dead/one", "dead/two", "up/ok")
    assert find_codes(outcomes[:2]) == ["provider_unavailable"] * 2
    assert "`dead` has failed 3 times in a row (last: connect_error)" in expect_failure(outcomes[0]).message
    assert name_outcome(outcomes[2]) == "ok"


@pytest.mark.parametrize("model", ["up/429", "up/400", "up/401", "up/501", "up/bad_json", "up/cut"])
async def test_refusals_and_answers_that_cannot_be_read_open_nothing(upstream: Upstream, tmp_path: Path, model: str) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": LONG}) as opened:
        for _ in range(2):
            await opened.stream(model)
        assert not opened.find_limiter().circuits.open


async def test_a_circuit_of_no_failures_never_opens(upstream: Upstream, tmp_path: Path) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path, limits={"circuit": {"failures": 0}}) as opened:
        for _ in range(3):
            await opened.run("up/503")
    assert len(upstream.requests) == 9


def test_failures_open_a_circuit_only_if_they_are_sustained_and_in_a_row() -> None:
    circuits = Circuits(CircuitRow(failures=3, sustained_s=10, probe_after_s=15))
    burst = [circuits.record_failure("m", "server", now) for now in (0.0, 0.1, 0.2, 9.9)]
    assert burst == [False] * 4
    assert circuits.record_failure("m", "server", 10.0)
    assert not circuits.record_failure("m", "server", 10.1), "it is open already"
    assert circuits.record_answer("m")

    assert [circuits.record_failure("m", "server", now) for now in (20.0, 30.0)] == [False, False]
    circuits.record_answer("m")
    assert not circuits.record_failure("m", "server", 31.0), "an answer came between"
    late = 31.0 + MAX_PAUSE_BETWEEN_FAILURES_S + 1
    assert [circuits.record_failure("m", "server", late + step) for step in (0.0, 9.0)] == [False, False]
    assert circuits.record_failure("m", "server", late + 10.0)


def test_names_that_callers_invent_take_bounded_memory() -> None:
    circuits = Circuits(CircuitRow(failures=1, sustained_s=0))
    for number in range(2 * MAX_CIRCUITS):
        circuits.record_failure(f"m{number}", "server", 0.0)
    assert len(circuits.failing) == len(circuits.open) == MAX_CIRCUITS


async def test_calls_that_wait_when_it_opens_are_refused_at_once_and_those_of_jobs_go_on_waiting() -> None:
    limits = Limiter("account", LimitsRow(concurrency=1, circuit=CircuitRow(failures=1, sustained_s=0, probe_after_s=0.05)))
    running = await acquire(limits)
    waiting = [asyncio.create_task(acquire(limits, model)) for model in ("m", "other")]
    of_job = asyncio.create_task(acquire(limits, "m", Priority.BATCH))
    await wait_for_waiters(limits, 3)

    assert limits.record_failure("m", "server")
    with pytest.raises(ProviderError) as caught:
        await waiting[0]
    assert caught.value.failure.code == "provider_unavailable"
    assert limits.snapshot().open_circuits == 1
    limits.release(running)
    limits.release(await waiting[1])
    opened = time.monotonic()
    probe = await of_job
    assert time.monotonic() >= opened, "granted by the timer of the probe"
    assert probe.probed
    limits.circuits.record_answer("m")
    limits.release(probe)


async def test_an_outage_uses_up_no_attempt_of_a_jobs_units(upstream: Upstream, tmp_path: Path) -> None:
    circuit = SOON | {"probe_after_s": 0.02}
    async with open_jobs(upstream.url, tmp_path, limits={"circuit": circuit, "concurrency": 2}) as kept:
        job = await kept.create(4, "up/503-times-12-then-ok")
        ended = await kept.manager.run(job.id)
        results = await kept.list_results(job)
        attempts = sorted([len(await list_attempts(kept, Unit(job.number, *row.place))) for row in results])

    assert ended.state == "done"
    assert [row.result for row in results] == ["answered"] * 4
    assert (sum(attempts), len(upstream.requests)) == (16, 16)
    assert attempts[-1] > 3, "a unit has gone on beyond its three attempts"
