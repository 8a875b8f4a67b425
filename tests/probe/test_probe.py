"""Trials of providers in several wire formats: reachable, key accepted, model known, streaming, usage reported."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fanout.cli.check import print_findings, to_cells
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.probe.diagnosis import Finding
from fanout.probe.probe import Trial, filter_chat_models, run_trials
from tests.support.builders.settings import load_own_settings
from tests.support.cli import CommandResult, run_fanout
from tests.support.upstream.model_host import KEY, MODELS, ModelHost, serve_model_host
from tests.support.upstream.server import Upstream, reserve_refusing_url

FORMATS = ("open", "anth", "gemi")
SECRET = "sk-refused-0123456789"
ROWS: dict[str, Any] = {"extends": False}


def make_keys(key: str = KEY) -> dict[str, str]:
    return {f"{name.upper()}_KEY": key for name in FORMATS}


async def run_probe(
    folder: Path,
    providers: Mapping[str, Any],
    trials: list[Trial],
    timeout_s: float = 20,
    models: Any = None,
    environ: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return the findings of these trials."""
    settings = load_own_settings(folder, {**ROWS, "providers": providers, "models": models or {}}, **(environ or {}))
    async with open_dispatcher(settings) as dispatcher:
        return await run_trials(dispatcher, trials, timeout_s)


def make_quick(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without retries."""
    return {**row, "retries": {"attempts": 1}}


def list_flags(finding: Finding) -> tuple[bool | None, ...]:
    return (
        finding.reachable,
        finding.key_accepted,
        finding.model_known,
        finding.streams,
        finding.usage_whole,
        finding.usage_streamed,
    )


async def test_a_working_provider_is_recognized_in_every_format(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        found = await run_probe(tmp_path, host.rows, [Trial(name, f"{name}/small-1b") for name in FORMATS], environ=make_keys())

    assert [list_flags(finding) for finding in found] == [(True,) * 6] * 3
    assert all(finding.is_well and not finding.next and finding.total_s for finding in found)


async def test_a_refused_key_leaves_the_rest_unknown_and_is_never_shown(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        found = await run_probe(
            tmp_path, host.rows, [Trial(name, f"{name}/small-1b") for name in FORMATS], environ=make_keys(SECRET)
        )
        calls = len(host.requests)

    assert [list_flags(finding) for finding in found] == [(True, False, None, None, None, None)] * 3
    assert ["set another one in `OPEN_KEY`" in found[0].next, "`ANTH_KEY`" in found[1].next, "`GEMI_KEY`" in found[2].next]
    assert SECRET not in repr(found)
    assert calls == 3, "nothing is streamed where the whole call was refused"


async def test_an_unknown_model_is_distinguished_from_a_refused_key(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        found = await run_probe(tmp_path, host.rows, [Trial(name, f"{name}/nope") for name in FORMATS], environ=make_keys())

    assert [list_flags(finding) for finding in found] == [(True, True, False, None, None, None)] * 3
    assert all("there is no nope" in finding.next and f"`--model {finding.provider}/<id>`" in finding.next for finding in found)


async def test_a_closed_port_is_unreachable(tmp_path: Path) -> None:
    with reserve_refusing_url() as url:
        rows = {name: make_quick({**row, "base_url": url}) for name, row in ModelHost().rows.items()}
        found = await run_probe(tmp_path, rows, [Trial(name, f"{name}/small-1b") for name in FORMATS], environ=make_keys())

    assert [list_flags(finding) for finding in found] == [(False, None, None, None, None, None)] * 3
    assert all("cannot connect" in finding.next for finding in found)


async def test_a_stream_without_usage_is_healthy_and_mentioned(tmp_path: Path) -> None:
    async with serve_model_host(has_streamed_usage=False) as host:
        found = await run_probe(tmp_path, host.rows, [Trial(name, f"{name}/small-1b") for name in FORMATS], environ=make_keys())

    assert [list_flags(finding) for finding in found] == [(True, True, True, True, True, False)] * 3
    assert all(finding.is_well and "reports no tokens (streamed)" in finding.next for finding in found)


@pytest.mark.parametrize(
    ("script", "expected", "advice"),
    [
        ("429", (True, None, None, None, None, None), "check again"),
        ("429-code-insufficient_quota", (True, None, None, None, None, None), "add credit"),
        ("403", (True, False, None, None, None, None), "does not permit this call"),
        ("500", (True, None, None, None, None, None), "try again later"),
        ("html", (True, None, None, None, None, None), "does the address"),
        ("no_usage", (True, None, True, True, False, False), "whole and streamed"),
        ("ok-then-500", (True, None, True, False, True, None), "streamed ones fail"),
        ("ok-then-unfinished", (True, None, True, False, True, None), "streamed ones fail"),
        ("chunks-0", (True, None, True, False, True, True), "streams are empty"),
        ("hang", (False, None, None, None, None, None), "longer `--timeout`"),
    ],
)
async def test_every_way_to_fail_is_distinguished_from_the_others(
    script: str, expected: tuple[bool | None, ...], advice: str, upstream: Upstream, tmp_path: Path
) -> None:
    rows = {"up": make_quick({"adapter": "openai", "base_url": upstream.url})}
    timeout_s = 0.5 if script == "hang" else 20
    (finding,) = await run_probe(tmp_path, rows, [Trial("up", f"up/{script}")], timeout_s)

    assert list_flags(finding) == expected
    assert advice in finding.next


async def test_the_smallest_model_that_a_host_lists_is_tried(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        found = await run_probe(tmp_path, host.rows, [Trial("open"), Trial("olla")], environ=make_keys())

    assert [finding.model for finding in found] == ["open/small-1b", "olla/small-1b"]
    assert all(finding.is_well for finding in found)
    assert [finding.needs_key for finding in found] == [True, False]


async def test_models_of_the_catalogue_come_before_the_hosts_and_those_that_end_soon_come_last(tmp_path: Path) -> None:
    small = {"provider": "open", "id": "small-1b", "kind": "chat", "deprecated_on": "2020-01-01"}
    text, big = {**small, "kind": "text", "deprecated_on": None}, {**small, "id": "big-70b", "deprecated_on": None}
    cheap = {**big, "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}}
    async with serve_model_host() as host:
        models = {"retired": small, "text": text, "big": big, "cheap": cheap}
        (finding,) = await run_probe(tmp_path, host.rows, [Trial("open")], models=models, environ=make_keys())

        assert finding.model == "cheap"
        assert finding.cost_usd == pytest.approx(20e-6)
        assert "/v1/models" not in [path for path, _ in host.requests]


async def test_a_host_without_a_list_needs_a_named_model(tmp_path: Path) -> None:
    async with serve_model_host(is_listing=False) as host:
        own = await run_probe(tmp_path, host.rows, [Trial("open")], environ=make_keys())
        named = await run_probe(tmp_path, host.rows, [Trial("open", is_explicit=True)], environ=make_keys())

    assert (own[0].tried, named[0].tried) == (False, True)
    assert own[0].wants_model
    assert "`--model open/<id>`" in own[0].next


async def test_a_key_refused_for_the_list_of_models_is_reported(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        (finding,) = await run_probe(tmp_path, host.rows, [Trial("open")], environ=make_keys(SECRET))

    assert list_flags(finding)[:3] == (True, False, None)
    assert SECRET not in repr(finding)


async def test_a_model_that_thinks_longer_is_given_more_tokens(tmp_path: Path) -> None:
    async with serve_model_host(is_thinking=True) as host:
        (finding,) = await run_probe(tmp_path, host.rows, [Trial("open", "open/small-1b")], environ=make_keys())

        assert finding.is_well
        assert [(body.get("stream", False), body["max_tokens"]) for _, body in host.requests] == [
            (False, 32),
            (False, 2048),
            (True, 2048),
        ]


async def test_a_local_server_that_is_not_running_is_a_fault_only_where_it_was_named(tmp_path: Path) -> None:
    with reserve_refusing_url() as url:
        rows = {"olla": {**ModelHost().rows["olla"], "base_url": url}}
        own = await run_probe(tmp_path, rows, [Trial("olla")])
        named = await run_probe(tmp_path, rows, [Trial("olla", is_explicit=True)])

    assert (own[0].next, own[0].tried) == ("not running", False)
    assert named[0].tried
    assert "cannot connect" in named[0].next


def test_models_that_do_not_chat_are_left_out() -> None:
    assert filter_chat_models([{"id": name} for name in (*MODELS, "whisper-1", "x-rerank", "tts-2")]) == ["small-1b", "big-70b"]
    assert filter_chat_models([{"id": "text-embedding-x"}]) == ["text-embedding-x"]


# The command


async def run_check(folder: Path, rows: Mapping[str, Any], *arguments: str, **variables: Any) -> CommandResult:
    path = folder / "own.json"
    path.write_text(json.dumps({**ROWS, "providers": rows}))
    return await run_fanout("check", "--live", "--config", str(path), *arguments, **variables)


async def test_the_command_prints_for_each_provider_what_works_and_what_to_do(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        rows = {**host.rows, "keyless": {**host.rows["open"], "api_key_env": "NO_SUCH_KEY"}}
        ran = await run_check(tmp_path, rows, OPEN_KEY=KEY, ANTH_KEY=SECRET, OLLA_KEY="")

    lines = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line) for line in ran.out.splitlines()}
    assert ran.code == 0, ran.out  # anthropic's format has no list here: nothing was tried
    assert lines["open"][1:7] == ["open/small-1b", "yes", "yes", "yes", "yes", "yes"]
    assert lines["olla"][1:7] == ["olla/small-1b", "yes", "none", "yes", "yes", "yes"]
    assert lines["open"][-1] == lines["olla"][-1] == "ready"
    assert "`--model anth/<id>`" in lines["anth"][-1]
    assert "keyless" not in lines
    assert "may cost" in ran.err
    assert SECRET not in ran.out + ran.err


async def test_the_command_fails_where_a_tried_provider_fails(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        chosen = ("--model", "open/small-1b", "--model", "anth/small-1b")
        ran = await run_check(tmp_path, host.rows, *chosen, OPEN_KEY=KEY, ANTH_KEY=SECRET)

    lines = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line) for line in ran.out.splitlines()}
    assert ran.code == 1
    assert lines["anth"][1:7] == ["anth/small-1b", "yes", "no", "?", "?", "?"]
    assert set(lines) >= {"open", "anth"}
    assert not {"gemi", "olla"} & set(lines)
    assert SECRET not in ran.out + ran.err


async def test_the_command_prints_json_with_what_a_named_provider_lacks(tmp_path: Path) -> None:
    async with serve_model_host() as host:
        ran = await run_check(tmp_path, host.rows, "--provider", "gemi", "--json")

    (finding,) = json.loads(ran.out)["findings"]
    assert ran.code == 1
    assert (finding["provider"], finding["key_accepted"], finding["well"]) == ("gemi", False, False)
    assert "`GEMI_KEY`" in finding["next"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "opne"], "unknown provider `opne`; did you mean `open`?"),
        (["--model", "nope"], "unknown model `nope`"),
        (["--timeout", "0"], "--timeout"),
    ],
)
async def test_arguments_that_name_nothing_to_try_are_a_usage_error(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    ran = await run_check(tmp_path, ModelHost(url="http://127.0.0.1:9").rows, *arguments)

    assert ran.code == 2
    assert sentence in ran.err


async def test_options_of_the_live_check_require_live() -> None:
    ran = await run_fanout("check", "--provider", "local")

    assert ran.code == 2
    assert "go with --live" in ran.err


def test_a_hosts_message_cannot_control_the_terminal_and_stays_on_its_line() -> None:
    finding = Finding("up", "up/x", next="it says:\n\x1b[2J\x07gone")

    assert to_cells(finding)[-1] == "it says: ␛[2J␇gone"
    assert filter_chat_models([{"id": "a\x1b[2J"}, {"id": "b"}]) == ["b"]


def test_on_a_narrow_terminal_the_advice_stands_below() -> None:
    wide, narrow = io.StringIO(), io.StringIO()
    finding = Finding("openai", "gpt-6-luna", True, key_accepted=False, next="the key was refused: set another one")
    for out, width in ((wide, 160), (narrow, 80)):
        print_findings(Console(file=out, width=width, force_terminal=True, color_system=None, _environ={}), [finding])

    assert "next" in wide.getvalue().splitlines()[0]
    assert "next" not in narrow.getvalue().splitlines()[0]
    assert "openai: the key was refused: set another one" in narrow.getvalue()
    assert all(len(line.rstrip()) <= 80 for line in narrow.getvalue().splitlines())
