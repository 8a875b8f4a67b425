"""The package's style as `scripts/measure` counts it.

`python -m tests.test_style` writes the table in CONTRIBUTING.md; columns of packages that are not installed stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.documents import ROOT, load_script, read_part, replace_part

DOCUMENT = ROOT / "CONTRIBUTING.md"
BOUNDS = {
    "entries under the package": (0, 18),
    "module lines: median, largest": (0, 400),
    "modules over 300 lines": (0, 5),
    "largest class, lines": (0, 200),
    "class names defined twice": (0, 0),
    "docstrings that open with What, How, Who …": (0, 0.3),
    "functions named by a past participle": (0, 1),
    "said, asked, told per 1,000 lines": (0, 0.3),
    "he, his, him per 1,000 lines": (0, 0),
    "comments per 100 lines": (2.9, 5),
    "`Any` per 1,000 lines": (0, 12),
}
"""The least and the greatest value of each measure; of a measure with two figures, of its last."""


measure = load_script("measure")


@pytest.fixture(scope="module")
def tree() -> Any:
    """The counts of the package."""
    return measure.measure(ROOT / "fanout")


def parse_table(text: str) -> dict[str, dict[str, str]]:
    """Return the values of a Markdown table by column and then by row."""
    head, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()] or [[]]
    return {name: {row[0]: row[place] for row in rows[1:]} for place, name in enumerate(head[1:], 1)}


def parse_figure(value: str) -> float:
    """Return the last figure of a cell such as `100, 295`, `32,631` or `0.4 %`."""
    return float(re.sub(r"[^\d.]", "", value.rpartition(", ")[2]))


def build_table() -> str:
    """Return the table of all packages, with the documented columns of those that are not installed."""
    columns = parse_table(read_part(DOCUMENT.read_text(), "measure"))
    for name in ("fanout", *measure.PEERS):
        if folder := measure.find_package(name):
            columns[name] = dict(measure.rows(measure.measure(folder)))
    lines = [f"| measure | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join(
        [*lines, *(f"| {row} | {' | '.join(columns[name][row] for name in columns)} |" for row in columns["fanout"])]
    )


def test_no_class_name_is_defined_twice(tree: Any) -> None:
    assert tree.duplicates == []


def test_docstrings_open_with_a_verb_or_a_noun(tree: Any) -> None:
    """Three in a thousand may open with a question's word, where nothing else is clear."""
    assert len(tree.openings) <= 3 * tree.docstrings / 1000, "\n".join(tree.openings)


def test_functions_are_named_by_verbs(tree: Any) -> None:
    """One in a hundred may be named by a past participle, such as protocol methods that a library prescribes."""
    assert len(tree.participles) <= tree.functions / 100, "\n".join(tree.participles)


def test_the_words_of_the_code_are_the_fields_own(tree: Any) -> None:
    assert tree.pronouns == []
    assert len(tree.words) <= 3 * tree.lines / 10_000, "\n".join(tree.words)


@pytest.mark.parametrize("name", BOUNDS)
def test_every_measure_stays_within_its_bounds(name: str, tree: Any) -> None:
    least, most = BOUNDS[name]

    assert least <= parse_figure(dict(measure.rows(tree))[name]) <= most, "\n".join(tree.large)


def test_the_documented_measures_have_the_scripts_rows_and_stay_within_their_bounds(tree: Any) -> None:
    """The figures themselves may differ from today's, or every commit would have to write the table again."""
    columns = parse_table(read_part(DOCUMENT.read_text(), "measure"))

    assert list(columns) == ["fanout", *measure.PEERS]
    for column in columns.values():
        assert list(column) == [name for name, _ in measure.rows(tree)], "run `python -m tests.test_style`"
    for name, (least, most) in BOUNDS.items():
        assert least <= parse_figure(columns["fanout"][name]) <= most, f"{name}: run `python -m tests.test_style`"


if __name__ == "__main__":
    DOCUMENT.write_text(replace_part(DOCUMENT.read_text(), "measure", build_table()))
