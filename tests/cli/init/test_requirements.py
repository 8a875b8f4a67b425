"""Requirements of providers, and edits of the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.cli.init.draft import add_entries, build_row, set_variables
from fanout.cli.init.requirements import Requirement, classify_provider, list_requirements
from fanout.config.env_file import parse_env_file
from fanout.config.settings import load_settings
from tests.support.builders.settings import load_own_settings

SHIPPED = load_settings(environ={}).providers


def test_every_built_in_provider_but_the_embedded_models_requires_something() -> None:
    assert [name for name, provider in SHIPPED.items() if classify_provider(provider) is None] == ["local"]


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("openai", "key", ["OPENAI_API_KEY!"]),
        ("together", "key", ["TOGETHER_API_KEY!"]),
        ("azure", "account", ["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY!"]),
        ("bedrock", "account", ["AWS_BEARER_TOKEN_BEDROCK!?", "AWS_REGION"]),
        ("vertex", "account", ["GOOGLE_CLOUD_PROJECT"]),
        ("scale-sgp", "account", ["SGP_API_KEY!", "SGP_ACCOUNT_ID"]),
        ("ollama", "server", ["OLLAMA_BASE_URL", "OLLAMA_API_KEY!?"]),
    ],
)
def test_providers_require_these_variables(name: str, kind: str, wanted: list[str]) -> None:
    """`!`: secret; `?`: optional."""
    texts = [f"{need.variable}{'!' * need.is_secret}{'?' * need.is_optional}" for need in list_requirements(SHIPPED[name])]

    assert (classify_provider(SHIPPED[name]), texts) == (kind, wanted)


def test_every_provider_is_ready_once_its_requirements_are_met(tmp_path: Path) -> None:
    wanted = [need for provider in SHIPPED.values() for need in list_requirements(provider) if not need.is_optional]
    settings = load_own_settings(tmp_path, {}, **{need.variable: "https://h/v1" if need.is_address else "x" for need in wanted})

    assert {name: provider.lacks() for name, provider in settings.providers.items() if provider.lacks()} == {}


@pytest.mark.parametrize(
    ("need", "value", "wrong"),
    [
        (Requirement("K", is_secret=True), "sk-1", None),
        (Requirement("K", is_secret=True), "two words", None),
        (Requirement("K", is_secret=True), "sk-\u200b1", "not printable ASCII"),
        (Requirement("K", is_secret=True), "sk\x1b[200~", "not printable ASCII"),
        (Requirement("U", is_address=True), "http://127.0.0.1:11434", None),
        (Requirement("U", is_address=True), "localhost:11434", "not an address"),
        (Requirement("U", is_address=True), "https://me:pw@host/v1", "not an address"),
    ],
)
def test_a_malformed_value_is_reported_without_showing_it(need: Requirement, value: str, wrong: str | None) -> None:
    texts = need.find_fault(value)

    assert (texts is None) == (wrong is None)
    assert wrong is None or wrong in str(texts)
    assert value not in str(texts)


def test_any_alternative_variable_satisfies_a_requirement() -> None:
    need = Requirement("A", ("B",))

    assert (need.find_variable({"B": "x"}), need.find_variable({"A": " ", "B": ""}), need.find_variable({})) == (
        "B",
        None,
        None,
    )


KEYS = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


@given(st.dictionaries(st.sampled_from("ABCDE"), KEYS), st.dictionaries(st.sampled_from("ABCDE"), KEYS))
def test_set_variables_changes_only_the_given_ones(old: dict[str, str], new: dict[str, str]) -> None:
    before, _ = set_variables("# mine\n\n", old)
    after, texts = set_variables(before, new)

    assert parse_env_file("it", after.encode()) == {**old, **new}
    assert after.startswith("# mine\n\n")
    assert len(texts) == sum(old.get(name) != value for name, value in new.items())
    assert set_variables(after, new) == (after, [])


def test_changes_are_described_without_values() -> None:
    text, texts = set_variables("A=1\nexport B=2 # two\nB=3", {"B": "sk-secret", "C": "sk-other"})

    assert text == "A=1\nexport B=2 # two\nB=sk-secret\nC=sk-other\n"
    assert texts == ["~ B, with a new value", "+ C"]


def test_added_entries_replace_only_themselves_and_are_described() -> None:
    row: dict[str, Any] = build_row(SHIPPED["ollama"], "http://127.0.0.1:1")
    file = {"$schema": "x", "providers": {"lab": None}, "sets": {"mine": ["a"]}}
    made, texts = add_entries(file, {"ollama": row}, {"mine": ("a", "b")})

    assert made == {"$schema": "x", "providers": {"lab": None, "ollama": row}, "sets": {"mine": ["a", "b"]}}
    assert texts == ["+ providers.ollama: http://127.0.0.1:1", "~ sets.mine: a, b"]
    assert add_entries(made, {"ollama": row}, {"mine": ("a", "b")}) == (made, [])
    assert file["providers"] == {"lab": None}, "what was read has not been touched"


def test_a_local_server_with_an_address_is_ready(tmp_path: Path) -> None:
    row = build_row(SHIPPED["ollama"], "http://127.0.0.1:1")
    provider = load_own_settings(tmp_path, {"providers": {"ollama": row}}).providers["ollama"]

    assert (provider.lacks(), provider.base_url, provider.adapter, classify_provider(provider)) == (
        (),
        "http://127.0.0.1:1",
        "ollama",
        "server",
    )
