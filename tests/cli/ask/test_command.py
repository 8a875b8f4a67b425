"""`fanout ask` as people use it: what is joined to the prompt, which models are meant, and how answers are shown."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import FANOUT, PATIENCE_S, build_environ, run_fanout, start_fanout
from tests.support.terminal import TerminalSession
from tests.support.upstream.server import Upstream

PIXEL = b"\x89PNG\r\n\x1a\n rest"
CODE = 'say-Here:\n```python\nprint("a`b")\n```\n'


async def test_standard_input_and_files_are_joined_to_the_prompt(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("```\ninner\n```\n")
    (tmp_path / "b.png").write_bytes(PIXEL)
    files = ["-f", str(tmp_path / "a.md"), "-f", str(tmp_path / "b.png")]
    result = await run_fanout(
        "ask", "Summarise this", "-s", "Be brief", "-m", "ok", *files, "--config", providers_json, given=b"piped\n"
    )

    assert (result.code, result.out) == (0, "This is ok.\n")
    system, user = upstream.requests[0].body["messages"]
    assert system == {"role": "system", "content": "Be brief"}
    text, image = user["content"]
    assert text["text"] == "Summarise this\n\npiped\n\na.md:\n````\n```\ninner\n```\n````"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([""], "no prompt: "),
        (["  "], "no prompt: "),
        (["-f", "absent.txt", "x"], "-f: `absent.txt` cannot be read: No such file or directory"),
        (["-f", "binary", "x"], "-f: `binary` is neither UTF-8 text nor a PNG, JPEG, GIF or WebP image"),
        (["-o", "temprature=1", "x"], "unknown parameter `temprature`; did you mean `temperature`?"),
        (["-o", "temperature", "x"], "`temperature` is not allowed: NAME=VALUE"),
        (["-m", "gtp-6-lun*", "x"], "-m: no model is like `gtp-6-lun*`; did you mean `gpt-6-luna`"),
        (["-m", "gpt-*", "x"], "models like `gpt-*` is ready; `fanout models` says why"),
        (["--schema", "age years", "x"], "--schema: `age years` is not understood"),
        (["-p", "a=b", "x"], "name one with -t"),
        (["-t", "nope", "x"], "there is no template `nope`; `fanout ask --save` makes one"),
        (["hi", "-m", ","], "-m names no model"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_what_is_allowed(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    result = await run_fanout("ask", *arguments, cwd=tmp_path, XDG_CONFIG_HOME=str(tmp_path))

    assert (result.code, result.out) == (2, "")
    assert sentence in " ".join(result.err.split())


async def test_a_fusion_is_shown_with_its_members_and_a_conversation_goes_on_with_it_alone(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    options = ("--config", providers_json)
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "log.db")}
    fusion = "fusion(up/say-one,up/500 by up/say-three)"
    result = await run_fanout("ask", "hi", "-m", f"{fusion},up/say-four", *options, **store)

    assert result.code == 1
    heads = [line for line in result.out.splitlines() if line.startswith("== ")]
    assert heads == ["== fusion(up/say-one, up/500 by up/say-three)", "== up/say-four", "== up/say-one", "== up/500"]
    assert "made of 1 of 2 answers, together cost unknown" in result.out
    before = len(upstream.requests)
    await run_fanout("ask", "-c", "and then?", *options, **store)
    later = [request.body["messages"] for request in upstream.requests[before:]]
    assert [message["content"] for message in later[0]][:2] == ["hi", "three"]
    assert {messages[1]["content"] for messages in later} == {"three", "four"}


async def test_models_are_named_by_patterns_commas_and_sets(upstream: Upstream, tmp_path: Path) -> None:
    sections: dict[str, dict[str, Any]] = {
        "models": {
            "say-a": {"provider": "up", "id": "say-a", "kind": "chat", "aliases": ["first"]},
            "say-b": {"provider": "up", "id": "say-b", "kind": "chat"},
            "say-old": {"provider": "up", "id": "say-old", "kind": "chat", "deprecated_on": "2020-01-01"},
            "say-keyless": {"provider": "keyed", "id": "x", "kind": "chat"},
        },
        "providers": {"keyed": {"adapter": "openai", "base_url": upstream.url, "api_key_env": "SOME_KEY"}},
        "sets": {"both": ["say-b", "say-a"]},
    }
    config = str(write_providers_file(upstream.url, tmp_path, more=sections))
    result = await run_fanout(
        "ask", "hi", "--config", config, "-m", "first,both", "-m", "up/say-?", "-o", "seed=5", "-o", "mode=x"
    )

    heads = [line.removeprefix("== ") for line in result.out.splitlines() if line.startswith("== ")]
    assert heads == ["first", "say-b", "say-a", "say-a", "say-b"], "a pattern finds what is ready and still served"
    assert {(sent.body["seed"], sent.body["mode"]) for sent in upstream.requests} == {(5, "x")}


async def test_a_single_answer_is_passed_on_piece_by_piece_with_its_figures_apart(providers_json: str) -> None:
    async with start_fanout("ask", "hi", "--config", providers_json, "-m", "up/chunks-60-gap-0.1") as process:
        assert process.stdout
        async with asyncio.timeout(PATIENCE_S):
            piece = await process.stdout.read(3)
        assert piece == b"w0 "
        assert process.returncode is None
        process.kill()


async def test_a_pipe_that_nobody_writes_to_is_named(providers_json: str) -> None:
    reading, writing = os.pipe()
    command = [*FANOUT, "ask", "hi", "-m", "ok", "--config", providers_json]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=build_environ()
    )
    os.close(reading)
    assert process.stderr
    async with asyncio.timeout(PATIENCE_S):
        line = await process.stderr.readline()
        os.close(writing)
        out, _ = await process.communicate()

    assert line == b"reading standard input, to be added to the prompt; `</dev/null` adds nothing\n"
    assert out == b"This is ok.\n"


async def test_code_alone_is_printed(providers_json: str) -> None:
    both = await run_fanout("ask", "hi", "--config", providers_json, "-m", f"up/{CODE}", "-m", "ok", "-x")
    one = await run_fanout("ask", "hi", "--config", providers_json, "-m", f"up/{CODE}", "-x")

    assert (one.code, one.out, one.err) == (0, 'print("a`b")\n', "")
    assert both.code == 1
    assert both.out.endswith('\nprint("a`b")\n')
    assert both.err == "fanout: ok: no fenced code block\n"


async def test_answers_that_do_not_fit_a_schema_are_failures(providers_json: str, upstream: Upstream) -> None:
    models = ["-m", 'up/say-{"age":3}', "-m", 'up/say-{"age":"old"}', "-m", "ok"]
    result = await run_fanout("ask", "hi", "--config", providers_json, *models, "--schema", "age int: in years")

    assert result.code == 1
    assert '== up/say-{"age":3}\n{"age":3}\n-- 4 tokens' in result.out
    assert "-- malformed: the answer does not fit --schema: $.age: 'old' is not of type 'integer'" in result.out
    assert "-- malformed: the answer does not fit --schema: it is not JSON" in result.out
    assert upstream.requests[0].body["response_format"]["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"age": {"type": "integer", "description": "in years"}},
        "required": ["age"],
        "additionalProperties": False,
    }


async def test_a_saved_question_is_asked_with_its_options_and_variables(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    config = ["--config", providers_json]
    home: dict[str, Any] = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    prompt = "Translate to {{language}}: {{input}}"
    saved = await run_fanout("ask", prompt, "--save", "translate", "-m", "ok", "-s", "Be exact", "-o", "seed=4", **home)
    asked = await run_fanout("ask", "-t", "translate", "-p", "language=French", "Hello", "-o", "seed=5", *config, **home)
    lacking = await run_fanout("ask", "-t", "translate", "Hello", *config, **home)
    wrong = await run_fanout("ask", "-t", "translte", "Hello", *config, **home)
    listed = await run_fanout("templates", **home)
    shown = await run_fanout("templates", "show", "translate", **home)

    file = tmp_path / "own" / "fanout" / "templates" / "translate.json"
    assert saved.out == f"wrote {file}\n"
    assert asked.code == 0, asked.err
    body = upstream.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be exact"},
        {"role": "user", "content": "Translate to French: Hello"},
    ]
    assert body["seed"] == 5
    assert "-t: `language` has no value: -p language=…" in lacking.err
    assert "there is no template `translte`; did you mean `translate`?" in wrong.err
    assert listed.out.splitlines()[1].split(maxsplit=2) == ["translate", "ok", prompt]
    assert json.loads(shown.out) == json.loads(file.read_text())


async def test_on_a_terminal_markdown_is_rendered_and_plain_text_has_no_frames(providers_json: str) -> None:
    arguments = ["ask", "hi", "--config", providers_json, "-m", "up/say-__bold__", "-m", "ok"]
    async with TerminalSession(*arguments) as framed:
        assert await framed.wait() == 0
    async with TerminalSession(*arguments, "--plain") as plain:
        assert await plain.wait() == 0

    assert any("│ bold " in line for line in framed.final_lines)
    assert plain.final_lines[:2] == ["== up/say-__bold__", "__bold__"]
    assert "│" not in "".join(plain.final_lines)


async def test_without_models_the_users_own_are_asked_and_a_line_says_so(providers_json: str, tmp_path: Path) -> None:
    own = tmp_path / "own" / "fanout"
    own.mkdir(parents=True)
    (own / "providers.json").write_text(Path(providers_json).read_text())
    home: dict[str, Any] = {"XDG_CONFIG_HOME": str(own.parent)}
    unset = await run_fanout("models", "default", **home)
    wrong = await run_fanout("models", "default", "okk", **home)
    done = await run_fanout("models", "default", "ok,up/say-two", **home)
    shown = await run_fanout("models", "default", **home)
    asked = await run_fanout("ask", "hi", **home)

    assert "the cheapest ready model" in unset.out
    assert wrong.code == 2
    assert "unknown model `okk`; did you mean `ok`?" in wrong.err
    assert done.out.splitlines()[-1] == "called by default: ok, up/say-two"
    assert shown.out == "ok, up/say-two: the set `mine`\n"
    assert asked.err == "asking mine: the set `mine`; -m names others, `fanout models default` sets yours\n"
    assert [line for line in asked.out.splitlines() if line.startswith("== ")] == ["== ok", "== up/say-two"]


async def test_failures_tell_what_the_provider_wrote_and_how_long_to_wait(providers_json: str) -> None:
    """Nothing speaks of a server where there is none."""
    result = await run_fanout("ask", "hi", "--config", providers_json, "-m", "401", "-m", "429", "-m", "503", "-m", "nope")

    assert result.code == 1
    assert "server's environment" not in result.out
    assert "GET /v1/models" not in result.out
    assert "-- auth 401: " in result.out
    assert "-- rate limit 429 after 2 attempts: " in result.out


@pytest.mark.parametrize(
    ("key", "shown"),
    [("", "`lab` wants an API key, and none is set (HTTP 401)"), ("a-key", "`lab` refused the API key (HTTP 401)")],
)
async def test_a_provider_that_wants_a_key_after_all_has_refused_none(
    upstream: Upstream, tmp_path: Path, key: str, shown: str
) -> None:
    row = {"adapter": "openai", "base_url": upstream.url, "api_key_env": "LAB_KEY", "key_optional": True}
    config = tmp_path / "providers.json"
    config.write_text(json.dumps({"providers": {"lab": row}}))

    result = await run_fanout("ask", "hi", "--config", str(config), "-m", "lab/401", LAB_KEY=key)

    assert result.err.startswith(f"auth 401: {shown}")
    assert result.err.endswith("; `fanout check --live` tells what to do\n")
