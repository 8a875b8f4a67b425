"""Completion with Tab, as shells request it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import FANOUT, run_command, run_fanout


async def complete(words: str, **variables: str) -> list[str]:
    """Return what bash is offered for a command line; its last word is incomplete."""
    number = len(words.split(" ")) - 1
    result = await run_command(
        FANOUT, _FANOUT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number), cwd=None, given=None, **variables
    )
    return [line.partition(",")[2] for line in result.out.splitlines() if line]


async def test_models_sets_providers_templates_and_jobs_are_completed(providers_json: str, tmp_path: Path) -> None:
    own = tmp_path / "own" / "fanout" / "templates"
    own.mkdir(parents=True)
    (own / "translate.json").write_text("{}")
    (tmp_path / "rows.txt").write_text("a\n")
    home, store = {"XDG_CONFIG_HOME": str(tmp_path / "own")}, {"FANOUT_STORE": str(tmp_path / "jobs.db")}
    run = ["batch", "run", str(tmp_path / "rows.txt"), "-m", "local/ngram-2", "--max-tokens", "1", "-q"]
    await run_fanout(*run, FANOUT_STORE=store["FANOUT_STORE"])

    assert await complete("fanout ask -m local/ngram-5,emb") == ["local/ngram-5,embedded"]
    assert "ok" in await complete(f"fanout ask --config {providers_json} -m o")
    assert "openai" in await complete("fanout models --provider open")
    assert await complete("fanout ask -t tr", **home) == ["translate"]
    jobs = await complete("fanout batch status ", **store)
    assert jobs[0] == "last"
    assert jobs[1].startswith("job_")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_every_shell_is_given_a_script_that_it_understands(shell: str) -> None:
    result = await run_fanout(_FANOUT_COMPLETE=f"{shell}_source")
    script = result.out

    assert result.code == 0
    assert f"_FANOUT_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        checked = await run_command([shell, "-n", "-c", script])
        assert (checked.code, checked.err) == (0, "")


async def test_a_faulty_configuration_completes_nothing_and_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    assert await complete(f"fanout ask --config {tmp_path}/bad.json -m lo") == []
