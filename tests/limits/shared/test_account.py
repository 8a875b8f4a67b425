"""Shared limits in a simulation: no window above the limit whatever happens, and nearly all of it used where it is wanted."""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fanout.limits.shared.rules import BEAT_S, LEASE_S, SharedRules
from fanout.store.limits.limit_table import state_json
from tests.support.shared_limits import SimulatedProcess, World

REQUESTS, PERIOD_S = 60, 20.0
RULES = st.sampled_from(
    [
        SharedRules(PERIOD_S, REQUESTS),
        SharedRules(PERIOD_S, REQUESTS, burst=6),
        SharedRules(PERIOD_S, REQUESTS, tokens=3000, concurrency=5),
        SharedRules(PERIOD_S, tokens=3000),
        SharedRules(PERIOD_S, REQUESTS, concurrency=4),
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["calls", "interactive", "join", "kill", "away", "back", "wait"]),
        st.integers(0, 7),
        st.floats(0.0, 12.0),
    ),
    max_size=14,
)


def make_processes(world: World, number: int, rules: SharedRules, **options: float) -> list[SimulatedProcess]:
    return [SimulatedProcess(world, f"p{place}", rules, tokens=100, **options) for place in range(number)]


def check_limits(world: World, rules: SharedRules) -> None:
    """Assert that no limit was exceeded in any window."""
    if rules.requests:
        assert world.count_most_starts(rules.period_s) <= rules.requests
        if rules.burst:
            assert world.count_most_starts(rules.period_s * rules.burst / rules.requests) <= rules.burst
    if rules.tokens:
        assert world.count_most_tokens(rules.period_s) <= rules.tokens
    if rules.concurrency:
        assert world.most_in_flight <= rules.concurrency


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(RULES, STEPS, st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_no_window_is_exceeded_whatever_crashes_joins_or_is_cut_off(
    rules: SharedRules, steps: list[tuple[str, int, float]], seed: int, lost_share: float
) -> None:
    world = World(seed, latency_s=0.02, lost_share=lost_share)
    processes = make_processes(world, 3, rules, leaving_s=0.3)
    for action, place, wait_s in steps:
        process = processes[place % len(processes)]
        if action == "calls":
            process.add(batch=60)
        elif action == "interactive":
            process.add(interactive=5)
        elif action == "join":
            processes.append(SimulatedProcess(world, f"p{len(processes)}", rules, tokens=100))
            processes[-1].add(batch=60)
        elif action == "kill" and not process.is_dead:
            process.kill()
        elif action in ("away", "back"):
            world.is_away = action == "away"
        world.run(wait_s)
    world.is_away = False
    world.run(3 * PERIOD_S)
    check_limits(world, rules)


def test_nearly_all_of_a_limit_is_used_with_few_asks_and_every_process_has_its_share() -> None:
    rules = SharedRules(60.0, 120, burst=24)
    world = World()
    processes = make_processes(world, 4, rules)
    for process in processes:
        process.add(batch=1000)
    world.run(180)
    check_limits(world, rules)
    assert len(world.starts) >= 0.97 * 3 * 120
    assert world.asks <= 4.5 * 180 * len(processes)
    shares = [sum(name == process.name for _, name in world.starts) for process in processes]
    assert min(shares) > 0.7 * max(shares)


def test_interactive_calls_of_one_process_go_before_batch_calls_of_another() -> None:
    world = World()
    batch, interactive = make_processes(world, 2, SharedRules(PERIOD_S, REQUESTS))
    batch.add(batch=500)
    world.run(5)
    interactive.add(interactive=REQUESTS)
    world.run(PERIOD_S + 5)
    assert [name for _, name in world.starts[REQUESTS : 2 * REQUESTS]] == [interactive.name] * REQUESTS


def test_processes_go_on_in_an_outage_and_those_that_come_then_start_nothing() -> None:
    rules = SharedRules(PERIOD_S, REQUESTS)
    world = World()
    processes = make_processes(world, 3, rules)
    for process in processes:
        process.add(batch=500)
    world.run(PERIOD_S)
    world.is_away = True
    late = SimulatedProcess(world, "late", rules)
    late.add(batch=10)
    world.run(2 * PERIOD_S)
    before = len(world.starts)
    world.run(PERIOD_S)
    assert len(world.starts) - before >= REQUESTS * 0.9
    assert not late.waits_s
    assert all(process.share.is_alone for process in processes)
    world.is_away = False
    world.run(PERIOD_S + 10)
    assert late.waits_s
    assert not any(process.share.is_alone for process in processes)
    check_limits(world, rules)


def test_places_of_a_killed_process_come_back_and_those_of_a_greedy_one_as_its_calls_end() -> None:
    rules = SharedRules(PERIOD_S, concurrency=4)
    world = World()
    killed = SimulatedProcess(world, "killed", rules, call_s=1000)
    killed.add(batch=4)
    world.run(1)
    killed.kill()
    greedy, other = make_processes(world, 2, rules)
    greedy.add(batch=1000)
    world.run(LEASE_S + 1)
    assert greedy.in_flight == 4
    other.add(batch=1000)
    world.run(3)
    assert (greedy.in_flight, other.in_flight) == (2, 2)
    check_limits(world, rules)


def test_places_that_cannot_be_divided_are_in_use() -> None:
    rules = SharedRules(PERIOD_S, concurrency=5)
    world = World()
    processes = make_processes(world, 3, rules)
    for process in processes:
        process.add(batch=1000)
    world.run(LEASE_S)
    assert sum(process.in_flight for process in processes) == 5
    assert world.most_in_flight == 5


def test_a_process_with_calls_in_flight_stays_while_others_wait_for_their_places() -> None:
    rules = SharedRules(PERIOD_S, concurrency=2)
    world = World()
    first, second = SimulatedProcess(world, "first", rules, call_s=10), SimulatedProcess(world, "second", rules, call_s=10)
    first.add(interactive=2)
    world.run(1)
    second.add(interactive=14)
    world.run(2 * BEAT_S)
    assert (first.in_flight, second.in_flight) == (2, 0)
    world.run(2)
    assert (first.in_flight, second.in_flight) == (0, 2)
    assert world.most_in_flight == 2


def test_while_processes_have_different_limits_the_smallest_is_kept() -> None:
    world = World()
    large = SimulatedProcess(world, "large", SharedRules(PERIOD_S, REQUESTS))
    small = SimulatedProcess(world, "small", SharedRules(PERIOD_S, 10))
    small.add(batch=1)
    world.run(1)
    large.add(batch=500)
    world.run(5)
    assert len(world.starts) == 10
    small.share.configure(SharedRules(PERIOD_S, REQUESTS))
    small.add(batch=1)
    world.run(PERIOD_S)
    assert len(world.starts) > REQUESTS


def test_an_idle_process_asks_nothing_and_the_row_ends_with_what_it_counts() -> None:
    world = World()
    (process,) = make_processes(world, 1, SharedRules(PERIOD_S, REQUESTS, tokens=3000, concurrency=5))
    process.add(interactive=3)
    world.run(0.05)
    assert (world.asks, len(world.starts)) == (1, 3)
    world.run(3 * PERIOD_S)
    asks = world.asks
    assert asks < 15
    world.run(100)
    assert world.asks == asks
    assert state_json().validate_json(world.state).is_spent
