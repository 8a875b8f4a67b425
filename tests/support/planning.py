"""Plans over a small catalogue with one model of each sort."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fanout.config.catalogue import Catalogue
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.dispatch.plan import Entry, Request, plan
from tests.support.configuring import configured

TODAY = date(2026, 6, 1)


def row(provider: str, kind: str = "chat", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "id": "up", "kind": kind, **more}


@cache
def catalogue() -> Catalogue:
    at = {"adapter": "openai", "base_url": "https://p.example/v1"}
    rows = {
        "extends": False,
        "providers": {
            "p": {**at, "default_kind": "both"},
            "keyed": {**at, "api_key_env": "A_KEY"},
            "other": {"adapter": "some.adapter"},
        },
        "models": {
            "chat": row("p", aliases=["talker"], limit_group="g"),
            "text": row("p", "text"),
            "both": row("p", "both"),
            "keyed": row("keyed"),
            "gone": row("keyed", deprecated_on="2026-01-01"),
            "other": row("other", "both"),
        },
        "sets": {"trio": ["chat", "text", "p/any"]},
    }
    with TemporaryDirectory() as folder:
        return Catalogue(configured(Path(folder), rows))


def fit(target: Target, query: Query) -> FittedParameters:
    """A host that has no `top_k`, no temperature above 1, and `n` up to 4."""
    asked = query.sampling.as_dict()
    ignored = tuple(name for name in asked if name == "top_k")
    adjusted = {name: (value, 1) for name, value in asked.items() if name == "temperature" and value > 1}
    adjusted |= {"n": (asked["n"], 4)} if asked.get("n", 0) > 4 else {}
    return FittedParameters({name: value for name, value in asked.items() if name not in ignored}, ignored, adjusted)


def calls_of(*entries: Entry | str, max_calls: int = 256, **request: Any) -> list[Call]:
    made = tuple(Entry(entry) if isinstance(entry, str) else entry for entry in entries)
    request = {"prompts": ("Hello",), **request} if "messages" not in request else request
    return plan(Request(entries=made, **request), catalogue(), fit, max_calls, TODAY)


def only(entry: Entry | str, **request: Any) -> Call:
    (call,) = calls_of(entry, **request)
    return call
