"""What the server imports of its libraries: no part that it never uses, and whoever wants one later gets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trustme

SERVE = """
import sys
from click.testing import CliRunner
from fanout.cli.serve import serve
assert CliRunner().invoke(serve, ["--config", "/nonexistent/providers.json"]).exit_code
import fanout.server.app, fanout.store.opening
print([name for name in ("rich", "sqlalchemy.orm", "sqlalchemy.ext.asyncio") if name in sys.modules])
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from fanout.store.engine.connections import create_async_engine
import structlog, rich, sqlalchemy.orm
print(type(create_async_engine("sqlite+aiosqlite:///:memory:")) is AsyncEngine)
"""


def test_the_server_imports_neither_the_orm_nor_rich_and_both_can_be_imported_later() -> None:
    ended = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["[]", "True"]


AUTHORITIES = """
import ssl
from fanout.core.lean_imports import without_authorities
with without_authorities():
    import aiohttp.connector
contexts = aiohttp.connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()
print([context.cert_store_stats()["x509_ca"] > 0 for context in contexts])
"""


def test_aiohttp_is_imported_without_certificates_and_whoever_makes_a_context_later_has_them(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    environment = os.environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    command = [sys.executable, "-c", AUTHORITIES]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.stderr == ""
    assert ended.stdout == "[False, True]\n"
