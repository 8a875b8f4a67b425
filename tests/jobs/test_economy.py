"""Economy units: jobs through the vendors' own batch APIs."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fanout.config.settings import load_settings
from fanout.core.errors import LeaseLostError, RequestError
from fanout.core.json_text import JsonObject
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.jobs.economy import results
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.job import Job, JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.jobs.result_records import build_records
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import open_store
from tests.support.batch_apis import FORMATS, KEY, BatchApis, open_batch_apis
from tests.support.builders.jobs import OpenJobs

VENDORS = Path(__file__).resolve().parents[2] / ".venv-clients" / "vendors" / "bin" / "python"
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
HALF_USD = (10 * 1 + 4 * 2) / 1e6 / 2
PROMPTS = [f"q{number}" for number in range(12)]
ALL = [f"{name}/m" for name in FORMATS]


@asynccontextmanager
async def open_economy(
    apis: BatchApis,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    economy: Mapping[str, Any] | None = None,
    *,
    store: str | None = None,
    **environ: str,
) -> AsyncGenerator[OpenJobs]:
    """Open jobs whose providers are named by the formats of their batch APIs; `alone` has none."""
    providers = {name: apis.row(name, **(economy or {})) for name in formats}
    alone = {key: value for key, value in apis.row("openai").items() if key != "economy"}
    models = {
        f"{name}/{model}": {"provider": name, "id": model, "kind": "chat", "price": PRICE}
        for name in (*formats, "alone")
        for model in ("m", "refused")
    }
    path = folder / "providers.json"
    path.write_text(json.dumps({"extends": False, "providers": {**providers, "alone": alone}, "models": models}))
    settings = load_settings(path, {"HOME": str(folder), "VENDOR_KEY": KEY, **environ})
    async with open_store(store or str(folder / "jobs.db")) as opened, open_dispatcher(settings) as dispatcher:
        assert opened
        jobs = JobStore(opened.database)
        async with open_job_manager(jobs, dispatcher) as manager:
            yield OpenJobs(manager, jobs, dispatcher, opened)


async def create(kept: OpenJobs, prompts: Sequence[str], *models: str, **spec: Any) -> Job:
    rows = (InputRow(number + 1, {"prompt": prompt}) for number, prompt in enumerate(prompts))
    named = tuple({"model": model} for model in models)
    return await kept.manager.create(JobSpec(models=named, via="batch", **spec), rows)


async def wait_for_looks(apis: BatchApis, count: int) -> None:
    """Return once so many batches have been looked at."""
    async with asyncio.timeout(30):
        while sum(batch.looks > 0 for batch in apis.batches.values()) < count:
            await asyncio.sleep(0.01)


async def list_records(kept: OpenJobs, job: Job) -> list[JsonObject]:
    return list(build_records(await kept.list_results(job)))


@pytest.fixture
async def apis() -> AsyncGenerator[BatchApis]:
    async with open_batch_apis() as opened:
        yield opened


async def test_a_job_goes_through_every_vendors_batch_api_at_half_the_price(apis: BatchApis, tmp_path: Path) -> None:
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, PROMPTS, *ALL)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)
        progress = await kept.manager.read_progress(job.id)
        left = await kept.jobs.economy_batches.list_open(job.number)

    assert (job.state, len(apis.batches), apis.live, left) == ("done", len(FORMATS), [], [])
    assert {len(batch.requests) for batch in apis.batches.values()} == {len(PROMPTS)}
    assert Counter((record["provider"], record["text"]) for record in records) == Counter(
        (name, f"{prompt}!") for name in FORMATS for prompt in PROMPTS
    )
    assert {(record["via"], record["attempts"], record["prediction_time_ms"]) for record in records} == {("batch", 1, None)}
    assert {round(record["cost_usd"], 12) for record in records} == {HALF_USD}
    assert {record["cost_source"] for record in records} == {"providers.json, × 0.5 in a batch"}
    assert progress.cost_usd == pytest.approx(HALF_USD * len(records))
    assert apis.keys == {KEY}


async def test_failures_of_single_calls_are_kept_apart(apis: BatchApis, tmp_path: Path) -> None:
    """A final error ends its unit; what passes, and what the batch never came to, goes into the next batch."""
    apis.looks = 1
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, ["a", "b fail", "c overload", "d expire"], *ALL, attempts=2)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert job.state == "done"
    assert sorted(len(batch.requests) for batch in apis.batches.values()) == [2] * len(FORMATS) + [4] * len(FORMATS)
    assert KEY not in json.dumps(records)
    ends = Counter((each["prompt"], each.get("text"), each.get("error_kind"), each["attempts"]) for each in records)
    assert ends["a", "a!", None, 1] == ends["b fail", None, "bad_request", 1] == len(FORMATS)
    assert ends["c overload", None, "server", 2] == len(FORMATS)
    assert sum(each.get("error_code") == "batch_unfinished" and each["attempts"] == 2 for each in records) == len(FORMATS)


async def test_what_a_batch_does_not_take_or_finish_is_sent_at_once_if_asked(apis: BatchApis, tmp_path: Path) -> None:
    apis.looks = 1
    prompts = ["a overload", "b expire", *(f"q{number}" for number in range(10))]
    refused = [f"{name}/refused" for name in FORMATS]
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, prompts, *ALL, *refused, live_rest=True)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert job.state == "done"
    assert all(record["text"] == f"{record['prompt']}!" for record in records)
    live = Counter((record["model"], record["prompt"]) for record in records if record["via"] == "live")
    assert live == Counter([*product(ALL, prompts[:2]), *product(refused, prompts)])
    assert {round(record["cost_usd"], 12) for record in records if record["via"] == "live"} == {2 * HALF_USD}
    assert len(apis.live) == live.total()


async def test_a_refused_batch_fails_its_calls_with_the_vendors_words(apis: BatchApis, tmp_path: Path) -> None:
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, ["a", "b"], *(f"{name}/refused" for name in FORMATS))
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert (job.state, apis.live, len(records)) == ("done", [], 2 * len(FORMATS))
    assert {record.get("error_kind") for record in records} == {"bad_request"}
    assert all("not taken in batches" in record["error_message"] for record in records)


async def test_few_calls_are_sent_at_once_if_asked(apis: BatchApis, tmp_path: Path) -> None:
    async with open_economy(apis, tmp_path, ["openai"]) as kept:
        job = await create(kept, ["a", "b"], "openai/m", "alone/m", live_rest=True)
        job = await kept.manager.run(job.id)

    assert (job.state, len(apis.live), len(apis.batches)) == ("done", 4, 0)


async def test_the_next_process_takes_the_batches_where_the_last_one_left_them(apis: BatchApis, tmp_path: Path) -> None:
    apis.looks = 10**6
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, PROMPTS, *ALL)
        running = asyncio.create_task(kept.manager.run(job.id))
        await wait_for_looks(apis, len(FORMATS))
        assert (await kept.manager.read_progress(job.id)).running == len(PROMPTS) * len(FORMATS)
        kept.manager.executor.leave()
        assert (await running).state == "queued"
    apis.looks = 1
    async with open_economy(apis, tmp_path) as kept:
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert (job.state, len(apis.batches), len(records)) == ("done", len(FORMATS), len(PROMPTS) * len(FORMATS))
    assert {record["attempts"] for record in records} == {1}


@pytest.mark.parametrize("failing_lists", [0, 6])
async def test_a_batch_whose_creation_nobody_answered_is_found_by_its_mark(
    apis: BatchApis, tmp_path: Path, failing_lists: int
) -> None:
    """Also where the provider does not list its batches at once: sent again meanwhile, it would be paid twice."""
    apis.hides_creation, apis.failing_lists = True, failing_lists
    marked = ["openai", "groq", "together", "mistral"]
    async with open_economy(apis, tmp_path, marked) as kept:
        job = await create(kept, PROMPTS, *(f"{name}/m" for name in marked))
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert (job.state, len(apis.batches), len(records)) == ("done", len(marked), len(PROMPTS) * len(marked))


async def test_a_process_killed_while_it_made_a_batch_sends_nothing_twice(apis: BatchApis, tmp_path: Path) -> None:
    """The row of the batch is written, its id is not: as after `kill -9` in mid-creation."""
    apis.looks = 10**6
    async with open_economy(apis, tmp_path, ["gemini"]) as kept:
        job = await create(kept, PROMPTS, "gemini/m")
        running = asyncio.create_task(kept.manager.run(job.id))
        await wait_for_looks(apis, 1)
        (row,) = await kept.jobs.economy_batches.list_open(job.number)
        kept.manager.executor.leave()
        await running
        await kept.jobs.economy_batches.remove(row.token)
        epoch = (await kept.jobs.leases.acquire(job.number, "gone")) or 0
        await kept.jobs.economy_batches.add(row._replace(vendor_id=None), epoch)
        await kept.jobs.update(job.number, {"owner": None})
        with pytest.raises(LeaseLostError):
            await kept.jobs.economy_batches.add(row, epoch - 1)
    apis.looks = 1
    async with open_economy(apis, tmp_path, ["gemini"]) as kept:
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert (job.state, len(apis.batches), len(records)) == ("done", 1, len(PROMPTS))


async def test_a_cancelled_job_cancels_its_batches_and_keeps_what_had_been_answered(apis: BatchApis, tmp_path: Path) -> None:
    apis.looks = 10**6
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, PROMPTS, *ALL)
        running = asyncio.create_task(kept.manager.run(job.id))
        await wait_for_looks(apis, len(FORMATS))
        await kept.manager.cancel(job.id)
        job = await running
        records = await list_records(kept, job)
        assert (job.state, len(records)) == ("cancelled", len(PROMPTS) // 2 * len(FORMATS))
        assert all(batch.is_cancelled for batch in apis.batches.values())

        apis.looks = 1
        await kept.manager.resume(job.id)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)
    assert (job.state, len(records)) == ("done", len(PROMPTS) * len(FORMATS))
    assert Counter(len(batch.requests) for batch in apis.batches.values()) == {len(PROMPTS): 6, len(PROMPTS) // 2: 6}


async def test_a_batch_holds_no_more_than_the_job_may_cost(apis: BatchApis, tmp_path: Path) -> None:
    """Money is set aside at the batch's price; what an answer did not use pays for the next batch."""
    apis.looks = 1
    limit_usd = 60e-6
    async with open_economy(apis, tmp_path, ["openai"]) as kept:
        job = await create(kept, PROMPTS, "openai/m", max_cost_usd=limit_usd, parameters={"max_tokens": 10})
        job = await kept.manager.run(job.id)
        progress = await kept.manager.read_progress(job.id)

    assert job.state == "stopped"
    assert job.reason is not None
    assert "could exceed the limit" in job.reason
    assert limit_usd / 2 < (progress.cost_usd or 0) <= limit_usd
    assert len(apis.batches) > 1


async def test_money_set_aside_for_a_batch_stays_so_in_the_next_process(apis: BatchApis, tmp_path: Path, location: str) -> None:
    apis.looks = 10**6
    limit_usd = 60e-6
    async with open_economy(apis, tmp_path, ["openai"], store=location) as kept:
        job = await create(kept, PROMPTS, "openai/m", max_cost_usd=limit_usd, parameters={"max_tokens": 10})
        running = asyncio.create_task(kept.manager.run(job.id))
        await wait_for_looks(apis, 1)
        kept.manager.executor.leave()
        await running
    (batch,) = apis.batches.values()
    async with open_economy(apis, tmp_path, ["openai"], store=location) as kept:
        running = asyncio.create_task(kept.manager.run(job.id))
        looks = batch.looks
        async with asyncio.timeout(30):
            while batch.looks < looks + 3:
                await asyncio.sleep(0.01)
        assert len(apis.batches) == 1
        apis.looks = 1
        job = await running
        progress = await kept.manager.read_progress(job.id)

    assert job.state == "stopped"
    assert limit_usd / 2 < (progress.cost_usd or 0) <= limit_usd


async def test_a_large_job_goes_in_several_batches(apis: BatchApis, tmp_path: Path) -> None:
    apis.looks = 1
    async with open_economy(apis, tmp_path, ["openai", "anthropic"], {"max_requests": 20, "max_bytes": 1_024}) as kept:
        job = await create(kept, PROMPTS, "openai/m", "anthropic/m", repeats=3)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    sizes = [len(batch.requests) for batch in apis.batches.values()]
    assert (job.state, len(records), sum(sizes)) == ("done", 6 * len(PROMPTS), 6 * len(PROMPTS))
    assert max(sizes) < 20


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"models": ("alone/m",)}, "via", "no batch API of `alone` is known (of these it is: `openai`)"),
        ({"stream": True}, "stream", "come whole"),
        ({"until_decided": {"metric": "x"}}, "until_decided", "charged, before its first answer is seen"),
        ({"via": "live", "live_rest": True}, "live_rest", "is for jobs whose `via` is `batch`"),
    ],
)
async def test_what_contradicts_a_batch_is_refused_before_anything_is_sent(
    apis: BatchApis, tmp_path: Path, spec: dict[str, Any], path: str, words: str
) -> None:
    async with open_economy(apis, tmp_path, ["openai"]) as kept:
        models = tuple({"model": model} for model in spec.pop("models", ("openai/m",)))
        with pytest.raises(RequestError) as caught:
            await kept.manager.create(JobSpec(models=models, **{"via": "batch", **spec}), iter([InputRow(1, {"prompt": "q"})]))

    assert caught.value.faults[0].path == path
    assert words in caught.value.faults[0].message
    assert (apis.batches, apis.live) == ({}, [])


@pytest.mark.parametrize("given", ["..", "../../elsewhere", "a/b", "a?b=c", "", "x" * 300, "a\nb", f"b-{KEY}"])
async def test_an_id_that_leads_elsewhere_or_holds_a_key_is_none(
    apis: BatchApis, tmp_path: Path, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    apis.ids = given
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, ["q"], *ALL, attempts=1)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)

    assert job.state == "done"
    assert {record["error_code"] for record in records} == {"unexpected_shape"}
    assert not any(path.endswith(("elsewhere", "b", "content", "/results", "/")) for path in apis.paths)
    assert KEY not in json.dumps(records) + caplog.text


async def test_a_file_of_results_without_an_end_fails_the_calls_of_its_batch(
    apis: BatchApis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MAX_UNREADABLE", 2)
    apis.looks, apis.is_endless = 1, True
    async with open_economy(apis, tmp_path, ["openai"], {"max_requests": 20}) as kept:
        job = await create(kept, ["q"], "openai/m", attempts=1)
        job = await kept.manager.run(job.id)
        records = await list_records(kept, job)
        left = await kept.jobs.economy_batches.list_open(job.number)

    assert (job.state, left) == ("done", [])
    assert [(record["error_kind"], record["error_code"]) for record in records] == [("malformed", "answer_too_large")]
    assert sum(path.endswith("/content") for path in apis.paths) == 2


async def test_no_call_passes_by_the_hooks_in_a_batch(apis: BatchApis, tmp_path: Path) -> None:
    """Neither where hooks are set before the job is made, nor where they are set after."""
    hooks = "tests.support.hooks.redacting"
    async with open_economy(apis, tmp_path, ["openai"]) as kept:
        job = await create(kept, ["Ada"], "openai/m")
        resting = await create(kept, ["Ada"] * 11, "openai/m", live_rest=True)
    async with open_economy(apis, tmp_path, ["openai"], FANOUT_HOOKS=hooks) as kept:
        with pytest.raises(RequestError, match="passes no hook"):
            await create(kept, ["Ada"], "openai/m")
        with pytest.raises(RequestError, match="passes no hook"):
            await kept.manager.run(job.id)
        await kept.manager.run(resting.id)

    assert apis.batches == {}
    assert len(apis.live) == 11
    assert "Ada" not in json.dumps(apis.live)


async def test_an_estimate_has_the_batchs_price(apis: BatchApis, tmp_path: Path) -> None:
    async with open_economy(apis, tmp_path, ["openai"]) as kept:
        rows = [InputRow(1, {"prompt": "q"})]
        models = ({"model": "openai/m"},)
        live = await kept.manager.estimate(JobSpec(models=models), iter(rows))
        batch = await kept.manager.estimate(JobSpec(models=models, via="batch"), iter(rows))

    assert live.cost_usd
    assert batch.cost_usd == pytest.approx(live.cost_usd / 2)


async def test_the_vendors_own_types_read_what_the_test_server_sends(apis: BatchApis, tmp_path: Path) -> None:
    """The server plays each API as its vendor's client reads it, or these tests would prove nothing."""
    if not VENDORS.exists():
        pytest.skip("scripts/clients installs the vendors' types")
    async with open_economy(apis, tmp_path) as kept:
        job = await create(kept, PROMPTS, *ALL)
        await kept.manager.run(job.id)
    answers = {name: [body for vendor, body in apis.bodies if vendor == name] for name in FORMATS}
    assert all(answers.values())
    child = await asyncio.create_subprocess_exec(VENDORS, "-c", READ_WITH_VENDORS_TYPES, stdin=PIPE, stdout=PIPE)
    out, _ = await child.communicate(json.dumps(answers).encode())
    assert json.loads(out) == {name: len(found) for name, found in answers.items()}


READ_WITH_VENDORS_TYPES = """
import json, sys
from anthropic.types.messages import MessageBatch
from google.genai.batches import _BatchJob_from_mldev
from google.genai.types import BatchJob as GeminiBatch
from groq.types import BatchRetrieveResponse
from mistralai.client.models import BatchJob as MistralBatch
from openai.types import Batch
from together.types import BatchJob as TogetherBatch

read = {
    "openai": Batch.model_validate,
    "groq": BatchRetrieveResponse.model_validate,
    "together": lambda body: TogetherBatch.model_validate(body.get("job", body)),
    "mistral": MistralBatch.model_validate,
    "anthropic": MessageBatch.model_validate,
    "gemini": lambda body: GeminiBatch.model_validate(_BatchJob_from_mldev(body)),
}
answers = json.load(sys.stdin)
found = {}
for name, bodies in answers.items():
    for body in bodies:
        batch = read[name](body)
        assert batch.id if name != "gemini" else batch.name and batch.state
    found[name] = len(bodies)
print(json.dumps(found))
"""
