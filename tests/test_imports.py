"""The order of the package: a part imports only parts that stand before it in `LISTING`, which docs/design.md explains."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from graphlib import TopologicalSorter

from tests.support.documents import ROOT

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "fanout").rglob("*.py")
}
# A total order, from the ground up; `fanout` is the package's own `__init__`.
LISTING = [
    *("core", "config", "limits", "providers", "observability", "store", "dispatch", "jobs", "probe", "evaluate"),
    *("requests", "rendering", "api", "fanout", "server", "cli", "__main__"),
]
# Packages that come with a declared dependency.
PARTS = {
    "google": "google_auth",
    "multidict": "aiohttp",
    "numpy": "scipy",
    "opentelemetry": "opentelemetry_sdk",
    "referencing": "jsonschema",
    "pydantic_core": "pydantic",
    "yaml": "pyyaml",
    "yarl": "aiohttp",
}


@cache
def parse(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(FILES[name].read_bytes())


@cache
def list_imports(name: str) -> tuple[str, ...]:
    """Return every module that a module imports, even within functions and under TYPE_CHECKING."""
    return tuple(walk_imports(name))


def walk_imports(name: str) -> Iterator[str]:
    """Yield them as they come."""
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names)


def get_part(name: str) -> str:
    """Return the file or folder of the package that holds a module."""
    return name.split(".")[:2][-1]


def test_every_module_has_its_place_and_imports_only_earlier_ones() -> None:
    places = {place: number for number, place in enumerate(LISTING)}
    assert {get_part(name) for name in FILES} <= set(places)
    inner = [(name, other) for name in FILES for other in list_imports(name) if other.split(".")[0] == "fanout"]
    assert [f"{name} imports {other}" for name, other in inner if places[get_part(other)] > places[get_part(name)]] == []


def test_the_command_line_imports_nothing_of_the_server_but_in_serve_and_worker() -> None:
    """Shared code lives in `rendering`, `requests` and `jobs`, so that no command depends on HTTP handlers."""
    running = ("fanout.cli.serve", "fanout.cli.worker")
    commands = [name for name in FILES if get_part(name) == "cli" and name not in running]
    assert [f"{name} imports {other}" for name in commands for other in list_imports(name) if get_part(other) == "server"] == []


def test_the_files_of_a_folder_import_each_other_without_a_circle() -> None:
    TopologicalSorter({name: set(list_imports(name)) for name in FILES}).prepare()  # raises if there is one


def test_only_declared_packages_are_list_imports() -> None:
    """That excludes tests, anything outside the repository, and relative imports."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = [setup["options.extras_require"][extra] for extra in ("bedrock", "evaluate", "otel", "parquet", "vertex")]
    wanted = "\n".join([setup["options"]["install_requires"], *extras])
    declared = {re.split(r"[>=\[]", line)[0].replace("-", "_") for line in wanted.split()}
    allowed = declared | sys.stdlib_module_names | {"fanout"}
    roots = {(name, other.split(".")[0]) for name in FILES for other in list_imports(name)}
    assert [f"{name} imports `{root}`" for name, root in roots if PARTS.get(root, root) not in allowed] == []


def test_opentelemetry_is_imported_by_the_modules_of_spans_alone_and_these_only_where_traces_are_on() -> None:
    spans = {f"fanout.observability.{name}" for name in ("call_span", "trace_content", "tracing")}
    importing = {name for name in FILES if any(other.startswith("opentelemetry") for other in list_imports(name))}
    at_once = [
        f"{name} imports {node.module}"
        for name in FILES
        if name not in spans
        for node in parse(name).body
        if isinstance(node, ast.ImportFrom) and node.module in spans
    ]
    assert (importing, at_once) == (spans, [])
