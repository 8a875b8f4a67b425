"""Turns that several processes take."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.server.workers.turns import FILES, hold_turn


async def test_one_at_a_time_has_the_turn_of_a_name(tmp_path: Path) -> None:
    inside, most = 0, 0

    async def enter() -> None:
        nonlocal inside, most
        async with hold_turn(tmp_path, "acme"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(5)))
    assert most == 1


async def test_any_number_of_names_leaves_a_bounded_number_of_files(tmp_path: Path) -> None:
    for number in range(4 * FILES):
        async with hold_turn(tmp_path, f"account {number}"):
            pass
    assert len(list(tmp_path.iterdir())) <= FILES
