"""Budget of a job: money is set aside before anything is sent."""

from __future__ import annotations

from pathlib import Path

from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Query, Target
from fanout.core.usage import Cost
from fanout.jobs.budget import Budget, max_input_tokens
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


def make_call(query: Query) -> Call:
    return Call(0, 0, 0, Target("m", "m", "up", "m"), query)


def test_an_answer_of_unknown_cost_counts_as_the_money_set_aside_for_it() -> None:
    budget = Budget(lambda _, usage: Cost((usage.output_tokens or 0) * 1.0, "test") if usage else None, limit_usd=10.0)
    call = make_call(Query(prompt="", sampling=Sampling(max_tokens=4)))
    reserved = budget.reserve(call)
    assert reserved == 4.0
    budget.settle(reserved, Completion((), None))
    assert budget.spent_usd == 4.0


def test_a_call_without_a_known_price_cannot_be_reserved_under_a_limit() -> None:
    assert Budget(lambda *_: None, limit_usd=1.0).reserve(make_call(Query(prompt="hi"))) is None
    assert Budget(lambda *_: None).reserve(make_call(Query(prompt="hi"))) == 0.0


def test_tools_count_as_input_tokens() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 1_000}}]
    assert max_input_tokens(Query(messages=(Message("user", "hi"),), passthrough={"tools": tools})) > 1_000


async def test_a_cost_limit_added_later_stops_a_job_with_a_model_of_unknown_price(upstream: Upstream, tmp_path: Path) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    async with open_jobs(upstream.url, tmp_path, more=more) as kept:
        job = await kept.create(2, "up/ok")
        await kept.manager.cancel(job.id)
        await kept.manager.resume(job.id, max_cost_usd=1.0)
        job = await kept.manager.run(job.id)

    assert (job.state, upstream.requests) == ("stopped", [])
    assert "`up/ok`" in (job.reason or "")
