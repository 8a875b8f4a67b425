"""The HTML file of a report as bytes: its policy, its texts, and the answers packed in it."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from itertools import islice
from typing import Any

import pytest

from fanout.core.json_text import JsonObject
from fanout.evaluate.report.report import build_report
from fanout.rendering.report import render_report
from fanout.rendering.report_html.answers import CHUNK_ITEMS, AnswerPack, to_text
from fanout.rendering.report_html.document import hash_source, write_document
from tests.support.builders.measures import build_measures
from tests.support.builders.reports import Scores, make_opinions, make_records, make_report, make_scores, make_stopping

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """The elements of a document, and the texts of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.sources: dict[str, str] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        given = dict(attrs)
        self._open = str(given.get("id") or given.get("type") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.sources[self._open] = self.sources.get(self._open, "") + data


def render(report: Any, records: Any, **options: Any) -> str:
    pieces: list[bytes] = []
    write_document(pieces.append, report, records, **options)
    return b"".join(pieces).decode()


def outline(document: str) -> Outline:
    found = Outline()
    found.feed(document)
    return found


def unpack(found: Outline, name: str) -> Any:
    return json.loads(gzip.decompress(b64decode(found.sources[name])))


def test_the_policy_allows_the_files_own_script_and_style_and_nothing_else() -> None:
    scores = make_scores()
    found = outline(render(make_report(), make_records(scores, lambda *_: "text")))
    policy = next(value for name, value in found.attributes if name == "content" and value and "default-src" in value)

    assert f"script-src '{hash_source(found.sources['module'])}'; style-src '{hash_source(found.sources['style'])}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    addresses = [value for name, value in found.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert all(value == "data:," or (value or "").startswith("#") for value in addresses)
    assert not [name for name, _ in found.attributes if name == "style" or name.startswith("on")]


def test_names_that_are_markup_stay_text_in_every_part() -> None:
    plain = make_scores()
    scores: Scores = {f"{name}{HOSTILE}": values for name, values in plain.items()}
    harmless, hostile = make_report(), make_report(scores)
    hostile["preferences"], hostile["judges"] = make_opinions(list(scores))
    harmless["preferences"], harmless["judges"] = make_opinions()
    hostile["stopping"], harmless["stopping"] = {**make_stopping(list(scores)), "metric": HOSTILE}, make_stopping()
    for field in ("provider", "upstream_model"):
        for model in hostile["models"]:
            model[field] = HOSTILE
    hostile["job"]["name"] = hostile["metrics"][0]["name"] = hostile["judges"][0]["note"] = HOSTILE
    wanted = outline(render(harmless, make_records(plain, lambda *_: "text"))).names
    found = outline(render(hostile, make_records(scores, lambda *_: HOSTILE, prompt=HOSTILE, custom_id=HOSTILE))).names

    # Names are longer there, so that some are shortened, with their whole text in a title.
    assert [name for name in found if name != "title"] == [name for name in wanted if name != "title"]


def test_every_figure_has_its_table_and_every_table_its_csv() -> None:
    scores = make_scores()
    report = make_report()
    report["preferences"], report["judges"] = make_opinions()
    report["stopping"] = make_stopping()
    document = render(report, make_records(scores, lambda *_: "text"))
    figures = re.findall(r"<figure.*?</figure>", document, re.DOTALL)
    titles = [re.search(r"<h3>(.*?)</h3>", figure)[1] for figure in figures]  # type: ignore[index]
    files = unpack(outline(document), "files")

    assert titles == [
        *("good − other", "good − poor", "other − poor"),
        *("Score", "Rank", "Paired differences", "Score by repeat", "Score against score", "Ratings", "Win rates", "Agreement"),
        "helpful, corrected by people&#x27;s labels",
        *(
            "Cost against exact",
            "Time to first token",
            "Time for each token after the first",
            "Time of the attempt",
            "Total time",
        ),
    ]
    assert all(figure.count("<svg") >= 1 and figure.count("<table>") == 1 for figure in figures)
    assert [int(number) for number in re.findall(r'data-csv="(\d+)"', document)] == list(range(len(files)))
    by_name = dict(files)
    paths = [content.splitlines()[1] for name, content in files if name == "stopping_path-exact.csv"]
    assert paths == [f"{pair},1,0.5,-0.9,0.9,7.0" for pair in ("good,other", "good,poor", "other,poor")]
    assert by_name["corrected-helpful.csv"].splitlines()[1].startswith("good,other,0.7,0.6,")
    assert "it took 9 calls ($0.0200), less than a plan of a fixed size for just what was found: 45 calls" in document
    assert by_name["scores-exact.csv"].splitlines()[1].startswith("good,0.9,")
    assert by_name["cost_quality-exact.csv"].splitlines()[0] == 'model,"per 1,000 items",exact'


def test_unknown_figures_are_left_out_or_named_never_drawn_as_zero() -> None:
    scores: Scores = {"a": [1.0, 0.0, 1.0], "b": [0.0, 0.0, 1.0]}
    report = make_report(scores)
    for model in report["models"]:
        model["cost_usd"] = model["cost_per_1000_items_usd"]["value"] = None
    document = render(report, make_records(scores, lambda *_: "text"))

    assert "Cost against" not in document
    assert "<h3>Rank</h3>" not in document, "three items allow no ranks"
    assert "<dt>cost</dt><dd>unknown</dd>" in document


def pack(records: Any, scores: Scores, **options: Any) -> tuple[list[list[JsonObject]], JsonObject]:
    packed = AnswerPack(make_report(scores), by_label=options.pop("by_label", False), **options)
    # In parts that end in the middle of an item, as the pages of a store do.
    given = iter(records)
    parts = iter(lambda: list(islice(given, 7)), [])
    found = [chunk for part in parts for chunk in packed.add(part)] + list(packed.close())
    chunks = [json.loads(gzip.decompress(b64decode(chunk))) for chunk in found]
    return chunks, packed.build_index()


def test_answers_are_packed_in_chunks_that_the_index_finds() -> None:
    scores: Scores = {"a": [1.0] * 600, "b": [0.0] * 600}
    chunks, index = pack(make_records(scores, lambda item, *_: f"text {item}"), scores)

    assert [len(chunk) for chunk in chunks] == [CHUNK_ITEMS, CHUNK_ITEMS, 600 - 2 * CHUNK_ITEMS]
    assert index["firsts"] == [0, CHUNK_ITEMS, 2 * CHUNK_ITEMS]
    assert [item["n"] for chunk in chunks for item in chunk] == list(range(600))
    assert chunks[1][0]["a"][1][0]["t"] == f"text {CHUNK_ITEMS}"
    assert (index["items"], index["total"], len(index["flags"]), len(index["means"][0])) == (600, 600, 600, 600)


def test_long_answers_make_chunks_of_their_own_and_what_is_too_much_is_counted() -> None:
    scores: Scores = {"a": [1.0] * 6}
    chunks, _ = pack(make_records(scores, lambda *_: "x" * 600_000), scores)
    fewer, index = pack(make_records(scores, lambda *_: "x" * 1000), scores, max_bytes=3_500)
    one, alone = pack(make_records(scores, lambda *_: "x" * 1000), scores, max_bytes=10)

    assert [len(chunk) for chunk in chunks] == [1] * 6
    assert (sum(map(len, fewer)), index["items"], index["total"], len(index["means"][0])) == (3, 3, 6, 3)
    assert (sum(map(len, one)), alone["items"]) == (1, 1)


def test_the_index_has_errors_differences_and_scores_as_the_report_counts_them() -> None:
    scores: Scores = {"a": [[1.0, 0.0], [1.0, 1.0]], "b": [["failed", 1.0], [0.0, 0.0]]}
    _, index = pack(make_records(scores, lambda item, entry, _: "same" if item == 0 else str(entry)), scores)

    assert index["flags"] == "12"
    assert index["means"] == [[[0.5, 0.5], [1.0, 0.0]]]


def test_rows_that_name_their_own_models_are_put_together_by_label() -> None:
    scores: Scores = {"a": [1.0, 1.0], "b": [0.0, 0.0]}
    records = [{**record, "entry": 0} for record in make_records(scores, lambda _, entry, __: "ab"[entry])]
    late = [{**record, "label": "later"} for record in records[-1:]]
    chunks, _ = pack([*records, *late], scores, by_label=True)

    assert [[cell["t"] for of_model in item["a"] for cell in of_model] for item in chunks[0]] == [["a", "b"], ["a", "b"]]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a text", "a text"),
        (
            [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "system: be kind\n\nuser: hi",
        ),
        ([1, 2], "[1,2]"),
        ({"answer": 1}, '{"answer":1}'),
        (None, "null"),
    ],
)
def test_prompts_are_shown_as_people_read_them(given: Any, shown: str) -> None:
    assert to_text(given) == shown


def test_a_job_without_scores_or_answers_has_a_file_too() -> None:
    measures = build_measures({"a": ["absent"]})
    empty = replace(measures, scorers=[])
    document = render(render_report(build_report(empty)), iter(()))

    assert unpack(outline(document), "index") == {
        "models": ["a"],
        "metrics": [],
        "items": 0,
        "total": 1,
        "firsts": [],
        "flags": "",
        "means": [],
    }
