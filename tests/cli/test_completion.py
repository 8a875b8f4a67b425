"""Completion with Tab in real shells."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import FANOUT, build_environ, run_command, run_fanout
from tests.support.terminal import TerminalSession

SHELLS = {"bash": ("--norc", "--noprofile", "-i"), "zsh": ("-f", "-i"), "fish": ("--no-config",)}
"""Shells, and the options with which they read nobody's files."""
SET_UP = {
    "bash": 'PS1=; eval "$(_FANOUT_COMPLETE=bash_source fanout)"\n',
    "zsh": 'PS1=; autoload -Uz compinit; compinit -u -D; eval "$(_FANOUT_COMPLETE=zsh_source fanout)"\n',
}
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


async def complete(words: str, **variables: str) -> list[str]:
    """Return what bash is offered for a command line; its last word is incomplete."""
    number = len(words.split(" ")) - 1
    result = await run_command(
        FANOUT, _FANOUT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number), cwd=None, given=None, **variables
    )
    return [line.partition(",")[2] for line in result.out.splitlines() if line]


async def complete_in(shell: str, lines: Sequence[str], **variables: Any) -> list[str]:
    """Return what Tab makes of command lines in a real shell, each of which has one way to go on."""
    variables |= {"PATH": PATH, "EDITOR": "emacs"}
    if shell == "fish":  # prints the arguments with which Tab would go on
        completed = "; ".join(f"complete -C {shlex.quote(line)}" for line in lines)
        script = f"_FANOUT_COMPLETE=fish_source fanout | source; {completed}"
        result = await run_command([shell, *SHELLS[shell], "-c", script], **variables)
        ends = [end.partition("\t")[0] for end in result.out.splitlines()]  # without descriptions
        return [f"{line.rpartition(' ')[0]} {end}" for line, end in zip(lines, ends, strict=True)]
    async with TerminalSession(*SHELLS[shell], program=(shell,), columns=200, **variables) as screen:
        screen.type(SET_UP[shell])
        found = []
        for number, line in enumerate(lines):
            # Ctrl-A and `echo` turn the line that Tab has completed into one that prints it.
            screen.type(f"{line}\t\x01echo line {number}: \n")
            found.append(await screen.wait_for_line(f"line {number}: "))
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a user who has a model, a set, a template and a job."""
    folder = tmp_path_factory.mktemp("home")
    own = folder / ".config" / "fanout"
    (own / "templates").mkdir(parents=True)
    (own / "templates" / "translate.json").write_text("{}")
    model = {"provider": "local", "id": "ngram-2", "kind": "both"}
    (own / "providers.json").write_text(json.dumps({"models": {"unusual": model}, "sets": {"contest": ["unusual"]}}))
    (folder / "rows.txt").write_text("a\n")
    run = [*FANOUT, "batch", "run", str(folder / "rows.txt"), "-m", "unusual", "--max-tokens", "1", "-q"]
    subprocess.run(run, env=build_environ(HOME=str(folder), FANOUT_STORE=str(folder / "jobs.db")), check=True)
    return folder


@pytest.mark.parametrize("shell", SHELLS)
async def test_models_sets_providers_templates_and_jobs_are_completed_in_a_real_shell(shell: str, home: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    wanted = {
        "fanout ask -m unusual,cont": "fanout ask -m unusual,contest",
        "fanout models --provider anthr": "fanout models --provider anthropic",
        "fanout ask -t trans": "fanout ask -t translate",
        "fanout report job_": "fanout report job_",
    }

    completed = await complete_in(shell, [*wanted], HOME=str(home), FANOUT_STORE=str(home / "jobs.db"))

    assert completed[:-1] == [*wanted.values()][:-1]
    assert re.fullmatch("fanout report job_[0-9a-f-]{8,}", completed[-1])


async def test_commands_and_the_options_of_a_default_command_are_completed() -> None:
    assert await complete("fanout tem") == ["templates"]
    assert await complete("fanout models def") == ["default"]
    assert await complete("fanout log --lim") == ["--limit"]


async def test_questions_are_completed_with_their_prompts_and_files_are_left_to_the_shell(tmp_path: Path) -> None:
    store: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "log.db")}
    await run_fanout("ask", "Why?", "-m", "local/ngram-2", "--max-tokens", "1", **store)
    last, *ids = await complete("fanout log show ", **store)

    assert (last, len(ids), len(ids[0])) == ("last", 1, 8)
    assert await complete("fanout batch run x") == ["x"]


async def test_a_faulty_configuration_completes_nothing_and_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    assert await complete(f"fanout ask --config {tmp_path}/bad.json -m lo") == []
