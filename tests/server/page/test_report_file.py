"""The HTML report as the server sends it, in a real browser: it works in its sandbox, and what models wrote stays text."""

from __future__ import annotations

import pytest

from tests.support.batches import read_answer, wait_for_state
from tests.support.browser import Visit
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


async def test_the_report_opens_at_its_address_and_runs_nothing_that_a_model_wrote(page_server: Server, visitor: Visit) -> None:
    items = [{"prompt": f"{HOSTILE} {number}", "reference": HOSTILE} for number in range(3)]
    body = {"items": items, "models": [f"up/say-{HOSTILE}", "up/say-no"], "scorers": ["exact"], "name": HOSTILE}
    status, job = await read_answer(page_server.session.post("/v1/jobs", json=body))
    assert status == 201, job
    await wait_for_state(page_server.session, f"/v1/jobs/{job['id']}")
    await visitor.page.goto(f"{visitor.url}/v1/jobs/{job['id']}/report")
    await visitor.page.wait_for_selector("html[data-ready]")
    await visitor.page.click(".open")
    await visitor.page.wait_for_selector("dialog[open] article")

    assert await visitor.page.text_content("h1") == HOSTILE
    assert HOSTILE in str(await visitor.page.text_content("dialog[open]"))
    assert await visitor.page.evaluate("self.origin") == "null", "it has no part in the server's own origin"
    async with visitor.page.expect_download() as download:
        await visitor.page.keyboard.press("Escape")
        await visitor.page.click("#methods .csv")
    assert (await download.value).suggested_filename == "parameters.csv"
