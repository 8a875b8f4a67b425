"""The page for keyboards and screen readers, beside what axe-core finds in the tests of each view."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.support.browser import Visit, visit
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
FOCUS = "document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.textContent"


async def press_tab(visitor: Visit, times: int) -> list[str]:
    """Return where the focus is after each press."""
    places = []
    for _ in range(times):
        await visitor.page.keyboard.press("Tab")
        places.append(await visitor.page.evaluate(FOCUS))
    return places


async def test_the_keyboard_reaches_everything_in_the_order_of_reading(visitor: Visit) -> None:
    await visitor.choose("ok")
    page = visitor.page
    assert await page.evaluate(FOCUS) == "prompt", "one may write at once"
    await page.fill("#prompt", "hi")
    await page.locator(".skip").focus()
    views = ["Compare", "Blind", "Jobs", "History", "Providers", "Usage"]
    assert await press_tab(visitor, 9) == ["Fanout", *views, "Theme: auto", "Shortcuts"]
    assert await press_tab(visitor, 2) == ["prompt", "System message and parameters"]
    assert await press_tab(visitor, 5) == ["ok: name and parameters of its own", "Remove ok", "add-model", "samples", "run"]
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.tagName") == "MAIN"


@pytest.mark.parametrize(("opener", "inside"), [("#add-model", "Search models"), ("[aria-label='Shortcuts']", "Close")])
async def test_a_dialog_takes_the_focus_and_gives_it_back(opener: str, inside: str, visitor: Visit) -> None:
    await visitor.choose("ok")
    page = visitor.page
    await page.locator(opener).focus()
    before = await page.evaluate(FOCUS)
    await page.keyboard.press("Enter")
    await visitor.wait_until(FOCUS, inside)
    for _ in range(3):
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    await page.keyboard.press("Escape")
    await visitor.wait_until("document.querySelector('dialog') === null")
    assert await page.evaluate(FOCUS) == before


async def test_answers_as_they_come_are_announced_one_sentence_at_a_time(visitor: Visit) -> None:
    """Texts that stream are silent, and ends come in sentences that can be heard out."""
    script = """window.heard = []; document.addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
      const text = document.getElementById('announcer')?.textContent;
      if (text && text !== window.heard.at(-1)?.text) window.heard.push({ text, at: performance.now() });
    }).observe(document, { childList: true, characterData: true, subtree: true }));"""
    await visitor.page.add_init_script(script)
    await visitor.run(*(f"up/chunks-{number}-gap-0.05" for number in range(2, 18)))
    await visitor.wait_for_states(*["done"] * 16)
    await visitor.wait_until("window.heard.at(-1)?.text", "16 of 16 models answered")

    heard = await visitor.page.evaluate("window.heard")
    # A busy page sees a sentence late, so the number within the time tells, not each gap.
    assert (len(heard) - 2) * 400 <= heard[-1]["at"] - heard[0]["at"]
    live = await visitor.page.eval_on_selector_all("[aria-live], [role=status], [role=alert], [role=log]", LIVE)
    assert sorted(set(live)) == ["log off", "status "]


LIVE = "boxes => boxes.map((box) => `${box.getAttribute('role')} ${box.getAttribute('aria-live') ?? ''}`)"


async def test_nothing_moves_for_those_who_want_no_motion(browser: Browser, page_server: Server) -> None:
    for motion, count in (("reduce", 0), ("no-preference", 1)):
        async with visit(browser, page_server.url, reduced_motion=motion) as visitor:
            await visitor.run("up/chunks-400-gap-0.05")
            await visitor.wait_for_states("answering")
            assert await visitor.page.evaluate("document.getAnimations().length") == count
