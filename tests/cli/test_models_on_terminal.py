"""`fanout models` on a real (pseudo-)terminal of any width."""

from __future__ import annotations

import pytest

from tests.support.terminal import TerminalSession


@pytest.mark.parametrize(
    ("columns", "shown"), [(60, ["model", "state"]), (120, ["model", "provider", "kind", "context", "state"])]
)
async def test_the_table_of_models_fits_the_terminal(columns: int, shown: list[str]) -> None:
    async with TerminalSession("models", "claude", columns=columns) as screen:
        assert await screen.wait() == 0

    head, *rows = screen.final_lines
    assert set(shown) <= set(head.split())
    assert max(map(len, (head, *rows))) <= columns
    named = [row for row in rows if row.startswith("claude-")]
    assert len(named) > 3, "names stay whole, in their own column"
    assert all("needs" in row for row in named)


async def test_a_narrow_table_wraps_its_last_column_and_cuts_nothing() -> None:
    async with TerminalSession("models", "falcon-40b", columns=40) as screen:
        assert await screen.wait() == 0

    assert max(map(len, screen.final_lines)) <= 40
    assert "".join("".join(screen.final_lines).split()).count("SELFHOSTED_BASE_URL") == 2
