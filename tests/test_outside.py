"""Files around the package: the models that examples name, and files that code hosts and container builders read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fanout.config.settings import load_settings
from tests.support.documents import ROOT

BY_NAME = {
    "tests/core/test_suggestions.py": "near names are found among names alone",
    "tests/dispatch/test_pricing.py": "prices are published for old models, too",
    "tests/providers": "an adapter knows by a model's name which parameters it takes",
    "tests/test_providers_document.py": "one model of each family, also of old ones",
    "tests/vendors": "requests for models of every family are held against the vendors' types",
}
"""Files that may name any model, and why: none of them asks the catalogue for it, or its end is what they are about."""


def list_texts() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every document, example and test, without the table of families."""
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *list_files("examples"), *list_files("tests")]):
        text = path.read_text()
        yield str(path.relative_to(ROOT)), re.sub(r"<!-- parameters:.*<!-- /parameters -->", "", text, flags=re.DOTALL)


def list_files(folder: str) -> Iterator[Path]:
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".json", ".jsonl", ".ipynb", ".mjs", ".md") and "node_modules" not in path.parts:
            yield path


def test_no_example_names_a_model_whose_end_is_dated() -> None:
    models = load_settings(environ={}).models
    ending = {name for key, model in models.items() if model.deprecated_on for name in (key, *model.aliases)}
    names = "|".join(sorted(map(re.escape, ending), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({names})(?=-v\d|[^\w.-]|\.(?!\d)|$)")

    found = {path: sorted(set(pattern.findall(text))) for path, text in list_texts() if not path.startswith(tuple(BY_NAME))}

    assert {path: dated for path, dated in found.items() if dated} == {}
