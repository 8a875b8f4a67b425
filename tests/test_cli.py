"""The `fanout` command as people and scripts use it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.commands import FANOUT, PATIENCE_S, address_of, environ, ran, run, serving, started
from tests.upstreams import Upstream, providers_file

pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> str:
    """A providers.json whose models are scripts."""
    retries = {"attempts": 2, "max_delay_s": 0.02}
    return str(providers_file(upstream.url, tmp_path, retries=retries))


def shape(value: Any) -> Any:
    """Its keys and types, without what may differ between two answers."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


async def test_answers_stand_below_each_other_unwrapped_where_nobody_watches(config: str) -> None:
    told = await run("ask", "hi", "--config", config, "-m", "up/chunks-60", "-m", "ok")

    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0] == "== up/chunks-60"
    assert lines[1].endswith("w58 w59 ")
    assert lines[2].startswith("-- 4 tokens · ")
    assert lines[4:6] == ["== ok", "This is ok."]


async def test_the_embedded_models_answer_without_any_configuration() -> None:
    told = await run("ask", "The return statement", "--max-tokens", "5", "--seed", "1")

    assert (told.code, told.err) == (0, "")
    assert re.findall("^== (.+)$", told.out, re.M) == ["local/ngram-2", "local/ngram-3", "local/ngram-5"]


async def test_training_is_no_part_of_an_answers_time() -> None:
    """It takes at least 0.1 s; a token takes a few milliseconds. The best of three, for machines are noisy."""
    told = [await run("ask", "hi", "-m", "local/ngram-2", "--max-tokens", "1", "--json") for _ in range(3)]

    assert min(json.loads(one.out)["choices"][0]["timing"]["total_ms"] for one in told) < 50


async def test_a_failure_stands_beside_the_answers_and_the_exit_code_says_so(config: str) -> None:
    told = await run("ask", "hi", "--config", config, "-m", "ok", "-m", "500", "-m", "nope")

    assert (told.code, told.err) == (1, "")
    assert "This is ok." in told.out
    assert "-- server 500 after 2 attempts: " in told.out
    assert "-- not found: unknown model `nope`" in told.out


async def test_a_single_unknown_model_is_a_failed_answer(config: str) -> None:
    told = await run("ask", "hi", "--config", config, "-m", "nope")

    assert (told.code, told.err) == (1, "")
    assert "unknown model `nope`" in told.out


async def test_samples_are_numbered_and_stop_and_system_are_sent(config: str, upstream: Upstream) -> None:
    told = await run(
        "ask", "hi", "--config", config, "-m", "ok", "-n", "2", "--stop", "x", "--stop", "y", "--system", "be brief"
    )

    assert re.findall("^== (.+)$", told.out, re.M) == ["ok #1", "ok #2"]
    body = upstream.requests[0].body
    assert body["stop"] == ["x", "y"]
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


async def test_answers_are_compared_with_the_first(config: str) -> None:
    told = await run("ask", "hi", "--config", config, "-m", "ok", "-m", "up/say-This", "--diff")

    assert "== up/say-This\nThis [-is ok.-]" in told.out


@pytest.mark.parametrize("arguments", [[], ["-"]])
async def test_the_prompt_is_read_from_standard_input(arguments: list[str], config: str, upstream: Upstream) -> None:
    told = await run("ask", *arguments, "--config", config, "-m", "ok", given="  zwei\nZeilen é\n".encode())

    assert told.code == 0
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "  zwei\nZeilen é"}]


@pytest.mark.parametrize(
    ("given", "sentence"), [(b"", "standard input is empty"), (b"\n", "standard input is empty"), (b"\xff", "not UTF-8")]
)
async def test_what_is_no_prompt_is_said(given: bytes, sentence: str) -> None:
    told = await run("ask", given=given)

    assert (told.code, told.out) == (2, "")
    assert sentence in told.err


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
async def test_wrong_usage_is_2(arguments: list[str]) -> None:
    told = await run(*arguments)

    assert (told.code, told.out) == (2, "")
    assert "Error: " in told.err
    assert "Traceback" not in told.err


async def test_too_many_calls_are_a_wrong_use() -> None:
    told = await run("ask", "hi", "-n", "100")

    assert told.code == 2
    assert told.err == "fanout: model: the request makes 300 calls (prompts × models × n); at most 256 are allowed\n"


async def test_every_fault_of_the_configuration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"providers": {"a": {"adaptor": "openai"}}, "models": {"m": {"provider": "a", "kind": "chat"}}}')

    for command in (["check"], ["models"], ["ask", "hi"], ["serve", "--port", "0"]):
        told = await run(*command, "--config", str(file))
        lines = told.err.splitlines()
        assert (told.code, told.out) == (2, "")
        assert all(line.startswith(f"fanout: {file}: ") for line in lines)
        assert any("providers.a.adaptor" in line and "`adapter`" in line for line in lines)
        assert any("models.m.id: is required" in line for line in lines)


@pytest.mark.parametrize("option", ["--config", "--env-file"])
async def test_a_file_that_cannot_be_read_is_named_in_one_sentence(option: str, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        told = await run("check", option, str(path))
        assert (told.code, told.out) == (2, "")
        assert told.err.startswith(f"fanout: {path}: cannot be read")
        assert told.err.count("\n") == 1


async def test_an_unknown_adapter_is_found_by_check(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"providers": {"a": {"adapter": "opneai", "base_url": "http://localhost/v1"}}}')

    told = await run("check", "--config", str(file))

    assert told.code == 2
    assert "providers.a.adapter" in told.err
    assert "opneai" in told.err


async def test_a_key_from_a_file_is_used_and_one_that_is_set_wins(upstream: Upstream, tmp_path: Path) -> None:
    config = str(providers_file(upstream.url, tmp_path, api_key_env="UP_KEY"))
    (tmp_path / "keys.env").write_text("# mine\nexport UP_KEY='from the file'\n")
    keys = ["--env-file", str(tmp_path / "keys.env")]

    without = await run("ask", "hi", "--config", config, "-m", "ok")
    with_file = await run("ask", "hi", "--config", config, "-m", "ok", *keys)
    with_both = await run("ask", "hi", "--config", config, "-m", "ok", *keys, UP_KEY="from the environment")

    assert (without.code, with_file.code, with_both.code) == (1, 0, 0)
    assert "`UP_KEY`" in without.out
    assert [request.headers["authorization"] for request in upstream.requests] == [
        "Bearer from the file",
        "Bearer from the environment",
    ]


async def test_half_a_character_in_an_answer_breaks_nothing(config: str) -> None:
    plain = await run("ask", "hi", "--config", config, "-m", "up/surrogates")
    as_json = await run("ask", "hi", "--config", config, "-m", "up/surrogates", "--json")

    assert (plain.code, as_json.code) == (0, 0)
    assert "\ufffd" in plain.out
    assert "\ufffd" in json.loads(as_json.out)["choices"][0]["text"]


# --json and --server


async def test_json_is_what_the_server_answers(config: str) -> None:
    models = ["ok", "429", "up/no_usage"]
    body = {"prompt": "hi", "model": models, "max_tokens": 4}
    async with serving("--config", config) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        asked = ["ask", "hi", "--json", "--max-tokens", "4", *(part for model in models for part in ("-m", model))]
        here = await run(*asked, "--config", config)
        there = await run(*asked, "--server", address)

    assert (here.code, there.code) == (1, 1)
    assert shape(json.loads(here.out)) == shape(answer) == shape(json.loads(there.out))
    assert [choice["model"] for choice in json.loads(here.out)["choices"]] == models


async def test_json_of_failures_alone_is_the_servers_error(config: str) -> None:
    body = {"prompt": "hi", "model": ["nope", "401"]}
    async with serving("--config", config) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        here = await run("ask", "hi", "--json", "-m", "nope", "-m", "401", "--config", config)
        there = await run("ask", "hi", "--json", "-m", "nope", "-m", "401", "--server", address)

    assert (here.code, there.code) == (1, 1)
    assert json.loads(here.out).keys() == {"error"}
    assert shape(json.loads(here.out)) == shape(answer) == shape(json.loads(there.out))


async def test_a_server_answers_as_the_command_itself_does(config: str) -> None:
    asked = ["ask", "hi", "-m", "ok", "-m", "up/say-two-chunks-2", "-m", "500", "-n", "2"]
    async with serving("--config", config) as address:
        here = await run(*asked, "--config", config)
        there = await run(*asked, "--server", address)

    def timeless(text: str) -> str:
        return re.sub(r"[0-9.]+ (ms|s|tokens/s)\b", "", text)

    assert (here.code, there.code, there.err) == (1, 1, "")
    assert timeless(here.out) == timeless(there.out)


async def test_a_server_whose_models_all_fail_is_one_that_answered(config: str) -> None:
    async with serving("--config", config) as address:
        told = await run("ask", "hi", "-m", "nope", "-m", "401", "--server", address.removeprefix("http://"))

    assert (told.code, told.err) == (1, "")
    assert "== nope\n-- not found: unknown model `nope`" in told.out
    assert "== 401\n-- auth 401: " in told.out


async def test_a_server_with_keys_is_shown_ours(config: str) -> None:
    async with serving("--config", config, FANOUT_API_KEYS="right,other") as address:
        shown = await run("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="right")
        wrong = await run("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="wrong")
        absent = await run("ask", "hi", "-m", "ok", "--server", address)

    assert (shown.code, wrong.code, absent.code) == (0, 2, 2)
    assert wrong.err.startswith("fanout: the server answered 401: ")
    assert "FANOUT_API_KEYS" in absent.err


async def test_what_a_server_refuses_is_said_in_its_words(config: str) -> None:
    async with serving("--config", config) as address:
        told = await run("ask", "hi", "-m", "ok", "--temperature", "1.5", "--server", address)

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("fanout: the server answered 400: `temperature`: 1.5 is not allowed")


async def test_where_no_server_is_it_is_said(upstream: Upstream) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        nobody = await run("ask", "hi", "--server", address)
    stranger = await run("ask", "hi", "--server", upstream.origin)
    nonsense = await run("ask", "hi", "--server", "http://")

    assert (nobody.code, stranger.code, nonsense.code) == (2, 2, 2)
    assert nobody.err.startswith(f"fanout: no server at http://{address} (")
    assert "`fanout serve` starts one" in nobody.err
    assert stranger.err.startswith("fanout: the server answered 404")
    assert "is no address of a server" in nonsense.err


async def test_a_server_that_breaks_off_is_told_from_one_that_is_absent() -> None:
    """What came is shown all the same."""

    async def completion(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        call = {"index": 0, "entry": 0, "sample": 0, "label": "m"}
        if asked.get("dry_run"):
            return web.json_response({"calls": [call]})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: " + json.dumps({"choices": [call | {"text": "half an ans"}]}).encode() + b"\n\n")
        assert request.transport
        request.transport.abort()
        return response

    app = web.Application()
    app.router.add_post("/v1/completion", completion)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told = await run("ask", "hi", "--server", f"127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()

    assert told.code == 2
    assert told.out.startswith("== m\nhalf an ans\n-- broken off after ")
    assert "broke off" in told.err


# models, check, schema


async def test_models_says_what_each_one_needs(tmp_path: Path) -> None:
    own = {
        "providers": {"up": {"adapter": "openai", "base_url": "http://localhost/v1", "api_key_env": ["UP_KEY", "UP_TOKEN"]}},
        "models": {
            "old": {"provider": "up", "id": "old", "kind": "chat", "deprecated_on": "2020-01-01"},
            "later": {"provider": "local", "id": "ngram-2", "kind": "text", "deprecated_on": "2999-01-01"},
            "日本": {"provider": "up", "id": "x", "kind": "chat", "max_context_length": 8192},
        },
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    config = ["--config", str(tmp_path / "own.json")]

    told = await run("models", *config)
    ready = await run("models", "--ready", *config)
    as_json = await run("models", "--json", *config)

    rows = {re.split(r"\s{2,}", line)[0]: line for line in told.out.splitlines()}
    assert told.code == 0
    assert rows["model"].split() == ["model", "provider", "kind", "context", "state"]
    assert rows["old"].endswith("shut down on 2020-01-01")
    assert rows["later"].endswith("ready, until 2999-01-01")
    assert rows["日本"].endswith("8192  needs UP_KEY or UP_TOKEN")
    assert told.out.index("\nlater ") < told.out.index("\nold ")
    assert [line.split()[0] for line in ready.out.splitlines()[1:]] == [
        "local/ngram-2",
        "local/ngram-3",
        "local/ngram-5",
        "later",
    ]
    assert {"old", "later", "日本"} < {model["id"] for model in json.loads(as_json.out)["data"]}


async def test_check_counts_what_is_configured(config: str) -> None:
    told = await run("check", "--config", config)

    assert (told.code, told.err) == (0, "")
    assert re.fullmatch(rf"{re.escape(config)}: valid; 2 providers, \d+ models \(\d+ ready\)\n", told.out)


async def test_check_live_shows_which_models_answer(upstream: Upstream, tmp_path: Path) -> None:
    up = {"adapter": "openai", "base_url": upstream.url}
    good = {"provider": "up", "id": "ok", "kind": "chat"}
    bad = {"provider": "up", "id": "400", "kind": "text"}
    unready = {"gone": good | {"deprecated_on": "2020-01-01"}, "keyless": good | {"provider": "keyed"}}
    own = {"extends": False, "providers": {"up": up, "keyed": up | {"api_key_env": "K"}}}
    (tmp_path / "good.json").write_text(json.dumps({**own, "models": {"good": good, **unready}}))
    (tmp_path / "both.json").write_text(json.dumps({**own, "models": {"good": good, "bad": bad}}))

    all_good = await run("check", "--live", "--config", str(tmp_path / "good.json"))
    both = await run("check", "--live", "--config", str(tmp_path / "both.json"))

    assert (all_good.code, both.code) == (0, 1)
    assert re.search(r"^good +0\.\d\d s  answers$", all_good.out, re.M)
    assert "gone" not in all_good.out
    assert "keyless" not in all_good.out
    assert re.search(r"^bad +0\.\d\d s  failed: the upstream says 400", both.out, re.M)
    assert upstream.requests[0].body["max_tokens"] == 1


async def test_check_live_without_a_ready_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"extends": false}')

    told = await run("check", "--live", "--config", str(tmp_path / "own.json"))

    assert told.code == 2
    assert "no model is ready" in told.err


async def test_schema_is_for_editors() -> None:
    schema = json.loads((await run("schema")).out)

    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"providers", "models", "sets"} <= schema["properties"].keys()


async def test_a_reader_that_has_read_enough_ends_it_quietly() -> None:
    told = await ran(["sh", "-c", f"{' '.join(FANOUT)} models --json | head -c 10"])

    assert told.out == '{\n  "object'[:10]
    assert told.err == ""


# serve


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = await run("serve", "--port", str(port))

    assert (told.code, told.out) == (2, "")
    assert (
        told.err == f"fanout: cannot listen on 127.0.0.1:{port}: address already in use; `--port` takes another, 0 a free one\n"
    )


async def test_other_machines_are_served_only_with_keys() -> None:
    told = await run("serve", "--host", "0.0.0.0", "--port", "0")

    assert (told.code, told.out) == (2, "")
    assert "FANOUT_API_KEYS" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_stops_in_order(number: signal.Signals) -> None:
    async with started("serve", "--port", "0") as process:
        await address_of(process)
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            rest, _ = await process.communicate()

    assert process.returncode == 0
    assert b"stopping" in rest
    assert b"Traceback" not in rest


# on a terminal


class Screen:
    """A command on a pseudo-terminal of its own, which is its controlling one, so that Ctrl-C reaches it."""

    def __init__(self, *arguments: str, columns: int = 100, lines: int = 30) -> None:
        self._arguments, self._size = arguments, (columns, lines)
        self.seen = ""

    async def __aenter__(self) -> Screen:
        self._ours, theirs = os.openpty()
        columns, lines = self._size
        variables = {**environ(), "COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
        self.process = await asyncio.create_subprocess_exec(
            *FANOUT,
            *self._arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=variables,
            start_new_session=True,
            preexec_fn=lambda: os.login_tty(theirs),
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    def _read(self) -> None:
        try:
            self.seen += os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # the command has closed its side
            asyncio.get_running_loop().remove_reader(self._ours)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.seen:
                await asyncio.sleep(0.02)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
        await asyncio.sleep(0.1)
        return code

    @property
    def left(self) -> list[str]:
        """What stands there in the end, without colours: what comes after the last line that was erased."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.rpartition("\x1b[2K")[2]).replace("\r", "").splitlines()


async def test_answers_move_side_by_side_and_stay(config: str) -> None:
    models = ["-m", "up/say-[red]bold[/red]-gap-0.1", "-m", "ok", "-m", "nope"]
    async with Screen("ask", "hi", "--config", config, *models, columns=120) as screen:
        await screen.until("[red")
        moving = screen.seen
        code = await screen.end()

    assert code == 1
    assert "This is ok." in moving
    assert "[red]bold[/red] " not in moving, "an answer was shown only when it was whole"
    assert screen.left[0].count("╭─") == 3
    assert "│ [red]bold[/red] " in screen.left[1]
    assert "│ This is ok. " in screen.left[1]
    assert {len(line) for line in screen.left} == {120}
    assert "\x1b[31m" in screen.seen
    assert "\x1b[32m" in screen.seen


async def test_no_colour_is_used_where_none_is_wanted(config: str) -> None:
    async with Screen("ask", "hi", "--config", config, "-m", "ok", "--bogus") as screen:
        assert await screen.end() == 2
    assert "Traceback" not in screen.seen


async def test_ctrl_c_ends_the_calls_and_leaves_what_came(config: str, upstream: Upstream) -> None:
    async with Screen("ask", "hi", "--config", config, "-m", "up/chunks-100-gap-0.1", "-m", "ok") as screen:
        await screen.until("w3")
        screen.type("\x03")
        code = await screen.end()
        await upstream.closed()

    assert code == 130
    assert "Traceback" not in screen.seen
    assert any("w0 w1 w2 w3" in line for line in screen.left)
    assert any("broken off after" in line for line in screen.left)
    assert any("This is ok." in line for line in screen.left)
    assert [request.model for request in upstream.abandoned] == ["chunks-100-gap-0.1"]


async def test_sigint_without_a_terminal_ends_it_too(config: str, upstream: Upstream) -> None:
    async with started("ask", "hi", "--config", config, "-m", "up/hang", "--json") as process:
        await upstream.arrived(1)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            told, _ = await process.communicate()

    assert (process.returncode, told.strip()) == (130, b"")


async def test_without_a_prompt_on_a_terminal_it_says_how_to_give_one() -> None:
    async with Screen("ask") as screen:
        code = await screen.end()

    assert code == 2
    assert "or pipe it in" in screen.seen


async def test_help_is_there_for_every_command() -> None:
    for command in ([], ["serve"], ["ask"], ["models"], ["check"], ["schema"]):
        told = await run(*command, "--help")
        assert told.code == 0
        assert "Usage: " in told.out


async def test_it_tells_its_version() -> None:
    import fanout

    assert (await run("--version")).out == f"fanout, version {fanout.__version__}\n"
