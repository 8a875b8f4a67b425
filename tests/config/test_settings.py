"""Settings: the files that are read, the variables that complete them, and the shipped file itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot

from fanout.config.catalogue import Catalogue
from fanout.config.overlay import SHIPPED
from fanout.config.settings import ProviderSettings, load_settings
from fanout.core.errors import ConfigError
from fanout.core.sampling import SAMPLING_NAMES
from tests.support.builders.settings import collect_faults, load_own_settings, write_own_file

KEY = "sk-proj-0123456789abcdef"
MINE = {"providers": {"mine": {"adapter": "openai", "base_url": "https://mine.example/v1/"}}}


def load_provider(folder: Path, row: dict[str, Any], **environ: str) -> ProviderSettings:
    rows = {"extends": False, "providers": {"p": {"adapter": "openai", **row}}}
    return load_own_settings(folder, rows, **environ).providers["p"]


def write_user_file(home: Path) -> Path:
    """Write a file into the folder where a user's own is searched; return its path."""
    folder = home / "fanout"
    folder.mkdir(parents=True)
    return write_own_file(folder, MINE).rename(folder / "providers.json")


# Which file


def test_without_an_own_file_only_the_shipped_one_is_read() -> None:
    assert load_settings(None, {}).files == (str(SHIPPED),)


def test_the_given_file_wins_over_the_variable_and_that_over_the_users_own(tmp_path: Path) -> None:
    given, named = tmp_path / "given.json", tmp_path / "named.json"
    given.write_text("{}")
    named.write_text("{}")
    users = write_user_file(tmp_path / "xdg")
    environ = {"FANOUT_CONFIG": str(named), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert load_settings(given, environ).files[1] == str(given)
    assert load_settings(None, environ).files[1] == str(named)
    assert load_settings(None, environ | {"FANOUT_CONFIG": ""}).files[1] == str(users)


def test_the_users_own_file_is_found_in_xdg_config_home_else_in_home(tmp_path: Path) -> None:
    home, xdg = write_user_file(tmp_path / "home" / ".config"), write_user_file(tmp_path / "xdg")
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert load_settings(None, environ).files[1] == str(xdg)
    assert load_settings(None, environ | {"XDG_CONFIG_HOME": ""}).files[1] == str(home)
    assert load_settings(None, environ | {"XDG_CONFIG_HOME": "xdg"}).files[1] == str(home)  # relative: as if unset
    assert load_settings(None, {"XDG_CONFIG_HOME": str(tmp_path / "none"), "HOME": str(tmp_path / "home")}).files == (
        str(SHIPPED),
    )


@pytest.mark.parametrize(
    "environ", [{}, {"HOME": ""}, {"HOME": "."}, {"XDG_CONFIG_HOME": "."}, {"XDG_CONFIG_HOME": "", "HOME": ".."}]
)
def test_the_working_directory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """A stranger's folder must not redirect keys or import code."""
    here = tmp_path / "stranger"
    for folder in (here, tmp_path):
        for place in ("providers.json", "fanout/providers.json", ".config/fanout/providers.json"):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(json.dumps(MINE))
    monkeypatch.chdir(here)
    assert load_settings(None, environ).files == (str(SHIPPED),)


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ConfigError, match=f"^{path}: cannot be read: ") as caught:
            load_settings(path, {})
        assert caught.value.source == str(path)


def test_a_users_file_without_read_permission_is_reported_instead_of_ignored(tmp_path: Path) -> None:
    folder = write_user_file(tmp_path).parent
    with make_unreadable(folder), pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_settings(None, {"XDG_CONFIG_HOME": str(tmp_path)})


@contextmanager
def make_unreadable(folder: Path) -> Iterator[None]:
    """Remove read permission; root, who may read everything, becomes another user meanwhile."""
    user = os.geteuid()
    folder.chmod(0)
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FANOUT_CONFIG", str(write_own_file(tmp_path, MINE)))
    monkeypatch.setenv("FANOUT_MAX_CALLS", "7")
    settings = load_settings()
    assert "mine" in settings.providers
    assert settings.environment.max_calls == 7


# What the environment adds


def test_the_first_key_variable_that_is_set_is_used(tmp_path: Path) -> None:
    row = {"base_url": "https://p.example", "api_key_env": ["A_KEY", "B_KEY"]}
    for environ, expected in (
        ({"A_KEY": "a", "B_KEY": "b"}, "a"),
        ({"A_KEY": " ", "B_KEY": " b\n"}, "b"),  # a file's line end is no part of a key
        ({"B_KEY": "b"}, "b"),
    ):
        found = load_provider(tmp_path, row, **environ)
        assert found.key is not None
        assert found.key.get_secret_value() == expected
        assert found.lacks() == ()


def test_an_unset_key_is_missing_unless_the_caller_sends_one(tmp_path: Path) -> None:
    found = load_provider(tmp_path, {"base_url": "https://p.example", "api_key_env": ["A_KEY", "B_KEY"]})
    assert (found.key, found.lacks(), found.lacks(own_key=True)) == (None, ("A_KEY or B_KEY",), ())


def test_an_optional_key_is_never_missing(tmp_path: Path) -> None:
    row = {"base_url": "https://p.example", "api_key_env": "A_KEY", "key_optional": True}
    assert (load_provider(tmp_path, row).key, load_provider(tmp_path, row).lacks()) == (None, ())
    assert load_provider(tmp_path, row, A_KEY="a").key is not None


def test_a_provider_without_key_variables_needs_no_key(tmp_path: Path) -> None:
    assert load_provider(tmp_path, {"base_url": "https://p.example"}).lacks() == ()


def test_the_variable_of_the_address_overrides_the_address(tmp_path: Path) -> None:
    row = {"base_url": "https://p.example/v1", "base_url_env": "P_URL"}
    assert load_provider(tmp_path, row).base_url == "https://p.example/v1"
    assert load_provider(tmp_path, row, P_URL="").base_url == "https://p.example/v1"
    assert load_provider(tmp_path, row, P_URL=" http://127.0.0.1:8000/v1/ ").base_url == "http://127.0.0.1:8000/v1"


def test_an_address_without_a_default_is_missing_even_for_a_caller_with_a_key(tmp_path: Path) -> None:
    row = {"base_url_env": "P_URL", "api_key_env": "A_KEY"}
    found = load_provider(tmp_path, row)
    assert (found.base_url, found.lacks(), found.lacks(own_key=True)) == (None, ("A_KEY", "P_URL"), ("P_URL",))
    assert load_provider(tmp_path, row, P_URL="http://p:1", A_KEY="a").lacks() == ()


@pytest.mark.parametrize("address", ["p.example", "ftp://p", "https://", f"https://u:{KEY}@p/v1", f"https://p?k={KEY}"])
def test_a_wrong_address_in_a_variable_is_reported_without_its_value(tmp_path: Path, address: str) -> None:
    two = {"adapter": "openai", "base_url_env": "P_URL"}
    (line,) = collect_faults(tmp_path, {"extends": False, "providers": {"p": two, "q": two}}, P_URL=address)
    assert line.startswith("environment: P_URL: is not an address")
    assert KEY not in line


def test_variables_in_headers_are_filled_in_and_missing_where_unset(tmp_path: Path) -> None:
    row = {"base_url": "https://p.example", "headers": {"x-org": "${ORG}/${TEAM}-$1", "x-plain": "as it is", "x-2": "${ORG}"}}
    found = load_provider(tmp_path, row, ORG=" acme ", TEAM="blue")
    assert {name: secret.get_secret_value() for name, secret in found.headers.items()} == {
        "x-org": "acme/blue-$1",
        "x-plain": "as it is",
        "x-2": "acme",
    }
    assert found.lacks() == ()
    assert load_provider(tmp_path, row, TEAM="blue").lacks(own_key=True) == ("ORG",)


def test_a_variables_value_is_not_expanded_again(tmp_path: Path) -> None:
    row = {"base_url": "https://p.example", "headers": {"x": "${A}"}}
    assert load_provider(tmp_path, row, A="${B}", B="b").headers["x"].get_secret_value() == "${B}"


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    row = {"adapter": "openai", "base_url": "https://p", "api_key_env": "A_KEY", "headers": {"x": "${A_KEY}", "y": KEY}}
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    environ = {"A_KEY": KEY, "FANOUT_API_KEYS": KEY, "FANOUT_API_KEYS_FILE": str(keys)}
    settings = load_own_settings(tmp_path, {"providers": {"p": row}}, **environ)
    own = settings.providers["p"]
    for thing in (settings, settings.environment, own, own.row, own.headers, own.key, Catalogue(settings).__dict__):
        assert KEY not in f"{thing!r} {thing}"


# The shipped file


def test_on_a_fresh_machine_only_the_embedded_models_are_ready() -> None:
    settings = load_settings(None, {})
    assert [name for name, found in settings.providers.items() if not found.lacks()] == ["local"]
    assert all(name.startswith("local/") for name, row in settings.models.items() if row.provider == "local")


def test_every_member_of_a_shipped_set_is_a_known_model() -> None:
    settings = load_settings(None, {})
    catalogue = Catalogue(settings)
    found = [catalogue.find(member) for members in settings.sets.values() for member in members]
    assert found
    assert all(model and model.row for model in found)


def test_no_shipped_alias_begins_with_a_providers_name() -> None:
    settings = load_settings(None, {})
    aliases = [alias for row in settings.models.values() for alias in row.aliases]
    assert [alias for alias in aliases if alias.partition("/")[0].lower() in settings.providers] == []


def test_every_shipped_provider_is_known_to_genai_prices() -> None:
    known = {found.id for found in get_snapshot().providers}
    named = {row.prices if row.prices is not None else name for name, row in read_shipped_rows().items()}
    assert named - {""} <= known


def test_shipped_rows_change_known_parameters_only() -> None:
    for name, row in read_shipped_rows().items():
        assert set(row.parameters.drop) <= {*SAMPLING_NAMES, "stream_options"}, name
        assert set(row.parameters.rename) <= {*SAMPLING_NAMES, "dimensions"}, name  # of embeddings


def test_every_shipped_successor_is_in_the_catalogue_and_outlives_its_model() -> None:
    models = load_settings(None, {}).models
    for name, row in models.items():
        if row.successor:
            after = models[row.successor].deprecated_on
            assert after is None or after > (row.deprecated_on or ""), name


def test_the_shipped_file_is_the_one_at_the_top_of_the_repository() -> None:
    top = Path(__file__).parents[2] / "providers.json"
    assert json.loads(SHIPPED.read_bytes()) == json.loads(top.read_bytes())


def read_shipped_rows() -> dict[str, Any]:
    return {name: found.row for name, found in load_settings(None, {}).providers.items()}
