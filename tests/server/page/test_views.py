"""The views beside Compare: jobs, results, report, blind votes, history, providers and usage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route

from tests.support.batches import read_answer, wait_for_state
from tests.support.browser import NARROW, Visit, visit
from tests.support.builders.settings import write_providers_file
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROWS = 120
MODELS = [
    {"model": "up/say-right-tokens-9", "label": "right"},
    {"model": "up/say-wrong-tokens-5", "label": "wrong"},
    {"model": "up/400", "label": "broken"},
]


async def create_job(server: Server, **fields: Any) -> str:
    status, made = await read_answer(server.session.post("/v1/jobs", json=fields))
    assert status == 201, made
    return str(made["id"])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def finished_job(page_server: Server) -> str:
    """A job with answers, failures, repeats and scores."""
    items = [{"prompt": f"question {number}", "reference": "right"} for number in range(ROWS)]
    job = await create_job(page_server, items=items, models=MODELS, repeats=2, name="Quiz", scorers=["exact", "length"])
    await wait_for_state(page_server.session, f"/v1/jobs/{job}", "done")
    return job


async def check_widths(visitor: Visit) -> None:
    """Check a view against WCAG AA, wide and narrow, where nothing makes the page itself scroll sideways."""
    wide = visitor.page.viewport_size
    assert wide
    for size in (wide, {"width": NARROW[0], "height": NARROW[1]}):
        await visitor.page.set_viewport_size(size)  # type: ignore[arg-type]
        assert await visitor.check_accessibility() == []
        assert await visitor.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    await visitor.page.set_viewport_size(wide)


async def test_a_job_is_watched_stopped_and_resumed(visitor: Visit, page_server: Server) -> None:
    items = [{"prompt": str(number)} for number in range(40)]
    job = await create_job(page_server, items=items, models=["up/sleep-0.3"], name="Slow", concurrency=2)
    page = visitor.page
    await visitor.go("#/jobs")
    await page.click("text=Slow")
    await page.wait_for_selector("h1 .state[data-state=answering]")
    await visitor.wait_until("!document.querySelector('.figures.big dd').textContent.startsWith('0 of')")
    await page.click("text=Stop")
    await page.wait_for_selector("h1 .state:text('cancelled')")
    await page.click("text=Resume")
    await page.wait_for_selector("h1 .state[data-state=answering]")
    await page.click("text=Stop")
    await page.wait_for_selector("h1 .state:text('cancelled')")
    await check_widths(visitor)

    status, found = await read_answer(page_server.session.get(f"/v1/jobs/{job}"))
    assert (status, found["state"]) == (200, "cancelled")
    assert 0 < found["progress"]["ended"] < 40


async def test_failures_are_sent_again_and_results_saved(visitor: Visit, page_server: Server) -> None:
    job = await create_job(page_server, items=[{"prompt": "a"}], models=["up/fail-1-then-ok", "ok"], attempts=1)
    await wait_for_state(page_server.session, f"/v1/jobs/{job}", "done")
    page = visitor.page
    await visitor.go(f"#/jobs/{job}")
    async with page.expect_download() as saved:
        await page.click("text=csv")
    assert (await saved.value).suggested_filename == f"{job}.csv"
    await page.click("text=Retry 1 failures")
    await visitor.wait_until("document.querySelectorAll('.figures.big dd')[1].textContent", "0")


async def test_results_are_filtered_searched_opened_and_scrolled(visitor: Visit, finished_job: str) -> None:
    page = visitor.page
    await visitor.go(f"#/jobs/{finished_job}/results")
    await page.wait_for_selector(".cell-text:text('right')")
    assert await page.inner_text(".results-filters [role=status]") == f"{ROWS} rows"
    await check_widths(visitor)
    for name, count in (("Errors", ROWS), ("Different", ROWS), ("Regressions", ROWS), ("Disagreement", ROWS)):
        await page.click(f".segments >> text={name}")
        await visitor.wait_until("document.querySelector('.results-filters [role=status]').textContent", f"{count} rows")
    await page.select_option("select >> nth=0", "wrong")
    await page.click(".segments >> text=Regressions")
    await page.wait_for_selector("text=No row is left")
    await page.click(".segments >> text=All")
    await page.fill("input[type=search]", "question 7")
    await page.press("input[type=search]", "Tab")
    await visitor.wait_until("document.querySelector('.results-filters [role=status]').textContent", "11 rows")
    await page.fill("input[type=search]", "question 7\\b")
    await page.click("text=pattern")
    await visitor.wait_until("document.querySelector('.results-filters [role=status]').textContent", "1 row")

    await page.click(".cell-text:text('wrong')")
    await page.wait_for_selector("dialog:has-text('Row 7')")
    assert "up / up" not in await page.inner_text("dialog")
    assert await visitor.check_accessibility() == []
    async with visit(page.context.browser, visitor.url) as other:  # type: ignore[arg-type]
        await other.page.goto(page.url)
        await other.page.wait_for_selector("dialog:has-text('Row 7 · wrong')")


async def test_only_the_rows_in_sight_are_in_the_document(visitor: Visit, finished_job: str) -> None:
    page = visitor.page
    await visitor.go(f"#/jobs/{finished_job}/results")
    await page.wait_for_selector(".cell-text:text('right')")
    for place, row in ((1.0, ROWS - 1), (0.5, ROWS // 2), (0.0, 0)):
        await page.evaluate(f"const box = document.querySelector('.results'); box.scrollTop = box.scrollHeight * {place}")
        await page.wait_for_selector(f".result-row[aria-rowindex='{row + 2}'] .cell-text")
        assert await page.locator(".result-row").count() < 40


async def test_rows_that_are_scrolled_past_are_not_fetched(visitor: Visit, page_server: Server) -> None:
    """The server answers slowly here, so that all of it is scrolled past within the first answers."""
    page, fetched, rows = visitor.page, list[str](), 350
    job = await create_job(page_server, items=[{"prompt": "a"}] * rows, models=["ok"])
    await wait_for_state(page_server.session, f"/v1/jobs/{job}", "done")
    await visitor.go(f"#/jobs/{job}/results")
    await page.wait_for_selector(".cell-text")
    gate = asyncio.Event()

    async def hold(route: Route) -> None:
        fetched.append(route.request.url)
        await gate.wait()
        await route.continue_()

    await page.route("**/items?*", hold)
    for row in range(0, rows, 25):
        await page.evaluate(f"document.querySelector('.results').scrollTop = {row} * 132")
        await page.wait_for_selector(f".result-row[aria-rowindex='{row + 2}']", state="attached")
    assert len(fetched) <= 2, "of six pages"
    await page.fill("input[type=search]", "hal")
    gate.set()
    await page.wait_for_selector(f".result-row[aria-rowindex='{row + 2}'] .cell-text", state="attached")
    assert await page.input_value("input[type=search]") == "hal", "rows that come leave what is being typed"


async def test_rows_that_cannot_be_fetched_are_tried_again_and_not_without_end(visitor: Visit, finished_job: str) -> None:
    page, fetched = visitor.page, list[str]()

    async def fail(route: Route) -> None:
        fetched.append(route.request.url)
        await route.fulfill(status=503, json={"error": {"message": "the database is away"}})

    await visitor.go(f"#/jobs/{finished_job}/results")
    await page.wait_for_selector(".cell-text:text('right')")
    await page.route("**/items?*", fail)
    await page.evaluate("const box = document.querySelector('.results'); box.scrollTop = box.scrollHeight")
    await page.wait_for_selector("text=the database is away")
    for _ in range(10):
        await page.evaluate("new Promise(requestAnimationFrame)")
    assert len(fetched) <= 2
    await page.unroute("**/items?*")
    await page.click("text=Try again")
    await page.wait_for_selector(f".result-row[aria-rowindex='{ROWS + 1}'] .cell-text")


async def test_a_report_has_cards_figures_tables_and_files(visitor: Visit, finished_job: str) -> None:
    page = visitor.page
    page.set_default_timeout(30_000)
    await visitor.go(f"#/jobs/{finished_job}/report")
    await page.wait_for_selector(".card")
    assert await page.locator(".card h2").all_inner_texts() == ["right", "wrong", "broken"]
    assert "1.000" in await page.inner_text(".card >> nth=0")
    label = await page.get_attribute(".plot >> nth=0", "aria-label")
    assert label
    assert "right: 1.000" in label
    async with page.expect_download() as saved:
        await page.click("button[aria-label='exact by model: as CSV']")
    text = (await (await saved.value).path()).read_text().splitlines()
    assert text[0] == "model,mean,low,high,rank,verdict"
    assert text[1].startswith("right,1,")
    async with page.expect_download() as saved:
        await page.click("text=HTML with all answers")
    assert "<!doctype html>" in (await (await saved.value).path()).read_text()[:100].lower()
    names = await page.eval_on_selector_all(".plot", "plots => plots.map(plot => plot.ariaLabel.split('.')[0])")
    assert {"exact: mean of each repeat", "exact against cost", "Cost of 1,000 rows"} <= set(names)
    assert await page.get_attribute(".plot[aria-label^='exact against cost'] .pareto", "points") != ""
    tables = await page.locator(".table h3").all_inner_texts()
    assert {"exact: wins", "exact by repeat", "Cost of 1,000 rows, in US dollars"} <= set(tables)
    assert await page.locator(".win-map >> nth=0 >> tr:has(th:text-is('right')) >> td").all_inner_texts() == [
        "",
        "100 %",
        "100 %",
    ]
    await check_widths(visitor)


async def test_a_vote_is_blind_and_counts_in_the_report(visitor: Visit, page_server: Server) -> None:
    items = [{"prompt": f"question {number}"} for number in range(2)]
    job = await create_job(page_server, items=items, models=MODELS[:2], name="Pairs")
    await wait_for_state(page_server.session, f"/v1/jobs/{job}", "done")
    page = visitor.page
    await visitor.go("#/blind")
    await page.click("text=Pairs")
    await page.wait_for_selector(".ballot .column")
    first = await page.locator(".pair .text").all_inner_texts()
    assert sorted(first) == ["right", "wrong"]
    assert await page.locator(".pair h2").all_inner_texts() == ["A", "B"], "no name before the vote"
    await check_widths(visitor)
    await page.keyboard.press("1" if first[0] == "right" else "2")
    await page.wait_for_selector(".pair .chosen")
    assert sorted(await page.locator(".pair h2").all_inner_texts()) == ["A · " + first[0], "B · " + first[1]]
    await page.keyboard.press("Enter")
    await page.click("text=Tie")
    await page.click("text=Next pair")
    await page.wait_for_selector("text=Nothing is left to vote on here. 2 votes given.")

    status, votes = await read_answer(page_server.session.get("/v1/votes", params={"job_id": job}))
    assert (status, sorted(str(vote["winner"]) for vote in votes["data"])) == (200, ["None", "right"])


async def test_models_are_asked_blind_even_where_no_text_is_kept(
    browser: Browser, page_upstream: Upstream, tmp_path: Path
) -> None:
    config = write_providers_file(page_upstream.url, tmp_path)
    async with serve(config, FANOUT_STORE=":memory:") as server, visit(browser, server.url) as visitor:
        page = visitor.page
        await visitor.choose("up/say-left", "up/say-right")
        await page.click("nav >> text=Blind")
        await page.fill("#prompt", "which?")
        assert await visitor.check_accessibility() == []
        await page.click("text=Ask blind")
        await page.wait_for_selector(".ballot .column")
        shown = await page.locator(".pair .text").all_inner_texts()
        assert sorted(shown) == ["left", "right"]
        await page.keyboard.press("2")
        await page.wait_for_selector(".pair .chosen")
        assert await page.locator(".pair h2").all_inner_texts() == [f"A · up/say-{shown[0]}", f"B · up/say-{shown[1]}"]


async def test_past_requests_are_listed_and_open(visitor: Visit) -> None:
    page = visitor.page
    await visitor.run("up/say-past", "up/say-other")
    await visitor.wait_for_states("done", "done")
    await page.click("nav >> text=History")
    await page.wait_for_selector(".rows li")
    await check_widths(visitor)
    await page.fill("input[type=search]", "up/say-past")
    await page.press("input[type=search]", "Enter")
    await page.locator("input[type=search]").blur()
    await visitor.wait_until("document.querySelectorAll('.rows li').length", 1)
    await page.click(".rows a")
    await visitor.wait_for_states("done", "done")
    await visitor.wait_for_texts(["past", "other"])


async def test_providers_and_usage_show_what_their_endpoints_say(visitor: Visit, finished_job: str) -> None:
    page = visitor.page
    await visitor.go("#/providers")
    await page.wait_for_selector(".card h2:text('up')")
    assert "absent needs ABSENT_API_KEY" in await page.inner_text(".plain")
    card = page.locator(".card", has=page.locator("h2:text-is('up')"))
    await card.locator("svg[aria-label^='Calls over time'] rect").first.wait_for()
    shown = await visitor.get_json("/v1/providers/figures?step_s=300&provider=up")
    calls = sum(step["calls"] for step in shown["data"][0]["steps"])
    assert f"{calls:,} calls" in await card.inner_text()
    await page.select_option("text=Over time >> select", "hour")
    await card.locator("summary:text('Table')").click()
    await card.locator("td").first.wait_for()
    cells = card.locator("tbody td:nth-child(2)")
    assert sum(int(text.replace(",", "")) for text in await cells.all_inner_texts()) == calls
    await check_widths(visitor)
    await page.click("nav >> text=Usage")
    await page.wait_for_selector("td:text('up/say-right-tokens-9')")
    await page.select_option("select >> nth=0", "day,model")
    await page.wait_for_selector("th:text('day')")
    await check_widths(visitor)


async def test_a_view_that_the_server_no_longer_has_offers_to_load_the_page_again(
    browser: Browser, page_server: Server
) -> None:
    async with visit(browser, page_server.url) as visitor:
        await visitor.page.route("**/views/usage.js", lambda route: asyncio.ensure_future(route.fulfill(status=404)))
        await visitor.go("#/usage")
        await visitor.page.wait_for_selector("text=Load the page again")
