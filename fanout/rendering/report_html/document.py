"""The document: a report and its answers in one file, under a policy that allows its own script and style and nothing else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path

from fanout.core.json_text import JsonObject, dump
from fanout.rendering.report import ReportJson
from fanout.rendering.report_html.answers import AnswerPack, compress
from fanout.rendering.report_html.blocks import Blocks, list_texts, section
from fanout.rendering.report_html.markup import Markup, element, join, write_prose
from fanout.rendering.report_html.opinion_sections import build_judges, build_preferences
from fanout.rendering.report_html.sections import (
    build_cards,
    build_costs,
    build_fusions,
    build_metric,
    build_stopping,
    pick_tones,
)
from fanout.rendering.report_tables import list_policies, list_verdicts, table_parameters

FOLDER = Path(__file__).with_name("assets")
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""`img-src` is for the empty icon, without which browsers would look for one."""
Write = Callable[[bytes], object]


class ReportDocument:
    """A report and its answers as HTML, made piece by piece, so that nobody ever holds all answers."""

    def __init__(self, report: ReportJson, *, by_label: bool = False) -> None:
        """Keep the report.

        Args:
            report: of a job.
            by_label: rows name their own models.
        """
        self._report, self._blocks, self._chunks = report, Blocks(), 0
        self._pack = AnswerPack(report, by_label=by_label)

    @property
    def is_full(self) -> bool:
        """True once more answers would make the file too large."""
        return self._pack.is_full

    def begin(self) -> bytes:
        """Return what stands before the answers."""
        style = load_asset("report.css")
        title = self._report["job"]["name"] or f"Report of {self._report['job']['id']}"
        # The script and the style are ours, and hold no end tag; everything else goes through `element`.
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=make_policy()),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("meta", name="generator", content="Fanout"),
            element("link", rel="icon", href="data:,"),
            element("title", title),
            element("style", Markup(style)),
        )
        body = "\n".join(_build_body(self._report, title, self._blocks))
        return f'<!doctype html>\n<html lang="en">{head}\n<body>{body}'.encode()

    def add(self, records: Iterable[JsonObject]) -> Iterator[bytes]:
        """Yield what results add, which come sorted by item, as exports have them."""
        yield from map(self._hold_chunk, self._pack.add(records))

    def close(self) -> Iterator[bytes]:
        """Yield the rest."""
        yield from map(self._hold_chunk, self._pack.close())
        files, index = compress(dump(self._blocks.files)), compress(dump(self._pack.build_index()))
        script = load_asset("report.js")
        held = f"\n{_hold('files', files)}\n{_hold('index', index)}"
        yield f'{held}\n<script type="module">{script}</script>\n</body></html>\n'.encode()

    def _hold_chunk(self, chunk: str) -> bytes:
        self._chunks += 1
        return f"\n{_hold(f'chunk-{self._chunks - 1}', chunk)}".encode()


def write_document(write: Write, report: ReportJson, records: Iterable[JsonObject], *, by_label: bool = False) -> None:
    """Write a report and its answers as HTML. See `ReportDocument`; `write` takes the next bytes."""
    document = ReportDocument(report, by_label=by_label)
    write(document.begin())
    for piece in chain(document.add(records), document.close()):
        write(piece)


@lru_cache
def make_policy() -> str:
    """Return the policy of the document, by which nothing but its own script and style is allowed."""
    return POLICY.format(script=hash_source(load_asset("report.js")), style=hash_source(load_asset("report.css")))


def _hold(name: str, content: str) -> Markup:
    """Return a block of data, which no browser runs."""
    return element("script", Markup(content), type="application/gzip", id=name)  # base64: nothing to escape, and much of it


@lru_cache
def load_asset(name: str) -> str:
    """Return a file of the document."""
    return (FOLDER / name).read_text(encoding="utf-8")


def hash_source(source: str) -> str:
    """Return the hash by which a policy allows an inline script or style."""
    return f"sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _build_body(report: ReportJson, title: str, blocks: Blocks) -> Iterator[Markup]:
    tones = pick_tones(report)
    metrics = list(enumerate(report["metrics"]))
    links = {"stopping": "Stopping"} if report["stopping"] else {}
    links |= {f"metric-{number}": metric["name"] for number, metric in metrics}
    links |= {"fusions": "Fusions"} if report["fusions"] else {}
    links |= {f"preferences-{number}": one["source"] for number, one in enumerate(report["preferences"])}
    links |= {"judges": "Judges"} if report["judges"] else {}
    links |= {"costs": "Cost and time", "answers": "Answers", "methods": "Methods"}
    yield element("header", element("h1", title), element("p", _describe_job(report), class_="quiet"))
    yield element("nav", *(element("a", name, href=f"#{target}") for target, name in links.items()), aria_label="Sections")
    yield Markup("<main>")
    verdicts = list_texts(list_verdicts(report), "verdicts")
    policies = [element("p", write_prose(line), class_="quiet") for line in list_policies(report)]
    yield section("verdict", "Verdict", verdicts, *policies)
    yield build_cards(report, tones)
    if report["stopping"]:
        yield build_stopping(report["stopping"], blocks)
    for number, metric in metrics:
        yield build_metric(metric, number, tones, blocks)
    if report["fusions"]:
        yield build_fusions(report["fusions"], blocks)
    for number, preferences in enumerate(report["preferences"]):
        yield build_preferences(preferences, number, tones, blocks)
    if report["judges"]:
        yield build_judges(report["judges"], blocks)
    yield build_costs(report, tones, blocks)
    yield _build_answers()
    notes = [element("h3", "Before you trust a figure"), list_texts(report["notes"])] if report["notes"] else []
    parameters = [element("h3", "Parameters that each model received"), blocks.table(table_parameters(report))]
    methods = [element("h3", "Methods by name"), list_texts(report["methods"])]
    yield section("methods", "Methods and limits", *notes, *methods, *parameters)
    yield Markup("</main>")


def _describe_job(report: ReportJson) -> str:
    job = report["job"]
    repeats = f" × {job['repeats']:,} repeats" if job["repeats"] > 1 else ""
    day = datetime.fromtimestamp(job["created_at"], UTC).date().isoformat()
    size = f"{job['items']:,} items × {len(report['models']):,} models{repeats}"
    return f"{size} · {job['ended']:,} of {job['calls']:,} calls have ended · {job['state']} · {day} · {job['id']}"


def _build_answers() -> Markup:
    """Return the place of the answers, which the script fills."""
    empty = element("p", "The answers need JavaScript, which this browser has switched off or blocked.", id="answers-state")
    paper = element("p", "The answers are in the file that this was printed from.", class_="paper quiet")
    return section("answers", "Answers side by side", join(empty, paper), element("div", id="answers-table"))
