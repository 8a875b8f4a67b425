"""`fanout keys`: keys are set without being shown, kept for their owner alone, and listed with what they serve."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.support.cli import run_fanout
from tests.support.terminal import TerminalSession

KEY = "gsk-0123456789"


async def test_a_key_is_set_from_a_pipe_or_typed_unseen_and_listed_without_its_value(tmp_path: Path) -> None:
    home, file = str(tmp_path), tmp_path / "fanout" / "keys.env"
    piped = await run_fanout("keys", "set", "groq", given=f"{KEY}\n".encode(), XDG_CONFIG_HOME=home)
    async with TerminalSession("keys", "set", "OPENAI_API_KEY", XDG_CONFIG_HOME=home) as screen:
        await screen.answer("OPENAI_API_KEY", f"{KEY}-typed")
        assert await screen.wait() == 0
    listed = await run_fanout("keys", "list", XDG_CONFIG_HOME=home, OPENAI_API_KEY="from the environment")
    path = await run_fanout("keys", "path", XDG_CONFIG_HOME=home)

    assert (piped.code, piped.err) == (0, "")
    assert piped.out == f"GROQ_API_KEY is set ({len(KEY)} characters), in {file}\n"
    assert file.read_text() == f"GROQ_API_KEY={KEY}\nOPENAI_API_KEY={KEY}-typed\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [line.split(maxsplit=2)[:2] for line in listed.out.splitlines()[1:]] == [
        ["GROQ_API_KEY", "set"],
        ["OPENAI_API_KEY", "the"],
    ]
    assert "the environment's takes precedence" in listed.out
    assert KEY not in piped.out + screen.output + listed.out
    assert path.out == f"{file}\n"


async def test_a_wrong_name_or_value_changes_nothing(tmp_path: Path) -> None:
    wrong = await run_fanout("keys", "set", "gorq", given=KEY.encode(), XDG_CONFIG_HOME=str(tmp_path))
    broken = await run_fanout("keys", "set", "groq", given=b"two\nlines", XDG_CONFIG_HOME=str(tmp_path))

    assert (wrong.code, broken.code) == (2, 2)
    assert "unknown provider or variable `gorq`; did you mean `groq`" in wrong.err
    assert "one line of printable characters" in " ".join(broken.err.split())
    assert list(tmp_path.iterdir()) == []
