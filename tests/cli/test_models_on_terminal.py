"""Tables of models and questions on a real (pseudo-)terminal of any width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run_fanout
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


@pytest.mark.parametrize(("columns", "shown"), [(60, ["id", "time", "prompt"]), (80, ["id", "time", "models", "prompt"])])
async def test_the_list_of_questions_fits_the_terminal(columns: int, shown: list[str], tmp_path: Path) -> None:
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "log.db")}
    await run_fanout("ask", "many words " * 10, "-m", "local/ngram-2,local/ngram-3", "--max-tokens", "1", **store)
    async with TerminalSession("log", columns=columns, **store) as screen:
        assert await screen.wait() == 0

    head, first, *_ = screen.final_lines
    assert head.split() == shown
    assert len(first.split()[0]) == 8, "ids stay whole"
    assert ("local/ngram-2 +1" in first) == ("models" in shown)
    assert max(map(len, screen.final_lines)) <= columns
