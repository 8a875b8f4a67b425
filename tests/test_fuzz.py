"""`scripts/fuzz`: damaged answers for every reader."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

import pytest

from tests.support.documents import ROOT

FORMATS = {"anthropic", "bedrock", "cohere", "gemini", "llmengine", "ollama", "openai", "responses", "scale"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("fuzz", str(ROOT / "scripts" / "fuzz"))
    spec = spec_from_loader("fuzz", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_format_is_read_whole_and_streamed(script: ModuleType) -> None:
    seeds = [(name, seed.is_stream) for name, seed in script.list_seeds()]
    assert set(seeds) == {(name, is_stream) for name in FORMATS for is_stream in (True, False)}


def test_damaged_answers_are_answers_or_failures(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.fuzz([], 0.4, 20261127) == 0, capsys.readouterr().out
    assert "no fault" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["read", "render"])
def test_a_fault_is_printed_with_its_input(
    name: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("choices")

    monkeypatch.setattr(script, name, fail)
    assert script.fuzz(["cohere"], 60, 1) == 1
    assert "cohere, whole: KeyError('choices')" in capsys.readouterr().out
