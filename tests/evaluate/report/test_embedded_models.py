"""From end to end: the three embedded models on 300 held-out sentences, asked by a real server, imported, compared, looked at.

Scored are the log probability of the sentence's true second half, and whether its first word is the likeliest one. The report
must rank the models as their perplexities do, which are computed here from the models themselves.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from fanout.evaluate.importing.imported_job import store_samples
from fanout.evaluate.importing.lm_eval import read_lm_eval
from fanout.evaluate.importing.samples import ImportedSamples
from fanout.evaluate.report.job_report import report_job
from fanout.jobs.export import encode_results
from fanout.jobs.job import find_job
from fanout.jobs.output_files import make_encoder
from fanout.providers.ngram.language_model import tokenize
from fanout.rendering.report import ReportJson, render_report
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ResultFilter
from fanout.store.opening import open_store
from tests.support.browser import visit
from tests.support.builders.reports import write_file
from tests.support.client import Client
from tests.support.ngram_reference import pydoc_model, pydoc_texts
from tests.support.server import serve

pytestmark = pytest.mark.asyncio(loop_scope="session")
ORDERS: Mapping[str, int] = {"local/ngram-2": 2, "local/ngram-3": 3, "local/ngram-5": 5}
LIBRARY = Path(inspect.__file__).parent
FILES = 120
"""Modules of the standard library whose docstrings are read: single files, by name."""
SENTENCES = 300


def list_sentences() -> Sequence[tuple[str, str]]:
    """Return sentences of Python's docstrings that no model has seen, in two halves; the models know all their words."""
    seen, known = "\n".join(pydoc_texts()), pydoc_model().ids
    found = {sentence for text in _list_docstrings() for sentence in re.findall(r"[A-Z][^.!?\n]{30,160}\.(?=\s|$)", text)}
    halves = []
    for sentence in sorted(found):
        tokens = list(tokenize(sentence))
        if sentence not in seen and len(tokens) >= 8 and all(token in known for token in tokens):
            middle = len(tokens) // 2
            halves.append(("".join(tokens[:middle]), "".join(tokens[middle:])))
    assert len(halves) >= SENTENCES
    return random.Random(1).sample(halves, SENTENCES)


def _list_docstrings() -> Iterator[str]:
    for path in sorted(LIBRARY.glob("[a-z]*.py"))[:FILES]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield " ".join((ast.get_docstring(node) or "").split())


def measure_perplexity(sentences: Sequence[tuple[str, str]], order: int) -> float:
    """Return a model's perplexity on the second halves, from the model itself."""
    model, logprobs = pydoc_model(), []
    for first, second in sentences:
        tokens = model.encode(first + second)
        for place in range(len(model.encode(first)), len(tokens)):
            token = tokens[place]
            assert token is not None
            logprobs.append(math.log(model.after([model.end, *tokens[:place]], order).probability(token)))
    return math.exp(-sum(logprobs) / len(logprobs))


async def ask_models(client: Client, first: str, second: str) -> list[dict[str, Any]]:
    """Return for each model its likeliest next word, and the log probability of the true continuation."""
    common = {"model": list(ORDERS), "max_tokens": 1, "temperature": 0}
    whole = await client.send("POST", "/v1/completions", {**common, "prompt": first + second, "echo": True, "logprobs": 0})
    begun = await client.send("POST", "/v1/completions", {**common, "prompt": first})
    asked = []
    for scored, written in zip(whole.choices, begun.choices, strict=True):
        tokens = zip(scored["logprobs"]["text_offset"], scored["logprobs"]["token_logprobs"], strict=True)
        true = [logprob for offset, logprob in tokens if len(first) <= offset < len(first + second)]
        asked.append({"logprob": sum(true), "text": written["text"], "exact": float(next(tokenize(second)) == written["text"])})
    return asked


@pytest.fixture(scope="module")
def sentences() -> Sequence[tuple[str, str]]:
    """The held-out sentences."""
    return list_sentences()


async def test_the_report_ranks_the_embedded_models_as_their_perplexities_do(
    sentences: Sequence[tuple[str, str]], browser: Browser, tmp_path: Path
) -> None:
    async with serve() as server:
        client = Client(server)
        asked = await asyncio.gather(*(ask_models(client, *halves) for halves in sentences))
    imported = ImportedSamples("lm-eval")
    for entry, model in enumerate(ORDERS):
        lines = [
            {
                "doc_id": number,
                "doc": {},
                "target": second,
                "arguments": [[first, second]],
                "filtered_resps": [answers[entry]["text"]],
                "filter": "none",
                "logprob": answers[entry]["logprob"],
                "exact": answers[entry]["exact"],
            }
            for number, ((first, second), answers) in enumerate(zip(sentences, asked, strict=True))
        ]
        path = tmp_path / f"samples_docs_{entry}.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        read_lm_eval(path.rename(tmp_path / "samples_docs.jsonl"), model, imported)
    report, page = await write_report(imported, tmp_path)

    perplexities = {model: measure_perplexity(sentences, order) for model, order in ORDERS.items()}
    by_name = {metric["name"]: metric for metric in report["metrics"]}
    assert [one["model"] for one in by_name["logprob"]["models"]] == sorted(perplexities, key=perplexities.__getitem__)
    tokens = sum(len(list(tokenize(second))) for _, second in sentences)
    for one in by_name["logprob"]["models"]:
        assert one["mean"]["value"] is not None
        assert math.exp(-one["mean"]["value"] * SENTENCES / tokens) == pytest.approx(perplexities[one["model"]], rel=1e-6)
        assert one["mean"]["n"] == SENTENCES
    right = {model: sum(answers[entry]["exact"] for answers in asked) / SENTENCES for entry, model in enumerate(ORDERS)}
    assert {one["model"]: one["mean"]["value"] for one in by_name["exact"]["models"]} == pytest.approx(right)

    async with visit(browser, f"file://{tmp_path}") as visitor:
        await visitor.page.goto(page.as_uri())
        await visitor.page.wait_for_selector("html[data-ready]")
        names = await visitor.page.locator("figure:first-child .wide .plot .label").all_text_contents()
        assert names[:3] == [one["model"] for one in report["metrics"][0]["models"]]
        assert (await visitor.page.text_content("#answers-state")) == "300 of 300 items"


async def write_report(imported: ImportedSamples, folder: Path) -> tuple[ReportJson, Path]:
    """Store the samples as a job; return its report, and write it as a page."""
    async with open_store(str(folder / "jobs.db")) as opened:
        assert opened
        store = JobStore(opened.database)
        async with store.journal.run():
            job_id = await store_samples(store, imported, name="held out", files=["docs"], failed="score_zero")
        job = await find_job(store, job_id)
        report = render_report(await report_job(store, job))
        encoder = make_encoder("jsonl")
        pieces = [piece async for piece in encode_results(store, job.number, encoder, ResultFilter())]
    return report, write_file(folder / "report.html", report, map(json.loads, b"".join(pieces).splitlines()))
