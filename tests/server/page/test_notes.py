"""The notes below an answer of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.support.browser import visit
from tests.support.dialects import CannedUpstream, build_delta, serve_canned

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_notes_name_what_the_text_does_not_hold(browser: Browser, tmp_path: Path) -> None:
    """A refusal, and content for which a text has no place."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    upstream = CannedUpstream(chunks=[build_delta(images=[image]), build_delta(refusal="I must not."), build_delta("stop")])
    async with serve_canned(tmp_path, upstream) as server, visit(browser, server.url) as visitor:
        await visitor.run("up/m")
        await visitor.wait_for_states("done")
        assert await visitor.page.inner_text(".column .notes") == "refused: I must not. · also: image"
