"""The shape of providers.json: its rows, and its JSON Schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fanout.config.overlay import SHIPPED
from fanout.config.providers_file import ModelRow, PriceRow, ProviderRow, make_json_schema
from tests.support.builders.settings import collect_faults, load_own_settings

ROOT = Path(__file__).parents[2]
KEY = "sk-proj-0123456789abcdef"


def make_provider(**row: Any) -> dict[str, Any]:
    return {"providers": {"p": {"adapter": "openai", "base_url": "https://p.example/v1", **row}}}


def make_model(**row: Any) -> dict[str, Any]:
    return {"models": {"m": {"provider": "local", "id": "ngram-2", "kind": "chat", **row}}}


WRONG: list[tuple[Any, str]] = [
    (make_provider(adapter=None), "providers.p.adapter: null is not allowed"),
    (make_provider(base_url="ftp://p.example"), "providers.p.base_url: is not an address like `https://host/v1`"),
    (make_provider(base_url=f"https://user:{KEY}@p.example/v1"), "providers.p.base_url: is not an address"),
    (make_provider(base_url=f"https://p.example/v1?key={KEY}"), "providers.p.base_url: is not an address"),
    (make_provider(base_url_env="P URL"), "providers.p.base_url_env: is not the name of an environment variable"),
    (make_provider(key_header="X Key"), "providers.p.key_header: is not the name of a header"),
    (make_provider(api_key_env=KEY), "providers.p.api_key_env[0]: is not the name of a variable"),
    (make_provider(api_key_env="hf_abcdefABCDEF"), "providers.p.api_key_env[0]: is not the name of a variable"),
    (make_provider(api_key_env=["P_KEY", KEY]), "providers.p.api_key_env[1]: is not the name of a variable"),
    (make_provider(api_key_env={"key": KEY}), "providers.p.api_key_env: an object is not allowed"),
    (make_provider(api_key=KEY), "providers.p.api_key: unknown field `api_key`; did you mean `api_key_env`"),
    (make_provider(key_optional="yes"), "providers.p.key_optional: a string is not allowed: input should be a valid boolean"),
    (make_provider(headers=f"Bearer {KEY}"), "providers.p.headers: a string is not allowed: input should be an object"),
    (make_provider(headers={"x key": "1"}), 'providers.p.headers["x key"]: is not the name of a header'),
    (make_provider(headers={"x-key": [KEY]}), "providers.p.headers.x-key: a list is not allowed"),
    (make_provider(limits={"requests_per_minute": 0}), "providers.p.limits.requests_per_minute: 0 is not allowed"),
    (make_provider(limits={"requests_per_minute": "5"}), "providers.p.limits.requests_per_minute: a string is not allowed"),
    (make_provider(limits={"rpm": 5}), "providers.p.limits.rpm: unknown field `rpm`; known: requests_per_minute, burst,"),
    (make_provider(timeout_s=601), "providers.p.timeout_s: 601 is not allowed: input should be less than or equal to 600"),
    (make_provider(connect_timeout_s=0), "providers.p.connect_timeout_s: 0 is not allowed"),
    (make_provider(retries={"attempts": 11}), "providers.p.retries.attempts: 11 is not allowed"),
    (
        make_provider(default_kind="image"),
        "providers.p.default_kind: `image` is not allowed: input should be 'chat', 'text' or",
    ),
    (make_provider(parameters={"drop": "seed"}), "providers.p.parameters.drop: a string is not allowed"),
    (make_provider(parameters={"clamp": {"stop": [0, 1]}}), "providers.p.parameters.clamp.stop: `stop` is not allowed"),
    (make_provider(parameters={"clamp": {"top_p": [0]}}), "providers.p.parameters.clamp.top_p[1]: is required"),
    ({"providers": {"a/b": {"adapter": "ngram"}}}, 'providers["a/b"]: a provider\'s name has no `/` or space'),
    ({"providers": {"": {"adapter": "ngram"}}}, 'providers[""]: a provider\'s name has no `/` or space'),
    (make_model(kind="audio"), "models.m.kind: `audio` is not allowed"),
    (make_model(id=""), "models.m.id: is not a name"),
    (make_model(aliases="m2"), "models.m.aliases: a string is not allowed"),
    (make_model(aliases=["m2 "]), "models.m.aliases[0]: is not a name: it is empty, or begins or ends with a space"),
    (make_model(price={"input_usd_per_mtok": 1}), "models.m.price.output_usd_per_mtok: is required"),
    (
        make_model(price={"input_usd_per_mtok": -1, "output_usd_per_mtok": 1}),
        "models.m.price.input_usd_per_mtok: -1 is not allowed",
    ),
    (make_model(deprecated_on="soon"), "models.m.deprecated_on: is not a day like `2026-12-31`"),
    ({"models": {" ": {"provider": "local", "id": "x", "kind": "chat"}}}, 'models[" "]: is not a name'),
    ({"models": {"m": {}}}, "models.m.provider: is required"),
    ({"sets": {"s": "m"}}, "sets.s: a string is not allowed"),
    ({"default_provider": {"konko": "local"}}, "default_provider.konko: `konko` is not allowed: input should be 'scale'"),
    ({"extends": "no"}, "extends: a string is not allowed"),
    ({"provider": {}}, "provider: unknown field `provider`; did you mean `providers`"),
]
WRONG_IN_MEANING: list[tuple[Any, str]] = [
    (make_provider(base_url="https://p.example/v1\n"), "providers.p.base_url: is not an address"),
    (make_provider(headers={"x-key": "${P-KEY}"}), "providers.p.headers.x-key: holds a `${` that names no variable"),
    (make_provider(headers={"x-key": "a\r\nx-other: b"}), "providers.p.headers.x-key: holds a line break"),
    (make_provider(parameters={"clamp": {"top_p": [1, 0.5]}}), "providers.p.parameters.clamp.top_p: the lowest, 1, is above"),
    (make_model(deprecated_on="2026-02-31"), "models.m.deprecated_on: day is out of range for month"),
    ('{"providers": {"p": {"adapter": "ngram", "timeout_s": NaN}}}', "providers.p.timeout_s: NaN is not allowed"),
    (
        make_model(price={"input_usd_per_mtok": math.inf, "output_usd_per_mtok": 1}),
        "models.m.price.input_usd_per_mtok: Infinity is",
    ),
]


@pytest.mark.parametrize(("rows", "fault"), WRONG + WRONG_IN_MEANING)
def test_a_wrong_row_is_refused_with_its_place_but_without_its_value(
    tmp_path: Path, rows: dict[str, Any] | str, fault: str
) -> None:
    found = collect_faults(tmp_path, rows)
    assert found[0].startswith(f"own: {fault}")
    assert KEY not in "".join(found)


@pytest.mark.parametrize("rows", [rows for rows, _ in WRONG])
def test_the_json_schema_refuses_wrong_structures(rows: dict[str, Any]) -> None:
    assert not Draft202012Validator(make_json_schema()).is_valid(rows)


def test_the_json_schema_is_valid_and_accepts_the_shipped_file_and_a_removal() -> None:
    Draft202012Validator.check_schema(make_json_schema())
    validator = Draft202012Validator(make_json_schema())
    assert [error.message for error in validator.iter_errors(json.loads(SHIPPED.read_bytes()))] == []
    assert validator.is_valid({"providers": {"p": None}, "models": {"m": None}, "sets": {"s": None}, "extends": False})


def test_the_published_schema_is_up_to_date() -> None:
    """Run `fanout schema > providers.schema.json` to renew it."""
    published = ROOT / str(json.loads(SHIPPED.read_bytes())["$schema"])
    assert published.read_text() == json.dumps(make_json_schema(), indent=2) + "\n"


def test_a_full_row_is_read_unchanged(tmp_path: Path) -> None:
    rows = make_provider(
        base_url_env="P_URL",
        key_header="X-P-Key",
        api_key_env=["P_KEY", "P_TOKEN"],
        headers={"x-org": "${ORG}-1"},
        limits={
            "requests_per_minute": 5,
            "burst": 2,
            "tokens_per_minute": 100,
            "token_bucket": True,
            "concurrency": 3,
            "ramp": {"starts": 20, "period_s": 10},
            "circuit": {"failures": 4, "sustained_s": 1, "probe_after_s": 2},
        },
        timeout_s=1.5,
        connect_timeout_s=1,
        retries={"attempts": 1, "max_delay_s": 0},
        default_kind="both",
        parameters={"drop": ["seed"], "rename": {"top_k": "k"}, "clamp": {"top_p": [0.1, None]}, "max_stops": 16},
        prices="",
    )
    row = load_own_settings(tmp_path, rows).providers["p"].row
    assert row.api_key_env == ("P_KEY", "P_TOKEN")
    assert row.limits.burst == 2
    assert row.retries.attempts == 1
    assert row.parameters.clamp == {"top_p": (0.1, None)}
    assert row.model_dump(mode="json", include=set(rows["providers"]["p"])) == rows["providers"]["p"]


def test_a_single_key_variable_needs_no_list(tmp_path: Path) -> None:
    assert load_own_settings(tmp_path, make_provider(api_key_env="P_KEY")).providers["p"].row.api_key_env == ("P_KEY",)


def test_rows_are_frozen_and_hide_their_headers() -> None:
    row = ProviderRow(adapter="openai", headers={"x-key": KEY})
    with pytest.raises(ValueError, match="frozen"):
        row.adapter = "other"  # type: ignore[misc]  # what must not be possible
    assert KEY not in repr(row)
    assert KEY not in str(row)


def test_a_model_needs_only_provider_id_and_kind() -> None:
    row = ModelRow(provider="p", id="m", kind="text")
    assert row.price is None
    assert PriceRow(input_usd_per_mtok=0, output_usd_per_mtok=0).cached_usd_per_mtok is None
