"""Files around the package: the models that examples name, and files that code hosts and container builders read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanout.config.environment import Environment
from fanout.config.settings import load_settings
from tests.support.documents import ROOT

YAML = {
    str(path.relative_to(ROOT)) for pattern in (".*.yaml", ".github/**/*.yml", "deploy/*.y*ml") for path in ROOT.glob(pattern)
}
BY_NAME = {
    "tests/core/test_suggestions.py": "near names are found among names alone",
    "tests/dispatch/test_costs.py": "prices are published for old models, too",
    "tests/dispatch/test_pricing.py": "the same",
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


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_no_example_names_a_model_whose_end_is_dated() -> None:
    models = load_settings(environ={}).models
    ending = {name for key, model in models.items() if model.deprecated_on for name in (key, *model.aliases)}
    names = "|".join(sorted(map(re.escape, ending), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({names})(?=-v\d|[^\w.-]|\.(?!\d)|$)")

    found = {path: sorted(set(pattern.findall(text))) for path, text in list_texts() if not path.startswith(tuple(BY_NAME))}

    assert {path: dated for path, dated in found.items() if dated} == {}


@pytest.mark.parametrize("path", sorted(YAML), ids=str)
def test_every_yaml_file_can_be_read(path: str) -> None:
    assert isinstance(read_yaml(path), dict)


def test_every_variable_of_fanout_in_documents_and_container_files_exists() -> None:
    known = {f"FANOUT_{name.upper()}" for name in Environment.model_fields}
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *list_files("examples")]
    paths += [path for path in (ROOT / "deploy").iterdir() if path.suffix not in (".json", ".lock")]

    named = {(path.name, name) for path in paths for name in re.findall(r"(?<!\w)FANOUT_\w*[A-Z]", path.read_text())}

    assert [(path, name) for path, name in sorted(named) if name not in known] == []


def test_the_workflow_runs_the_checks_on_declared_pythons() -> None:
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]

    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    for version in job["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in (ROOT / "setup.cfg").read_text()


def test_the_hooks_are_checks_of_the_suite() -> None:
    check = (ROOT / "scripts" / "check").read_text()

    for hook in read_yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]:
        module = re.fullmatch(r"\.venv/bin/python (-m \w+( \w+)?)( --[\w-]+)*", hook["entry"])
        assert module, hook
        assert f'"$python" {module[1]}' in check, hook


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_a_template_asks_for_fields_with_names_of_their_own(name: str) -> None:
    template = read_yaml(f".github/ISSUE_TEMPLATE/{name}.yml")
    fields = [field["id"] for field in template["body"]]

    assert {"name", "description", "body"} <= set(template)
    assert len(fields) == len(set(fields))
    assert all(field["attributes"]["label"] for field in template["body"])


def test_nothing_installs_another_projects_package_of_that_name() -> None:
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *list_files("examples"), *(ROOT / "fanout").rglob("*.py")]

    assert [path.name for path in paths if re.search(r"pip install [^\n`]*(?<![\w-])fanout(?![\w-])", path.read_text())] == []


def test_every_log_event_is_described_for_operators() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "fanout").rglob("*.py"))
    literal = set(re.findall(r'log\.\w+\(\s*"(\w+\.\w+)"', source))
    built = set(re.findall(r'log\.\w+\(\s*f"\{[^}]*\}\.(\w+)"', source))
    section = (ROOT / "docs" / "operations.md").read_text().split("### Log events")[1].split("\n## ")[0]
    described = set(re.findall(r"`(\w+\.\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))

    assert literal
    assert literal <= described
    assert {event for event in described if f'"{event}"' not in source and event.partition(".")[2] not in built} == set()


def test_documents_name_only_files_of_the_project_and_names_of_its_code() -> None:
    own = ("fanout/fanout.db", "fanout/keys.env", "fanout/providers.json")  # in the user's folders
    code = "\n".join(path.read_text() for folder in ("fanout", "tests") for path in (ROOT / folder).rglob("*.py"))
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for path in re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|md|json|yaml))?)`", text):
            if path not in own and "NAME" not in path:
                assert (ROOT / path).exists() or (ROOT / "fanout" / path).exists(), f"{document.name}: {path}"
    for name in re.findall(r"`([A-Za-z]\w+)(?:\(\))?`", (ROOT / "docs" / "design.md").read_text()):
        assert re.search(rf"\b{name}\b", code), name
