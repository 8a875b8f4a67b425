"""A real browser before a real server: whatever a visitor's browser would complain about fails the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.async_api import Browser, Page, Playwright, async_playwright

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDE, NARROW = (1440, 900), (375, 800)


@asynccontextmanager
async def open_browser() -> AsyncGenerator[Browser]:
    """Start the browser."""
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        try:
            yield browser
        finally:
            await browser.close()


async def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium; Python's playwright reads no environment variable for its path."""
    return await playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"])


TEXTS = (
    "[...document.querySelectorAll('.column .text')].map(box => [...box.children].map(line => line.textContent).join('\\n'))"
)
"""Script for the text of each column."""


class Visit:
    """A page that is open in a tab, and everything the browser has complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        page.on("console", lambda message: self._collect(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", lambda request: self._check_origin(request.url))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _collect(self, kind: str, text: str) -> None:
        # An answer that is an error is shown by the page itself; the browser reports each to its console as well.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource: "):
            self.complaints.append(f"{kind}: {text}")

    def _check_origin(self, url: str) -> None:
        if not url.startswith((f"{self.url}/", "blob:", "data:")):
            self.complaints.append(f"request to another origin: {url}")

    async def go(self, address: str = "") -> None:
        """Open an address of the page, and wait for its models."""
        await self.page.goto(f"{self.url}/{address}")
        await self.page.wait_for_selector("main :is(h1, p)", state="attached")

    async def choose(self, *models: str | dict[str, Any]) -> None:
        """Have these entries chosen, as if they had been picked before."""
        entries = [{"model": model} if isinstance(model, str) else model for model in models]
        await self.page.goto(f"{self.url}/livez")
        await self.page.evaluate("entries => localStorage.setItem('fanout-entries', JSON.stringify(entries))", entries)
        await self.go()

    async def run(self, *models: str | dict[str, Any], prompt: str = "hi") -> None:
        """Choose models, and send a prompt to them."""
        await self.choose(*models)
        await self.page.fill("#prompt", prompt)
        await self.page.press("#prompt", "Control+Enter")
        await self.page.wait_for_selector(".column")

    async def wait_for_states(self, *states: str) -> None:
        """Wait until the columns have these states."""
        script = "[...document.querySelectorAll('.column .state')].map(element => element.dataset.state)"
        await self.wait_until(script, list(states))

    async def wait_until(self, script: str, wanted: object = True) -> None:
        """Wait until an expression has a value. Playwright's own way is code made of text, which the page's policy forbids."""
        found: object = None
        try:
            async with asyncio.timeout(10):
                while (found := await self.page.evaluate(script)) != wanted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{script} is {found}, not {wanted}") from None

    async def texts(self) -> list[str]:
        """Return the text of each column."""
        found: list[str] = await self.page.evaluate(TEXTS)
        return found

    async def wait_for_texts(self, texts: list[str]) -> None:
        """Wait until the columns have these texts."""
        await self.wait_until(TEXTS, texts)

    async def get_json(self, path: str) -> Any:
        """Return what the API answers, beside the page."""
        return await (await self.page.context.request.get(f"{self.url}{path}")).json()

    async def check_accessibility(self) -> Sequence[str]:
        """Return what axe-core finds against WCAG AA."""
        await self.page.evaluate(AXE.read_text())
        found = await self.page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
        return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


@asynccontextmanager
async def visit(
    browser: Browser, url: str, size: tuple[int, int] = WIDE, scheme: Any = "light", **options: Any
) -> AsyncGenerator[Visit]:
    """Open a tab of a new visitor; at its end, fail if the browser has complained."""
    width, height = size
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    context.set_default_timeout(10_000)
    try:
        visitor = Visit(await context.new_page(), url)
        yield visitor
        assert visitor.complaints == [], visitor.complaints
    finally:
        await context.close()
