"""`fanout init` on a pseudo-terminal and without one: what it asks, tries and writes, and what it never shows."""

from __future__ import annotations

import json
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.cli.init.requirements import classify_provider, list_configurable
from fanout.config.env_file import read_env_file
from fanout.config.settings import load_settings
from tests.support.cli import CommandResult, run_fanout
from tests.support.terminal import TerminalSession
from tests.support.upstream.model_host import KEY, serve_model_host

BAD = "sk-bad-0123456789"
ROW = {"adapter": "openai", "api_key_env": "OPEN_KEY"}


def prepare_home(folder: Path, rows: Mapping[str, Any] | None = None) -> Path:
    """Make a configuration folder whose providers.json has these providers."""
    own = folder / "fanout"
    if rows is not None:
        own.mkdir(exist_ok=True)
        (own / "providers.json").write_text(json.dumps({"providers": rows}))
    return own


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run_on_terminal(folder: Path, *arguments: str, **variables: Any) -> TerminalSession:
    """Run `fanout init` of this user on a terminal."""
    return TerminalSession("init", *arguments, columns=160, lines=80, XDG_CONFIG_HOME=str(folder), **variables)


async def run_unattended(folder: Path, *arguments: str, given: bytes | None = None, **variables: Any) -> CommandResult:
    return await run_fanout("init", "--yes", *arguments, given=given, XDG_CONFIG_HOME=str(folder), **variables)


async def test_a_key_is_tried_and_written_and_never_shown(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        row = {**ROW, "base_url": f"{host.url}/v1", "key_page": "https://open.example/keys"}
        own = prepare_home(tmp_path, {"open": row})
        async with run_on_terminal(tmp_path) as screen:
            await screen.answer("which do you have?", "opne")
            await screen.wait_for("did you mean `open`?")
            await screen.answer("which do you have?", "open")
            await screen.answer("OPEN_KEY", KEY)
            await screen.answer("which models should `mine` stand for?", "nope")
            await screen.wait_for("unknown model `nope`")
            await screen.answer("which models should `mine` stand for?", "open/small-1b, open/big-70b")
            await screen.answer("write this?", "y")
            code = await screen.wait()
        recommended = shlex.split(re.findall(r"  fanout (ask .*)", screen.output)[-1])
        result = await run_fanout(*recommended, XDG_CONFIG_HOME=str(tmp_path))

    assert code == 0, screen.output
    assert KEY not in screen.output
    assert f"{len(KEY)} characters" in screen.output
    assert "works: `open/small-1b` answers and streams" in screen.output
    assert "open: a key is made at https://open.example/keys" in screen.output
    assert "fanout serve" in screen.output
    assert read_env_file(own / "keys.env") == {"OPEN_KEY": KEY}
    assert read_mode(own / "keys.env") == 0o600
    assert json.loads((own / "providers.json").read_text())["sets"] == {"mine": ["open/small-1b", "open/big-70b"]}
    assert (result.code, result.out.count("\nOK\n")) == (0, 2), "the other commands find both files by themselves"


async def test_a_refused_key_can_be_entered_again_kept_or_skipped(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        row = {**ROW, "base_url": f"{host.url}/v1"}
        own = prepare_home(
            tmp_path, {"one": row, "two": {**row, "api_key_env": "TWO_KEY"}, "three": {**row, "api_key_env": "THREE_KEY"}}
        )
        async with run_on_terminal(tmp_path, "--provider", "one", "--provider", "two", "--provider", "three") as screen:
            await screen.answer("OPEN_KEY", BAD)
            await screen.answer("the key was refused", "e")
            await screen.answer("OPEN_KEY", "with ümlaut")
            await screen.answer("not accepted", KEY)
            await screen.answer("TWO_KEY", f"{BAD}2")
            await screen.answer("[s]kip it?", "k")
            await screen.answer("THREE_KEY", f"{BAD}3")
            await screen.answer("[s]kip it?", "s")
            await screen.answer("stand for?", "")
            await screen.answer("write this?", "y")
            code = await screen.wait()

    assert code == 1
    assert read_env_file(own / "keys.env") == {"OPEN_KEY": KEY, "TWO_KEY": f"{BAD}2"}
    assert not any(secret in screen.output for secret in (KEY, BAD, "ümlaut"))


async def test_a_key_in_the_environment_can_be_used_without_writing_it(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path, {"open": {**ROW, "base_url": f"{host.url}/v1"}})
        async with run_on_terminal(tmp_path, OPEN_KEY=KEY) as screen:
            await screen.answer("which do you have?", "")
            await screen.answer("OPEN_KEY is set in the environment; use it as it is?", "y")
            await screen.answer("stand for?", "")
            await screen.answer("write this?", "y")
            assert await screen.wait() == 0

    assert not (own / "keys.env").exists()
    assert json.loads((own / "providers.json").read_text())["sets"] == {"mine": ["open/small-1b"]}


async def test_existing_files_are_merged_after_confirmation_and_backed_up(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path, {"open": {**ROW, "base_url": f"{host.url}/v1"}})
        before = "# my keys\nexport OPEN_KEY=old\n\nOTHER='kept as it is' # yes\n"
        (own / "keys.env").write_text(before)
        (own / "keys.env").chmod(0o644)
        file = json.loads((own / "providers.json").read_text())
        (own / "providers.json").write_text(json.dumps({**file, "sets": {"mine": ["local/ngram-2"], "yours": ["gpt-6-luna"]}}))
        async with run_on_terminal(tmp_path, "--provider", "open") as screen:
            await screen.answer("OPEN_KEY is set", "n")
            await screen.answer("OPEN_KEY", KEY)
            await screen.answer("stand for?", "")
            await screen.wait_for("write this?")
            assert (own / "keys.env").read_text() == before, "something was written before it was allowed"
            await screen.answer("write this?", "y")
            assert await screen.wait() == 0

    assert "~ OPEN_KEY, with a new value" in screen.output
    assert "~ sets.mine: local/ngram-2, open/small-1b" in screen.output
    assert (own / "keys.env").read_text() == before.replace("export OPEN_KEY=old", f"OPEN_KEY={KEY}")
    assert (own / "keys.env.bak").read_text() == before
    assert {read_mode(own / name) for name in ("keys.env", "keys.env.bak", "providers.json.bak")} == {0o600}
    assert json.loads((own / "providers.json").read_text())["sets"] == {
        "mine": ["local/ngram-2", "open/small-1b"],
        "yours": ["gpt-6-luna"],
    }


async def test_what_init_recommends_calls_the_providers_just_set_up(tmp_path: Path) -> None:
    prepare_home(tmp_path, {"open": {**ROW, "base_url": "http://127.0.0.1:9/v1"}})
    given = f"OPEN_KEY={KEY}\nANTHROPIC_API_KEY={KEY}\n".encode()
    result = await run_unattended(tmp_path, "--provider", "open", "--provider", "anthropic", "--no-live", given=given)

    assert re.search(r"  fanout ask 'Say hello\.' -m claude-\S+\n  fanout check --live --provider open\n", result.out), (
        result.out
    )


def test_providers_are_listed_by_how_much_they_are_used_each_with_the_page_of_its_keys() -> None:
    providers = load_settings(None, {}).providers
    listed = list_configurable(providers)

    assert listed[:4] == ["openai", "anthropic", "gemini", "openrouter"]
    assert [
        name for name in listed if classify_provider(providers[name]) != "server" and not providers[name].row.key_page
    ] == []


async def test_a_refusal_to_write_changes_nothing(tmp_path: Path) -> None:
    own = prepare_home(tmp_path)
    async with run_on_terminal(tmp_path, "--provider", "openai", "--no-live") as screen:
        await screen.answer("OPENAI_API_KEY", KEY)
        await screen.answer("write this?", "n")
        await screen.wait()

    assert "nothing was written" in screen.output
    assert not own.exists()


@pytest.mark.parametrize("question", ["which do you have?", "GROQ_API_KEY", "write this?"])
async def test_ctrl_c_writes_nothing(question: str, tmp_path: Path) -> None:
    async with run_on_terminal(tmp_path, "--no-live") as screen:
        for prompt, answer in (("which do you have?", "groq"), ("GROQ_API_KEY", KEY), ("write this?", "y")):
            await screen.wait_for(prompt)
            if prompt == question:
                await screen.press_ctrl_c()
                break
            await screen.answer(prompt, answer)
        code = await screen.wait()

    assert code == 130
    assert "Traceback" not in screen.output
    assert list(tmp_path.rglob("*")) == []


async def test_the_address_of_a_local_server_is_written(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path)
        async with run_on_terminal(tmp_path, "--provider", "ollama") as screen:
            await screen.answer("OLLAMA_BASE_URL", "no address")
            await screen.answer("not accepted", host.url)
            await screen.answer("OLLAMA_API_KEY", "")
            await screen.answer("stand for?", "")
            await screen.answer("write this?", "y")
            assert await screen.wait() == 0, screen.output

    file = json.loads((own / "providers.json").read_text())
    assert file["providers"]["ollama"]["base_url"] == host.url
    assert file["sets"] == {"mine": ["ollama/small-1b"]}
    assert not (own / "keys.env").exists()


async def test_without_a_terminal_init_explains_its_options_instead_of_waiting() -> None:
    result = await run_fanout("init", given=b"")

    assert result.code == 2
    assert "--yes --provider" in result.err


async def test_init_yes_reads_keys_from_the_environment(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path, {"open": {**ROW, "base_url": f"{host.url}/v1"}})
        result = await run_unattended(tmp_path, "--provider", "open", OPEN_KEY=KEY)
        again = await run_unattended(tmp_path, "--provider", "open", OPEN_KEY=KEY)

    assert (result.code, again.code) == (0, 0), result.out + result.err
    assert read_env_file(own / "keys.env") == {"OPEN_KEY": KEY}
    assert KEY not in result.out + result.err
    assert "all there already" in again.out


@pytest.mark.parametrize("given", [f"{KEY}\n", f"OPEN_KEY={KEY}\n", f"# mine\nexport OPEN_KEY='{KEY}'\nOTHER_KEY=x\n"])
async def test_init_yes_reads_keys_from_standard_input(given: str, tmp_path: Path) -> None:
    own = prepare_home(tmp_path, {"open": {**ROW, "base_url": "http://127.0.0.1:9/v1"}})
    result = await run_unattended(tmp_path, "--provider", "open", "--no-live", given=given.encode())

    assert result.code == 0, result.err
    assert read_env_file(own / "keys.env") == {"OPEN_KEY": KEY}


async def test_init_yes_does_not_write_a_refused_key(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path, {"open": {**ROW, "base_url": f"{host.url}/v1"}})
        result = await run_unattended(tmp_path, "--provider", "open", given=BAD.encode())

    assert result.code == 1
    assert "the key was refused" in result.out
    assert BAD not in result.out + result.err
    assert not (own / "keys.env").exists()


@pytest.mark.parametrize(
    ("arguments", "given", "sentence"),
    [
        (["--provider", "opnai"], b"", "did you mean `openai`"),
        (["--provider", "local"], b"", "unknown provider `local`"),
        (["--provider", "openai"], b"", "`openai` needs OPENAI_API_KEY"),
        (["--provider", "openai"], b"OPENAI_API_KEY\nsk-secret", "line 1: is not `NAME=value`"),
        (["--provider", "openai"], "schlüssel".encode(), "not printable ASCII"),
        ([], b"", "no provider's variables are set"),
    ],
)
async def test_init_yes_names_what_is_missing(arguments: list[str], given: bytes, sentence: str, tmp_path: Path) -> None:
    result = await run_unattended(tmp_path, "--no-live", *arguments, given=given)

    assert result.code == 2
    assert sentence in result.err
    assert "sk-secret" not in result.err
    assert list(tmp_path.rglob("*")) == []


async def test_files_in_other_places_are_named_in_the_suggested_command(tmp_path: Path) -> None:
    files = ["--env-file", str(tmp_path / "my keys.env"), "--config", str(tmp_path / "own.json")]
    result = await run_unattended(tmp_path, "--provider", "openai", "--no-live", *files, given=f"\ufeff{KEY}\r\n".encode())

    assert result.code == 0
    assert f"fanout serve --env-file '{tmp_path}/my keys.env'" in result.out
    assert read_mode(tmp_path / "my keys.env") == 0o600


async def test_an_invalid_providers_file_stops_init_before_any_question(tmp_path: Path) -> None:
    prepare_home(tmp_path, {"open": {"adaptor": "openai"}})
    result = await run_unattended(tmp_path, "--provider", "openai", given=KEY.encode())

    assert result.code == 2
    assert "providers.open.adaptor" in result.err


async def test_neither_file_is_written_if_providers_json_would_become_invalid(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        own = prepare_home(tmp_path, {"open": {**ROW, "base_url": f"{host.url}/v1"}})
        file = json.loads((own / "providers.json").read_text())
        (own / "providers.json").write_text(
            json.dumps({**file, "models": {"mine": {"provider": "open", "id": "big-70b", "kind": "chat"}}})
        )
        before = (own / "providers.json").read_text()
        result = await run_unattended(tmp_path, "--provider", "open", given=KEY.encode())

    assert result.code == 2
    assert result.err.startswith(f"fanout: {own / 'providers.json'}: sets.mine: ")
    assert {path.name: path.read_text() for path in own.iterdir()} == {"providers.json": before}


async def test_init_asks_for_a_model_if_none_is_known_and_skips_providers_without_values(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        anthropic = {**host.rows["anth"], "api_key_env": "ANTH_KEY"}
        own = prepare_home(
            tmp_path, {"anth": anthropic, "other": {**anthropic, "api_key_env": "OTHER_KEY"}, "open": ROW | host.rows["open"]}
        )
        async with run_on_terminal(tmp_path, "--provider", "anth", "--provider", "open", "--provider", "other") as screen:
            await screen.answer("ANTH_KEY", KEY)
            await screen.answer("a model to try", "nope")
            await screen.answer("there is no nope", "e")
            await screen.answer("ANTH_KEY", KEY)
            await screen.answer("a model to try", "small-1b")
            await screen.answer("OPEN_KEY", "")
            await screen.wait_for("nothing was entered: skipped")
            await screen.answer("OTHER_KEY", KEY)
            await screen.answer("a model to try", "")
            await screen.answer("[s]kip it?", "")
            await screen.answer("stand for?", "")
            await screen.answer("write this?", "")
            await screen.wait()

    assert read_env_file(own / "keys.env") == {"ANTH_KEY": KEY, "OTHER_KEY": KEY}
    assert json.loads((own / "providers.json").read_text())["sets"] == {"mine": ["anth/small-1b"]}
