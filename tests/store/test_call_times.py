"""Times of calls: a scale that is exact to 7 %, and sums of it that neither a restart nor another process changes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.schema import Call, Completion, Failure, Outcome, Query, Retry, Target, Timing
from fanout.store.call_times import DAYS, LAST_STEP, ROWS_EACH, STEP_RATIO, TimeKey, find_quantile, find_step
from fanout.store.engine.sums import MAX_ROWS, REST
from fanout.store.opening import open_store
from fanout.store.usage import UsageFilter

DAY_S = 86_400
ALL = UsageFilter(0, 10**10, period_s=300)


def make_call(provider: str | None = "up", account: str | None = "own") -> Call:
    return Call(0, 0, 0, Target("x", "x", provider, "m"), Query(prompt="x"), account_id=account)


def make_outcome(call_s: float, provider: str | None = "up", account: str | None = "own", attempts: int = 1) -> Outcome:
    timing = Timing(queued_s=2 * call_s, first_token_s=call_s / 2, call_s=call_s, attempts=attempts)
    return Outcome(make_call(provider, account), Completion(()), timing)


@given(st.floats(0.001, STEP_RATIO ** (LAST_STEP - 1) / 1e3))
def test_a_duration_is_found_again_to_seven_percent(seconds: float) -> None:
    assert find_quantile({find_step(seconds): 1}, 0.5) == pytest.approx(seconds, rel=0.075)


def test_quantiles_are_of_the_calls_and_unknown_without_any() -> None:
    steps = {find_step(0.1): 94, find_step(2.0): 6}
    assert find_quantile(steps, 0.5) == pytest.approx(0.1, rel=0.075)
    assert find_quantile(steps, 0.94) == pytest.approx(0.1, rel=0.075)
    assert find_quantile(steps, 0.95) == pytest.approx(2.0, rel=0.075)
    assert find_quantile({}, 0.5) is None
    assert find_quantile({find_step(0.0004): 3}, 0.95) == 0.0
    assert find_step(1e9) == LAST_STEP


async def test_every_call_is_summed_once_whether_written_or_not_and_across_restarts(location: str) -> None:
    for _ in range(2):
        async with open_store(location) as store:
            assert store
            for call_s in (0.1, 0.1, 3.0):
                store.observe(make_outcome(call_s))
            store.observe(make_outcome(0.1, account="other"))
            store.observe(Retry(make_call(), Failure("rate_limit", "slow down"), 1, 0.5))
            store.observe(Retry(make_call(), Failure("server", "failed"), 1, 0.5))
            store.observe(Outcome(make_call(), Failure("timeout", "late"), Timing(queued_s=0.2, attempts=1)))
            # Neither was sent: they say nothing about a provider.
            store.observe(make_outcome(9.0, attempts=0))
            store.observe(make_outcome(9.0, provider=None))
    async with open_store(location) as store:
        assert store
        store.observe(make_outcome(0.1))
        found = await store.times.report(UsageFilter(0, 10**10, "own", period_s=10**10))
        everyone = await store.times.report(UsageFilter(0, 10**10, period_s=10**10))
        nobody = await store.times.report(UsageFilter(0, 10**10, "", period_s=10**10))
        elsewhere = await store.times.report(UsageFilter(0, 10**10, period_s=10**10), "down")
    assert found == {
        ("up", 0): {
            "answer": {find_step(0.1): 5, find_step(3.0): 2},
            "first_token": {find_step(0.05): 5, find_step(1.5): 2},
            "wait": {find_step(0.2): 7, find_step(6.0): 2},
            "rate_limit": {0: 2},
        }
    }
    assert everyone["up", 0]["answer"] == {find_step(0.1): 7, find_step(3.0): 2}
    assert nobody == elsewhere == {}


async def test_invented_accounts_do_not_fill_the_memory(location: str) -> None:
    async with open_store(location) as store:
        assert store
        most = MAX_ROWS // ROWS_EACH
        for number in range(most + 50):
            store.observe(Retry(make_call(account=f"a{number}"), Failure("rate_limit", "slow down"), 1, 0.5))
        pooled = await store.times.report(UsageFilter(0, 10**10, REST, period_s=10**10))
        whole = await store.times.report(UsageFilter(0, 10**10, period_s=10**10))
    assert (pooled["up", 0]["rate_limit"], whole["up", 0]["rate_limit"]) == ({0: 50}, {0: most + 50})


async def test_old_times_are_deleted_though_usage_is_kept_for_ever(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    async with open_store(location, usage_days=0) as store:
        assert store
        monkeypatch.setattr(time, "time", lambda: real() - (DAYS + 1) * DAY_S)
        store.observe(make_outcome(0.1))
        monkeypatch.setattr(time, "time", real)
    async with open_store(location, usage_days=0) as store:
        assert store
        store.observe(make_outcome(0.2))
        assert len(await store.times.report(ALL)) == 2
        await store.retention.delete_old()
        (left,) = await store.times.report(ALL)
        assert left[1] >= real() - 600
        assert len(await store.usage.report(UsageFilter(0, 10**10, group_by=("day",)))) == 2


def test_the_key_names_the_account_before_the_provider_by_which_it_is_read() -> None:
    assert TimeKey._fields[:2] == ("period", "account_id")
