"""Plans over a small catalogue with one model of each kind."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fanout.config.catalogue import Catalogue
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.dispatch.entries import Entry
from fanout.dispatch.plan import plan
from fanout.dispatch.request import Request
from tests.support.builders.settings import load_own_settings

TODAY = date(2026, 6, 1)


def build_row(provider: str, kind: str = "chat", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "id": "up", "kind": kind, **more}


@cache
def build_catalogue() -> Catalogue:
    host = {"adapter": "openai", "base_url": "https://p.example/v1"}
    rows = {
        "extends": False,
        "providers": {
            "p": {**host, "default_kind": "both"},
            "keyed": {**host, "api_key_env": "A_KEY"},
            "other": {"adapter": "some.adapter"},
        },
        "models": {
            "chat": build_row("p", aliases=["talker"], limit_group="g"),
            "text": build_row("p", "text"),
            "both": build_row("p", "both"),
            "keyed": build_row("keyed"),
            "gone": build_row("keyed", deprecated_on="2026-01-01"),
            "other": build_row("other", "both"),
        },
        "sets": {"trio": ["chat", "text", "p/any"]},
    }
    with TemporaryDirectory() as folder:
        return Catalogue(load_own_settings(Path(folder), rows))


def fit_parameters(target: Target, query: Query) -> FittedParameters:
    """Fit the parameters to a host that has no `top_k`, no temperature above 1, and `n` up to 4."""
    given = query.sampling.as_dict()
    ignored = tuple(name for name in given if name == "top_k")
    adjusted = {name: (value, 1) for name, value in given.items() if name == "temperature" and value > 1}
    adjusted |= {"n": (given["n"], 4)} if given.get("n", 0) > 4 else {}
    return FittedParameters({name: value for name, value in given.items() if name not in ignored}, ignored, adjusted)


def plan_calls(*entries: Entry | str, max_calls: int = 256, **request: Any) -> list[Call]:
    parsed = tuple(Entry(entry) if isinstance(entry, str) else entry for entry in entries)
    request = {"prompts": ("Hello",), **request} if "messages" not in request else request
    return plan(Request(entries=parsed, **request), build_catalogue(), fit_parameters, max_calls, TODAY)


def plan_call(entry: Entry | str, **request: Any) -> Call:
    (call,) = plan_calls(entry, **request)
    return call
