"""Time and memory for scoring the stored answers of a large job and reporting on them, each step in its own process.

usage: evaluation.py [ITEMS [MODELS]]      by default 100,000 items × 4 models, answers of about 200 characters
       prints one JSON object for each step: {"step": …, "units": …, "s": …, "cpu_s": …, "peak_rss_mb": …}

The step `html` writes the report with all answers as one file, of `file_mb`; `open` opens it in Chromium (playwright) until the
first answers are in sight, and then those in the middle.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import async_playwright

from fanout.core.json_text import parse
from fanout.core.schema import Answer, Choice, Completion, Timing
from fanout.core.usage import Cost, Usage, WorkTotals
from fanout.evaluate.report.job_report import report_job
from fanout.evaluate.scoring.declarations import parse_scorers
from fanout.evaluate.scoring.scoring import score_results
from fanout.jobs.export import encode_results
from fanout.jobs.job import FINGERPRINT_JSON, Job, JobSpec
from fanout.jobs.output_files import make_encoder
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.rendering.report import render_report
from fanout.rendering.report_html.document import write_document
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import UnitEnded
from fanout.store.jobs.records import InputItem, NewJobRow, ResultFilter, Unit
from fanout.store.opening import open_store
from fanout.store.usage import ANSWERED

STEPS = ("score", "report", "html", "open")
CHROMIUM = "/usr/bin/chromium"
MIDDLE = "box => box.scrollTop = box.scrollHeight / 2"
SCORERS = ("exact", {"type": "contains", "text": "yes"}, "length")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "everyone", "is", "asleep", "yes"]
CHUNK = 2_000
TOTALS = WorkTotals(calls=1, attempts=1, input_tokens=30, output_tokens=40, cost_usd=0.0004, total_ms=1200)


def make_record(label: str, generator: random.Random) -> str:
    """Return the stored outcome of an answer."""
    text = " ".join(generator.choices(WORDS, k=generator.randint(20, 60)))
    timing = Timing(0.001, None, generator.lognormvariate(0, 0.5), 1.2, 1)
    completion = Completion((Choice(Answer(text), "stop"),), Usage(30, 40))
    return StoredOutcome(label, label, "lab", label, completion, None, timing, Cost(0.0004, "providers.json")).to_json()


async def fill(path: Path, items: int, models: int) -> None:
    """Write a job whose units have all been answered."""
    labels = [f"model-{number}" for number in range(models)]
    fingerprint = {f"{n}: {label}": {"provider": "lab", "upstream_model": label, "sent": {}} for n, label in enumerate(labels)}
    async with open_store(str(path)) as opened:
        assert opened
        store = JobStore(opened.database)
        spec = JobSpec(models=tuple({"model": label} for label in labels)).to_json()
        row = NewJobRow("job_large", time.time(), "", spec, FINGERPRINT_JSON.dump_json(fingerprint).decode())
        number, epoch = await store.create(row, "bench")
        generator = random.Random(7)
        async with store.journal.run():
            for first in range(0, items, CHUNK):
                numbers = range(first, min(first + CHUNK, items))
                body = json.dumps({"prompt": "Is it so?", "reference": "yes"})
                await store.inputs.add(number, [InputItem(item, item + 1, None, body) for item in numbers], epoch)
                ended = [
                    UnitEnded(
                        *(Unit(number, item, entry, 0), 1, epoch, time.time(), label, ANSWERED),
                        *(
                            make_record(label, generator),
                            WorkTotals(calls=1, attempts=1, input_tokens=30, output_tokens=40, cost_usd=0.0004, total_ms=1200),
                        ),
                    )
                    for item in numbers
                    for entry, label in enumerate(labels)
                ]
                await asyncio.gather(*map(store.journal.put, ended))
        change = {"state": "done", "items": items, "units": items * models, "owner": None}
        assert await store.update(number, change, epoch=epoch)  # type: ignore[arg-type]  # a subset of its fields


async def work(step: str, path: Path) -> None:
    """Score or report on the job, or open its report."""
    if step == "open":
        await open_report(path.with_name("report.html"))
        return
    async with open_store(str(path)) as opened:
        assert opened
        store = JobStore(opened.database)
        row = await store.find("job_large")
        assert row
        if step == "score":
            await score_results(store, row.number, parse_scorers(SCORERS, allow_functions=False))
            return
        report = await report_job(store, Job.from_row(row))
        assert [metric.n for metric in report.metrics] == [row.items] * len(SCORERS)
        if step == "html":
            results = path.with_name("results.jsonl")
            with results.open("wb") as lines:
                async for piece in encode_results(store, row.number, make_encoder("jsonl"), ResultFilter()):
                    lines.write(piece)
            with path.with_name("report.html").open("wb") as file, results.open("rb") as lines:
                write_document(file.write, render_report(report), map(parse, lines))


async def open_report(path: Path) -> None:
    """Open the report in a browser, and scroll to its middle."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = await browser.new_page()
        began = time.monotonic()
        await page.goto(path.as_uri())
        await page.wait_for_selector(".row[data-row='0'] .cell")
        shown_s = time.monotonic() - began
        await page.eval_on_selector(".rows", MIDDLE)
        middle = int(await page.get_attribute(".rows", "aria-rowcount") or 0) // 2
        await page.wait_for_selector(f".row[data-row='{middle}'] .cell")
        print(
            json.dumps({"first_answers_s": round(shown_s, 2), "middle_s": round(time.monotonic() - began - shown_s, 2)}),
            flush=True,
        )
        await browser.close()


def measure(step: str, path: Path, units: int) -> None:
    """Run a step in this process and print its figures."""
    began, cpu_s = time.monotonic(), time.process_time()
    asyncio.run(work(step, path))
    figures = {"s": round(time.monotonic() - began, 1), "cpu_s": round(time.process_time() - cpu_s, 1)}
    if (file := path.with_name("report.html")).exists() and step == "html":
        figures["file_mb"] = round(file.stat().st_size / 2**20, 1)
    peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({"step": step, "units": units, **figures, "peak_rss_mb": peak_mb}), flush=True)


def main() -> None:
    """Write the job, then run each step in a process of its own, on one core."""
    if len(sys.argv) > 1 and sys.argv[1] in STEPS:
        if sys.argv[1] != "open":  # a browser is many processes
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        return
    items, models = (
        (int(number) for number in (*sys.argv[1:], "100000", "4")[:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 4)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        asyncio.run(fill(path, items, models))
        for step in STEPS:
            subprocess.run([sys.executable, __file__, step, str(path), str(items * models)], check=True)


if __name__ == "__main__":
    main()
