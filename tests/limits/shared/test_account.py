"""Shared limits in a simulation: no window above the limit whatever happens, and nearly all of it used where it is wanted."""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fanout.limits.shared.rules import SharedRules
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


@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
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
