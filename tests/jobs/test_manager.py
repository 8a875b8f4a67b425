"""A job from its making to its end: every unit once, failures beside answers, what went wrong tried again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from fanout.core.errors import LeaseLostError, RequestError
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import JobSpec, ResultGroup
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.jobs.worker import JobWorker
from fanout.store.jobs.records import ResultFilter, Unit
from tests.support.builders.jobs import list_attempts, make_rows, open_jobs
from tests.support.databases import OutsideConnection, query
from tests.support.upstream.server import Upstream


def count_requests(upstream: Upstream) -> Counter[tuple[str, str]]:
    """Return how often each model was sent each prompt."""
    return Counter((request.model, request.body["messages"][0]["content"]) for request in upstream.requests)


async def test_every_row_is_sent_to_every_model_as_often_as_requested(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(5, "up/ok", {"model": "up/say-yes", "label": "agreeable", "max_tokens": 3}, repeats=2)
        assert (job.state, job.items, job.units) == ("queued", 5, 20)

        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)
        progress = await kept.manager.read_progress(job.id)

    assert (job.state, job.reason) == ("done", None)
    assert set(count_requests(upstream).values()) == {2}
    assert [tuple(row[:3]) for row in found] == [
        (item, entry, sample) for item in range(5) for entry in (0, 1) for sample in (0, 1)
    ]
    assert {row.model for row in found} == {"up/ok", "agreeable"}
    records = [StoredOutcome.from_json(row.record) for row in found]
    assert {record.completion and record.completion.choices[0].message.text for record in records} == {"This is ok.", "yes"}
    totals = progress.counts[ResultGroup("agreeable", "answered")]
    assert (totals.calls, totals.attempts, totals.input_tokens, totals.output_tokens) == (10, 10, 100, 40)
    assert (progress.ended, progress.remaining, progress.answered) == (20, 0, 20)


async def test_failures_are_kept_beside_answers_and_transient_ones_are_retried(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(4, "up/400", "up/fail-2-then-ok", "up/500")
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)
        failed = await kept.jobs.results.list_results(job.number, filter_=ResultFilter(failed=True))
        tries = await list_attempts(kept, Unit(job.number, 0, 2, 0))
        progress = await kept.manager.read_progress(job.id)

    ends = Counter((row.model, row.result) for row in found)
    assert ends == {("up/400", "bad_request"): 4, ("up/fail-2-then-ok", "answered"): 4, ("up/500", "server"): 4}
    assert {row.result for row in failed} == {"bad_request", "server"}
    assert tries == [(1, "server"), (2, "server"), (3, "server")]
    assert len(upstream.requests_for("500")) == 12
    assert len(upstream.requests_for("400")) == 4
    assert progress.counts[ResultGroup("up/500", "server")].attempts == 12


async def test_a_rate_limit_with_a_wait_is_not_counted_as_a_failure(upstream: Upstream, tmp_path: Path, location: str) -> None:
    """Refused four times for its rate, where three tries are allowed: put back with its time, it holds no place meanwhile."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(1, "up/429-times-4-s-0.05-then-ok", "up/ok")
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)

    assert job.state == "done"
    assert {row.result for row in found} == {"answered"}


@pytest.mark.parametrize(
    ("row", "path", "what"),
    [
        (InputRow(2, {"promt": "hi"}), "line 2: promt", "did you mean `prompt`"),
        (InputRow(7, {"prompt": "hi", "temperature": 9}), "line 7: temperature", "9 is not allowed"),
        (BadRow(3, "is not JSON"), "line 3", "is not JSON"),
    ],
)
async def test_a_bad_row_is_reported_with_its_line_and_nothing_is_sent(
    upstream: Upstream, tmp_path: Path, location: str, row: InputRow | BadRow, path: str, what: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        spec = (await kept.create(1, "up/ok")).spec
        with pytest.raises(RequestError) as caught:
            await kept.manager.create(spec, [*make_rows(1), row, *make_rows(600)])
        left = await kept.manager.list_jobs(limit=10)

    assert next(fault.path for fault in caught.value.faults).startswith(path)
    assert what in str(caught.value)
    assert len(left) == 1
    assert upstream.requests == []


async def test_a_repeated_custom_id_is_reported(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        spec = (await kept.create(1, "up/ok")).spec
        twice = [InputRow(line, {"prompt": "hi", "custom_id": name}) for line, name in enumerate(("a", "b", "a"), 1)]
        with pytest.raises(RequestError, match="line 3: custom_id: `a` occurs more than once in the input"):
            await kept.manager.create(spec, twice)


@pytest.mark.parametrize(("model", "what"), [("up/", "models"), ("nothing-like-it", "nothing-like-it")])
async def test_a_model_that_cannot_be_called_is_reported_before_the_input_is_read(
    upstream: Upstream, tmp_path: Path, location: str, model: str, what: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        with pytest.raises(RequestError, match=what):
            await kept.create(3, model)


async def test_a_stopped_job_can_be_resumed_without_sending_a_unit_twice(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(40, "up/sleep-0.02")

        async def stop_after_first(worker: JobWorker) -> None:
            while not worker.progress.ended:
                await asyncio.sleep(0.001)
            worker.stop("stopped", "enough")

        stops: list[asyncio.Task[None]] = []
        job = await kept.manager.run(job.id, lambda worker: stops.append(asyncio.create_task(stop_after_first(worker))))
        done = len(await kept.list_results(job))
        assert (job.state, job.reason) == ("stopped", "enough")
        assert 0 < done < 40
        with pytest.raises(RequestError, match="stopped"):
            await kept.manager.run(job.id)

        await kept.manager.resume(job.id)
        job = await kept.manager.run(job.id)

    assert job.state == "done"
    assert set(count_requests(upstream).values()) == {1}
    assert len(upstream.requests) == 40


async def test_retry_sends_again_only_failures_of_the_given_kinds(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(1, "up/fail-3-then-ok", "up/400", "up/ok")
        job = await kept.manager.run(job.id)
        before = (await kept.manager.read_progress(job.id)).counts

        await kept.manager.retry(job.id, ["server"])
        job = await kept.manager.run(job.id)
        after = (await kept.manager.read_progress(job.id)).counts
        tries = await list_attempts(kept, Unit(job.number, 0, 0, 0))

    assert {group: totals.calls for group, totals in before.items()} == {
        ResultGroup("up/fail-3-then-ok", "server"): 1,
        ResultGroup("up/400", "bad_request"): 1,
        ResultGroup("up/ok", "answered"): 1,
    }
    assert ResultGroup("up/fail-3-then-ok", "server") not in after
    assert after[ResultGroup("up/fail-3-then-ok", "answered")].calls == 1
    assert tries == [(1, "server"), (2, "server"), (3, "server"), (4, None)]
    assert (len(upstream.requests_for("400")), len(upstream.requests_for("ok"))) == (1, 1)


async def test_a_job_whose_models_have_changed_is_not_resumed_unless_forked(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(3, "up/ok")
    async with open_jobs(f"{upstream.origin}/other/v1", tmp_path, store=location) as kept:
        with pytest.raises(RequestError, match=r"0: up/ok.base_url: was `.*`, is `.*other/v1`"):
            await kept.manager.run(job.id)
        assert upstream.requests == []

        forked = await kept.manager.resume(job.id, fork=True)
        done = await kept.manager.run(forked.id)

    assert (done.state, done.forked_from, done.units) == ("done", job.id, 3)
    assert {request.path for request in upstream.requests} == {"/other/v1/chat/completions"}


async def test_two_processes_never_run_the_same_job_at_once(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with (
        open_jobs(upstream.url, tmp_path, store=location) as kept,
        open_jobs(upstream.url, tmp_path, store=location, owner="elsewhere|another machine|1|1") as other,
    ):
        job = await kept.create(20, "up/sleep-0.05")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(1)
        with pytest.raises(LeaseLostError):
            await other.manager.run(job.id)
        assert (await running).state == "done"

    assert len(upstream.requests) == 20


async def test_a_process_that_lost_the_lease_writes_nothing_more(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(50, "up/sleep-0.02")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(10)
        await kept.jobs.update(job.number, {"lease_until": 0.0})
        assert await kept.jobs.leases.acquire(job.number, "elsewhere|another machine|1|1") is not None
        with pytest.raises(LeaseLostError):
            await running
        written = len(await kept.list_results(job))
        await asyncio.sleep(0.1)

        assert len(await kept.list_results(job)) == written < 50


async def test_a_job_never_costs_more_than_its_limit(upstream: Upstream, tmp_path: Path, location: str) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    async with open_jobs(upstream.url, tmp_path, store=location, more=more) as kept:
        each = (10 * 1.0 + 4 * 10.0) / 1e6
        job = await kept.create(100, "dear", parameters={"max_tokens": 4}, max_cost_usd=20.5 * each)
        job = await kept.manager.run(job.id)
        progress = await kept.manager.read_progress(job.id)
        assert job.state == "stopped"
        assert "USD" in (job.reason or "")
        assert 15 * each < (progress.cost_usd or 0) <= 20.5 * each

        await kept.manager.resume(job.id, max_cost_usd=1.0)
        assert (await kept.manager.run(job.id)).state == "done"

    assert len(upstream.requests) == 100


async def test_a_cost_limit_requires_known_prices(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        with pytest.raises(RequestError, match="max_cost_usd: cannot be enforced: the price of `up/ok` is unknown"):
            await kept.create(1, "up/ok", max_cost_usd=1.0)


async def test_a_job_expires_at_its_deadline_and_continues_with_a_later_one(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(200, "up/sleep-0.25", deadline=time.time() + 3.0, concurrency=4)
        job = await kept.manager.run(job.id)
        assert job.state == "expired"
        assert 0 < len(await kept.list_results(job)) < 200

        await kept.manager.resume(job.id, concurrency=64)
        job = await kept.manager.run(job.id)

    assert job.state == "done"
    assert len(upstream.requests) == 200


async def test_an_account_without_credit_stops_only_its_own_models(upstream: Upstream, tmp_path: Path, location: str) -> None:
    """Thousands of calls that must fail are not made; their units stay open for a resume."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(100, "up/429-code-insufficient_quota")
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)

    assert job.state == "stopped"
    assert found == []
    assert len(upstream.requests) < 20


async def test_an_earlier_answer_is_reused_only_if_the_job_allows_it(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        first = await kept.manager.run((await kept.create(3, "up/ok", repeats=2, cache=True)).id)
        again = await kept.manager.run((await kept.create(4, "up/ok", repeats=2, cache=True)).id)
        fresh = await kept.manager.run((await kept.create(3, "up/ok", repeats=2)).id)
        served = Counter(row.cached_from for row in await kept.list_results(again))
        assert {row.cached_from for row in await kept.list_results(fresh)} == {None}
        assert {row.attempt for row in await kept.list_results(again) if row.cached_from} == {0}

    assert served == {first.id: 6, None: 2}
    assert count_requests(upstream) == {("ok", "q0"): 4, ("ok", "q1"): 4, ("ok", "q2"): 4, ("ok", "q3"): 2}


async def test_an_impossible_figure_of_a_stored_answer_counts_as_not_reported(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    """An earlier version bounded figures where they were summed, not where they were stored."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        await kept.manager.run((await kept.create(2, "up/ok", cache=True)).id)
        figure = '"input_tokens":'
        with OutsideConnection(location) as other:
            # Off the event loop, on which a transaction of the manager's may have to end first.
            change = f"UPDATE units SET record = replace(record, '{figure}', '{figure}{10**20}')"
            await asyncio.to_thread(other.execute, change)
        async with asyncio.timeout(10):
            again = await kept.manager.run((await kept.create(2, "up/ok", cache=True)).id)
        reused = [row for row in await kept.list_results(again) if row.cached_from]

    assert (again.state, len(reused)) == ("done", 2)
    assert query(location, "SELECT input_tokens FROM units WHERE cached_from IS NOT NULL") == [(None,), (None,)]


async def test_items_with_different_answers_can_be_listed(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        job = await kept.create(2, "up/say-yes", "up/say-yes-then-say-no")
        job = await kept.manager.run(job.id)
        found = await kept.jobs.results.list_results(job.number, filter_=ResultFilter(different=True))

    assert len({row.item for row in found}) == 1
    assert {json.loads(row.record)["completion"]["choices"][0]["message"]["text"] for row in found} == {"yes", "no"}


async def test_an_estimate_sends_nothing(upstream: Upstream, tmp_path: Path, location: str) -> None:
    limits = {"requests_per_minute": 60}
    async with open_jobs(upstream.url, tmp_path, store=location, limits=limits) as kept:
        spec = (await kept.create(1, "up/ok", repeats=3, parameters={"max_tokens": 7})).spec
        found = await kept.manager.estimate(spec, make_rows(100))

    assert (found.items, found.calls) == (100, 300)
    assert found.models["up/ok"].output_tokens == 2100
    assert found.cost_usd is None
    assert found.min_duration_s(kept.dispatcher.settings.providers) == 240
    assert upstream.requests == []


async def test_a_long_custom_id_comes_back_unchanged(upstream: Upstream, tmp_path: Path) -> None:
    ids = ["問" * 400 + "1", "問" * 400 + "2"]
    async with open_jobs(upstream.url, tmp_path) as kept:
        given = [InputRow(line, {"prompt": "hi", "custom_id": name}) for line, name in enumerate(ids, 1)]
        job = await kept.manager.create(JobSpec(models=({"model": "up/ok"},)), given)
        job = await kept.manager.run(job.id)
        assert [row.custom_id for row in await kept.list_results(job)] == ids


async def test_a_row_is_refused_for_its_own_parameters_among_rows_that_are_not(upstream: Upstream, tmp_path: Path) -> None:
    """Rows that differ in their text alone are planned once; this one differs in more."""
    rows: list[dict[str, object]] = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "top_k": 5}, {"prompt": "d"}]
    spec = JobSpec(models=({"model": "up/ok"},), strict=True)
    async with open_jobs(upstream.url, tmp_path) as kept:
        with pytest.raises(RequestError) as refused:
            await kept.manager.create(spec, (InputRow(number, row) for number, row in enumerate(rows, 1)))

    assert [(fault.path, "`top_k`" in fault.message) for fault in refused.value.faults] == [("line 3: top_k", True)]


async def test_a_cancelled_job_is_resumed_also_while_its_end_is_being_written(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        created = await kept.create(1, "up/ok")
        await kept.jobs.update(created.number, {"state": "cancelling"})
        left = await kept.manager.find_job(created.id)
        assert left.as_left.state == "cancelled", "as everybody sees it"
        # Whoever ran it writes its end between the look of `resume` and its write.
        await kept.jobs.update(created.number, {"state": "cancelled"})
        await kept.manager._queue(left, left.spec)
        assert (await kept.manager.find_job(created.id)).state == "queued"
        with pytest.raises(RequestError, match="another process has it"):
            await kept.manager._queue(left, left.spec)


async def test_failed_units_of_a_cancelled_job_are_retried_also_before_its_end_is_written(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    """Its process was killed before it wrote the end that everybody sees."""
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        created = await kept.create(1, "up/400")
        await kept.manager.run(created.id)
        await kept.jobs.update(created.number, {"state": "cancelling"})
        assert (await kept.manager.retry(created.id)).state == "queued"
        assert (await kept.manager.read_progress(created.id)).ended == 0
        # One that its process left in the midst of its work is resumed first, as ever.
        await kept.jobs.update(created.number, {"state": "running"})
        with pytest.raises(RequestError, match="is unfinished; resume or cancel it first"):
            await kept.manager.retry(created.id)
