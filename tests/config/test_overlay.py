"""The files of providers.json: merged, and checked as one whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fanout.config.catalogue import Catalogue
from fanout.config.overlay import Layer, overlay
from fanout.config.providers_file import ProvidersFile
from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError
from tests.support.builders.settings import Rows, collect_faults, load_own_settings

OPENAI = {"adapter": "openai", "base_url": "https://own.example/v1"}
NGRAM = {"adapter": "ngram"}


def make_model(provider: str = "local", upstream_id: str = "ngram-2", **row: Any) -> dict[str, Any]:
    return {"provider": provider, "id": upstream_id, "kind": "chat", **row}


def make_file(**sections: Any) -> Rows:
    """Return a file that is not merged over the shipped one."""
    return {"extends": False, "providers": {"p": NGRAM}, **sections}


def test_the_operators_entry_replaces_the_shipped_one_whole(tmp_path: Path) -> None:
    rows = {
        "providers": {"openai": OPENAI},
        "models": {"gpt-6-luna": make_model("openai", "gpt-6-luna")},
        "sets": {"embedded": ["gpt-6-luna"]},
    }
    settings = load_own_settings(tmp_path, rows)
    assert settings.providers["openai"].row.api_key_env == ()
    assert settings.providers["openai"].row.limits.requests_per_minute is None
    assert settings.models["gpt-6-luna"].max_context_length is None
    assert settings.sets["embedded"] == ("gpt-6-luna",)


def test_other_entries_stay_as_shipped(tmp_path: Path) -> None:
    shipped, settings = load_own_settings(tmp_path, {}), load_own_settings(tmp_path, {"providers": {"mine": OPENAI}})
    assert set(settings.providers) == {*shipped.providers, "mine"}
    assert settings.models == shipped.models
    assert settings.providers["mine"].source == str(tmp_path / "own.json")
    assert settings.files == shipped.files
    assert len(settings.files) == 2


def test_null_removes_an_entry(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {"models": {"gpt-6-luna": None}, "sets": {"embedded": None}})
    assert "gpt-6-luna" not in settings.models
    assert "gpt-5.6-luna" in settings.models
    assert settings.sets == {}


def test_removing_a_provider_removes_its_shipped_models_and_their_places_in_shipped_sets(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {"providers": {"local": None}})
    assert "local" not in settings.providers
    assert not [name for name in settings.models if name.startswith("local/")]
    assert "embedded" not in settings.sets


def test_removing_a_model_removes_its_place_in_shipped_sets(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {"models": {"local/ngram-2": None}})
    assert settings.sets["embedded"] == ("local/ngram-3", "local/ngram-5")


def test_removing_a_provider_removes_literal_names_from_sets_of_earlier_files() -> None:
    beneath = ProvidersFile.model_validate(
        {
            "providers": {"p": NGRAM, "q": NGRAM},
            "models": {"a": make_model("q"), "b": make_model("p")},
            "sets": {"s": ["a", "q/x", "b"]},
        }
    )
    above = ProvidersFile.model_validate({"providers": {"q": None}})
    rows = overlay([Layer("beneath", beneath), Layer("above", above)])
    assert (list(rows.models), rows.sets) == (["b"], {"s": ("b",)})


def test_the_operators_model_is_not_removed_silently(tmp_path: Path) -> None:
    rows = {"providers": {"openai": None}, "models": {"mine": make_model("openai", "x")}, "sets": {"s": ["gpt-6-luna"]}}
    assert collect_faults(tmp_path, rows) == [
        "own: models.mine.provider: unknown provider `openai`; did you mean `openai-responses` or `openrouter`?",
        "own: sets.s[0]: unknown model `gpt-6-luna`",
    ]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ({"providers": {"opnai": None}}, "providers.opnai: is `null`, but there is no shipped entry to remove; did you mean"),
        ({"models": {"gpt-55": None}}, "models.gpt-55: is `null`, but there is no shipped entry to remove; did you mean"),
        ({"sets": {"zzz": None}}, "sets.zzz: is `null`, but there is no shipped entry to remove"),
        (make_file(models={"m": None}), "models.m: is `null`, but there is no shipped entry to remove"),
    ],
)
def test_removing_a_missing_entry_is_a_fault(tmp_path: Path, rows: Rows, fault: str) -> None:
    """Otherwise a typing error would leave the entry in place that was to be removed."""
    assert collect_faults(tmp_path, rows)[0].startswith(f"own: {fault}")


def test_extends_false_keeps_nothing_shipped(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, make_file())
    assert (set(settings.providers), dict(settings.models), dict(settings.sets)) == ({"p"}, {}, {})
    assert settings.files == (str(tmp_path / "own.json"),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{\n  "models": {},\n}', "is not valid JSON: "),
        ('{"providers": {"p": {"timeout_s": NaN}, "p": {}}}', "providers.p: stands twice in one object"),
        ("[" * 100_000, "is not valid JSON: "),
        ("[]", "a list is not allowed: input should be an object"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_reported_with_the_place(tmp_path: Path, text: str, fault: str) -> None:
    assert collect_faults(tmp_path, text)[0].startswith(f"own: {fault}")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert "p" in load_own_settings(tmp_path, "\ufeff" + json.dumps(make_file())).providers


def test_bytes_that_are_not_text_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(b'{"sets": "\xff"}')
    with pytest.raises(ConfigError, match=r"own\.json: is not valid JSON"):
        load_settings(path, {})


def test_all_duplicate_names_are_reported(tmp_path: Path) -> None:
    text = (
        '{"models": {"a/b": {"id": 1, "id": 2}, "m": 1, "m": 2, "m": 3}, "sets": {"s": [{"x": 1, "x": 1}]}, "sets": {"t": []}}'
    )
    assert collect_faults(tmp_path, text) == [
        "own: sets: stands twice in one object",
        "own: models.m: stands twice in one object",
        'own: models["a/b"].id: stands twice in one object',
    ]


def test_all_faults_of_the_shape_are_reported_at_once(tmp_path: Path) -> None:
    rows = {"providers": {"p": {"adaptor": "x"}}, "models": {"m": make_model(kind="x")}, "sets": {"s": 1}}
    assert [line.split(": ")[1] for line in collect_faults(tmp_path, rows)] == [
        "providers.p.adapter",
        "providers.p.adaptor",
        "models.m.kind",
        "sets.s",
    ]


def test_all_faults_of_references_and_variables_are_reported_at_once(tmp_path: Path) -> None:
    rows = make_file(
        providers={"p": NGRAM, "o": {"adapter": "openai"}, "e": {"adapter": "openai", "base_url_env": "E_URL"}},
        models={"a": make_model("q"), "b": make_model("p", aliases=["A"])},
        sets={"s": ["c"], "t": []},
        default_provider={"scale": "q"},
    )
    assert collect_faults(tmp_path, rows, E_URL="e.example") == [
        "own: providers.o.base_url: is required, or `base_url_env`: the address of the API, like `https://host/v1`",
        "own: models.a.provider: unknown provider `q`; known: p, o, e",
        "own: models.b.aliases[0]: `A` is already a name of model `a`",
        "own: sets.s[0]: unknown model `c`",
        "own: sets.t: is empty: a set names at least one model",
        "own: default_provider.scale: unknown provider `q`; known: p, o, e",
        "environment: E_URL: is not an address like `https://host/v1`, without user, password, query or fragment",
    ]


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ({"models": {"a": make_model("p"), "A": make_model("p", "other")}}, "models.A: `A` is already a name of model `a`"),
        (
            {"models": {"a": make_model("p", aliases=["b"]), "b": make_model("p")}},
            "models.b: `b` is already a name of model `a`",
        ),
        ({"models": {"a": make_model("p", aliases=["x", "p/y"])}}, "models.a.aliases[1]: `p/y` always means the model `y` of"),
        ({"models": {"p/a": make_model("p", "b")}}, 'models["p/a"]: `p/a` always means the model `a` of provider `p`'),
        ({"models": {"a": make_model("p")}, "sets": {"A": ["a"]}}, "sets.A: `A` would name both the model `a` and the set `A`"),
        ({"sets": {"s": ["p/x"], "S": ["p/y"]}}, "sets.S: `S` is already the set `s`"),
        ({"sets": {"p/s": ["p/x"]}}, 'sets["p/s"]: `p/s` always means the model `s` of provider `p`'),
        ({"sets": {"s": ["p/x"], "t": ["s"]}}, "sets.t[0]: unknown model `s`"),
        ({"sets": {"s": ["p"]}}, "sets.s[0]: unknown model `p`"),
        ({"sets": {"s": ["p/"]}}, "sets.s[0]: unknown model `p/`"),
    ],
)
def test_a_name_with_two_meanings_is_a_fault(tmp_path: Path, sections: Rows, fault: str) -> None:
    (line,) = collect_faults(tmp_path, make_file(**sections))
    assert line.startswith(f"own: {fault}")


def test_similar_names_without_a_conflict_are_accepted(tmp_path: Path) -> None:
    models = {"p/a": make_model("p", "a"), "b": make_model("p", aliases=["B2", "q/b"]), "org/c": make_model("p", "c")}
    sections = {"models": models, "sets": {"s": ["B2", "p/anything/at-all", "ORG/C"]}, "default_provider": {"scale": "p"}}
    settings = load_own_settings(tmp_path, make_file(**sections))
    assert settings.sets["s"] == ("B2", "p/anything/at-all", "ORG/C")
    assert settings.default_provider == {"scale": "p"}
    assert load_own_settings(tmp_path, {"default_provider": {"scale": None}}).default_provider == {}


def test_a_set_may_take_the_place_of_a_shipped_providers_model(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {"sets": {"openai/gpt-6-luna": ["local/ngram-2", "local/ngram-3"]}})
    catalogue = Catalogue(settings)
    assert catalogue.find_set("openai/gpt-6-luna") == ("local/ngram-2", "local/ngram-3")
    assert catalogue.find("openai/gpt-6-luna") is None
    assert "`gpt-6-luna` of the shipped provider `openai` gives way to your set `openai/gpt-6-luna`" in settings.notices


def test_only_the_spelling_that_an_own_entry_takes_is_redirected(tmp_path: Path) -> None:
    catalogue = Catalogue(load_own_settings(tmp_path, {"models": {"mine": make_model(aliases=["openai/Some-Id"])}}))
    found = [catalogue.find(name) for name in ("openai/Some-Id", "openai/some-id", "openai/other")]
    assert [(model.provider, model.id) for model in found if model] == [
        ("local", "ngram-2"),
        ("openai", "some-id"),
        ("openai", "other"),
    ]
    assert catalogue.spell("openai/Some-Id") == "openai/Some-Id"


def test_of_several_entries_for_one_model_the_one_with_just_that_name_counts(tmp_path: Path) -> None:
    """Its price is another than that of the entry before it."""
    models = {
        "first": make_model("p", "a"),
        "p/a": {**make_model("p", "a"), "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}},
    }
    catalogue = Catalogue(load_own_settings(tmp_path, make_file(models=models)))
    found = [catalogue.find(name) for name in ("first", "p/a")]
    assert [(model.name, model.row is not None and model.row.price is not None) for model in found if model] == [
        ("first", False),
        ("p/a", True),
    ]


@pytest.mark.parametrize(
    ("rows", "name", "target", "notice"),
    [
        (
            {"models": {"mine": make_model(aliases=["gpt-6-luna"])}},
            "gpt-6-luna",
            "mine",
            "the shipped model `gpt-6-luna` gives way to your model `mine`; `openai/gpt-6-luna` still calls it",
        ),
        (
            {"models": {"Embedded": make_model()}},
            "embedded",
            "Embedded",
            "the shipped set `embedded` gives way to your model `Embedded`",
        ),
        (
            {"models": {"local/ngram-2": make_model("openai", "x")}},
            "local/ngram-2",
            "local/ngram-2",
            "`ngram-2` of the shipped provider `local` gives way to your model `local/ngram-2`",
        ),
        (
            {"providers": {"phind": OPENAI}},
            "phind/phind-codellama-34b-v2",
            "phind/phind-codellama-34b-v2",
            "the shipped model `phind/phind-codellama-34b-v2` gives way to your provider `phind`",
        ),
    ],
)
def test_a_shipped_name_gives_way_to_the_users_own_with_a_notice(
    tmp_path: Path, rows: Rows, name: str, target: str, notice: str
) -> None:
    settings = load_own_settings(tmp_path, rows)
    found = Catalogue(settings).find(name)

    assert found
    assert found.name == target
    assert any(line.startswith(notice) for line in settings.notices)


def test_a_shipped_alias_and_a_shipped_set_give_way_without_their_models(tmp_path: Path) -> None:
    shipped = load_own_settings(tmp_path, {})
    owner, alias = next((name, row.aliases[0]) for name, row in shipped.models.items() if row.aliases)
    settings = load_own_settings(tmp_path, {"models": {alias: make_model()}, "sets": {"EMBEDDED": [alias]}})

    assert alias not in settings.models[owner].aliases
    assert f"the alias `{alias}` of the shipped `{owner}` gives way to your model `{alias}`" in settings.notices
    assert "the shipped set `embedded` gives way to your set `EMBEDDED`" in settings.notices
    assert settings.sets["EMBEDDED"] == (alias,)
    assert shipped.notices == ()
