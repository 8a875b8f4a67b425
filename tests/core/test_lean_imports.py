"""What the server imports of its libraries: no part that it never uses, and whoever wants one later gets it."""

from __future__ import annotations

import subprocess
import sys

SERVE = """
import sys
from click.testing import CliRunner
from fanout.cli.main import cli
assert CliRunner().invoke(cli, ["serve", "--config", "/nonexistent/providers.json"]).exit_code
import fanout.server.app, fanout.store.opening
print([name for name in ("rich", "colorama", "tornado", "sqlalchemy.orm", "sqlalchemy.ext.asyncio") if name in sys.modules])
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from fanout.store.engine.connections import create_async_engine
import structlog, rich, sqlalchemy.orm
print(type(create_async_engine("sqlite+aiosqlite:///:memory:")) is AsyncEngine)
"""


def test_the_server_imports_neither_the_orm_nor_rich_and_both_can_be_imported_later() -> None:
    ended = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["[]", "True"]
