"""`fanout log`, and questions that go on from it: `ask -c`, `chat`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.cli import run_fanout, serve_fanout
from tests.support.terminal import TerminalSession
from tests.support.upstream.server import Upstream


async def test_a_question_is_kept_searched_shown_and_gone_on_with(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    options = ["--config", providers_json]
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "fanout.db")}
    first = await run_fanout(
        "ask", 'What is "é"?', "-m", "ok", "-m", "up/say-two", "-m", "500", "-s", "Be brief", *options, **store
    )
    second = await run_fanout("ask", "And now?", "-c", *options, **store)
    third = await run_fanout("ask", "And then?", "-c", "-m", "up/say-three", *options, **store)
    hidden = await run_fanout("ask", "secret", "-m", "ok", "--no-log", *options, **store)
    listed = await run_fanout("log", "--json", *options, **store)
    found = await run_fanout("log", 'IS "é"', "BRIEF", "--json", *options, **store)
    shown = await run_fanout("log", "show", *options, **store)

    assert first.err.startswith(f"questions and answers are kept in {tmp_path / 'fanout.db'}, for `fanout log` and `-c`")
    assert (second.err, hidden.code) == ("", 0), "the place is named once"
    assert re.findall("^== (.+)$", second.out, re.M) == ["ok", "up/say-two"], "those that answered"
    sent = {request.model: request.body["messages"] for request in upstream.requests}
    system, asked = {"role": "system", "content": "Be brief"}, {"role": "user", "content": 'What is "é"?'}
    assert sent["say-two"] == [system, asked, {"role": "assistant", "content": "two"}, {"role": "user", "content": "And now?"}]
    assert sent["say-three"] == [
        *(system, asked, {"role": "assistant", "content": "This is ok."}),
        *({"role": "user", "content": "And now?"}, {"role": "assistant", "content": "This is ok."}),
        {"role": "user", "content": "And then?"},
    ]
    assert third.code == 0
    rows = json.loads(listed.out)["data"]
    assert [row["prompt"] for row in rows] == ["And then?", "And now?", 'What is "é"?']
    assert {row["path"] for row in rows} == {"ask"}
    assert "And then?" in shown.out
    assert "three" in shown.out
    assert [row["id"] for row in json.loads(found.out)["data"]] == [row["id"] for row in rows], "the past holds the words, too"


async def test_a_question_that_no_model_answered_ends_no_conversation(providers_json: str, tmp_path: Path) -> None:
    """A mistyped model, for example; `fanout log show` shows it all the same."""
    options: list[str] = ["--config", providers_json]
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "fanout.db")}
    alone = await run_fanout("ask", "Lost", "-m", "nope", *options, **store)
    nothing = await run_fanout("ask", "Go on", "-c", *options, **store)
    await run_fanout("ask", "First", "-m", "ok", *options, **store)
    await run_fanout("ask", "Mistyped", "-m", "nope", *options, **store)
    shown = await run_fanout("log", "show", *options, **store)
    went = await run_fanout("ask", "Go on", "-c", *options, **store)

    assert (alone.code, nothing.code, went.code) == (1, 2, 0)
    assert nothing.err.endswith("cannot be gone on with: no model answered\n")
    assert shown.out.startswith("Mistyped\n")


async def test_a_failed_question_ends_no_conversation_with_a_server(providers_json: str, tmp_path: Path) -> None:
    store = {"FANOUT_STORE": str(tmp_path / "server.db"), "FANOUT_HISTORY": "full"}
    async with serve_fanout("--config", providers_json, **store) as address:
        to_server: list[str] = ["--server", address]
        await run_fanout("ask", "First", "-m", "ok", *to_server, HOME=str(tmp_path))
        failed = await run_fanout("ask", "Broken", "-m", "up/500", *to_server, HOME=str(tmp_path))
        shown = await run_fanout("log", "show", *to_server, HOME=str(tmp_path))
        went = await run_fanout("ask", "Go on", "-c", *to_server, HOME=str(tmp_path))

    assert (failed.code, went.code) == (1, 0), went.err
    assert shown.out.startswith("Broken\n")


async def test_servers_and_the_command_line_share_one_store(providers_json: str, tmp_path: Path) -> None:
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "fanout.db"), "FANOUT_HISTORY": "full"}
    body = {"model": ["ok", "up/say-two"], "prompt": "From a page"}
    async with (
        serve_fanout("--config", providers_json, **store) as address,
        aiohttp.request("POST", f"{address}/v1/completion", json=body) as response,
    ):
        id_ = (await response.json())["id"]
    asked = await run_fanout("ask", "Go on", "--from", id_[:12], "--config", providers_json, **store)
    listed = await run_fanout("log", "-m", "ok", "--config", providers_json, **store)
    usage_off = await run_fanout("log", "show", "nothing", "--config", providers_json, **store)

    assert asked.code == 0, asked.err
    assert [line.split()[0] for line in listed.out.splitlines()[1:]][1] == id_[:8]
    assert "From a page" in listed.out
    assert usage_off.err == "fanout: no question has an id that begins with `nothing`; `fanout log` lists them\n"


async def test_a_servers_history_is_listed_searched_shown_and_gone_on_with(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    keys = "team-a:key-of-team-a-0123456789,team-b:key-of-team-b-0123456789"
    store = {"FANOUT_STORE": str(tmp_path / "server.db"), "FANOUT_HISTORY": "full", "FANOUT_API_KEYS": keys}
    mine: dict[str, Any] = {"FANOUT_API_KEYS": "key-of-team-a-0123456789", "XDG_DATA_HOME": str(tmp_path)}
    others: dict[str, Any] = {"FANOUT_API_KEYS": "key-of-team-b-0123456789", "XDG_DATA_HOME": str(tmp_path / "other")}
    async with serve_fanout("--config", providers_json, **store) as address:
        at = ["--server", address]
        await run_fanout("ask", "First words", "-m", "ok", "-m", "up/say-two", "-s", "Be brief", *at, **mine)
        second = await run_fanout("ask", "And now?", "-c", *at, **mine)
        body = {
            "model": "up/say-x",
            "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Else"}],
        }
        head = {"Authorization": "Bearer key-of-team-a-0123456789"}
        async with aiohttp.request("POST", f"{address}/v1/chat/completions", json=body, headers=head) as response:
            newer = response.headers["x-comparison-id"]
        third = await run_fanout("ask", "And then?", "-c", *at, **mine)
        from_chat = await run_fanout("ask", "Go on", "--from", newer[:12], *at, **mine)
        listed = await run_fanout("log", "--json", *at, **mine)
        found = await run_fanout("log", "FIRST", "two", "--json", "-n", "2", *at, **mine)
        shown = await run_fanout("log", "show", *at, **mine)
        hidden = await run_fanout("log", *at, **others)
        foreign = await run_fanout("ask", "Spy", "--from", newer, *at, **others)

    assert (second.code, third.code, from_chat.code) == (0, 0, 0), (second.err, third.err, from_chat.err)
    sent = {request.body["messages"][-1]["content"]: request.body["messages"] for request in upstream.requests}
    words = [message["content"] for message in sent["And then?"]]
    assert words[:2] == ["Be brief", "First words"], "one's own question, although another one is newer"
    assert words[3] == "And now?"
    assert [message["content"] for message in sent["Go on"]] == ["Be kind", "Else", "x", "Go on"]
    rows = json.loads(listed.out)["data"]
    assert [row["prompt"] for row in rows] == ["Go on", *["And then?"] * 2, "Else", *["And now?"] * 2, "First words"]
    assert all("First words" in json.dumps(row) or row["prompt"] for row in json.loads(found.out)["data"])
    assert len(json.loads(found.out)["data"]) == 2
    assert "Go on" in shown.out
    assert (hidden.out, hidden.err) == ("", "no questions\n")
    assert foreign.err == f"fanout: no question has an id that begins with `{newer}`; `fanout log` lists them\n"


async def test_a_server_that_keeps_no_texts_says_so(providers_json: str, tmp_path: Path) -> None:
    async with serve_fanout("--config", providers_json, FANOUT_STORE=str(tmp_path / "server.db")) as address:
        await run_fanout("ask", "private words", "-m", "ok", "--server", address)
        listed = await run_fanout("log", "--server", address)
        went_on = await run_fanout("ask", "more", "-c", "--server", address)

    assert "(its text was not kept)" in listed.out
    assert (went_on.code, "its texts were not kept (FANOUT_HISTORY=full keeps them)" in went_on.err) == (2, True)


async def test_texts_are_kept_only_as_far_as_the_variable_allows(providers_json: str, tmp_path: Path) -> None:
    options = ["--config", providers_json]
    usage: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "fanout.db"), "FANOUT_HISTORY": "usage"}
    asked = await run_fanout("ask", "private words", "-m", "ok", "-m", "up/say-two", *options, **usage)
    went_on = await run_fanout("ask", "more", "-c", *options, **usage)

    assert asked.err == ""
    assert b"private words" not in b"".join(path.read_bytes() for path in tmp_path.glob("fanout.db*"))
    assert went_on.code == 2
    assert "its texts were not kept (FANOUT_HISTORY=full keeps them)" in went_on.err


async def test_a_conversation_of_lines_keeps_each_models_own_history(providers_json: str, upstream: Upstream) -> None:
    lines = b"Hello\\\nthere\nAnd now?\n/models ok\nLast\n"
    result = await run_fanout("chat", "--config", providers_json, "-m", "ok,up/say-two", given=lines)

    assert result.code == 0, result.err
    sent = [(request.model, [message["content"] for message in request.body["messages"]]) for request in upstream.requests]
    assert sorted(sent) == [
        ("ok", ["Hello\nthere"]),
        ("ok", ["Hello\nthere", "This is ok.", "And now?"]),
        ("ok", ["Hello\nthere", "This is ok.", "And now?", "This is ok.", "Last"]),
        ("say-two", ["Hello\nthere"]),
        ("say-two", ["Hello\nthere", "two", "And now?"]),
    ]


async def test_a_conversation_on_a_terminal_survives_an_interruption(providers_json: str) -> None:
    async with TerminalSession("chat", "--config", providers_json, "-m", "up/chunks-100-gap-0.1", "-m", "ok") as screen:
        await screen.answer("> ", "Hello")
        await screen.wait_for("w2")
        await screen.press_ctrl_c()
        await screen.answer("interrupted; Ctrl-D ends the conversation", "/exit")
        assert await screen.wait() == 1
    assert "Traceback" not in screen.output


async def test_models_and_commands_that_nothing_is_like_leave_a_conversation_as_it_was(providers_json: str) -> None:
    async with TerminalSession("chat", "--config", providers_json, "-m", "ok") as screen:
        await screen.answer("> ", "/models 'nothing-*'")
        await screen.answer("no model is like", "/nonsense")
        await screen.answer("unknown command `/nonsense`", "Hello")
        await screen.answer("This is ok.", "/exit")
        assert await screen.wait() == 0, screen.output


async def test_the_last_line_of_a_pipe_is_a_message_even_if_it_would_go_on(providers_json: str, upstream: Upstream) -> None:
    result = await run_fanout("chat", "--config", providers_json, "-m", "ok", given="\ufeffone \\".encode())
    (request,) = upstream.requests
    assert (result.code, request.body["messages"][-1]["content"]) == (0, "one")


async def test_a_message_that_is_not_utf8_is_refused(providers_json: str) -> None:
    given, strict = b"\xff\n", "utf-8:strict"
    result = await run_fanout("chat", "--config", providers_json, "-m", "ok", given=given, PYTHONIOENCODING=strict)
    assert result.code == 2
    assert result.err.splitlines()[-1].endswith("a message is not UTF-8 text")


async def test_a_file_that_cannot_be_read_is_named_at_once_and_fails_no_message(providers_json: str) -> None:
    async with TerminalSession("chat", "--config", providers_json, "-m", "ok") as screen:
        await screen.answer("> ", "/file /nowhere.txt")
        await screen.answer("cannot be read", "Hello")
        await screen.answer("This is ok.", "/exit")
        assert await screen.wait() == 0
