"""The view Compare, driven as a person does: answers as they come, errors in their place, and what others' pages get wrong."""

from __future__ import annotations

import pytest

from tests.support.browser import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")
SLOW = "up/chunks-30-gap-0.05"


async def test_three_models_answer_without_any_choice(visitor: Visit) -> None:
    await visitor.go()
    page = visitor.page
    await page.click("text=The return statement")
    await page.click("#run")
    await visitor.wait_for_states("done", "done", "done")

    assert all(await visitor.texts())
    assert "/#/runs/" in page.url
