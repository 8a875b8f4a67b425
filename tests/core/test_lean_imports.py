"""What the server imports of its libraries: no part that it never uses, and whoever wants one later gets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


PLUGIN = """
import sys
print("a plugin was loaded", file=sys.stderr)
class plugin:
    new_schema_validator = staticmethod(lambda *_, **__: (None, None, None))
"""


@pytest.mark.parametrize(("variables", "is_loaded"), [({}, False), ({"PYDANTIC_DISABLE_PLUGINS": ""}, True)])
def test_a_command_searches_for_plugins_of_pydantic_only_where_it_is_told_to(
    variables: dict[str, str], is_loaded: bool, tmp_path: Path
) -> None:
    installed = tmp_path / "noisy-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[pydantic]\nnoisy = noisy:plugin\n")
    (tmp_path / "noisy.py").write_text(PLUGIN)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))

    ended = subprocess.run(
        [sys.executable, "-m", "fanout", "models", "--json"],
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, "a plugin was loaded" in ended.stderr) == (0, is_loaded)
