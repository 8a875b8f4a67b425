"""Fusions in jobs: units like any other, which are sent when those of their members have ended."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fanout.jobs.account_slots import AccountSlots
from fanout.jobs.fusion_gate import MAX_FUSIONS, FusionGate
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import JobSpec
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.result_records import build_records
from fanout.store.jobs.records import Unit
from tests.support.builders.jobs import make_rows, open_jobs
from tests.support.builders.plans import plan_calls
from tests.support.upstream.server import Upstream

PRICE = {"input_usd_per_mtok": 100_000, "output_usd_per_mtok": 0}
MORE: dict[str, dict[str, Any]] = {
    "models": {
        "a": {"provider": "up", "id": "say-apple", "kind": "chat", "price": PRICE},
        "b": {"provider": "up", "id": "say-banana", "kind": "chat", "price": PRICE},
        "c": {"provider": "up", "id": "echo", "kind": "chat", "price": PRICE},
    },
}


def read_question(record: Any) -> str:
    return str(json.loads(record["text"])["messages"][-1]["content"])


async def test_every_row_has_the_fused_answer_and_those_of_its_members(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(20, "fusion(a, b by c)", "c", repeats=2)
        job = await kept.manager.run(job.id)
        records = list(build_records(await kept.list_results(job)))

    assert (job.state, job.units, len(records)) == ("done", 160, 160)
    assert Counter(record["label"] for record in records) == dict.fromkeys(("fusion(a, b by c)", "c", "a", "b"), 40)
    fused = [record for record in records if record["entry"] == 0]
    assert all("apple" in read_question(record) and "banana" in read_question(record) for record in fused)
    assert read_question(fused[0]).startswith("q0\n")
    assert fused[0]["cost_usd"] == pytest.approx(1)
    assert fused[0]["fusion"] == {
        "of": [2, 3],
        "members": [
            {"entry": 2, "index": None, "label": "a", "left_out": None},
            {"entry": 3, "index": None, "label": "b", "left_out": None},
        ],
        "prompt": "1",
        "cost_usd": pytest.approx(3),
        "cost_unknown": 0,
    }
    assert "fusion" not in records[2]
    assert len(upstream.requests) == 160


async def test_failed_members_are_left_out_and_a_fusion_of_none_is_not_sent(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(3, "fusion(a, up/400 by c)", "fusion(up/400*2 by up/ok)")
        job = await kept.manager.run(job.id)
        records = list(build_records(await kept.list_results(job)))

    assert job.state == "done"
    some = [record for record in records if record["entry"] == 0]
    assert all("1 models" in read_question(record) for record in some)
    assert [member["left_out"] is None for member in some[0]["fusion"]["members"]] == [True, False]
    assert {record["error_code"] for record in records if record["entry"] == 1} == {"no_member_answered"}
    assert not upstream.requests_for("ok")


async def test_a_job_that_was_cut_off_asks_only_for_what_is_missing(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(30, "fusion(a, b by c)", concurrency=3)

        def stop_soon(worker: Any) -> None:
            put = worker._journal.record_end

            async def record_end(unit: PendingUnit, *given: Any, **named: Any) -> None:
                await put(unit, *given, **named)
                if unit.unit.entry == 0:  # some fusions have ended, some members of others
                    worker.stop("cancelled", "enough")

            worker._journal.record_end = record_end

        job = await kept.manager.run(job.id, stop_soon)
        before = {(row.item, row.entry): row.record for row in await kept.list_results(job)}
        await kept.manager.resume(job.id)
        job = await kept.manager.run(job.id)
        after = {(row.item, row.entry): row.record for row in await kept.list_results(job)}

    assert job.state == "done"
    assert 0 < len(before) < 90
    assert len(after) == 90
    assert before.items() <= after.items()
    assert len(upstream.requests) == 90


async def test_a_fusion_stays_open_until_its_member_can_be_called(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(5, "fusion(a, up/401-then-ok by c)", concurrency=1)
        job = await kept.manager.run(job.id)
        assert job.state == "stopped"
        assert not upstream.requests_for("echo")

        await kept.manager.resume(job.id)
        job = await kept.manager.run(job.id)

    assert job.state == "done"
    assert len(upstream.requests_for("echo")) == 5


async def test_the_money_for_a_fusion_is_set_aside_with_its_members_answers(upstream: Upstream, tmp_path: Path) -> None:
    """The question alone is small; with two members' answers it costs more than what is left."""
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(1, "fusion(a, b by c)", max_cost_usd=50.0, parameters={"max_tokens": 4})
        job = await kept.manager.run(job.id)

    assert job.state == "stopped"
    assert "exceed the limit" in str(job.reason)
    assert {request.model for request in upstream.requests} == {"say-apple", "say-banana"}


async def test_an_estimate_counts_members_and_what_the_fusion_reads_of_them(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        spec = JobSpec(models=({"model": "fusion(a, b by c)"},), parameters={"max_tokens": 1_000})
        estimate = await kept.manager.estimate(spec, make_rows(10))

    assert estimate.calls == 30
    assert estimate.models["fusion(a, b by c)"].input_tokens > 10 * 2_000
    assert estimate.models["a"].input_tokens < 1_000


async def test_equal_answers_make_an_equal_question_that_a_cache_finds(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        for _ in range(2):
            job = await kept.create(3, "fusion(a, b by c)", cache=True)
            await kept.manager.run(job.id)
        records = list(build_records(await kept.list_results(job)))

    assert len(upstream.requests) == 9
    assert {record["cost_usd"] for record in records} == {0.0}
    assert all("apple" in record["text"] for record in records if record["entry"] == 0)


async def test_an_entry_may_have_a_label_and_members_with_parameters(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        models = ({"fusion": {"of": ["a", {"model": "b", "temperature": 1}], "by": "c"}, "label": "mix"},)
        job = await kept.manager.create(JobSpec(models=models), [InputRow(1, {"prompt": "q"})])
        job = await kept.manager.run(job.id)
        records = list(build_records(await kept.list_results(job)))

    assert [record["label"] for record in records] == ["mix", "a", "b"]
    assert job.fingerprint["0: mix"]["fusion"] == {"of": [1, 2], "prompt": "1"}


async def test_a_job_adds_the_fusions_of_members_with_themselves_once_each(upstream: Upstream, tmp_path: Path) -> None:
    more = {**MORE, "sets": {"fruit": ["a", "b"]}}
    given = ({"fusion": {"of": ["fruit"], "by": "c"}, "label": "mix"}, {"model": "fusion(a*2 by c)"})
    async with open_jobs(upstream.url, tmp_path, more=more) as kept:
        job = await kept.create(2, *given, self_fusions=True)
        job = await kept.manager.run(job.id)

    assert job.state == "done"
    assert job.labels == ["mix", "fusion(a*2 by c)", "fusion(b*2 by c)", "a", "b", "a", "b"]


async def test_a_lost_member_is_asked_on_for_a_fusion_that_goes_on(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, more=MORE) as kept:
        job = await kept.create(30, "fusion(a, b by c)", "up/ok")

        def drop_all_but_the_fusion(worker: Any) -> None:
            for entry in (1, 2, 3):
                worker._scheduler.drop_entry(entry)

        job = await kept.manager.run(job.id, drop_all_but_the_fusion)
        records = list(build_records(await kept.list_results(job)))

    assert Counter(record["entry"] for record in records) == {0: 30, 2: 30, 3: 30}


def test_a_gate_is_full_until_fusions_end_or_their_queue_closes() -> None:
    gate, queue = FusionGate(), ModelQueue(AccountSlots(1))
    (call, *_) = plan_calls("fusion(chat, both by text)")
    for item in range(MAX_FUSIONS):
        gate.hold(PendingUnit(Unit(1, item, 0, 0), call, 1), queue, {(item, 1, 0): queue})
    assert gate.is_full
    assert queue.waiting == MAX_FUSIONS

    assert gate.record_end(Unit(1, 7, 1, 0)) == [((7, 0, 0), queue)]
    assert gate.is_full  # it is to be sent yet
    assert gate.record_end(Unit(1, 7, 0, 0)) == []
    assert not gate.is_full

    queue.useless_because = "gone"
    assert len(gate.drop_closed()) == MAX_FUSIONS - 1
    assert queue.waiting == 1  # for the one that `record_end` has returned
