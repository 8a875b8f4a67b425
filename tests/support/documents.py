"""Documents of this project, and the scripts that write them.

A part that a program writes stands between `<!-- name: … -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document; a block that is a file has a name."""

    language: str
    name: str
    text: str
    line: int


def read_blocks(document: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    text = (ROOT / document).read_text()
    for found in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


def read_part(text: str, name: str) -> str:
    """Return the part of a document with this name."""
    start, end = _find_part(text, name)
    return text[start:end]


def replace_part(text: str, name: str, content: str) -> str:
    """Return the document with another content of the part with this name."""
    start, end = _find_part(text, name)
    return f"{text[:start]}{content}\n{text[end:]}"


def _find_part(text: str, name: str) -> tuple[int, int]:
    found = re.search(rf"<!-- {name}:.*-->\n", text)
    assert found, f"no part named `{name}`"
    return found.end(), text.index(f"<!-- /{name} -->", found.end())


def load_script(name: str) -> Any:
    """Return a Python program of scripts/ as a module."""
    loader = SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = spec_from_loader(name, loader)
    assert spec
    module = module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their own module up
    loader.exec_module(module)
    return module
