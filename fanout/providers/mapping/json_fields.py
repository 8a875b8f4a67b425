"""Lenient reads of foreign JSON: a value of another type than its format promises counts as absent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fanout.core.json_text import JsonObject

MAX_COUNT = 2**53 - 1
"""Of whatever is counted or measured. A larger figure is garbled; JavaScript would round it, and sums leave 64 bits."""


def as_object(value: object) -> JsonObject:
    """Return `value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[JsonObject]:
    """Return the objects of a list; none where `value` is no list."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def as_text(value: object) -> str:
    """Return `value` where it is a string, else an empty one."""
    return value if type(value) is str else ""  # the parser makes no other strings, and a call is spared


def as_name(value: object) -> str | None:
    """Return an id or a name, cut to what is worth keeping; `None` where there is none."""
    return value[:200] if type(value) is str and value else None


def as_number(value: object) -> float | None:
    """Return `value` where it is a number that a figure can be: finite, and within 2^53."""
    if isinstance(value, int | float) and not isinstance(value, bool) and -MAX_COUNT <= value <= MAX_COUNT:
        return float(value)
    return None


def as_count(value: object) -> int | None:
    """Return `value` where it is a number of tokens."""
    if type(value) is int:  # nearly always, and a dozen times an answer; a bool is none
        return value if 0 <= value <= MAX_COUNT else None
    return int(value) if isinstance(value, float) and 0 <= value <= MAX_COUNT and value.is_integer() else None


def find_count(objects: Iterable[Mapping[str, object]], names: frozenset[str]) -> int | None:
    """Return the largest count that any of the objects has under any of the names.

    Hosts that copied a format fill its own field with a 0 and state the figure under a name of theirs.
    """
    largest = None
    for fields in objects:
        if names.isdisjoint(fields):  # nearly always
            continue
        for name in names & fields.keys():
            count = as_count(fields[name])
            if count is not None and (largest is None or count > largest):
                largest = count
    return largest
