"""Fusions written as a model's name: `fusion(a, b*2 by c)`, for wherever only a name has room. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from fanout.core.errors import Fault, RequestError
from fanout.core.fusion import MAX_MEMBERS

PREFIX = "fusion("
FORM = "`fusion(a, b by c)`: the models `a` and `b`, and `c`, which makes one answer of theirs; `a*3` is `a` three times"
MAX_LABEL_CHARS = 256
_WHOLE = re.compile(r"fusion\((?P<of>.+)\sby\s+(?P<by>\S+?)\s*\)", re.DOTALL)
_MEMBER = re.compile(r"(?P<name>\S+?)(?:\s*\*\s*(?P<times>\d{1,3}))?")


class WrittenFusion(NamedTuple):
    """A fusion as it was written: the names of its members, and of the model that makes one answer of theirs."""

    of: tuple[str, ...]
    by: str


def is_fusion(name: str) -> bool:
    """Return whether a name in a list of models is meant as a fusion."""
    return name.startswith(PREFIX)


def parse_fusion(text: str) -> WrittenFusion:
    """Return the members and the model of a fusion.

    Raises:
        RequestError: it is not of the form that a fusion has.
    """
    whole = _WHOLE.fullmatch(text.strip())
    members = [_MEMBER.fullmatch(part.strip()) for part in whole["of"].split(",")] if whole else []
    times = [int(member["times"] or 1) for member in members if member]
    if whole is None or len(times) < len(members) or not all(times):
        raise RequestError([Fault("model", f"`{text[:MAX_LABEL_CHARS]}` is no fusion: write {FORM}")])
    # One beyond the bound is enough for whoever counts them: `a*999` is not written out.
    names = [
        member["name"]
        for member, count in zip(members, times, strict=True)
        for _ in range(min(count, MAX_MEMBERS + 1))
        if member
    ]
    return WrittenFusion(tuple(names), whole["by"])


def tidy_fusion(text: str) -> str:
    """Return a fusion as its label is written; see `parse_fusion`."""
    of, by = parse_fusion(text)
    return tidy if is_fusion(tidy := write_fusion(of, by)) and len(of) > 1 else text


def list_fused(text: str) -> Sequence[str]:
    """Return the names in a fusion, each once; see `parse_fusion`."""
    of, by = parse_fusion(text)
    return list(dict.fromkeys((*of, by)))


def write_fusion(of: Sequence[str], by: str) -> str:
    """Return a fusion as it is written in place of a name, which is also its label; a long one is cut."""
    text = f"{PREFIX}{', '.join(_count_names(of))} by {by})"
    return text if len(text) <= MAX_LABEL_CHARS else f"{PREFIX}{len(of)} models by {by})"[:MAX_LABEL_CHARS]


def _count_names(names: Sequence[str]) -> Iterator[str]:
    for name, same in groupby(names):
        count = sum(1 for _ in same)
        yield name if count == 1 else f"{name}*{count}"
