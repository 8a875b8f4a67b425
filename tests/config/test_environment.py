"""The `FANOUT_…` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fanout.config.environment import Environment
from fanout.core.errors import ConfigError


def find_faults(**variables: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Environment.read(variables)
    return [line.removeprefix("environment: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("CONFIG", "/etc/fanout.json", Path("/etc/fanout.json")),
        ("CORS_ORIGINS", "https://a.example, http://localhost:3000", ("https://a.example", "http://localhost:3000")),
        ("CORS_ORIGINS", "*", ("*",)),
        ("TIMEOUT_S", "1.5", 1.5),
        ("MAX_TIMEOUT_S", "600", 600),
        ("MAX_CALLS", "4096", 4096),
        ("MAX_BODY_BYTES", "1024", 1024),
        ("MAX_FILE_BYTES", "1024", 1024),
        ("MAX_ANSWER_BYTES", "2048", 2048),
        ("MAX_HELD_BYTES", "50000000", 50_000_000),
        ("EMBEDDED_MODELS", "off", "off"),
        ("FETCH_IMAGES", "off", "off"),
        ("HTTP_CLIENT", "aiohttp", "aiohttp"),
        ("WORK", "off", "off"),
        ("WORKERS", "4", 4),
        ("MAX_IN_FLIGHT", "1", 1),
        ("MAX_CONNECTIONS", "100", 100),
        ("MAX_WAITING", "7", 7),
        ("GRACE_S", "0", 0),
        ("DRAIN_S", "1.5", 1.5),
        ("LISTED_MODELS", "ready", "ready"),
        ("MAX_JOB_BYTES", "2000000000", 2_000_000_000),
        ("MAX_UNPACK_RATIO", "500", 500),
        ("STORE", "off", SecretStr("off")),
        ("HISTORY", "full", "full"),
        ("HISTORY_DAYS", "0.5", 0.5),
        ("USAGE_DAYS", "31", 31),
        ("TRACES", "on", "on"),
        ("LOG_LEVEL", "debug", "debug"),
        ("LOG_FORMAT", "json", "json"),
        ("HOOKS", "company.redact, company.count:open", ("company.redact", "company.count:open")),
        ("HOOK_TIMEOUT_S", "0.5", 0.5),
    ],
)
def test_a_variable_sets_its_field(variable: str, text: str, value: Any) -> None:
    environment = Environment.read({f"FANOUT_{variable}": text})
    assert getattr(environment, variable.lower()) == value


def test_an_unset_or_empty_variable_means_the_default() -> None:
    nothing = {f"FANOUT_{name.upper()}": " " for name in Environment.model_fields}
    assert Environment.read(nothing) == Environment.read({}) == Environment()


def test_every_variable_but_the_keys_is_tested_above() -> None:
    (parametrize,) = test_a_variable_sets_its_field.pytestmark
    tested = {case[0].lower() for case in parametrize.args[1]}
    assert tested | {"api_keys", "api_keys_file", "ca_file"} == set(Environment.model_fields)


@pytest.mark.parametrize(
    ("variable", "text", "wrong"),
    [
        ("TIMEOUT_S", "soon", "`soon` is not allowed: input should be a valid number"),
        ("TIMEOUT_S", "0", "`0` is not allowed: input should be greater than 0"),
        ("TIMEOUT_S", "601", "`601` is not allowed: input should be less than or equal to 600"),
        ("TIMEOUT_S", "nan", "`nan` is not allowed: input should be a finite number"),
        ("MAX_TIMEOUT_S", "inf", "`inf` is not allowed: input should be a finite number"),
        ("MAX_CALLS", "0", "greater than or equal to 1"),
        ("MAX_CALLS", "4097", "less than or equal to 4096"),
        ("MAX_BODY_BYTES", "4 MB", "`4 MB` is not allowed: input should be a valid integer"),
        ("MAX_ANSWER_BYTES", "1023", "greater than or equal to 1024"),
        ("MAX_IN_FLIGHT", "0", "greater than or equal to 1"),
        ("MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("MAX_WAITING", "0", "greater than or equal to 1"),
        ("GRACE_S", "-1", "greater than or equal to 0"),
        ("LOG_LEVEL", "loud", "`loud` is not allowed: input should be 'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "`xml` is not allowed: input should be 'json' or 'text'"),
        ("CORS_ORIGINS", "https://a.example/", "an origin is `*` or like `https://dashboard.example:8443`, without a path"),
        ("CORS_ORIGINS", "a.example", "an origin is `*` or like"),
        ("API_KEYS", " , ,", "holds no key"),
        ("API_KEYS_FILE", "/no/such/file", "cannot be read"),
        ("API_KEYS_FILE", "/", "cannot be read"),
    ],
)
def test_a_wrong_value_is_reported_with_its_variable_and_what_is_allowed(variable: str, text: str, wrong: str) -> None:
    (line,) = find_faults(**{f"FANOUT_{variable}": text})
    assert line.startswith(f"FANOUT_{variable}: ")
    assert wrong in line


def test_an_unknown_variable_is_reported_with_the_names_near_it() -> None:
    assert find_faults(FANOUT_MAX_CALL="3") == [
        "FANOUT_MAX_CALL: no such variable; did you mean `FANOUT_MAX_CALLS` or `FANOUT_MAX_CONNECTIONS`?"
    ]
    assert find_faults(FANOUT_max_calls="")[0].startswith("FANOUT_max_calls: no such variable; did you mean `FANOUT_MAX_CALLS`")


def test_all_faults_are_reported_at_once_without_values_of_unknown_variables() -> None:
    found = find_faults(FANOUT_APIKEYS="sk-secret", FANOUT_TIMEOUT_S="x", FANOUT_GRACE_S="y", OTHER="z")
    assert [line.partition(":")[0] for line in found] == ["FANOUT_APIKEYS", "FANOUT_TIMEOUT_S", "FANOUT_GRACE_S"]
    assert "sk-secret" not in "".join(found)


def test_variables_that_kubernetes_sets_for_a_service_called_fanout_are_ignored() -> None:
    """Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables"""
    service = {
        "FANOUT_SERVICE_HOST": "10.0.0.7",
        "FANOUT_SERVICE_PORT": "8080",
        "FANOUT_SERVICE_PORT_HTTP": "8080",
        "FANOUT_PORT": "tcp://10.0.0.7:8080",
        "FANOUT_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "FANOUT_PORT_8080_TCP_PROTO": "tcp",
        "FANOUT_PORT_8080_TCP_PORT": "8080",
        "FANOUT_PORT_8080_TCP_ADDR": "10.0.0.7",
        "FANOUT_STAGING_SERVICE_HOST": "10.0.0.8",
    }
    assert Environment.read(service) == Environment()
    assert find_faults(FANOUT_PORT="8080")[0].startswith("FANOUT_PORT: no such variable")


def test_keys_are_read_from_the_variable_and_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# mine\n team-a : sk-three-0123456789 \n\n  # another\nsk-four-01234567890\n")
    given = "sk-one-01234567890, team-a:sk-two-01234567890,"
    environment = Environment.read({"FANOUT_API_KEYS": given, "FANOUT_API_KEYS_FILE": str(file)})
    found = [(key.account, key.secret.get_secret_value()) for key in environment.api_keys]
    assert found == [
        ("key-2b4069e4e155", "sk-one-01234567890"),
        ("team-a", "sk-two-01234567890"),
        ("team-a", "sk-three-0123456789"),
        ("key-b5314a1822c6", "sk-four-01234567890"),
    ]
    assert "sk-" not in f"{environment!r} {environment}"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_key_is_read_without_what_editors_add(line_end: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(f"\ufeffsk-one-01234567890{line_end}b:sk-two-01234567890{line_end}".encode())
    for variables in (
        {"FANOUT_API_KEYS_FILE": str(file)},
        {"FANOUT_API_KEYS": "\ufeffsk-one-01234567890,b:sk-two-01234567890\r"},
    ):
        found = [key.secret.get_secret_value() for key in Environment.read(variables).api_keys]
        assert found == ["sk-one-01234567890", "sk-two-01234567890"]


def test_a_server_with_keys_drains_for_5_s_by_default() -> None:
    keys = {"FANOUT_API_KEYS": "sk-one-01234567890"}
    read = [Environment.read(given).drain_s for given in ({}, keys, {**keys, "FANOUT_DRAIN_S": "0"}, {"FANOUT_DRAIN_S": "2"})]
    assert read == [None, 5, 0, 2]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ("sk-0123456789012, short", "entry 2: the key has 5 characters; at least 16 are required"),
        ("team-a:sk-short", "entry 1: the key has 8 characters"),
        ("team a:sk-0123456789abcdef", "entry 1: the account before `:` is 1 to 64 letters"),
        (":sk-0123456789abcdef", "entry 1: the account before `:`"),
        ("a:sk-0123456789abcdef,b:sk-0123456789abcdef", "entry 2: the same key belongs to `a` already"),
    ],
)
def test_a_bad_key_is_named_by_its_place_and_never_shown(keys: str, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(keys.replace(",", "\n"))
    for variables in ({"FANOUT_API_KEYS": keys}, {"FANOUT_API_KEYS_FILE": str(file)}):
        (line,) = find_faults(**variables)
        assert wrong.replace("entry", "line" if file.name in str(variables) else "entry") in line
        assert "sk-" not in line


def test_a_key_belongs_to_one_account_in_the_variable_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("b:sk-0123456789abcdef\n")
    (line,) = find_faults(FANOUT_API_KEYS="a:sk-0123456789abcdef", FANOUT_API_KEYS_FILE=str(file))
    assert line == "FANOUT_API_KEYS_FILE: the key of `b` belongs to `a` in FANOUT_API_KEYS"


def test_a_key_file_without_a_key_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    assert "holds no key" in find_faults(FANOUT_API_KEYS_FILE=str(file))[0]
    file.write_bytes(b"\xff\xfe sk-utf16")
    (line,) = find_faults(FANOUT_API_KEYS_FILE=str(file))
    assert "cannot be read" in line
    assert "sk-" not in line


def test_the_default_deadline_never_exceeds_the_longest_one() -> None:
    assert Environment.read({"FANOUT_MAX_TIMEOUT_S": "30"}).timeout_s == 30
    assert Environment.read({"FANOUT_MAX_TIMEOUT_S": "300"}).timeout_s == 120


def test_the_memory_for_answers_holds_at_least_two_of_the_largest() -> None:
    largest = {"FANOUT_MAX_ANSWER_BYTES": "1000000000"}
    assert Environment.read({}).held_bytes == 512 * 2**20
    assert Environment.read(largest).held_bytes == 4_000_000_000
    with pytest.raises(ConfigError) as caught:
        Environment.read({**largest, "FANOUT_MAX_HELD_BYTES": "1999999999"})
    expected = "FANOUT_MAX_HELD_BYTES: is 1999999999; at least twice FANOUT_MAX_ANSWER_BYTES is required (2000000000)"
    assert expected in str(caught.value)
