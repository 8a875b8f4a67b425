"""Documents of this project and the parts of them that programs write, between `<!-- name: … -->` and `<!-- /name -->`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
