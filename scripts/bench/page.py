#!/usr/bin/env python3
"""Measure the page in a real browser: bytes, first paint, frames under load, work per frame, memory over time, a long table.

usage: scripts/bench/page.py [--minutes 30] [--tokens 3000] [--rows 10000] [--only load stream work memory table]

Frames and paints are as long as the machine lets them be. What hardly depends on what else it does: numbers of layouts, and
CPU time, of which `work` gives the longest task's.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from playwright.async_api import Browser, CDPSession  # noqa: E402 - found through the line above

from tests.support.browser import Visit, open_browser, visit  # noqa: E402
from tests.support.builders.settings import write_providers_file  # noqa: E402
from tests.support.server import Server, serve  # noqa: E402
from tests.support.upstream import connection  # noqa: E402
from tests.support.upstream.server import Upstream  # noqa: E402

MODELS, TOKENS_PER_S, LOADS, TABLE_MODELS = 16, 50, 5, 4
TRACED_TOKENS = 500
"""A trace of more is larger than a browser keeps."""
VIEWS = ("blind", "jobs", "history", "providers", "usage")
FIRST_PAINT = """new Promise((resolve) => new PerformanceObserver((list) => resolve(list.getEntries()[0].startTime))
  .observe({ type: 'paint', buffered: true }))"""
FRAMES = """() => { window.frames_ = []; let last = performance.now();
  const note = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(note); };
  requestAnimationFrame(note); }"""


def show(name: str, value: str) -> None:
    print(f"{name:58}{value}", flush=True)


async def read_frames(visitor: Visit) -> str:
    """Return the longest frame and the 99th percentile since `FRAMES`, of those after the first second."""
    frames: list[float] = (await visitor.page.evaluate("window.frames_"))[60:]
    ordered = sorted(frames)
    late = sum(frame > 100 for frame in frames)
    return f"longest {ordered[-1]:.0f} ms, p99 {ordered[len(ordered) * 99 // 100]:.0f} ms, {late} of {len(frames)} over 100 ms"


class Tracing:
    """What the main thread of the busiest tab does, by Chromium's own tracing."""

    CATEGORIES = ("devtools.timeline", "disabled-by-default-devtools.timeline")

    def __init__(self, tools: CDPSession) -> None:
        self._tools, self._events = tools, list[dict[str, Any]]()
        self._ended = asyncio.Event()
        tools.on("Tracing.dataCollected", lambda event: self._events.extend(event["value"]))
        tools.on("Tracing.tracingComplete", lambda _: self._ended.set())

    async def start(self) -> None:
        await self._tools.send(
            "Tracing.start", {"traceConfig": {"includedCategories": self.CATEGORIES, "excludedCategories": ["*"]}}
        )

    async def finish(self) -> str:
        """Return the number of frames, what each took, and the longest task, in CPU time."""
        await self._tools.send("Tracing.end")
        await self._ended.wait()
        threads = collections.Counter((event["pid"], event["tid"]) for event in self._events if event["name"] == "Layout")
        main = threads.most_common(1)[0][0]
        mine = [event for event in self._events if event["ph"] == "X" and (event["pid"], event["tid"]) == main]
        counts = collections.Counter(event["name"] for event in mine)
        tasks = [event.get("tdur", 0) / 1e3 for event in mine if event["name"] == "RunTask"]
        frames = max(counts["Commit"], 1)
        return (
            f"{frames} frames, {counts['Layout'] / frames:.2f} layouts and {counts['UpdateLayoutTree'] / frames:.2f} style "
            f"updates in each, {sum(tasks) / frames:.1f} ms of CPU; longest task {max(tasks):.0f} ms of CPU"
        )


async def measure_load(browser: Browser, server: Server) -> None:
    paints, plain = [], []
    for _ in range(LOADS):
        async with visit(browser, server.url) as visitor:
            await visitor.go()
            await visitor.page.wait_for_selector(".entry")
            paints.append(await visitor.page.evaluate(FIRST_PAINT))
            first = await count_bytes(visitor)
            before = f"performance.getEntriesByType('resource').filter((entry) => entry.responseEnd < {paints[-1]}).length"
            requests = await visitor.page.evaluate(before)
            for view in VIEWS:
                await visitor.page.goto(f"{server.url}/#/{view}")
                await visitor.page.wait_for_selector("main h1")
            whole = await count_bytes(visitor)
        async with visit(browser, server.url) as visitor:
            await visitor.page.goto(f"{server.url}/livez")
            plain.append(await visitor.page.evaluate(FIRST_PAINT))
    show("transferred for Compare, the models' list included", f"{first / 1000:.0f} KB")
    show("transferred for all views", f"{whole / 1000:.0f} KB")
    show(f"first contentful paint, cold, median of {LOADS}", f"{statistics.median(paints):.0f} ms ({max(paints):.0f} at most)")
    show("files that had come before it, in the last load", f"{requests}")
    show("the same of a line of plain text", f"{statistics.median(plain):.0f} ms ({max(plain):.0f} at most)")


async def count_bytes(visitor: Visit) -> int:
    script = """performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
      .reduce((sum, entry) => sum + entry.transferSize, 0)"""
    return int(await visitor.page.evaluate(script))


async def wait_for_answers(visitor: Visit) -> None:
    """Wait until every model has answered; a figure counts only without failures."""
    script = "[...document.querySelectorAll('.column .state')].map(state => state.dataset.state)"
    while {"waiting", "answering"} & set(states := await visitor.page.evaluate(script)):
        await asyncio.sleep(0.5)
    if set(states) != {"done"}:
        raise SystemExit(f"not all have answered: {states}")


async def stream(visitor: Visit, tokens: int) -> float:
    """Run all models once; return the seconds that it took."""
    began = time.monotonic()
    names = [f"up/chunks-{tokens}-gap-{1 / TOKENS_PER_S}-input-{number}" for number in range(MODELS)]
    await visitor.run(*names)
    await wait_for_answers(visitor)
    return time.monotonic() - began


async def measure_stream(browser: Browser, server: Server, tokens: int) -> None:
    async with visit(browser, server.url) as visitor:
        tools = await visitor.page.context.new_cdp_session(visitor.page)
        await tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        await visitor.page.add_init_script(f"({FRAMES})()")
        took_s = await stream(visitor, tokens)
        show(f"{MODELS} models × {tokens} tokens at {TOKENS_PER_S}/s each", f"{await read_frames(visitor)}; {took_s:.0f} s")
        # Unlike a frame's length, CPU time hardly depends on what else the machine does.
        cpu = await read_metrics(tools)
        parts = ", ".join(f"{name.lower()} {cpu[f'{name}Duration']:.1f} s" for name in ("Script", "Layout", "RecalcStyle"))
        show("CPU time of the tab's main thread meanwhile", f"{cpu['TaskDuration']:.1f} s ({parts})")


async def measure_work(browser: Browser, server: Server) -> None:
    async with visit(browser, server.url) as visitor:
        tracing = Tracing(await browser.new_browser_cdp_session())
        await tracing.start()
        await stream(visitor, TRACED_TOKENS)
        show(f"{MODELS} models × {TRACED_TOKENS} tokens at {TOKENS_PER_S}/s each", await tracing.finish())


async def read_metrics(tools: CDPSession) -> dict[str, float]:
    """Return the browser's own measures of a tab."""
    return {one["name"]: one["value"] for one in (await tools.send("Performance.getMetrics"))["metrics"]}


async def measure_memory(browser: Browser, server: Server, minutes: float, tokens: int) -> None:
    async with visit(browser, server.url) as visitor:
        tools = await visitor.page.context.new_cdp_session(visitor.page)
        await tools.send("Performance.enable")
        await visitor.choose(*(f"up/chunks-{tokens}-gap-{1 / TOKENS_PER_S}-input-{number}" for number in range(MODELS)))
        await visitor.page.fill("#prompt", "hi")
        end = time.monotonic() + minutes * 60
        measured: dict[str, list[float]] = {}
        while not measured or time.monotonic() < end:
            await visitor.page.click("#run")
            # Not by `wait_for_selector`, whose handle would keep the run and all of its columns.
            await visitor.wait_until("document.querySelector('.column .state:not([data-state=done])') !== null")
            await wait_for_answers(visitor)
            await tools.send("HeapProfiler.collectGarbage")
            metrics = await read_metrics(tools)
            now = {
                "JavaScript heap, MB": metrics["JSHeapUsedSize"] / 1e6,
                "nodes": metrics["Nodes"],
                "listeners": metrics["JSEventListeners"],
                "resident memory of the browser's processes, MB": await read_resident(browser),
            }
            for name, value in now.items():
                measured.setdefault(name, []).append(value)
        for name, values in measured.items():
            steps = ", ".join(f"{value:.1f}" for value in values[:: max(1, len(values) // 10)])
            show(f"{name}, {minutes:g} min, {len(values)} runs", f"{steps}; last {values[-1]:.1f}")


async def read_resident(browser: Browser) -> float:
    """Return the megabytes of the browser's tabs in memory."""
    tools = await browser.new_browser_cdp_session()
    processes = (await tools.send("SystemInfo.getProcessInfo"))["processInfo"]
    await tools.detach()
    kilobytes = 0
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text()
            kilobytes += int(status.split("VmRSS:")[1].split()[0])
    return kilobytes / 1000


async def measure_table(browser: Browser, server: Server, rows: int) -> None:
    items = [{"prompt": f"question {number}"} for number in range(rows)]
    models = [{"model": "local/ngram-2", "label": f"model {number}"} for number in range(TABLE_MODELS)]
    body = {"items": items, "models": models, "parameters": {"max_tokens": 8}, "name": "long"}
    async with server.session.post("/v1/jobs", json=body) as answer:
        job = (await answer.json())["id"]
    while True:
        async with server.session.get(f"/v1/jobs/{job}") as answer:
            if (await answer.json())["state"] == "done":
                break
        await asyncio.sleep(1)
    async with visit(browser, server.url) as visitor:
        await visitor.page.goto(f"{server.url}/#/jobs/{job}/results")
        await visitor.page.wait_for_selector(".cell-text")
        await visitor.page.evaluate(FRAMES)
        tracing = Tracing(await browser.new_browser_cdp_session())
        await tracing.start()
        began = time.monotonic()
        await visitor.page.evaluate("""() => new Promise((done) => { const box = document.querySelector('.results');
          const step = () => { box.scrollTop += box.clientHeight;
            if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) done(); else requestAnimationFrame(step); };
          step(); })""")
        await visitor.page.wait_for_selector(f".result-row[aria-rowindex='{rows + 1}'] .cell-text")
        drawn = await visitor.page.locator(".result-row").count()
        took_s = time.monotonic() - began
        show(
            f"{rows} × {TABLE_MODELS} results, a screen each frame",
            f"{await read_frames(visitor)}; {took_s:.0f} s, {drawn} rows drawn",
        )
        show("the work of that", await tracing.finish())


async def measure(minutes: float, tokens: int, rows: int, only: list[str]) -> None:
    connection.MAX_ANSWER_S = 600.0  # a minute, which is enough for tests, is what these answers take
    async with Upstream() as upstream, open_browser() as browser:
        with tempfile.TemporaryDirectory() as folder:
            config = write_providers_file(upstream.url, Path(folder), timeout_s=600)
            async with serve(config, FANOUT_STORE=f"{folder}/store.db", FANOUT_LOG_LEVEL="warning") as server:
                if "load" in only:
                    await measure_load(browser, server)
                if "stream" in only:
                    await measure_stream(browser, server, tokens)
                if "work" in only:
                    await measure_work(browser, server)
                if "table" in only:
                    await measure_table(browser, server, rows)
                if "memory" in only:
                    await measure_memory(browser, server, minutes, tokens)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=10_000)
    parts = ["load", "stream", "work", "table", "memory"]
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    given = parser.parse_args()
    asyncio.run(measure(given.minutes, given.tokens, given.rows, given.only))
