"""`fanout keys`: keys are set without being shown, kept for their owner alone, and listed with what they serve."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from tests.support.cli import run_fanout, serve_fanout
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
    assert [line.split(maxsplit=2)[:2] for line in listed.out.splitlines()[2:]] == [
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


async def test_a_callers_key_is_made_in_the_store_and_through_a_server_and_listed_without_its_secret(tmp_path: Path) -> None:
    environ: dict[str, Any] = {"FANOUT_STORE": str(tmp_path / "fanout.db"), "XDG_CONFIG_HOME": str(tmp_path)}
    first = await run_fanout("keys", "create", "operator", "--role", "admin", **environ)
    wrong = await run_fanout("keys", "create", "a", "--expires", "2020-01-01", "--in-flight", "0", **environ)
    async with serve_fanout(**environ) as address:
        admin = {**environ, "FANOUT_API_KEYS": first.out.strip()}
        options = ("--account", "team", "-m", "local/*", "--budget-day-usd", "2.5", "--json", "--server", address)
        created = await run_fanout("keys", "create", "ci", *options, **admin)
        assert created.code == 0, created.err
        made = json.loads(created.out)
        refused = await run_fanout("keys", "list", "--server", address, **{**admin, "FANOUT_API_KEYS": made["key"]})
        shown = json.loads((await run_fanout("keys", "show", made["id"], "--server", address, **admin)).out)
    rotated = await run_fanout("keys", "rotate", made["id"], "--grace", "60", **environ)
    revoked = await run_fanout("keys", "revoke", made["id"], **environ)
    listed = await run_fanout("keys", "list", **environ)
    audit = await run_fanout("keys", "audit", **environ)
    missing = await run_fanout("keys", "show", "key_0", **environ)

    assert first.out.startswith("fk-")
    assert "role admin; it is shown only now" in first.err
    assert (wrong.code, "expires: `2020-01-01` is not allowed" in wrong.err, "in_flight: 0" in wrong.err) == (2, True, True)
    assert (made["account_id"], made["limits"]["models"], made["limits"]["budget_day_usd"]) == ("team", ["local/*"], 2.5)
    assert shown["left"]["budget_day_usd"] == 2.5
    assert (refused.code, "this is for administrators" in refused.err) == (2, True)
    assert rotated.out.startswith("fk-")
    assert rotated.out.strip() != made["key"]
    assert revoked.out == f"{made['id']} is revoked\n"
    assert "callers' keys" in listed.out
    row = next(line for line in listed.out.splitlines() if line.startswith(made["id"]))
    assert row.split()[1:5] == ["ci", "team", "user", "revoked"]
    secrets = [first.out.strip(), made["key"], rotated.out.strip()]
    assert not any(secret in listed.out + audit.out for secret in secrets)
    events = [line.split()[1:] for line in audit.out.splitlines()[1:]]
    assert [event for event, *_ in events] == ["key.revoked", "key.rotated", "key.created", "key.created"]
    assert events[0][1:3] == ["command", "line"]
    assert (missing.code, "no key `key_0`" in missing.err) == (2, True)
