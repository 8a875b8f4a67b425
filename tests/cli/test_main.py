"""The `fanout` command as scripts use it: its output and its exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from fanout.cli.main import COMMANDS
from tests.support.builders.settings import write_providers_file
from tests.support.cli import FANOUT, PATIENCE_S, read_address, run_command, run_fanout, start_fanout
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

PRINT_HELPS = """
import json, sys
import click
from fanout.cli.main import cli

helps = {}
def add_helps(command, context):
    helps[context.command_path] = command.get_help(context)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        found = command.get_command(context, name)
        add_helps(found, click.Context(found, info_name=name, parent=context))

add_helps(cli, click.Context(cli, info_name="fanout"))
print(json.dumps({"helps": helps, "modules": list(sys.modules)}))
"""
"""A program that writes the help of every command and subcommand, and the modules that all of them have imported."""


async def test_in_a_pipe_answers_are_printed_one_below_the_other_without_wrapping(providers_json: str) -> None:
    result = await run_fanout("ask", "hi", "--config", providers_json, "-m", "up/chunks-60", "-m", "ok")

    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "== up/chunks-60"
    assert lines[1].endswith("w58 w59 ")
    assert lines[2].startswith("-- 4 tokens · ")
    assert lines[4:6] == ["== ok", "This is ok."]


async def test_the_embedded_models_answer_without_any_configuration() -> None:
    result = await run_fanout("ask", "The return statement", "--max-tokens", "5", "--seed", "1")

    assert result.code == 0
    assert result.err.startswith("asking embedded: the embedded toys, because no provider has a key yet; ")
    assert re.findall("^== (.+)$", result.out, re.M) == ["local/ngram-2", "local/ngram-3", "local/ngram-5"]
    assert result.out.splitlines()[-1].startswith("-- total cost $0 · fastest: local/ngram-")


@timed
async def test_training_the_embedded_models_is_not_part_of_an_answers_time() -> None:
    """Training takes at least 0.1 s, a token a few milliseconds. The best of three runs counts: machines are noisy."""
    result = [await run_fanout("ask", "hi", "-m", "local/ngram-2", "--max-tokens", "1", "--json") for _ in range(3)]

    assert min(json.loads(one.out)["choices"][0]["timing"]["total_ms"] for one in result) < 50


async def test_a_failure_is_shown_with_the_answers_and_sets_the_exit_code(providers_json: str) -> None:
    result = await run_fanout("ask", "hi", "--config", providers_json, "-m", "ok", "-m", "500", "-m", "nope")

    assert (result.code, result.err) == (1, "")
    assert "This is ok." in result.out
    assert "-- server 500 after 2 attempts: " in result.out
    assert "-- not found: unknown model `nope`" in result.out


async def test_an_unknown_model_is_a_failed_answer(providers_json: str) -> None:
    result = await run_fanout("ask", "hi", "--config", providers_json, "-m", "nope")

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("not found: unknown model `nope`")


async def test_samples_are_numbered_and_stop_and_system_are_sent(providers_json: str, upstream: Upstream) -> None:
    result = await run_fanout(
        "ask", "hi", "--config", providers_json, "-m", "ok", "-n", "2", "--stop", "x", "--stop", "y", "--system", "be brief"
    )

    assert re.findall("^== (.+)$", result.out, re.M) == ["ok #1", "ok #2"]
    body = upstream.requests[0].body
    assert body["stop"] == ["x", "y"]
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


async def test_answers_are_compared_with_the_first(providers_json: str) -> None:
    result = await run_fanout("ask", "hi", "--config", providers_json, "-m", "ok", "-m", "up/say-This", "--diff")

    assert "== up/say-This\nThis [-is ok.-]" in result.out


@pytest.mark.parametrize("arguments", [[], ["-"]])
async def test_the_prompt_is_read_from_standard_input(arguments: list[str], providers_json: str, upstream: Upstream) -> None:
    result = await run_fanout("ask", *arguments, "--config", providers_json, "-m", "ok", given="  zwei\nZeilen é\n".encode())

    assert result.code == 0
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "  zwei\nZeilen é"}]


async def test_marks_and_line_breaks_that_editors_add_are_no_part_of_the_prompt(
    providers_json: str, upstream: Upstream
) -> None:
    options = ("--config", providers_json, "-m", "ok")
    piped = await run_fanout("ask", *options, given=b"\xef\xbb\xbfzwei\r\nZeilen\r\n")
    named = await run_fanout("ask", *options, "\ufeffeine Zeile")

    assert (piped.code, named.code) == (0, 0)
    assert [request.body["messages"][0]["content"] for request in upstream.requests] == ["zwei\r\nZeilen", "eine Zeile"]


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [(b"", "no prompt: "), (b" \n", "no prompt: "), (b"\xef\xbb\xbf\r\n", "no prompt: "), (b"\xff", "not UTF-8")],
)
async def test_a_prompt_that_cannot_be_used_is_refused(stdin: bytes, sentence: str) -> None:
    result = await run_fanout("ask", given=stdin)

    assert (result.code, result.out) == (2, "")
    assert sentence in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "hi", "--bogus"],
        ["ask", "hi", "--temperature", "9"],
        ["bogus"],
        ["serve", "--port", "80000"],
        ["ask", "hi", "-n", "0"],
    ],
)
async def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = await run_fanout(*arguments)

    assert (result.code, result.out) == (2, "")
    assert "Error: " in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["aks", "hi"], "no command is called `aks`; did you mean `ask`?"),
        (["help"], "no command is called `help`; `fanout --help` lists them"),
        (["What is this?"], "no command is called `What is this?`; `fanout ask` takes a prompt"),
        (["ask", "-1 is less"], "No such option '-1'. A text that begins with a dash is the last argument, behind `--`."),
        (["ask", "hi", "-f", "empty.txt"], "-f: `empty.txt` is empty"),
        (["keys", "set", "groq"], "GROQ_API_KEY: no key was given"),
    ],
)
async def test_a_slip_is_answered_by_what_may_have_been_meant(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    result = await run_fanout(*arguments, cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"Error: {sentence}\n")


async def test_without_a_command_there_is_help_and_nothing_else() -> None:
    for command in ([], ["batch"], ["keys"]):
        result = await run_fanout(*command)
        assert (result.code, result.out, result.err.count("Usage: ")) == (2, "", 1)
        assert "Error" not in result.err


async def test_a_prompt_that_begins_with_a_dash_stands_behind_two(providers_json: str, upstream: Upstream) -> None:
    result = await run_fanout("ask", "--config", providers_json, "-m", "ok", "--", "-1 is less")

    assert (result.code, upstream.requests[0].body["messages"][-1]["content"]) == (0, "-1 is less")


async def test_an_answer_ends_its_line_before_the_figures_follow(providers_json: str) -> None:
    command = " ".join(FANOUT)
    result = await run_command(["sh", "-c", f"{command} ask hi -m ok --config {providers_json} 2>&1"])

    assert result.out.splitlines()[0] == "This is ok."
    assert result.out.splitlines()[1].startswith("4 tokens · ")


async def test_ctrl_c_while_modules_are_imported_prints_no_traceback() -> None:
    """Python itself raises KeyboardInterrupt wherever it is."""
    program = """
import builtins, os, signal
from fanout.__main__ import main

real = builtins.__import__
def interrupt(name, *more):
    if name == "fanout.cli.main":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *more)

builtins.__import__ = interrupt
main()
"""
    result = await run_command([sys.executable, "-c", program])

    assert (result.code, result.out, result.err) == (130, "", "")


async def test_too_many_calls_are_refused() -> None:
    result = await run_fanout("ask", "hi", "-m", "embedded", "-n", "100")

    assert result.code == 2
    assert result.err == (
        "fanout: model: makes 300 calls (prompts × models × n); "
        "at most 256 are allowed for a request or a row (FANOUT_MAX_CALLS)\n"
    )


async def test_every_fault_of_the_configuration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"providers": {"a": {"adaptor": "openai"}}, "models": {"m": {"provider": "a", "kind": "chat"}}}')

    for command in (["check"], ["models"], ["ask", "hi"], ["serve", "--port", "0"]):
        result = await run_fanout(*command, "--config", str(file))
        lines = result.err.splitlines()
        assert (result.code, result.out) == (2, "")
        assert all(line.startswith(f"fanout: {file}: ") for line in lines)
        assert any("providers.a.adaptor" in line and "`adapter`" in line for line in lines)
        assert any("models.m.id: is required" in line for line in lines)


@pytest.mark.parametrize("option", ["--config", "--env-file"])
async def test_a_file_that_cannot_be_read_is_named_in_one_sentence(option: str, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        result = await run_fanout("check", option, str(path))
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"fanout: {path}: cannot be read")
        assert result.err.count("\n") == 1


async def test_check_finds_an_unknown_adapter(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"providers": {"a": {"adapter": "opneai", "base_url": "http://localhost/v1"}}}')

    result = await run_fanout("check", "--config", str(file))

    assert result.code == 2
    assert "providers.a.adapter" in result.err
    assert "opneai" in result.err


async def test_a_key_in_the_environment_takes_precedence_over_one_in_a_file(upstream: Upstream, tmp_path: Path) -> None:
    config = str(write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY"))
    (tmp_path / "keys.env").write_text("# mine\nexport UP_KEY='from the file'\n")
    keys = ["--env-file", str(tmp_path / "keys.env")]

    without = await run_fanout("ask", "hi", "--config", config, "-m", "ok")
    with_file = await run_fanout("ask", "hi", "--config", config, "-m", "ok", *keys)
    with_both = await run_fanout("ask", "hi", "--config", config, "-m", "ok", *keys, UP_KEY="from the environment")

    assert (without.code, with_file.code, with_both.code) == (1, 0, 0)
    assert "`ok` needs `UP_KEY`; `fanout keys set up` sets it" in without.err
    assert [request.headers["authorization"] for request in upstream.requests] == [
        "Bearer from the file",
        "Bearer from the environment",
    ]


async def test_lone_surrogates_in_an_answer_are_replaced(providers_json: str) -> None:
    plain = await run_fanout("ask", "hi", "--config", providers_json, "-m", "up/surrogates")
    as_json = await run_fanout("ask", "hi", "--config", providers_json, "-m", "up/surrogates", "--json")

    assert (plain.code, as_json.code) == (0, 0)
    assert "\ufffd" in plain.out
    assert "\ufffd" in json.loads(as_json.out)["choices"][0]["text"]


async def test_models_names_the_variables_that_each_model_needs(tmp_path: Path) -> None:
    own = {
        "providers": {"up": {"adapter": "openai", "base_url": "http://localhost/v1", "api_key_env": ["UP_KEY", "UP_TOKEN"]}},
        "models": {
            "old": {"provider": "up", "id": "old", "kind": "chat", "deprecated_on": "2020-01-01"},
            "later": {"provider": "local", "id": "ngram-2", "kind": "text", "deprecated_on": "2999-01-01"},
            "日本": {
                "provider": "up",
                "id": "x",
                "kind": "chat",
                "max_context_length": 8192,
                "price": {"input_usd_per_mtok": 0.25, "output_usd_per_mtok": 2},
            },
        },
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    config = ["--config", str(tmp_path / "own.json")]

    result = await run_fanout("models", "--all", *config)
    current = await run_fanout("models", "list", "--provider", "up", *config)
    searched = await run_fanout("models", "日", *config)
    near = await run_fanout("models", "latre", *config)
    ready = await run_fanout("models", "--ready", *config)
    as_json = await run_fanout("models", "--all", "--json", *config)

    rows = {re.split(r"\s{2,}", line)[0]: line for line in result.out.splitlines()}
    assert result.code == 0
    assert rows["model"].split() == ["model", "provider", "kind", "context", "$/M", "in", "$/M", "out", "state"]
    assert rows["old"].endswith("shut down on 2020-01-01")
    assert rows["later"].endswith("ready, until 2999-01-01")
    assert rows["日本"].split()[3:] == ["8192", "0.25", "2", "needs", "UP_KEY", "or", "UP_TOKEN"]
    assert [line.split()[0] for line in current.out.splitlines()[1:]] == ["日本"], "one that has been shut down is hidden"
    assert len(searched.out.splitlines()) == 2
    assert near.err == "no such model; did you mean `later`?\n"
    assert result.out.index("\nlater ") < result.out.index("\nold ")
    assert [line.split()[0] for line in ready.out.splitlines()[1:]] == [
        "local/ngram-2",
        "local/ngram-3",
        "local/ngram-5",
        "later",
    ]
    assert {"old", "later", "日本"} < {model["id"] for model in json.loads(as_json.out)["data"]}


async def test_check_counts_providers_and_models(providers_json: str) -> None:
    result = await run_fanout("check", "--config", providers_json)

    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(rf"{re.escape(providers_json)}: valid; 2 providers, \d+ models \(\d+ ready\)\n", result.out)


async def test_check_live_reports_that_no_provider_is_ready(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"extends": false}')

    result = await run_fanout("check", "--live", "--config", str(tmp_path / "own.json"))

    assert result.code == 2
    assert "no provider is ready; `fanout init` asks" in result.err


async def test_schema_prints_a_json_schema() -> None:
    schema = json.loads((await run_fanout("schema")).out)

    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"providers", "models", "sets"} <= schema["properties"].keys()


async def test_a_closed_pipe_ends_the_command_without_a_message() -> None:
    result = await run_command(["sh", "-c", f"{{ {' '.join(FANOUT)} models --json; echo $? >&2; }} | true"])

    assert result.err == "1\n"


async def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = await run_fanout("serve", "--port", str(port))

    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == f"fanout: cannot listen on 127.0.0.1:{port}: address already in use; `--port` takes another, 0 a free one\n"
    )


async def test_listening_for_other_machines_requires_keys() -> None:
    result = await run_fanout("serve", "--host", "0.0.0.0", "--port", "0")

    assert (result.code, result.out) == (2, "")
    assert "FANOUT_API_KEYS" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_stops_cleanly_at_a_signal(number: signal.Signals) -> None:
    async with start_fanout("serve", "--port", "0") as process:
        await read_address(process)
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            rest, _ = await process.communicate()

    assert process.returncode == 0
    assert b"server.stopping" in rest
    assert b"Traceback" not in rest


async def test_every_command_has_help_that_begins_as_the_list_of_commands_says() -> None:
    helps = json.loads((await run_command([sys.executable, "-c", PRINT_HELPS])).out)["helps"]

    assert {f"fanout {name}" for name in COMMANDS} < helps.keys()
    assert [path for path, text in helps.items() if not text.startswith(f"Usage: {path} ")] == []
    for name, line in COMMANDS.items():
        assert line.rstrip(".") in " ".join(helps[f"fanout {name}"].split())


async def test_no_help_imports_what_only_the_work_of_a_command_needs() -> None:
    """Each of these costs a tenth of a second or more."""
    imported = set(json.loads((await run_command([sys.executable, "-c", PRINT_HELPS])).out)["modules"])

    outside = {"aiohttp", "alembic", "genai_prices", "jsonschema", "numpy", "pyarrow", "scipy", "sqlalchemy", "yaml"}
    ours = {f"fanout.{name}" for name in ("api", "limits", "probe", "requests", "server")}
    assert "fanout.cli.batch.commands" in imported
    assert [name for name in imported if name.startswith("fanout.providers.")] == []  # the package itself is a small table
    assert imported & (outside | ours | {"fanout.dispatch.dispatcher", "fanout.store.opening", "fanout.jobs.job"}) == set()


@pytest.mark.parametrize("option", ["--help", "--version"])
async def test_help_and_version_import_neither_subcommands_nor_heavy_libraries(option: str) -> None:
    result = await run_command([sys.executable, "-X", "importtime", "-m", "fanout", option])

    imported = {line.rpartition("|")[2].strip() for line in result.err.splitlines()}
    assert "click" in imported
    assert not imported & {"aiohttp", "pydantic", "rich", "sqlalchemy"}
    assert {name for name in imported if name.startswith("fanout.cli.")} == {"fanout.cli.main"}


async def test_version_is_printed() -> None:
    import fanout

    assert (await run_fanout("--version")).out == f"fanout, version {fanout.__version__}\n"
