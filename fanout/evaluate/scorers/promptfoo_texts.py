"""Texts as promptfoo reads them: lists with commas, JavaScript's regular expressions, and JSON in the midst of an answer. Pure.

Source: promptfoo 0.123.1, `src/assertions/contains.ts`, `src/util/json.ts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import regex
import yaml

from fanout.evaluate.limits import REGEX_TIMEOUT_S, check_time

MAX_COUNTED_CHARS = 1_000_000
"""Letters at which braces are counted: an answer of nothing but braces would take the square of its length."""
MAX_OBJECT_CHARS = 100_000
MAX_LENIENT_CHARS = 20_000
"""Of an answer that are read as YAML, which takes long: nearly JSON is short."""
# Two backslashes can be read in two ways, so that thirty of them take a thousand million steps: only within a time.
QUOTED = regex.compile(r'"((?:\\["\\]|""|[^"])*)"\s*(?:,|$)', regex.DOTALL)
ESCAPED = regex.compile(r'\\(["\\])|"(")')
SPACE = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
CLASSES = {r"\w": "A-Za-z0-9_", r"\d": "0-9", r"\s": SPACE}
LINE_ENDS = r"\n\r\u2028\u2029"


def split_list(text: str) -> list[str]:
    """Return the values of a text with commas between them; a comma within double quotes belongs to a value."""
    found: list[str] = []
    place = 0
    while place < len(text):
        if text[place] == "," or text[place].isspace():
            place += 1
        elif quoted := QUOTED.match(text, place, timeout=min(check_time(), REGEX_TIMEOUT_S), concurrent=True):
            found.append(ESCAPED.sub(r"\1\2", quoted[1]))
            place = quoted.end()
        else:
            end = text.find(",", place)
            end = len(text) if end < 0 else end
            found.append(text[place:end].strip())
            place = end
    return found


def translate_pattern(pattern: str) -> str:
    r"""Return a regular expression of JavaScript for the package `regex`, where `\w` knows all letters, and `$` line ends."""
    parts, place, in_class = [r"(?a)"], 0, False
    while place < len(pattern):
        letter = pattern[place : place + 2] if pattern[place] == "\\" else pattern[place]
        place += len(letter)
        if letter in CLASSES:
            parts.append(CLASSES[letter] if in_class else f"[{CLASSES[letter]}]")
        elif letter == r"\S" and not in_class:
            parts.append(f"[^{SPACE}]")
        elif letter in (".", "$") and not in_class:
            parts.append(f"[^{LINE_ENDS}]" if letter == "." else r"\Z")
        else:
            parts.append(letter)
            in_class = letter == "[" or (in_class and letter != "]")
    return "".join(parts)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # the package has no types
    """YAML 1.2, as JavaScript reads it, where `yes`, `no`, `on` and `off` are words."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        letter: [one for one in found if letter not in "yYnNoO" or one[0] != "tag:yaml.org,2002:bool"]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _PlainLoader(_Loader):
    """The same without references: a few lines of references to references stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        check_time()
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references are not read")
        return super().compose_node(parent, index)


def load_yaml(text: str, *, has_references: bool = False) -> Any:
    """Return the value of a YAML text; raise `YAMLError`."""
    return yaml.load(text, _Loader if has_references else _PlainLoader)  # noqa: S506 - safe loaders


def list_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, also those that are only nearly JSON, or not closed.

    Braces are counted as they stand, so that one within a string ends an object too soon: as promptfoo does it.
    """
    place, left, unread = 0, MAX_LENIENT_CHARS, MAX_COUNTED_CHARS
    while left >= 0 and unread >= 0:
        check_time()
        place = text.find("{", place)
        if place < 0 or place + 1 == len(text):
            return
        end, still_open = _find_end(text, place)
        unread -= end - place
        found, cost = _parse_loosely(text[place:end] + "}" * still_open)
        left -= cost
        if isinstance(found, dict):
            yield found
            place = end
        else:
            place += 1


def _find_end(text: str, start: int) -> tuple[int, int]:
    """Return where the braces that begin here are closed, or the end of the text and how many are open there."""
    depth = 0
    for place in range(start, min(len(text), start + MAX_OBJECT_CHARS)):
        depth += (text[place] == "{") - (text[place] == "}")
        if not depth:
            return place + 1, 0
    return min(len(text), start + MAX_OBJECT_CHARS), depth


def _parse_loosely(text: str) -> tuple[Any, int]:
    """Return a value, or `None`, and the letters that were read as YAML."""
    try:
        return json.loads(text), 0
    except (ValueError, RecursionError):
        pass
    if len(text) > MAX_LENIENT_CHARS:
        return None, 0
    try:
        return load_yaml(text), len(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return None, len(text)
