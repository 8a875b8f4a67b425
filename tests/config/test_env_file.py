"""Env files: the meaning of each line, and the files that are trusted."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.config.env_file import add_env_file, parse_env_file, quote
from fanout.core.errors import ConfigError

ENV_FILE = """\
# keys
OPENAI_API_KEY=sk-plain
export GROQ_API_KEY='gsk single'
  TOGETHER_API_KEY = "double # not a comment" # a comment
HASH=a#b # c
EMPTY=
QUOTED=""
EQUALS=a=b==

lower_case=fine
"""


def test_an_env_file_assigns_values_to_names(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("\ufeff" + ENV_FILE, encoding="utf-8")
    assert add_env_file(path, {}) == {
        "OPENAI_API_KEY": "sk-plain",
        "GROQ_API_KEY": "gsk single",
        "TOGETHER_API_KEY": "double # not a comment",
        "HASH": "a#b",
        "EMPTY": "",
        "QUOTED": "",
        "EQUALS": "a=b==",
        "lower_case": "fine",
    }


def test_a_variable_that_is_set_wins_over_the_file_unless_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=file\nB=file\nC=file\n")
    environ = {"A": "set", "B": "", "D": ""}
    assert add_env_file(path, environ) == {"A": "set", "B": "file", "C": "file", "D": ""}
    assert add_env_file(None, environ) == environ
    assert add_env_file(path, {"A": "\ufeffset\r\n"})["A"] == "set"


def test_a_broken_line_is_reported_by_its_number_alone(tmp_path: Path) -> None:
    """The text of the line may be a key."""
    path = tmp_path / ".env"
    path.write_text('A=1\nsk-secret\n9X=sk-secret\nB="sk-secret\nC="sk-secret" sk-secret\n=sk-secret\n')
    with pytest.raises(ConfigError) as caught:
        add_env_file(path, {})
    assert str(caught.value).splitlines() == [f"{path}: line {number}: is not `NAME=value`" for number in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("content", [None, b"\xff\xfeA=sk-secret"])
def test_an_unreadable_env_file_is_reported(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ".env"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"\.env: cannot be read") as caught:
        add_env_file(path, {})
    assert "sk-secret" not in str(caught.value)


def test_adjacent_quotes_form_one_value_as_in_a_shell() -> None:
    assert parse_env_file("it", b"""A='it'"'"'s' # mine\nB="x"'y'"z"\n""") == {"A": "it's", "B": "xyz"}
    with pytest.raises(ConfigError, match="line 1: is not `NAME=value`"):
        parse_env_file("it", b"A='x'y\n")


@given(st.text().filter(lambda text: len(f"{text}x".splitlines()) == 1 and text.isprintable()))
def test_a_quoted_value_is_read_back_unchanged(value: str) -> None:
    assert parse_env_file("it", f"A={quote(value)}\nB=1 # one\n".encode()) == {"A": value, "B": "1"}


@given(st.text(alphabet="'\"#\\$ =a\t"))
def test_a_quoted_value_means_the_same_to_a_shell(value: str) -> None:
    assert shlex.split(quote(value), comments=True) == ([value] if value else [])


@pytest.mark.parametrize("value", ["a\nb", "a\n", "\n", "a\u2028b", "a\x85"])
def test_a_value_with_a_line_break_cannot_be_quoted(value: str) -> None:
    with pytest.raises(ValueError, match="no line break"):
        quote(value)


# The user's own file


def write_own_keys(folder: Path, mode: int = 0o600) -> dict[str, str]:
    """Write a `keys.env` into a configuration folder; return the environment of its user."""
    (folder / "fanout").mkdir()
    path = folder / "fanout" / "keys.env"
    path.write_text("A=own\nB=own\n")
    path.chmod(mode)
    return {"XDG_CONFIG_HOME": str(folder), "B": "set"}


def test_the_users_own_keys_are_read_unless_a_file_is_named(tmp_path: Path) -> None:
    environ = write_own_keys(tmp_path)
    (tmp_path / "other.env").write_text("C=other\n")

    assert add_env_file(None, environ) == {**environ, "A": "own"}
    assert add_env_file(tmp_path / "other.env", environ) == {**environ, "C": "other"}
    assert add_env_file(None, {"HOME": str(tmp_path)}) == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660])
def test_a_file_of_keys_that_others_can_open_is_refused(mode: int, tmp_path: Path) -> None:
    environ = write_own_keys(tmp_path, mode)

    with pytest.raises(ConfigError, match=rf"keys\.env: is open to others \(mode {mode:o}\): `chmod 600`"):
        add_env_file(None, environ)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_keys_of_another_user_is_refused(tmp_path: Path) -> None:
    environ = write_own_keys(tmp_path)
    os.chown(tmp_path / "fanout" / "keys.env", 65534, 65534)

    with pytest.raises(ConfigError, match="belongs to another user"):
        add_env_file(None, environ)


def test_a_file_in_place_of_the_folder_means_no_keys(tmp_path: Path) -> None:
    (tmp_path / "fanout").write_text("a file")

    assert add_env_file(None, {"XDG_CONFIG_HOME": str(tmp_path)}) == {"XDG_CONFIG_HOME": str(tmp_path)}
